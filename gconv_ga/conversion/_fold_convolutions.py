"""Each convolution of ours as plain torch layers.

Channels are numbered as they lie in memory: field by field in a map on the group ``[B, C, |G|, H, W]``, element by
element in an orbit ``[B |G|, C, H, W]``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as gnn
from ._conv2d import OrbitConv2d
from ._conv_transpose2d import OrbitConvTranspose2d
from ._convolutions import OrbitConvolution
from ._fold_kernels import common_windows, placed, placements, plane_of_each, spread
from ._plain_layers import Job, OneSize, side_by_side


class _Numbering:
    """The channels of a map: its fields and elements, and which of both comes first."""

    def __init__(self, fields: int, order: int, elements_first: bool) -> None:
        self.fields, self.order, self.elements_first = fields, order, elements_first

    def __call__(self, field: int, element: int) -> int:
        return element * self.fields + field if self.elements_first else field * self.order + element


def fold_convolution(conv: Any) -> nn.Module:
    """A lifting convolution, group convolution or convolution on an orbit."""
    orbit, lifting = isinstance(conv, OrbitConv2d), isinstance(conv, gnn.LiftingConv2d)
    if orbit and conv.taps is None and conv.kernel_size == conv.stride == (1, 1):
        # A single tap is its own turn: orientations are as good as samples.
        layer = nn.Conv2d(
            conv.in_channels, conv.out_channels, 1, 1, conv.padding, 1, conv.groups, conv.bias is not None,
            conv.padding_mode, device="meta",
        )  # fmt: skip
        return _with(layer, conv.weight.detach(), conv.bias)
    order, places = conv.group.order, placements(conv.geometry)
    windows = common_windows(conv.geometry, places)
    whole = placed(_turned(conv), places, windows)
    planes = 1 if lifting else order
    number_in, number_out = _Numbering(conv.in_channels, planes, orbit), _Numbering(conv.out_channels, order, orbit)
    everywhere = lifting or whole.shape[2] == conv.in_channels // conv.groups * order
    jobs = []
    for flips in sorted({tuple(place.flips) for place in places}):
        elements = [g for g, place in enumerate(places) if tuple(place.flips) == flips]
        stack = whole[:, elements]
        if everywhere:
            reads = [number_in(c, h) for c in range(conv.in_channels) for h in range(planes)]
            writes = [number_out(o, g) for o in range(conv.out_channels) for g in elements]
            weight, blocks = stack.flatten(0, 1), conv.groups
        else:
            near = conv.neighbours.tolist()
            reads = [number_in(c, h) for g in elements for c in range(conv.in_channels) for h in near[g]]
            writes = [number_out(o, g) for g in elements for o in range(conv.out_channels)]
            weight, blocks = stack.transpose(0, 1).flatten(0, 1), conv.groups * len(elements)
        if blocks == 1:
            weight, reads, writes = _in_order(weight, reads, writes)
        layer = nn.Conv2d(
            len(reads), len(writes), windows.kernel, conv.stride, windows.padding, windows.dilation, blocks,
            conv.bias is not None, conv.padding_mode, device="meta",
        )  # fmt: skip
        jobs.append(Job(_with(layer, weight, spread(conv.bias, writes, order, orbit)), reads, writes, list(flips)))
    return _around(side_by_side(jobs, conv.in_channels * planes), order, conv.out_channels, orbit, lifting)


def fold_transposed(conv: Any) -> nn.Module:
    """A transposed group convolution, or one on an orbit."""
    orbit, order = isinstance(conv, OrbitConvTranspose2d), conv.group.order
    extra = (conv.output_padding[0], conv.output_padding[1])
    places = placements(conv.geometry, extra=extra, adjoint=True)
    windows = common_windows(conv.geometry, places, extra)
    whole = placed(_turned(conv), places, windows).unflatten(2, (conv.out_channels // conv.groups, -1))
    number_in, number_out = (_Numbering(n, order, orbit) for n in (conv.in_channels, conv.out_channels))
    planes = whole.shape[3]
    if planes == 1 < order:
        # Every orientation for itself.
        weight, blocks = whole[:, :, :, 0].transpose(0, 1).flatten(0, 1), conv.groups * order
        reads = [number_in(c, g) for g in range(order) for c in range(conv.in_channels)]
        writes = [number_out(o, g) for g in range(order) for o in range(conv.out_channels)]
    else:
        stack = whole if planes == order else plane_of_each(whole, conv.neighbours if orbit else conv.sources)
        weight, blocks = stack.flatten(2, 3).flatten(0, 1), conv.groups
        reads = [number_in(c, g) for c in range(conv.in_channels) for g in range(order)]
        writes = [number_out(o, h) for o in range(conv.out_channels) for h in range(order)]
    if blocks == 1:
        weight, reads, writes = _in_order(weight.transpose(0, 1), reads, writes)
        weight = weight.transpose(0, 1)
    layer = nn.ConvTranspose2d(
        len(reads), len(writes), windows.kernel, conv.stride, windows.padding, 0, blocks, conv.bias is not None,
        windows.dilation, device="meta",
    )  # fmt: skip
    job = Job(_with(layer, weight, spread(conv.bias, writes, order, orbit)), reads, writes, [])
    inside = side_by_side([job], conv.in_channels * order)
    return _around(inside, order, conv.out_channels, orbit, False, OneSize)


def _turned(conv: Any) -> Tensor:
    """The stack of turned kernels, a plane for each element where they mix."""
    if isinstance(conv, OrbitConvolution):
        return conv.turned(conv.count == conv.group.order).detach()
    return conv.turned_kernels().detach()


def _in_order(weight: Tensor, reads: list[int], writes: list[int]) -> tuple[Tensor, list[int], list[int]]:
    """A dense kernel ``[writes, reads, KH, KW]`` with the channels of both in ascending order."""
    rows, columns = (sorted(range(len(x)), key=x.__getitem__) for x in (writes, reads))
    weight = weight[torch.tensor(rows, device=weight.device)][:, torch.tensor(columns, device=weight.device)]
    return weight, sorted(reads), sorted(writes)


def _with(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer with these parameters, where they are."""
    layer.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _around(
    inside: nn.Module, order: int, fields: int, orbit: bool, lifting: bool, kind: type[nn.Sequential] = nn.Sequential
) -> nn.Sequential:
    """What works on the channels of a map, made to work on the map."""
    if orbit:
        return kind(
            nn.Unflatten(0, (-1, order)), nn.Flatten(1, 2), inside, nn.Unflatten(1, (order, fields)), nn.Flatten(0, 1)
        )
    flat = [] if lifting else [nn.Flatten(1, 2)]
    return kind(*flat, inside, nn.Unflatten(1, (fields, order)))
