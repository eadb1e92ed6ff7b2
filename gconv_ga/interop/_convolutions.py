"""Convolutions of escnn: layers of this package where fields are all regular or all trivial, others as they are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid
from ..filters import Filters, GridFilters
from ..groups import C1, Group
from ..nn.authoring import make_geometry
from ._field_layers import FieldBlock, FieldConv2d, FieldConvTranspose2d, around, expand_blocks
from ._fields import Fields, read_fields
from ._layers import AllPlanesFilters, FieldBias, OnePlaneFilters, SharedGrid, Table


class _Basis(NamedTuple):
    """The sampled functions of an escnn convolution, and their coefficients.

    Shape:
        - functions: ``[b, o, i, k * k]``, where ``o`` and ``i`` are the channels of a field, elements in our order
        - weight: ``[C_out, C_in / groups, b]``
    """

    functions: Tensor
    weight: Tensor
    into: Fields
    outof: Fields

    def sum(self, functions: Tensor) -> Tensor:
        """Return the kernels ``[C_out, C_in / groups, ...]`` for functions ``[b, ...]``, in float64."""
        return torch.einsum("pqb,b...->pq...", self.weight.double(), functions.double())


class ConvolutionReader:
    """Converts ``R2Conv`` and ``R2ConvTransposed``; layers with the same basis share one table.

    Args:
        filters: "escnn" or "grid".
        sampling: "shared" or "per_orientation", for layers with a stride.
    """

    def __init__(self, filters: str, sampling: str) -> None:
        self.filters, self.sampling = filters, sampling
        self._tables: dict[tuple[int, str], Any] = {}
        # The id of an object may be reused once the object is gone.
        self._kept_alive: list[Any] = []

    def convolution(self, conv: Any, path: str) -> nn.Module:
        """Return an ``R2Conv`` as one layer, or as a few in a sequence.

        Args:
            conv: The convolution.
            path: Its path, for the message.

        Raises:
            ValueError: The options do not fit it, or its kernels are not those of its weights.
        """
        into, outof = read_fields(conv.in_type, path), read_fields(conv.out_type, path)
        _refuse_stale(conv, path)
        if "other" in (into.kind, outof.kind):
            return self._between_fields(conv, into, outof, path)
        self._refuse_grid(into.group)
        basis = _read_basis(conv, into, outof)
        if not into.regular:
            functions = basis.functions[:, :, 0]
            if outof.regular:
                return self._layer(conv, gnn.LiftingConv2d, basis, functions, functions[:, 0])
            return self._between_images(conv, basis, functions)
        if outof.regular:
            if self.filters == "escnn":
                basis = basis._replace(weight=_by_element(basis.weight, into.group, path))
            return self._layer(conv, gnn.GroupConv2d, basis, basis.functions, basis.functions[:, 0])
        # Orientations do not mix, and their sum follows, which is |G| times their mean.
        functions = basis.functions[:, 0] * into.group.order
        if self.filters == "escnn":
            basis = basis._replace(weight=basis.weight.unsqueeze(2))
        layer = self._layer(conv, gnn.GroupConv2d, basis, functions, functions[:, :1], group_kernel_size=1)
        return nn.Sequential(layer, gnn.GroupPool(into.group, "mean"))

    def _between_images(self, conv: Any, basis: _Basis, functions: Tensor) -> nn.Module:
        group, size = basis.into.group, (conv.kernel_size, conv.kernel_size)
        check = grid_check(group, size, _pair(conv.stride), conv.padding, _pair(conv.dilation))
        own_grids = check is not None and self.sampling == "per_orientation"
        if self.filters == "grid" or own_grids:
            # If each orientation samples its own grid, their mean is equivariant at every size.
            functions = functions.expand(-1, group.order, -1)
            layer = self._layer(conv, gnn.LiftingConv2d, basis, functions, functions[:, 0])
            return nn.Sequential(layer, gnn.GroupPool(group, "mean"))
        layers: list[nn.Module] = [] if check is None else [check]
        if size == (1, 1):
            # A single tap does not change when it is rotated.
            weight = basis.sum(functions[:, 0]).unflatten(-1, size)
            layers.append(_make_layer(conv, nn.Conv2d, basis, weight, {}))
        else:
            # escnn's functions are symmetric, so one element is enough.
            layers.append(self._layer(conv, gnn.LiftingConv2d, basis, functions, functions[:, 0], group=C1))
            layers.append(gnn.GroupPool(C1, "mean"))
        return layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def _layer(
        self, conv: Any, make: Any, basis: _Basis, functions: Tensor, plane: Tensor, *, group: Group | None = None,
        **more: Any,
    ) -> nn.Module:  # fmt: skip
        """Return a layer of `gconv_ga.nn`.

        Args:
            conv: The convolution.
            make: The class of the layer.
            basis: Its functions and coefficients.
            functions: The functions as the filters take them.
            plane: The functions of the kernel of the identity, for "grid".
            group: The group; if None, that of the input.
            **more: Further arguments of the layer.
        """
        group, size = group or basis.into.group, (conv.kernel_size, conv.kernel_size)
        filters: Filters
        if self.filters == "grid":
            filters, weight = GridFilters(group, size), basis.sum(plane).unflatten(-1, size)
        else:
            filters, weight = (
                self._shared_filters(conv, f"{make.__name__} {group.name}", group, functions),
                basis.weight,
            )
        # Without a stride all orientations share a grid, and this is faster.
        strided = _pair(conv.stride) != (1, 1) or _pair(getattr(conv, "output_padding", 0)) != (0, 0)
        sampling = self.sampling if strided else "per_orientation"
        more |= {"group": group, "sampling": sampling, "filters": filters}
        return _make_layer(conv, make, basis, weight, more, scaled=self.filters == "escnn")

    def transposed(self, conv: Any, path: str) -> nn.Module:
        """Return an ``R2ConvTransposed``.

        Args:
            conv: The convolution.
            path: Its path, for the message.

        Raises:
            ValueError: The options do not fit it, or its kernels are not those of its weights.
        """
        into, outof = read_fields(conv.in_type, path), read_fields(conv.out_type, path)
        _refuse_stale(conv, path)
        if not (into.regular and outof.regular):
            return self._between_fields(conv, into, outof, path)
        self._refuse_grid(into.group)
        basis = _read_basis(conv, into, outof)
        # A transposed layer has the kernels of its adjoint, from what it returns to what it takes.
        functions = basis.functions.transpose(1, 2)
        weight = basis.weight.transpose(0, 1)
        basis = basis._replace(weight=weight if self.filters == "grid" else _by_element(weight, into.group, path))
        more = {"output_padding": conv.output_padding}
        return self._layer(conv, gnn.GroupConvTranspose2d, basis, functions, functions[:, 0], **more)

    def _between_fields(self, conv: Any, into: Fields, outof: Fields, path: str) -> nn.Module:
        """Return a convolution between other fields than all regular or all trivial ones."""
        if self.filters == "grid":
            takes = f"'escnn' for {path}, whose fields are neither all regular nor all trivial"
            raise invalid("filters", takes, "grid")
        transposed, size = hasattr(conv, "output_padding"), (conv.kernel_size, conv.kernel_size)
        stride, padding, dilation = _pair(conv.stride), _pair(conv.padding), _pair(conv.dilation)
        geometry = make_geometry(into.group, size, stride, padding, dilation, shared=True)
        more: dict[str, Any] = {"padding_mode": getattr(conv, "padding_mode", None)}
        if transposed:
            more = {"output_padding": _pair(conv.output_padding)}
        strided = more["output_padding"] != (0, 0) if transposed else stride != (1, 1)
        if self.sampling == "per_orientation" and strided and any(geometry.flipped_axes()):
            refuse_own_grids(path)
        bias = None if conv.bias is None else conv.bias.detach().clone()
        make = FieldConvTranspose2d if transposed else FieldConv2d
        made = make(
            self._blocks(conv), (conv.out_type.size, conv.in_type.size), conv.weights.detach().clone(), bias,
            None if bias is None else conv.bias_expansion.detach().clone(), geometry, conv.groups, **more,
        )  # fmt: skip
        made.weight.requires_grad_(conv.weights.requires_grad)
        if made.bias is not None:
            made.bias.requires_grad_(conv.bias.requires_grad)
        return around(into, made, outof)

    def _refuse_grid(self, group: Group) -> None:
        if self.filters == "grid" and not group.is_exact():
            takes = f"'escnn' for {group.name}, which has other angles than multiples of 90 degrees"
            raise invalid("filters", takes, "grid")

    def _shared_filters(self, conv: Any, kind: str, group: Group, functions: Tensor) -> Filters:
        (block,) = conv.basisexpansion.children()

        def make() -> Filters:
            size = (conv.kernel_size, conv.kernel_size)
            return (AllPlanesFilters if functions.ndim == 4 else OnePlaneFilters)(group, size, functions.cpu().clone())

        return self._once(block, kind, make)

    def _blocks(self, conv: Any) -> list[FieldBlock]:
        def table_of(block: Any) -> Table:
            table: Table = self._once(block, "fields", lambda: Table(block.sampled_basis))
            return table

        return read_blocks(conv, table_of)

    def _once(self, block: Any, kind: str, make: Callable[[], Any]) -> Any:
        key = (id(block), kind)
        if key not in self._tables:
            self._tables[key] = make()
            self._kept_alive.append(block)
        return self._tables[key]


def read_blocks(conv: Any, table_of: Callable[[Any], Table]) -> list[FieldBlock]:
    """Return the functions between each kind of field in and each kind of field out.

    Args:
        conv: The convolution.
        table_of: Returns the table for a block of escnn.
    """
    expansion, blocks = conv.basisexpansion, []
    for pair in expansion._representations_pairs:  # noqa: SLF001  escnn has no other name for these
        name = expansion._escape_pair(pair)  # noqa: SLF001
        block = getattr(expansion, f"block_expansion_{name}")
        ins, outs = expansion._in_reprs, expansion._out_reprs  # noqa: SLF001
        start, end = expansion._weights_ranges[pair]  # noqa: SLF001
        blocks.append(FieldBlock(table_of(block), start, end, channels_of(outs, pair[1]), channels_of(ins, pair[0])))
    return blocks


def channels_of(fields: Any, name: str) -> Tensor:
    """Return the channels of the fields with a representation of that name."""
    found: list[int] = []
    last = 0
    for field in fields:
        if field.name == name:
            found += range(last, last + field.size)
        last += field.size
    return torch.tensor(found)


def _read_basis(conv: Any, into: Fields, outof: Fields) -> _Basis:
    # All fields in are of one kind, and so are those out: there is one block.
    (block,) = conv.basisexpansion.children()
    functions, weight = block.sampled_basis.detach(), conv.weights.detach()
    functions = functions[:, _channel_order(outof)][:, :, _channel_order(into)]
    ins, outs = into.count, outof.count
    if hasattr(conv, "output_padding"):
        outs //= conv.groups
    else:
        ins //= conv.groups
    return _Basis(functions, weight.view(outs, ins, -1), into, outof)


def _channel_order(fields: Fields) -> list[int]:
    return list(fields.channels) if fields.regular else [0]


def _by_element(weight: Tensor, group: Group, path: str) -> Tensor:
    """Return the coefficients with an element axis, ``[C_out, C_in, |G|, F]``."""
    if weight.shape[2] % group.order:
        advice = "use filters='grid': its basis_filter leaves fewer functions to some orientations than to others"
        raise invalid(path, "a convolution with as many functions for each orientation", "R2Conv", advice)
    return weight.unflatten(2, (group.order, -1))


def _refuse_stale(conv: Any, path: str) -> None:
    """Refuse a convolution in eval mode whose kernels, which escnn expanded earlier, are not those of its weights."""
    if conv.training:
        return
    blocks = read_blocks(conv, lambda block: Table(block.sampled_basis))
    expanded = conv.filter.detach().double().flatten(2)
    expanded = expanded.transpose(0, 1) if hasattr(conv, "output_padding") else expanded
    current = expand_blocks(blocks, conv.weights.detach().double(), (expanded.shape[0], expanded.shape[1]))
    pairs = [(current, expanded)]
    if conv.bias is not None:
        bias = conv.bias_expansion.double() @ conv.bias.detach().double()
        pairs.append((bias, conv.expanded_bias.detach().double()))
    if not all(_equal_up_to_rounding(a, b, conv.weights.dtype) for a, b in pairs):
        advice = "call train() and eval() on it first: its weights were changed in eval mode, unnoticed by escnn"
        raise invalid(path, "a convolution whose kernels are those of its weights", type(conv).__name__, advice)


def _equal_up_to_rounding(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Return whether tensors differ by no more than rounding, with a margin."""
    return bool((actual - expected).abs().amax() <= max(1e-3, 8 * torch.finfo(dtype).eps) * actual.abs().amax())


def _make_layer(
    conv: Any, make: Any, basis: _Basis, weight: Tensor, more: dict[str, Any], *, scaled: bool = False
) -> nn.Module:
    """Return a layer with these weights and the convolution's bias; the state of random generators is restored.

    Args:
        conv: The convolution.
        make: The class of the layer.
        basis: Its fields.
        weight: The weights.
        more: Further arguments of the layer.
        scaled: Whether the bias keeps escnn's scale, in a `FieldBias` of its own.
    """
    into, outof = basis.into, basis.outof
    scale = 1.0 if conv.bias is None else float(conv.bias_expansion[0, 0])
    apart = conv.bias is not None and outof.regular and scaled and scale != 1
    # Not on the meta device: drawing there imports torch's compiler, which takes seconds.
    with torch.random.fork_rng(devices=[]):
        layer: nn.Module = make(
            into.count, outof.count, conv.kernel_size, stride=conv.stride, padding=conv.padding, dilation=conv.dilation,
            groups=conv.groups, bias=conv.bias is not None and not apart,
            padding_mode=getattr(conv, "padding_mode", "zeros"), dtype=conv.weights.dtype, **more,
        )  # fmt: skip
    state = {"weight": weight.to(conv.weights).clone(memory_format=torch.contiguous_format)}
    if conv.bias is not None and not apart:
        state["bias"] = (conv.bias.detach().double() * scale).to(conv.weights)
    layer.load_state_dict(state, assign=True)
    layer.get_parameter("weight").requires_grad_(conv.weights.requires_grad)
    if conv.bias is None:
        return layer
    if not apart:
        layer.get_parameter("bias").requires_grad_(conv.bias.requires_grad)
        return layer
    bias = FieldBias(conv.bias.detach().clone(), scale)
    bias.bias.requires_grad_(conv.bias.requires_grad)
    return nn.Sequential(layer, bias)


def grid_check(
    group: Group, kernel_size: tuple[int, int], stride: tuple[int, int], padding: Any, dilation: tuple[int, int]
) -> SharedGrid | None:
    """Return what warns before a layer on images whose single grid is not equivariant at every size; None if it is.

    Args:
        group: The group.
        kernel_size: Rows and columns.
        stride: For rows and columns.
        padding: For rows and columns.
        dilation: For rows and columns.

    Raises:
        ValueError: A rotation by 90 degrees would change the size of the output.
    """
    geometry = make_geometry(group, kernel_size, stride, padding, dilation, shared=True)
    return None if stride == (1, 1) or not any(geometry.flipped_axes()) else SharedGrid(geometry)


def refuse_own_grids(path: str) -> None:
    """Refuse a layer with a stride whose orientations cannot sample their own grids.

    Raises:
        ValueError: Always.
    """
    takes = f"'shared' for {path}, which has a stride and fields that are neither all regular nor all trivial"
    advice = "sampling='shared' samples as escnn does and warns at the sizes where that is not equivariant"
    raise invalid("sampling", takes, "per_orientation", advice)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
