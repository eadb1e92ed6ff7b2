"""Modules of escnn, one by one, as ours."""

from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import nn

from .. import nn as gnn
from .._validate import invalid
from ._fields import read_fields
from ._read_convolution import ConvolutionReader
from ._small_layers import Blur, Mask

# By the names of the classes: escnn is not there when this file is imported.
ADVICE = {
    "FieldDropout": "it drops single pixels of fields, which no layer here does; replace it by PointwiseDropout",
    "IIDBatchNorm2d": "its statistics are other ones; train with InnerBatchNorm in its place",
    "R2ConvTransposed": "train with R2Upsampling and R2Conv in its place",
}
POINTWISE: dict[Any, type[nn.Module]] = {F.relu: nn.ReLU, F.elu: nn.ELU, F.sigmoid: nn.Sigmoid, F.tanh: nn.Tanh}


class Reader:
    """Makes modules of ours of escnn's; what is used twice there is used twice here.

    Args:
        enn: ``escnn.nn``.
        filters: "escnn" or "grid".
        sampling: "shared" or "per_orientation".
    """

    def __init__(self, enn: ModuleType, filters: str, sampling: str) -> None:
        self.enn, self.sampling = enn, sampling
        self.done: dict[Any, nn.Module] = {}
        self.makers: dict[type, Callable[[Any, str], nn.Module]] = {
            enn.SequentialModule: self._sequence,
            enn.R2Conv: ConvolutionReader(filters, sampling),
            enn.InnerBatchNorm: self._batch_norm,
            enn.ReLU: lambda m, path: nn.ReLU(m._inplace),  # noqa: SLF001  escnn has no other name for it
            enn.ELU: lambda m, path: nn.ELU(m.alpha, m._inplace),  # noqa: SLF001
            enn.LeakyReLU: lambda m, path: nn.LeakyReLU(m._negative_slope, m._inplace),  # noqa: SLF001
            enn.PointwiseNonLinearity: self._pointwise,
            enn.PointwiseDropout: lambda m, path: nn.Dropout(m.p, m.inplace),
            enn.IdentityModule: lambda m, path: nn.Identity(),
            enn.PointwiseMaxPool2D: self._max_pool,
            enn.PointwiseAvgPool2D: self._avg_pool,
            enn.PointwiseMaxPoolAntialiased2D: self._blurred_max_pool,
            enn.PointwiseAvgPoolAntialiased2D: lambda m, path: self._blur(m, path, m.padding),
            enn.PointwiseAdaptiveMaxPool2D: lambda m, path: self._adaptive(m, path, "Max"),
            enn.PointwiseAdaptiveAvgPool2D: lambda m, path: self._adaptive(m, path, "Avg"),
            enn.GroupPooling: self._group_pool,
            enn.R2Upsampling: self._upsample,
            enn.MaskModule: lambda m, path: Mask(m.mask[0, 0]),
        }

    def __call__(self, module: Any, path: str) -> nn.Module:
        """The module of ours.

        Args:
            module: One of escnn's.
            path: Where it is, for the message.

        Raises:
            ValueError: It has no counterpart, or its arguments have none.
        """
        make = self.makers.get(type(module))
        if make is None:
            raise self._refusal(module, path)
        if module in self.done:
            return self.done[module]
        try:
            made = make(module, path)
        except ValueError as error:
            # A layer of ours that refuses an argument does not know where it is.
            raise error if str(error).startswith((path, "filters")) else ValueError(f"{path}: {error}") from error
        if type(module) is self.enn.SequentialModule:
            made.training = module.training
        else:
            made.train(module.training)
        self.done[module] = made
        return made

    def _refusal(self, module: Any, path: str) -> ValueError:
        name = type(module).__name__
        takes = "one of " + ", ".join(kind.__name__ for kind in self.makers)
        if not isinstance(module, self.enn.EquivariantModule):
            advice = "give its escnn parts one by one, and write its forward anew with plain tensors"
            return invalid(path, f"a module of escnn, {takes}", name, advice)
        last = "replace it before training, or give the modules before and after it one by one and join them by hand"
        return invalid(path, takes, name, ADVICE.get(name, last))

    def _sequence(self, module: Any, path: str) -> nn.Module:
        # named_children() leaves out second names.
        children = module._modules.items()  # noqa: SLF001
        return nn.Sequential(OrderedDict((name, self(child, f"{path}.{name}")) for name, child in children))

    def _own_sampling(self, module: Any) -> str:
        """Without a stride all orientations sample the same grid anyway, and this is quicker."""
        return "per_orientation" if module.stride in (1, (1, 1)) else self.sampling

    def _batch_norm(self, module: Any, path: str) -> nn.Module:
        fields = read_fields(module.in_type, path)
        (norm,) = (child for child in module.children() if isinstance(child, nn.BatchNorm3d))
        make = gnn.BatchNorm2d if fields.regular else nn.BatchNorm2d
        made = make(
            fields.count, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
        )  # fmt: skip
        made.load_state_dict({name: value.clone() for name, value in norm.state_dict().items()}, assign=True)
        for parameter, theirs in zip(made.parameters(), norm.parameters(), strict=True):
            parameter.requires_grad_(theirs.requires_grad)
        return made

    def _pointwise(self, module: Any, path: str) -> nn.Module:
        return POINTWISE[module._function]()  # noqa: SLF001

    def _max_pool(self, module: Any, path: str, stride: tuple[int, int] | None = None) -> nn.Module:
        fields = read_fields(module.in_type, path)
        arguments = module.kernel_size, stride or module.stride, module.padding, module.dilation
        if not fields.regular:
            return nn.MaxPool2d(*arguments, ceil_mode=module.ceil_mode)
        sampling = self._own_sampling(module)
        return gnn.MaxPool2d(*arguments, module.ceil_mode, group=fields.group, sampling=sampling)

    def _avg_pool(self, module: Any, path: str) -> nn.Module:
        fields = read_fields(module.in_type, path)
        arguments = module.kernel_size, module.stride, module.padding, module.ceil_mode
        if not fields.regular:
            return nn.AvgPool2d(*arguments)
        return gnn.AvgPool2d(*arguments, group=fields.group, sampling=self._own_sampling(module))

    def _blurred_max_pool(self, module: Any, path: str) -> nn.Module:
        pool = self._max_pool(module, path, (1, 1))
        return nn.Sequential(pool, self._blur(module, path, module._pad))  # noqa: SLF001

    def _blur(self, module: Any, path: str, padding: tuple[int, int]) -> nn.Module:
        fields = read_fields(module.in_type, path)
        group = fields.group if fields.regular else None
        return Blur(module.filter[0, 0], module.stride, padding, group, self._own_sampling(module))

    def _adaptive(self, module: Any, path: str, kind: str) -> nn.Module:
        size = module.output_size
        if not read_fields(module.in_type, path).regular:
            flat: nn.Module = getattr(nn, f"Adaptive{kind}Pool2d")(size)
            return flat
        pool: nn.Module = getattr(nn, f"Adaptive{kind}Pool3d")((None, *size))
        return pool

    def _group_pool(self, module: Any, path: str) -> nn.Module:
        fields = read_fields(module.in_type, path)
        return gnn.GroupPool(fields.group, "max") if fields.regular else nn.Identity()

    def _upsample(self, module: Any, path: str) -> nn.Module:
        fields, factor, mode = read_fields(module.in_type, path), module._scale_factor, module._mode  # noqa: SLF001
        whole = isinstance(factor, int) or (isinstance(factor, float) and factor.is_integer())
        if not whole or module._align_corners:  # noqa: SLF001
            advice = "a fixed size and align_corners=True have no counterpart here"
            raise invalid(path, "an R2Upsampling by a whole scale_factor", "R2Upsampling", advice)
        factor = int(factor)
        return gnn.Upsample(factor, mode, group=fields.group) if fields.regular else nn.Upsample(None, factor, mode)
