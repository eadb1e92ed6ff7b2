"""Modules of ours and torch's, one by one, as escnn's."""

import math
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid
from ..groups import Group
from ._fields import make_type
from ._small_layers import Blur, Mask
from ._write_convolution import Window, read_kernels, read_window, write_convolution

ADVICE = {
    "Dropout2d": "it drops whole maps, escnn's FieldDropout single pixels of fields; replace it by nn.Dropout",
    "GroupConvTranspose2d": "replace it by Upsample and GroupConv2d before training",
}


class Writer:
    """Makes modules of escnn of ours; each is told the type that comes in. What is used twice here is used twice there.

    Args:
        enn: ``escnn.nn``.
        group: The group of the network.
        sampling: "shared" to take escnn's one grid where a layer has one for each orientation.
        functions: "auto", "default" or "all".
        max_error: The largest relative error of a layer's kernels.
    """

    def __init__(self, enn: ModuleType, group: Group, sampling: str, functions: str, max_error: float) -> None:
        self.enn, self.group = enn, group
        self.sampling, self.functions, self.max_error = sampling, functions, max_error
        self.like = torch.empty(0)
        self.done: dict[tuple[nn.Module, Any], Any] = {}
        self.makers: dict[type, Callable[[Any, Any, str], Any]] = {
            nn.Sequential: self._sequence,
            gnn.LiftingConv2d: self._convolution,
            gnn.GroupConv2d: self._convolution,
            nn.Conv2d: self._convolution,
            gnn.BatchNorm2d: self._batch_norm,
            nn.BatchNorm2d: self._batch_norm,
            nn.ReLU: lambda m, kind, path: enn.ReLU(kind, m.inplace),
            nn.ELU: lambda m, kind, path: enn.ELU(kind, m.alpha, m.inplace),
            nn.LeakyReLU: lambda m, kind, path: enn.LeakyReLU(kind, m.negative_slope, m.inplace),
            nn.Sigmoid: lambda m, kind, path: enn.PointwiseNonLinearity(kind, "p_sigmoid"),
            nn.Tanh: lambda m, kind, path: enn.PointwiseNonLinearity(kind, "p_tanh"),
            nn.Dropout: lambda m, kind, path: enn.PointwiseDropout(kind, m.p, m.inplace),
            nn.Identity: lambda m, kind, path: enn.IdentityModule(kind),
            gnn.MaxPool2d: self._max_pool,
            nn.MaxPool2d: self._max_pool,
            gnn.AvgPool2d: self._avg_pool,
            nn.AvgPool2d: self._avg_pool,
            nn.AdaptiveMaxPool2d: self._adaptive,
            nn.AdaptiveAvgPool2d: self._adaptive,
            nn.AdaptiveMaxPool3d: self._adaptive,
            nn.AdaptiveAvgPool3d: self._adaptive,
            gnn.GroupPool: self._group_pool,
            gnn.Upsample: self._upsample,
            nn.Upsample: self._upsample,
            Blur: self._blur,
            Mask: self._mask,
        }

    def __call__(self, module: Any, kind: Any, path: str) -> Any:
        """The module of escnn.

        Args:
            module: One of ours or torch's.
            kind: The escnn type of what goes in.
            path: Where the module is, for the message.

        Raises:
            ValueError: It has no counterpart, or its arguments have none.
        """
        if (module, kind) in self.done:
            return self.done[module, kind]
        make = self.makers.get(type(module))
        if make is None:
            name = type(module).__name__
            kinds = sorted({f"{one.__module__.split('.')[0]}'s {one.__name__}" for one in self.makers})
            takes = "one of " + ", ".join(kinds).replace("gconv_ga's Blur, gconv_ga's ", "gconv_ga's ")
            last = "give the modules before and after it one by one and join them by hand"
            raise invalid(path, takes, name, ADVICE.get(name, last))
        made = make(module, kind, path)
        if isinstance(made, self.enn.SequentialModule):
            # Its parts have their own modes.
            made.training = module.training
        else:
            made.train(module.training)
        self.done[module, kind] = made
        return made

    def _sequence(self, module: nn.Sequential, kind: Any, path: str) -> Any:
        parts = list(module)
        if len(parts) == 2 and isinstance(parts[0], gnn.LiftingConv2d | gnn.GroupConv2d) and is_mean(parts[1]):
            return self._convolution(parts[0], kind, f"{path}.0", to_images=True)
        made = OrderedDict()
        # named_children() leaves out second names.
        for name, child in module._modules.items():  # noqa: SLF001
            made[name] = self(child, kind, f"{path}.{name}")
            kind = made[name].out_type
        return self.enn.SequentialModule(made) if made else self.enn.IdentityModule(kind)

    def _expect(self, kind: Any, path: str, regular: bool, count: int) -> None:
        if (is_regular(kind), len(kind)) != (regular, count):
            takes, comes = (f"{'maps' if r else 'images'} of {n} channels" for r, n in ((regular, count), shape(kind)))
            raise invalid(path, f"a layer that takes {comes}, which the layers before it make", takes)

    def _refuse_sampling(self, module: Any, path: str) -> None:
        """Layers of escnn have one grid for all orientations."""
        rows, columns = module.geometry.rows, module.geometry.columns
        if module.geometry.shared or rows.stride == columns.stride == 1 or not any(module.geometry.flipped_axes()):
            return
        if self.sampling != "shared":
            advice = (
                "escnn has one grid for all orientations: sampling='shared' takes it, with the same numbers only at "
            )
            advice += "sizes where no pixel is left over"
            raise invalid("sampling", f"'shared' for {path}, which has a stride", self.sampling, advice)

    def _convolution(self, module: Any, kind: Any, path: str, *, to_images: bool = False) -> Any:
        """An ``R2Conv``; one to images has the mean of a layer's kernels over the elements of its output."""
        plain, of_maps = isinstance(module, nn.Conv2d), isinstance(module, gnn.GroupConv2d)
        self._expect(kind, path, of_maps, module.in_channels)
        # What goes from images to images may be a layer of one element, whose kernels are symmetric.
        if not plain and not (to_images and module.group.order == 1 and not of_maps):
            self._refuse_group(module, path)
        if not plain:
            self._refuse_sampling(module, path)
        window, outof = read_window(module, path), make_type(self.group, module.out_channels, not (plain or to_images))
        kernels = read_kernels(module)
        if to_images:
            kernels = kernels.mean(2, keepdim=True)
        made = self._nearest((kind, outof), window, kernels, module.bias, path)
        made.weights.requires_grad_(module.weight.requires_grad)
        if module.bias is not None:
            made.bias.requires_grad_(module.bias.requires_grad)
        return made

    def _refuse_group(self, module: Any, path: str) -> None:
        if module.group != self.group:
            advice = "escnn's networks have one group; to_escnn takes it as group="
            raise invalid(path, f"of the group {self.group.name} of the network", module, advice)

    def _nearest(self, types: tuple[Any, Any], window: Window, kernels: Tensor, bias: Any, path: str) -> Any:
        nearest = math.inf
        for functions in ("default", "all") if self.functions == "auto" else (self.functions,):
            found = write_convolution(types, window, kernels, bias, self.like, functions)
            if found is not None and found[1] <= self.max_error:
                return found[0]
            nearest = nearest if found is None else min(nearest, found[1])
        advice = "larger kernels than 3 x 3 turn there, but by quarter turns, in another way than here"
        if self.functions == "default":
            advice = "take functions='auto', which makes more where these do not do"
        takes = f"at least {nearest:.2g} for {path}, whose kernels lie that far from the nearest of escnn's"
        raise invalid("max_error", takes, self.max_error, advice)

    def _batch_norm(self, module: Any, kind: Any, path: str) -> Any:
        self._expect(kind, path, isinstance(module, gnn.BatchNorm2d), module.num_features)
        made = self.enn.InnerBatchNorm(kind, module.eps, module.momentum, module.affine, module.track_running_stats)
        (norm,) = (child for child in made.children() if isinstance(child, nn.BatchNorm3d))
        norm.to(self.like)
        norm.load_state_dict(module.state_dict())
        for theirs, ours in zip(norm.parameters(), module.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        return made.to(self.like.device)

    def _pool(self, module: Any, path: str) -> None:
        if isinstance(module, gnn.MaxPool2d | gnn.AvgPool2d):
            self._refuse_group(module, path)
            self._refuse_sampling(module, path)

    def _max_pool(self, module: Any, kind: Any, path: str) -> Any:
        self._pool(module, path)
        return self.enn.PointwiseMaxPool2D(
            kind, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        )  # fmt: skip

    def _avg_pool(self, module: Any, kind: Any, path: str) -> Any:
        self._pool(module, path)
        if not module.count_include_pad or getattr(module, "divisor_override", None):
            raise invalid(path, "a pool that counts its padding, and no divisor of its own", module, "as escnn's does")
        return self.enn.PointwiseAvgPool2D(kind, module.kernel_size, module.stride, module.padding, module.ceil_mode)

    def _adaptive(self, module: Any, kind: Any, path: str) -> Any:
        size = module.output_size
        if isinstance(module, nn.AdaptiveMaxPool3d | nn.AdaptiveAvgPool3d):
            if not isinstance(size, tuple) or size[0] not in (None, self.group.order):
                raise invalid(path, "a pool that leaves the elements alone: (None, H, W)", module)
            size = size[1:]
        maximum = isinstance(module, nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d)
        return (self.enn.PointwiseAdaptiveMaxPool2D if maximum else self.enn.PointwiseAdaptiveAvgPool2D)(kind, size)

    def _group_pool(self, module: gnn.GroupPool, kind: Any, path: str) -> Any:
        self._expect(kind, path, True, len(kind))
        self._refuse_group(module, path)
        if module.subgroup is not None:
            raise invalid(path, "a pool over the whole group", module, "escnn needs a network of its own from there on")
        if module.reduction == "max":
            return self.enn.GroupPooling(kind)
        # A mean is a linear map.
        types = kind, make_type(self.group, len(kind), False)
        mean = torch.eye(len(kind), dtype=torch.float64)[:, :, None, None, None] / self.group.order
        mean = mean.expand(-1, -1, 1, self.group.order, 1)
        return self._nearest(types, Window(1, 1, 0, 1, 1, "zeros"), mean, None, path)

    def _upsample(self, module: Any, kind: Any, path: str) -> Any:
        plain = isinstance(module, nn.Upsample)
        if module.mode not in ("nearest", "bilinear") or (plain and (module.size or module.align_corners)):
            advice = "that is what escnn has"
            raise invalid(path, "'nearest' or 'bilinear' by a factor, without align_corners", module, advice)
        if not plain:
            self._refuse_group(module, path)
        return self.enn.R2Upsampling(kind, module.scale_factor, mode=module.mode)

    def _blur(self, module: Blur, kind: Any, path: str) -> Any:
        self._refuse_sampling(module, path)
        # This width has as many taps; their values follow.
        width = max((len(module.kernel) - 1) / 6, 0.1)
        made = self.enn.PointwiseAvgPoolAntialiased2D(kind, width, module.stride, module.padding).to(self.like)
        made.filter.copy_(module.kernel.expand_as(made.filter))
        return made

    def _mask(self, module: Mask, kind: Any, path: str) -> Any:
        made = self.enn.MaskModule(kind, len(module.mask)).to(self.like)
        made.mask.copy_(module.mask.expand_as(made.mask))
        return made


def is_regular(kind: Any) -> bool:
    """Whether an escnn type is of regular fields."""
    found: bool = kind.representations[0] == kind.gspace.regular_repr
    return found


def shape(kind: Any) -> tuple[bool, int]:
    """Whether an escnn type is of regular fields, and how many."""
    return is_regular(kind), len(kind)


def is_mean(module: nn.Module) -> bool:
    """Whether it is a mean over the whole group."""
    return isinstance(module, gnn.GroupPool) and module.reduction == "mean" and module.subgroup is None
