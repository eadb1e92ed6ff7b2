"""Pools and up-sampling of maps on the group as plain torch layers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as gnn
from ..actions import GridMove, move_grid
from ..nn.authoring import make_geometry
from ._fold_kernels import placements
from ._plain_layers import Job, side_by_side


def fold_pool(pool: Any) -> nn.Module:
    """A pool over windows: one of torch's for each way in which orientations are flipped."""
    geometry = pool.geometry
    swaps = [move.transpose and geometry.rows != geometry.columns for move in geometry.moves]
    kinds = [(swap, *place.flips) for swap, place in zip(swaps, placements(geometry), strict=True)]
    jobs = []
    for kind in sorted(set(kinds)):
        elements = [g for g in range(pool.group.order) if kinds[g] == kind]
        step = -1 if kind[0] else 1
        kernel, stride, padding = pool.kernel_size[::step], pool.stride[::step], pool.padding[::step]
        if isinstance(pool, gnn.MaxPool2d):
            dilation = pool.dilation[::step]
            plain: nn.Module = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=pool.ceil_mode)
        else:
            plain = nn.AvgPool2d(kernel, stride, padding, pool.ceil_mode, pool.count_include_pad)
        layer = nn.Sequential(nn.Flatten(1, 2), plain, nn.Unflatten(1, (-1, len(elements))))
        jobs.append(Job(layer, elements, elements, list(kind[1:])))
    return side_by_side(jobs, pool.group.order, dim=2)


def fold_group_pool(pool: gnn.GroupPool) -> nn.Module:
    """A pool over all elements; one to a subgroup stays as it is."""
    if pool.subgroup is not None:
        return pool
    window = (pool.group.order, 1, 1)
    return nn.Sequential(nn.AvgPool3d(window) if pool.reduction == "mean" else nn.MaxPool3d(window), nn.Flatten(1, 2))


class PlainUpsample(nn.Module):
    """`Upsample` without a look at sizes: every orientation continues at the edge that its own flip makes the last.

    Args:
        layer: The layer in whose place it stands.
        flips: How each element flips the image.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H * scale_factor, W * scale_factor]``, or ``output_size``
    """

    def __init__(self, layer: gnn.Upsample, flips: Sequence[GridMove]) -> None:
        super().__init__()
        self.scale_factor, self.mode, self.flips = layer.scale_factor, layer.mode, tuple(flips)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        axes = input.shape[1:3]
        y = F.interpolate(input.flatten(1, 2), scale_factor=self.scale_factor, mode=self.mode)
        if output_size is None:
            return y.unflatten(1, axes)
        rows, columns = (output_size[axis] - y.shape[axis] for axis in (-2, -1))
        flat = self._flip(y.unflatten(1, axes)).flatten(1, 2)
        return self._flip(F.pad(flat, (0, columns, 0, rows), mode="replicate").unflatten(1, axes))

    def _flip(self, maps: Tensor) -> Tensor:
        return torch.stack([move_grid(x, flip) for x, flip in zip(maps.unbind(2), self.flips, strict=True)], dim=2)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}"


def fold_upsample(layer: gnn.Upsample) -> nn.Module:
    """Up-sampling by a whole number."""
    moves = make_geometry(layer.group, (1, 1), (1, 1), 0, (1, 1)).moves
    return PlainUpsample(layer, [move._replace(transpose=False) for move in moves])
