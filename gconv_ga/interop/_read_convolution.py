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

    @property
    def kernels(self) -> Tensor:
        """What they make, ``[C_out, C_in, o, i, k * k]`` in float64."""
        return torch.einsum("pqb,boix->pqoix", self.weight.double(), self.functions.double())


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
        group, on_grid = into.group, self.filters == "grid"
        if on_grid and not group.is_exact():
            raise invalid("filters", f"'escnn' for {group.name}, which has other angles than quarter turns", "grid")
        make: Any = gnn.GroupConv2d if into.regular else gnn.LiftingConv2d
        more: dict[str, Any] = {"group": group, "sampling": self.sampling}
        if conv.stride in (1, (1, 1)):
            # All orientations sample the same grid anyway, and this is quicker.
            more["sampling"] = "per_orientation"
        if into.regular and outof.regular:
            kernel, functions = basis.kernels[:, :, 0], basis.functions
            coefficients = basis.weight
            if not on_grid:
                coefficients = _by_element(coefficients, group, path)
        elif into.regular:
            # To images: every orientation for itself, then their sum, which is |G| times their mean.
            kernel, functions = basis.kernels[:, :, 0, :1] * group.order, basis.functions[:, 0] * group.order
            coefficients = basis.weight.unsqueeze(2)
            more["group_kernel_size"] = 1
        else:
            kernel, functions, coefficients = basis.kernels[:, :, 0, 0], basis.functions[:, :, 0], basis.weight
        size = (conv.kernel_size, conv.kernel_size)
        if not (into.regular or outof.regular):
            if size == (1, 1):
                # A single tap is its own turn.
                return _filled(conv, nn.Conv2d, into, outof, kernel.unflatten(-1, size), {})
            if not on_grid:
                # escnn's functions are symmetric, so that one element does for all.
                group = more["group"] = C1
        if on_grid:
            weight, more["filters"] = kernel.unflatten(-1, size), GridFilters(group, size)
        else:
            kind = f"{make.__name__} {into.regular} {outof.regular}"
            weight, more["filters"] = coefficients, self._table(conv, kind, group, functions)
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
    now = basis.kernels.permute(0, 2, 1, 3, 4)
    then = conv.filter.detach().double().reshape(*now.shape[:4], -1)[:, rows][:, :, :, columns]
    same = _alike(now, then)
    if conv.bias is not None:
        same = same and _alike(_read_bias(conv, outof), conv.expanded_bias.double().view(outof.count, -1)[:, 0])
    if not same:
        advice = "its weights have changed in eval mode, which escnn does not see: call train() and eval() on it first"
        raise invalid(path, "a convolution whose kernels are those of its weights", "R2Conv", advice)


def _alike(now: Tensor, then: Tensor) -> bool:
    return bool((now - then).abs().amax() <= 1e-3 * now.abs().amax())


def _read_bias(conv: Any, outof: Fields) -> Tensor:
    """One number for each field: escnn gives all channels of a field the same."""
    bias: Tensor = conv.bias_expansion.double() @ conv.bias.detach().double()
    return bias.view(outof.count, -1)[:, 0]


def _filled(conv: Any, make: Any, into: Fields, outof: Fields, weight: Tensor, more: dict[str, Any]) -> nn.Module:
    """The layer with these weights and the convolution's bias; nothing is drawn, so that no generator moves."""
    layer: nn.Module = make(
        into.count, outof.count, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
        conv.bias is not None, conv.padding_mode, device="meta", **more,
    )  # fmt: skip
    state = {"weight": weight.to(conv.weights).clone(memory_format=torch.contiguous_format)}
    if conv.bias is not None:
        state["bias"] = _read_bias(conv, outof).to(conv.weights)
    layer.load_state_dict(state, assign=True)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_((conv.bias if name == "bias" else conv.weights).requires_grad)
    return layer
