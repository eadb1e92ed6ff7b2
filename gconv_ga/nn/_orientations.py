"""Choosing orientations, and applying a plain image operation to each in its own frame."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..actions import GridMove, move_grid


def take(x: Tensor, elements: Sequence[int], dim: int) -> Tensor:
    """Some elements of the element axis; a list as an index would make an accelerator wait."""
    if len(elements) == 1:
        return x.narrow(dim, elements[0], 1)
    return torch.stack([x.select(dim, g) for g in elements], dim)


def per_orientation(
    operation: Callable[[Tensor], Tensor],
    f: Tensor,
    moves: tuple[GridMove, ...],
    transpose: bool,
    flip_rows: bool,
    flip_columns: bool,
) -> Tensor:
    """``out(., g) = L_g operation(L_g^-1 f(., g))``: equivariant whatever the operation does to a channel.

    Args:
        operation: A map of images, channel by channel.
        f: The map on the group.
        moves: What each element does to the grid, `Geometry.moves`.
        transpose: Whether transposing matters: it does not where the operation treats rows and columns alike.
        flip_rows: Whether flipping the rows matters.
        flip_columns: Whether flipping the columns matters.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H', W']``
    """
    found: dict[GridMove, list[int]] = {}
    for g, move in enumerate(moves):
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
        upright = move_grid(take(f, elements, 2), back)
        turned = move_grid(operation(upright.flatten(1, 2)), move)
        maps.update(zip(elements, turned.unflatten(1, (-1, len(elements))).unbind(2), strict=True))
    return torch.stack([maps[g] for g in range(len(moves))], dim=2)
