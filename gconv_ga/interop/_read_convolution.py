"""A convolution of escnn as layers of ours."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid
from ..filters import Filters, GridFilters
from ..groups import C1, Group
from ._fields import Fields, read_fields
from ._filters import AllPlanesFilters, OnePlaneFilters


class _Basis(NamedTuple):
    """What a convolution of escnn consists of.

    Shape:
        - functions: ``[b, o, i, k * k]``, ``o`` and ``i`` the channels of a field in our order of the elements
        - weight: ``[C_out, C_in, b]``
    """

    functions: Tensor
    weight: Tensor

    def sum(self, functions: Tensor) -> Tensor:
        """What the coefficients make of functions ``[b, ...]``: kernels ``[C_out, C_in, ...]`` in float64."""
        return torch.einsum("pqb,b...->pq...", self.weight.double(), functions.double())


class ConvolutionReader:
    """Makes layers of ours of ``R2Conv``; those with the same basis share one table.

    Args:
        filters: "escnn" or "grid".
        sampling: "shared" or "per_orientation", for layers with a stride.
    """

    def __init__(self, filters: str, sampling: str) -> None:
        self.filters, self.sampling = filters, sampling
        self._known: dict[tuple[int, str], Filters] = {}
        # A number that names an object is another's when the object is gone.
        self._alive: list[Any] = []

    def __call__(self, conv: Any, path: str) -> nn.Module:
        """One layer, or two if what comes out are images.

        Args:
            conv: The convolution.
            path: Where it is, for the message.
        """
        into, outof = read_fields(conv.in_type, path), read_fields(conv.out_type, path)
        basis = _read_basis(conv, into, outof)
        _refuse_stale(conv, basis, into, outof, path)
        group, size = into.group, (conv.kernel_size, conv.kernel_size)
        if self.filters == "grid" and not group.is_exact():
            raise invalid("filters", f"'escnn' for {group.name}, which has other angles than quarter turns", "grid")
        weight = basis.weight
        if into.regular and outof.regular:
            functions, plane = basis.functions, basis.functions[:, 0]
            if self.filters == "escnn":
                weight = _by_element(weight, group, path)
        elif into.regular:
            # To images: every orientation for itself, then their sum, which is |G| times their mean.
            functions, weight = basis.functions[:, 0] * group.order, weight.unsqueeze(2)
            plane = functions[:, :1]
        else:
            functions, plane = basis.functions[:, :, 0], basis.functions[:, 0, 0]
        if not (into.regular or outof.regular):
            if size == (1, 1):
                # A single tap is its own turn.
                return _filled(conv, nn.Conv2d, into, outof, basis.sum(plane).unflatten(-1, size), {})
            if self.filters == "escnn":
                # escnn's functions are symmetric, so that one element does for all.
                group = C1
        filters: Filters
        if self.filters == "grid":
            filters, weight = GridFilters(group, size), basis.sum(plane).unflatten(-1, size)
        else:
            filters = self._table(conv, f"{into.regular} {outof.regular}", group, functions)
        make: Any = gnn.GroupConv2d if into.regular else gnn.LiftingConv2d
        # Without a stride all orientations sample the same grid anyway, and that is quicker.
        sampling = "per_orientation" if conv.stride in (1, (1, 1)) else self.sampling
        more: dict[str, Any] = {"group": group, "sampling": sampling, "filters": filters}
        if into.regular and not outof.regular:
            more["group_kernel_size"] = 1
        layer = _filled(conv, make, into, outof, weight, more)
        return layer if outof.regular else nn.Sequential(layer, gnn.GroupPool(group, "mean"))

    def _table(self, conv: Any, kind: str, group: Group, functions: Tensor) -> Filters:
        (block,) = conv.basisexpansion.children()
        key = (id(block), kind)
        if key not in self._known:
            make = AllPlanesFilters if functions.ndim == 4 else OnePlaneFilters
            self._known[key] = make(group, (conv.kernel_size, conv.kernel_size), functions.cpu().clone())
            self._alive.append(block)
        return self._known[key]


def _read_basis(conv: Any, into: Fields, outof: Fields) -> _Basis:
    # Fields of one kind in, of one kind out: one block.
    (block,) = conv.basisexpansion.children()
    functions, weight = block.sampled_basis.detach(), conv.weights.detach()
    functions = functions[:, _order(outof)][:, :, _order(into)]
    return _Basis(functions, weight.view(outof.count, into.count // conv.groups, -1))


def _order(fields: Fields) -> list[int]:
    return list(fields.channels) if fields.regular else [0]


def _by_element(weight: Tensor, group: Group, path: str) -> Tensor:
    """Coefficients with an element axis, ``[C_out, C_in, |G|, F]``."""
    if weight.shape[2] % group.order:
        advice = "its basis_filter leaves some orientations fewer functions than others: take filters='grid'"
        raise invalid(path, "a convolution with as many functions for each orientation", "R2Conv", advice)
    return weight.unflatten(2, (group.order, -1))


def _refuse_stale(conv: Any, basis: _Basis, into: Fields, outof: Fields, path: str) -> None:
    """In eval mode escnn uses kernels that it expanded earlier: they must be those of the weights."""
    if conv.training:
        return
    rows, columns = _order(outof), _order(into)
    now = basis.sum(basis.functions).transpose(1, 2)
    then = conv.filter.detach().double().reshape(*now.shape[:4], -1)[:, rows][:, :, :, columns]
    pairs = [(now, then)]
    if conv.bias is not None:
        pairs.append((_read_bias(conv, outof), conv.expanded_bias.detach().double().view(outof.count, -1)[:, 0]))
    if not all(_alike(a, b, conv.weights.dtype) for a, b in pairs):
        advice = "its weights have changed in eval mode, which escnn does not see: call train() and eval() on it first"
        raise invalid(path, "a convolution whose kernels are those of its weights", "R2Conv", advice)


def _alike(now: Tensor, then: Tensor, dtype: torch.dtype) -> bool:
    """Whether they differ by no more than rounding, with some room."""
    return bool((now - then).abs().amax() <= max(1e-3, 8 * torch.finfo(dtype).eps) * now.abs().amax())


def _read_bias(conv: Any, outof: Fields) -> Tensor:
    """One number for each field: escnn gives all channels of a field the same."""
    bias: Tensor = conv.bias_expansion.double() @ conv.bias.detach().double()
    return bias.view(outof.count, -1)[:, 0]


def _filled(conv: Any, make: Any, into: Fields, outof: Fields, weight: Tensor, more: dict[str, Any]) -> nn.Module:
    """The layer with these weights and the convolution's bias; no generator is left elsewhere than it was."""
    # (To draw on the meta device instead would import torch's compiler, for seconds.)
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
