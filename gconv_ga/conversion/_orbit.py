"""The orbit in the batch: `[B |G|, C, H, W]`, sample by sample, all orientations in the image's own frame.

Between the layers of a converted network the map of element ``g`` is ``L_g`` of what the plain network computes on
``L_g^-1 x``. So every operation becomes ``L_g o operation o L_g^-1``, all maps keep the image's height and width, and
nothing has to be turned back at the end.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..actions import GridMove, grid_move, move_grid
from ..groups import Group


def to_orbit(x: Tensor, group: Group) -> Tensor:
    """Each sample ``|G|`` times: ``[B, ...] -> [B |G|, ...]``."""
    return x.repeat_interleave(group.order, 0)


def inverse(move: GridMove) -> GridMove:
    """The move that undoes a move: after a transposition rows and columns have changed places."""
    return GridMove(True, move.flip_columns, move.flip_rows) if move.transpose else move


def conjugate(operation: Callable[[Tensor, bool], Any], x: Tensor, group: Group) -> Tensor:
    """``L_g operation(L_g^-1 x_g)`` for every orientation in the batch: right for any operation on images.

    Images of one shape go through the operation in one batch; under quarter turns an image that is not square has two.

    Args:
        operation: Gets upright images, and whether their axes have changed places. What it returns is turned if it
            has four axes, and left as it is otherwise: it then belongs to no pixel.
        x: The orbit.
        group: The group.

    Shape:
        - x: ``[B |G|, C, H, W]``
        - output: ``[B |G|, ...]``
    """
    moves = [grid_move(group, g) for g in range(group.order)]
    maps = x.unflatten(0, (-1, group.order)).unbind(1)
    square = x.shape[-2] == x.shape[-1]
    batches = [(False, list(range(group.order)))]
    if not square:
        batches = [(t, [g for g, move in enumerate(moves) if move.transpose == t]) for t in (False, True)]
    results: dict[int, Tensor] = {}
    for swapped, elements in batches:
        if not elements:
            continue
        upright = torch.stack([move_grid(maps[g], inverse(moves[g])) for g in elements], dim=1)
        y = operation(upright.flatten(0, 1), swapped).unflatten(0, (-1, len(elements)))
        for i, g in enumerate(elements):
            results[g] = move_grid(y[:, i], moves[g]) if y.ndim == 5 else y[:, i]
    return torch.stack([results[g] for g in range(group.order)], dim=1).flatten(0, 1)
