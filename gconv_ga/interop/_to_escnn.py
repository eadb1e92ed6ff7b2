"""Networks of ours as networks of escnn."""

import math
from typing import Any

import torch
from torch import nn

from .. import nn as gnn
from .._validate import invalid, one_of
from ..groups import C1, Group, as_group
from ._fields import load_escnn, make_type
from ._small_layers import Blur
from ._write_modules import Writer


def to_escnn(
    module: nn.Module,
    *,
    group: Group | str | None = None,
    sampling: str = "per_orientation",
    functions: str = "auto",
    max_error: float = 1e-5,
) -> Any:
    """A network of this package, or one that `from_escnn` made, as a network of escnn: the way back.

    It takes ``nn.Sequential``, nested too, of `LiftingConv2d`, `GroupConv2d`, `BatchNorm2d`, `MaxPool2d`, `AvgPool2d`,
    `GroupPool`, `Upsample`, of torch's ``Conv2d``, ``BatchNorm2d``, pools and ``Upsample`` on images, and of torch's
    ``ReLU``, ``ELU``, ``LeakyReLU``, ``Sigmoid``, ``Tanh``, ``Dropout`` and ``Identity``; or one of them alone.

    The coefficients of each ``R2Conv`` are found by least squares. For C1, C2, C4, D1, D2, D4, and for 3 x 3 kernels of
    every group, that is exact to escnn's rounding, 1e-7. Larger kernels turn, at other angles, in another way there
    than here: how far a layer's are from the nearest that escnn has, relative, root mean square, must not exceed
    ``max_error`` (0.16 for 5 x 5 and C8). Networks that `from_escnn` made of layers with escnn's default functions come
    back as they were, whatever the group.

    A convolution and ``GroupPool("mean")`` that are alone in an ``nn.Sequential`` become one ``R2Conv`` to trivial
    fields; such a pool elsewhere becomes an ``R2Conv`` of 1 x 1. ``GroupPool("max")`` becomes ``GroupPooling``, which
    returns float32 whatever it is given.

    Images ``[B, C, H, W]`` become geometric tensors of C trivial fields, maps ``[B, C, |G|, H, W]`` those of C regular
    fields: ``kind(x.flatten(1, 2))`` with the ``in_type`` of the result.

    Args:
        module: The network. It stays as it is.
        group: The group; None for the one that its layers have.
        sampling: "per_orientation" refuses layers with a stride that sample each orientation on its own grid, which
            escnn cannot. "shared" gives them escnn's one grid: the same numbers where no pixel is left over, and at
            other sizes a network that is not equivariant.
        functions: "default" for those that ``R2Conv`` chooses by itself; "all" for enough of them to make every kernel
            that turns by quarter turns, more than there are taps; "auto" for the default where it does, else for all.
        max_error: The largest relative error of a layer's kernels.

    Returns:
        The network, in the same mode, of the same dtype, on the same device, with parameters of its own.

    Raises:
        ValueError: The network, or a module inside it, has no counterpart in escnn; the message has its path, its type
            and what to do. Kernels are farther than ``max_error`` from escnn's. An argument is none of those above.
        ModuleNotFoundError: escnn is not installed.

    Example:
        >>> import importlib.util
        >>> import torch
        >>> import gconv_ga.nn as gnn
        >>> from gconv_ga.interop import to_escnn
        >>> ours = torch.nn.Sequential(
        ...     gnn.LiftingConv2d(1, 4, 3, padding=1, group="C4"), torch.nn.ReLU(), gnn.GroupPool("C4", "max")
        ... )
        >>> if importlib.util.find_spec("escnn"):  # the extra of that name
        ...     theirs = to_escnn(ours)
        ...     x = torch.randn(2, 1, 16, 16)
        ...     torch.testing.assert_close(theirs(theirs.in_type(x)).tensor, ours(x), rtol=0, atol=1e-5)
    """
    if not isinstance(module, nn.Module):
        raise invalid("module", "a torch.nn.Module", module)
    one_of("sampling", sampling, ("per_orientation", "shared"))
    one_of("functions", functions, ("auto", "default", "all"))
    number = isinstance(max_error, int | float) and not isinstance(max_error, bool)
    if not number or not 0 <= max_error < math.inf:
        raise invalid("max_error", "a number of at least 0", max_error)
    found = _find_group(module) if group is None else as_group(group)
    enn = load_escnn().nn
    writer = Writer(enn, found, sampling, functions, float(max_error))
    numbers = (each for each in module.parameters() if each.is_floating_point())
    writer.like = torch.empty_like(next(numbers, torch.empty(())), requires_grad=False)
    return writer(module, make_type(found, *_first_fields(module)), "module")


def _find_group(module: nn.Module) -> Group:
    """The one group that layers name; layers of a single element, which are for images, are not asked."""
    said: list[Any] = [getattr(each, "group", None) for each in module.modules()]
    groups = {group for group in said if isinstance(group, Group) and group.order > 1}
    found = sorted(groups, key=lambda group: group.name)
    if len(found) > 1:
        names = ", ".join(group.name for group in found)
        raise invalid("module", "a network of one group", names, "escnn needs a network for each")
    return found[0] if found else C1


def _first_fields(module: nn.Module) -> tuple[int, bool]:
    """How many fields go in, and whether they are maps: what the first layer that knows says."""
    maps: bool | None = None
    for layer in module.modules():
        on_maps = isinstance(layer, gnn.MaxPool2d | gnn.AvgPool2d | gnn.Upsample | gnn.GroupPool)
        if on_maps or (isinstance(layer, Blur) and layer.group is not None):
            # These keep the number of fields.
            maps = True
        if isinstance(layer, gnn.LiftingConv2d | gnn.GroupConv2d | nn.Conv2d):
            return layer.in_channels, isinstance(layer, gnn.GroupConv2d) if maps is None else maps
        if isinstance(layer, gnn.BatchNorm2d | nn.BatchNorm2d):
            return layer.num_features, isinstance(layer, gnn.BatchNorm2d) if maps is None else maps
    advice = "escnn's layers are told their fields; a pool or a ReLU alone is a line of escnn's"
    raise invalid("module", "a network with a convolution or a norm", module, advice)
