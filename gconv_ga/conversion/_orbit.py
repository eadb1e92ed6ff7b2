"""The orbit in the batch: `[B |G|, C, H, W]`, sample by sample, all orientations in the image's own frame.

Between the layers of a converted network the map of element ``g`` is ``L_g`` of what the plain network computes on
``L_g^-1 x``. So every operation becomes ``L_g o operation o L_g^-1``, all maps keep the image's height and width, and
nothing has to be turned back at the end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..actions import GridMove, grid_move, move_grid, nest_leaves, rebuild_nest
from ..groups import Group


def to_orbit(x: Tensor, group: Group) -> Tensor:
    """Each sample ``|G|`` times, in memory of its own: ``[B, ...] -> [B |G|, ...]``."""
    return x.unsqueeze(1).expand(-1, group.order, *x.shape[1:]).flatten(0, 1).clone()


def moves_of(group: Group) -> list[GridMove]:
    """The index moves of every element."""
    return [grid_move(group, g) for g in range(group.order)]


def inverse(move: GridMove) -> GridMove:
    """The move that undoes a move: after a transposition rows and columns have changed places."""
    return GridMove(True, move.flip_columns, move.flip_rows) if move.transpose else move


def conjugate(operation: Callable[..., Any], nest: Any, group: Group) -> Any:
    """``L_g operation(L_g^-1 x_g)`` for every orientation in the batch: right for any operation on images.

    Images of one shape go through the operation in one batch; under quarter turns an image that is not square has two.

    Args:
        operation: Called with the nest, its images upright. In what it returns images are turned; tensors with other
            axes are left as they are: they belong to no pixel.
        nest: A tensor, or tensors and others in dicts, tuples and lists. Images are the tensors ``[B |G|, C, H, W]``.
        group: The group.

    Shape:
        - images in ``nest``: ``[B |G|, C, H, W]``
        - output: tensors ``[B |G|, ...]``
    """
    values = [value for _, value in nest_leaves(nest, "input")]
    length = next(value.shape[0] for value in values if _is_image(value))
    planes = [value.unflatten(0, (-1, group.order)).unbind(1) if _is_batch(value, length) else None for value in values]
    moves = moves_of(group)
    outputs: dict[int, list[Any]] = {}
    for elements in _of_one_shape(values, moves):
        parts = (
            value if maps is None else _stack([_moved(maps[g], inverse(moves[g])) for g in elements])
            for value, maps in zip(values, planes, strict=True)
        )
        result = operation(rebuild_nest(nest, iter(list(parts))))
        leaves = [value for _, value in nest_leaves(result, "output")]
        split = [
            leaf.unflatten(0, (-1, len(elements))).unbind(1) if isinstance(leaf, Tensor) and leaf.ndim else None
            for leaf in leaves
        ]
        for i, g in enumerate(elements):
            outputs[g] = [
                leaf if maps is None else _moved(maps[i], moves[g]) for leaf, maps in zip(leaves, split, strict=True)
            ]
    joined = (
        _stack(column) if isinstance(column[0], Tensor) and column[0].ndim else column[0]
        for column in map(list, zip(*(outputs[g] for g in range(group.order)), strict=True))
    )
    return rebuild_nest(result, joined)


def on_own_edges(operation: Callable[[Tensor], Tensor], x: Tensor, group: Group, rows: bool, columns: bool) -> Tensor:
    """What `conjugate` does for an operation that treats rows and columns alike: flips are enough.

    Args:
        operation: From images to images, the same if rows and columns change places.
        x: The orbit.
        group: The group.
        rows: Whether flipping the rows matters; it does not where windows leave nothing over.
        columns: The same for the columns.

    Shape:
        - x: ``[B |G|, C, H, W]``
        - output: ``[B |G|, C', H', W']``
    """
    flips = [GridMove(False, move.flip_rows and rows, move.flip_columns and columns) for move in moves_of(group)]
    if not any(any(flip) for flip in flips):
        return operation(x)
    return flip_each(operation(flip_each(x, flips)), flips)


def flip_each(x: Tensor, flips: Sequence[GridMove]) -> Tensor:
    """Every orientation flipped in its own way."""
    maps = x.unflatten(0, (-1, len(flips))).unbind(1)
    return _stack([move_grid(plane, flip) for plane, flip in zip(maps, flips, strict=True)])


def _of_one_shape(values: list[Any], moves: list[GridMove]) -> list[list[int]]:
    """The elements whose upright images have the same shape, together."""
    everything = list(range(len(moves)))
    # An exported program must not ask for the size: it is to run at others.
    if not torch.compiler.is_exporting() and all(v.shape[-2] == v.shape[-1] for v in values if _is_image(v)):
        return [everything]
    halves = [[g for g in everything if moves[g].transpose == transpose] for transpose in (False, True)]
    return [half for half in halves if half]


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _is_batch(value: Any, length: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == length


def _moved(plane: Tensor, move: GridMove) -> Tensor:
    return move_grid(plane, move) if plane.ndim == 4 else plane


def _stack(planes: Sequence[Tensor]) -> Tensor:
    """One plane for each orientation, ``[B, ...]``, as an orbit."""
    return torch.stack(list(planes), dim=1).flatten(0, 1)
