"""Applying a plain image operation to each orientation in that orientation's own frame."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..actions import GridMove, move_grid
from ..groups import Group
from ._geometry import element_moves


def per_orientation(
    operation: Callable[[Tensor], Tensor], f: Tensor, group: Group, transpose: bool, flip_rows: bool, flip_columns: bool
) -> Tensor:
    """``out(., g) = L_g operation(L_g^-1 f(., g))``: equivariant whatever the operation does to a channel.

    Args:
        operation: A map of images, channel by channel.
        f: The map on the group.
        group: The group.
        transpose: Whether transposing matters: it does not where the operation treats rows and columns alike.
        flip_rows: Whether flipping the rows matters.
        flip_columns: Whether flipping the columns matters.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H', W']``
    """
    found: dict[GridMove, list[int]] = {}
    for g, move in enumerate(element_moves(group)):
        matters = GridMove(
            move.transpose and transpose, move.flip_rows and flip_rows, move.flip_columns and flip_columns
        )
        found.setdefault(matters, []).append(g)
    if len(found) == 1 and not any(next(iter(found))):
        return operation(f.flatten(1, 2)).unflatten(1, f.shape[1:3])
    maps: dict[int, Tensor] = {}
    for move, elements in found.items():
        # The inverse of "transpose, then flip" is "transpose, then flip the other axes".
        back = GridMove(move.transpose, move.flip_columns, move.flip_rows) if move.transpose else move
        upright = move_grid(f[:, :, elements], back)
        turned = move_grid(operation(upright.flatten(1, 2)), move)
        maps.update(zip(elements, turned.unflatten(1, (-1, len(elements))).unbind(2), strict=True))
    return torch.stack([maps[g] for g in range(group.order)], dim=2)
