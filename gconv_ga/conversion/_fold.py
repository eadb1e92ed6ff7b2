"""A network of ours as plain torch layers."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn

from .. import nn as gnn
from .._validate import invalid
from ._conv2d import OrbitConv2d
from ._conv_transpose2d import OrbitConvTranspose2d
from ._fold_convolutions import fold_convolution, fold_transposed
from ._fold_pools import fold_group_pool, fold_pool, fold_upsample

_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    gnn.BatchNorm2d: nn.BatchNorm3d,
    gnn.InstanceNorm2d: nn.InstanceNorm3d,
    gnn.Dropout2d: nn.Dropout3d,
}
_FOLDS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    OrbitConv2d: fold_convolution,
    OrbitConvTranspose2d: fold_transposed,
    gnn.LiftingConv2d: fold_convolution,
    gnn.GroupConv2d: fold_convolution,
    gnn.GroupConvTranspose2d: fold_transposed,
    gnn.MaxPool2d: fold_pool,
    gnn.AvgPool2d: fold_pool,
    gnn.GroupPool: fold_group_pool,
    gnn.Upsample: fold_upsample,
}


def fold(net: nn.Module) -> nn.Module:
    """A copy with plain torch layers in place of ours, equal at every size, for inference and export.

    Turned kernels become the weights of `torch.nn.Conv2d` and `torch.nn.ConvTranspose2d`. A strided layer becomes one
    plain layer for each way in which orientations are flipped, with the flips around it: a plain layer counts its
    windows from one edge, and flipping the image is how it counts from the other, at every height and width. So
    nothing in the result depends on the size of an image, and it can be exported with all axes dynamic.

    Norms and pools become torch's too. What has no weights and is no layer of torch's (up-sampling, pooling to a
    subgroup, the frame of a `ConvertedNetwork`) is a call or two of torch's functions. The kernels of a folded network
    are no longer tied and there are ``|G|`` times as many weights: it is not for training, so its parameters ask for no
    gradient.

    Args:
        net: A `ConvertedNetwork`, with taps or without, or a network that holds layers of `gconv_ga.nn`, of any group.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: ``net`` is no module.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import convert, fold
        >>> plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
        >>> folded = fold(convert(plain, "C4", torch.randn(1, 3, 12, 16)))
        >>> folded.model[0]
        Sequential(
          (0): Unflatten(dim=0, unflattened_size=(-1, 4))
          (1): Flatten(start_dim=1, end_dim=2)
          (2): Conv2d(12, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=4)
          (3): Unflatten(dim=1, unflattened_size=(4, 8))
          (4): Flatten(start_dim=0, end_dim=1)
        )
        >>> batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
        >>> sizes = ({0: batch, 2: height, 3: width},)
        >>> exported = torch.export.export(folded, (torch.randn(2, 3, 12, 16),), dynamic_shapes=sizes)
        >>> exported.module()(torch.randn(1, 3, 31, 25)).shape
        torch.Size([1, 2, 31, 25])
    """
    if not isinstance(net, nn.Module):
        raise invalid("net", "a torch.nn.Module", net)
    folded = _fold(deepcopy(net).eval(), {}).eval().requires_grad_(False)
    first = next(folded.parameters(), None)
    return folded if first is None else folded.to(first.device)


def _fold(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        kind = type(module)
        if kind in _FOLDS:
            done[module] = _FOLDS[kind](module)
        else:
            done[module] = module
            if kind in _NORMS:
                module.__class__ = _NORMS[kind]
            for name, child in list(module._modules.items()):  # noqa: SLF001  named_children() leaves out second names
                if child is not None:
                    setattr(module, name, _fold(child, done))
    return done[module]
