"""`from_escnn`: networks of escnn as networks of this package."""

from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import argument_of, error_about, invalid, one_of
from ..filters import Filters, GridFilters
from ..groups import C1, Group
from ._fields import Fields, load_escnn, read_fields
from ._layers import AllPlanesFilters, Blur, Mask, OnePlaneFilters


def from_escnn(module: Any, *, filters: str = "escnn", sampling: str = "shared") -> nn.Module:
    r"""Convert an escnn network, trained or not, to a network of this package with the same output.

    ================================================  ===================================================
    escnn                                             here
    ================================================  ===================================================
    R2Conv, trivial to regular                        LiftingConv2d
    R2Conv, regular to regular                        GroupConv2d
    R2Conv, regular to trivial                        GroupConv2d of one tap, then GroupPool("mean")
    R2Conv, trivial to trivial                        LiftingConv2d of C1, GroupPool; nn.Conv2d if 1 x 1
    InnerBatchNorm                                    BatchNorm2d, with its statistics
    ReLU, ELU, LeakyReLU, PointwiseNonLinearity       torch's
    PointwiseDropout, IdentityModule                  torch's
    PointwiseMaxPool2D, PointwiseAvgPool2D            MaxPool2d, AvgPool2d
    the same, antialiased                             a pool with stride 1, then a fixed blur with a stride
    PointwiseAdaptiveMaxPool2D, ...AvgPool2D          torch's
    GroupPooling                                      GroupPool("max")
    R2Upsampling, by a whole scale_factor             Upsample
    MaskModule                                        a fixed mask
    SequentialModule, nested too                      nn.Sequential with the same names
    ================================================  ===================================================

    Input and output are plain tensors. For a geometric tensor ``t`` of n trivial fields the plain tensor is
    ``t.tensor``, an image. For one of n regular fields it is ``t.tensor.unflatten(1, (n, |G|))``, a feature map on the
    group: escnn's elements have our order and sense of rotation, unless its group has a reflection axis other than the
    default.

    Up to rounding, the output is escnn's: 1e-5 relative in float32, 1e-10 in float64. escnn samples its functions in
    float32, so its network, and this one with ``filters="escnn"``, is equivariant to about 1e-7 even in float64. (Its
    ``GroupPooling`` returns float32 even then; this one does not.)

    The result is a module like any other: it can be trained further, and `gconv_ga.conversion.fold` makes plain
    convolutions of it. Save it with ``torch.save(net, path)`` and load it with ``torch.load(path, weights_only=False)``
    where escnn is not installed. A ``state_dict`` alone fits a network loaded in this way, or a copy.

    Args:
        module: A module of escnn. It is not changed.
        filters: "escnn" keeps its functions as a fixed table and its coefficients as the weights, so that training
            continues in the same space from the same numbers. "grid" makes all taps of the kernels free, including
            those that escnn leaves out, and rotates them exactly; the output differs by escnn's rounding. It takes C1,
            C2, C4, D1, D2, D4.
        sampling: For layers with a stride. "shared" samples as escnn does, with one grid for all orientations. It is
            equivariant at some image sizes only, and warns at the others. "per_orientation" is equivariant at every
            size, but its output differs from escnn's at those others.

    Returns:
        The network, with the same mode, dtype and device, and parameters of its own.

    Raises:
        ValueError: ``module``, or one inside it, has no counterpart here, or has fields or a group without one. The
            message gives its path, its type and what to do. ``filters`` or ``sampling`` is none of the above.
        ModuleNotFoundError: escnn is not installed.

    Example:
        >>> import importlib.util
        >>> import torch
        >>> from gconv_ga.interop import from_escnn
        >>> if importlib.util.find_spec("escnn"):  # the extra of that name
        ...     from escnn import gspaces, nn as enn
        ...
        ...     space = gspaces.rot2dOnR2(8)
        ...     image = enn.FieldType(space, [space.trivial_repr])
        ...     maps = enn.FieldType(space, 4 * [space.regular_repr])
        ...     layers = enn.R2Conv(image, maps, 5, padding=2), enn.InnerBatchNorm(maps), enn.GroupPooling(maps)
        ...     theirs = enn.SequentialModule(*layers).eval()
        ...     ours = from_escnn(theirs)
        ...     x = torch.randn(2, 1, 16, 16)
        ...     torch.testing.assert_close(ours(x), theirs(image(x)).tensor, rtol=0, atol=1e-5)

    References:
        Weiler and Cesa, "General E(2)-equivariant steerable CNNs", NeurIPS 2019: the kernels of escnn.
    """
    one_of("filters", filters, ("escnn", "grid"))
    one_of("sampling", sampling, ("shared", "per_orientation"))
    return Reader(load_escnn().nn, filters, sampling)(module, "module")


# By class name: escnn may not be installed when this file is imported.
ADVICE = {
    "FieldDropout": "it drops single pixels of fields, which no layer here does; replace it with PointwiseDropout",
    "IIDBatchNorm2d": "its statistics are different; train with InnerBatchNorm instead",
    "R2ConvTransposed": "train with R2Upsampling and R2Conv instead",
}
POINTWISE: dict[Any, type[nn.Module]] = {F.relu: nn.ReLU, F.elu: nn.ELU, F.sigmoid: nn.Sigmoid, F.tanh: nn.Tanh}


class Reader:
    """Converts modules of escnn; a module that is used twice there is used twice here.

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
        """Convert one module.

        Args:
            module: A module of escnn.
            path: Its path, for the message.

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
            if (argument_of(error) or "").startswith((path, "filters")):
                raise
            # A layer that refuses an argument does not know its own path.
            raise error_about(path, f"{path}: {error}") from error
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
            advice = "convert its escnn parts one by one, and rewrite its forward for plain tensors"
            return invalid(path, f"a module of escnn, {takes}", name, advice)
        last = "replace it before training, or convert the modules before and after it one by one and join them by hand"
        return invalid(path, takes, name, ADVICE.get(name, last))

    def _sequence(self, module: Any, path: str) -> nn.Module:
        # named_children() leaves out second names.
        children = module._modules.items()  # noqa: SLF001
        return nn.Sequential(OrderedDict((name, self(child, f"{path}.{name}")) for name, child in children))

    def _sampling_of(self, module: Any) -> str:
        """Return the sampling for a module. Without a stride all orientations share a grid, and this is faster."""
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
        sampling = self._sampling_of(module)
        return gnn.MaxPool2d(*arguments, module.ceil_mode, group=fields.group, sampling=sampling)

    def _avg_pool(self, module: Any, path: str) -> nn.Module:
        fields = read_fields(module.in_type, path)
        arguments = module.kernel_size, module.stride, module.padding, module.ceil_mode
        if not fields.regular:
            return nn.AvgPool2d(*arguments)
        return gnn.AvgPool2d(*arguments, group=fields.group, sampling=self._sampling_of(module))

    def _blurred_max_pool(self, module: Any, path: str) -> nn.Module:
        pool = self._max_pool(module, path, (1, 1))
        return nn.Sequential(pool, self._blur(module, path, module._pad))  # noqa: SLF001

    def _blur(self, module: Any, path: str, padding: tuple[int, int]) -> nn.Module:
        fields = read_fields(module.in_type, path)
        group = fields.group if fields.regular else None
        return Blur(module.filter[0, 0], module.stride, padding, group, self._sampling_of(module))

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


class _Basis(NamedTuple):
    """The sampled functions of an escnn convolution, and their coefficients.

    Shape:
        - functions: ``[b, o, i, k * k]``, where ``o`` and ``i`` are the channels of a field, elements in our order
        - weight: ``[C_out, C_in, b]``
    """

    functions: Tensor
    weight: Tensor

    def sum(self, functions: Tensor) -> Tensor:
        """Return the kernels ``[C_out, C_in, ...]`` for functions ``[b, ...]``, in float64."""
        return torch.einsum("pqb,b...->pq...", self.weight.double(), functions.double())


class ConvolutionReader:
    """Converts ``R2Conv``; layers with the same basis share one table.

    Args:
        filters: "escnn" or "grid".
        sampling: "shared" or "per_orientation", for layers with a stride.
    """

    def __init__(self, filters: str, sampling: str) -> None:
        self.filters, self.sampling = filters, sampling
        self._tables: dict[tuple[int, str], Filters] = {}
        # The id of an object may be reused once the object is gone.
        self._kept_alive: list[Any] = []

    def __call__(self, conv: Any, path: str) -> nn.Module:
        """Return one layer, or two if the outputs are images.

        Args:
            conv: The convolution.
            path: Its path, for the message.
        """
        into, outof = read_fields(conv.in_type, path), read_fields(conv.out_type, path)
        basis = _read_basis(conv, into, outof)
        _refuse_stale(conv, basis, into, outof, path)
        group, size = into.group, (conv.kernel_size, conv.kernel_size)
        if self.filters == "grid" and not group.is_exact():
            takes = f"'escnn' for {group.name}, which has other angles than multiples of 90 degrees"
            raise invalid("filters", takes, "grid")
        weight = basis.weight
        if into.regular and outof.regular:
            functions, plane = basis.functions, basis.functions[:, 0]
            if self.filters == "escnn":
                weight = _by_element(weight, group, path)
        elif into.regular:
            # To images: orientations do not mix. Their sum follows, which is |G| times their mean.
            functions, weight = basis.functions[:, 0] * group.order, weight.unsqueeze(2)
            plane = functions[:, :1]
        else:
            functions, plane = basis.functions[:, :, 0], basis.functions[:, 0, 0]
        if not (into.regular or outof.regular):
            if size == (1, 1):
                # A single tap does not change when it is rotated.
                return _make_layer(conv, nn.Conv2d, into, outof, basis.sum(plane).unflatten(-1, size), {})
            if self.filters == "escnn":
                # escnn's functions are symmetric, so one element is enough.
                group = C1
        filters: Filters
        if self.filters == "grid":
            filters, weight = GridFilters(group, size), basis.sum(plane).unflatten(-1, size)
        else:
            filters = self._shared_filters(conv, f"{into.regular} {outof.regular}", group, functions)
        make: Any = gnn.GroupConv2d if into.regular else gnn.LiftingConv2d
        # Without a stride all orientations share a grid, and this is faster.
        sampling = "per_orientation" if conv.stride in (1, (1, 1)) else self.sampling
        more: dict[str, Any] = {"group": group, "sampling": sampling, "filters": filters}
        if into.regular and not outof.regular:
            more["group_kernel_size"] = 1
        layer = _make_layer(conv, make, into, outof, weight, more)
        return layer if outof.regular else nn.Sequential(layer, gnn.GroupPool(group, "mean"))

    def _shared_filters(self, conv: Any, kind: str, group: Group, functions: Tensor) -> Filters:
        (block,) = conv.basisexpansion.children()
        key = (id(block), kind)
        if key not in self._tables:
            make = AllPlanesFilters if functions.ndim == 4 else OnePlaneFilters
            self._tables[key] = make(group, (conv.kernel_size, conv.kernel_size), functions.cpu().clone())
            self._kept_alive.append(block)
        return self._tables[key]


def _read_basis(conv: Any, into: Fields, outof: Fields) -> _Basis:
    # All fields in are of one kind, and so are those out: there is one block.
    (block,) = conv.basisexpansion.children()
    functions, weight = block.sampled_basis.detach(), conv.weights.detach()
    functions = functions[:, _channel_order(outof)][:, :, _channel_order(into)]
    return _Basis(functions, weight.view(outof.count, into.count // conv.groups, -1))


def _channel_order(fields: Fields) -> list[int]:
    return list(fields.channels) if fields.regular else [0]


def _by_element(weight: Tensor, group: Group, path: str) -> Tensor:
    """Return the coefficients with an element axis, ``[C_out, C_in, |G|, F]``."""
    if weight.shape[2] % group.order:
        advice = "its basis_filter leaves fewer functions to some orientations than to others; use filters='grid'"
        raise invalid(path, "a convolution with as many functions for each orientation", "R2Conv", advice)
    return weight.unflatten(2, (group.order, -1))


def _refuse_stale(conv: Any, basis: _Basis, into: Fields, outof: Fields, path: str) -> None:
    """Refuse a convolution in eval mode whose kernels, which escnn expanded earlier, are not those of its weights."""
    if conv.training:
        return
    rows, columns = _channel_order(outof), _channel_order(into)
    current = basis.sum(basis.functions).transpose(1, 2)
    expanded = conv.filter.detach().double().reshape(*current.shape[:4], -1)[:, rows][:, :, :, columns]
    pairs = [(current, expanded)]
    if conv.bias is not None:
        pairs.append((_read_bias(conv, outof), conv.expanded_bias.detach().double().view(outof.count, -1)[:, 0]))
    if not all(_equal_up_to_rounding(a, b, conv.weights.dtype) for a, b in pairs):
        advice = "its weights were changed in eval mode, unnoticed by escnn; call train() and eval() on it first"
        raise invalid(path, "a convolution whose kernels are those of its weights", "R2Conv", advice)


def _equal_up_to_rounding(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Return whether tensors differ by no more than rounding, with a margin."""
    return bool((actual - expected).abs().amax() <= max(1e-3, 8 * torch.finfo(dtype).eps) * actual.abs().amax())


def _read_bias(conv: Any, outof: Fields) -> Tensor:
    """Return one number for each field: escnn's bias is the same for all channels of a field."""
    bias: Tensor = conv.bias_expansion.double() @ conv.bias.detach().double()
    return bias.view(outof.count, -1)[:, 0]


def _make_layer(conv: Any, make: Any, into: Fields, outof: Fields, weight: Tensor, more: dict[str, Any]) -> nn.Module:
    """Return a layer with these weights and the convolution's bias; the state of random generators is restored."""
    # Not on the meta device: drawing there imports torch's compiler, which takes seconds.
    with torch.random.fork_rng(devices=[]):
        layer: nn.Module = make(
            into.count, outof.count, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
            conv.bias is not None, conv.padding_mode, dtype=conv.weights.dtype, **more,
        )  # fmt: skip
    state = {"weight": weight.to(conv.weights).clone(memory_format=torch.contiguous_format)}
    if conv.bias is not None:
        state["bias"] = _read_bias(conv, outof).to(conv.weights)
    layer.load_state_dict(state, assign=True)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_((conv.bias if name == "bias" else conv.weights).requires_grad)
    return layer
