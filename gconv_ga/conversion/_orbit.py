"""The orbit in the batch: `[B |G|, C, H, W]`, sample by sample, all orientations in the image's own frame.

Between the layers of a converted network the map of element ``g`` is ``L_g`` of what the plain network computes on
``L_g^-1 x``. So every operation becomes ``L_g o operation o L_g^-1``, all maps keep the image's height and width, and
nothing has to be turned back at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from .._validate import invalid
from ..actions import (
    Action,
    GridMove,
    Invariant,
    LabelMask,
    Leaf,
    ScalarField,
    grid_move,
    move_grid,
    nest_leaves,
    rebuild_nest,
)
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


class ConjugatedForward:
    """A module's ``forward``, replaced: ``L_g module(L_g^-1 x_g)`` for all images that it is given.

    Exact for every module from images to images or to numbers. A call without images, or one that tells a size, which
    is that of images which are not upright, it leaves to the module and to `OrbitMode`. It takes the place of the
    instance's ``forward``, so that class, parameters, names and hooks stay.
    """

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.group = group

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        images = [x for _, x in nest_leaves((args, kwargs), "input") if isinstance(x, Tensor) and x.ndim == 4]
        if not images or _tells_size((args, kwargs)):
            return type(self.module).forward(self.module, *args, **kwargs)
        return run_conjugated(images[0], self.module, self.group, args, kwargs)


def run_conjugated(image: Tensor, module: nn.Module, group: Group, args: Any, kwargs: Any) -> Any:
    """The module on upright images. Under `OrbitMode` it runs outside of it: here images are upright already."""
    if has_torch_function((image,)):
        return handle_torch_function(run_conjugated, (image,), image, module, group, args, kwargs)
    return conjugate(lambda nest: type(module).forward(module, *nest[0], **nest[1]), (args, kwargs), group)


def _tells_size(nest: Any) -> bool:
    """Whether there is a sequence of ints in it."""
    if isinstance(nest, Mapping):
        return any(_tells_size(part) for part in nest.values())
    if isinstance(nest, tuple | list):
        sized = len(nest) > 1 and all(isinstance(part, int | SymInt) for part in nest)
        return sized or any(_tells_size(part) for part in nest)
    return False


class TiedForward:
    """A random drop's ``forward``, replaced: one draw for each sample, the same for all its orientations."""

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.group = group

    def __call__(self, x: Tensor) -> Any:
        def drop(ones: Tensor) -> Any:
            return type(self.module).forward(self.module, ones)

        return tie(drop, x, self.group) if self.module.training else drop(x)


def tie(drop: Any, x: Tensor, group: Group) -> Tensor:
    """``x`` times one draw for each sample.

    Args:
        drop: What multiplies a tensor by a random mask.
        x: ``[B |G|, ...]``.
        group: The group.
    """
    one = x.unflatten(0, (-1, group.order))[:, 0]
    drawn: Tensor = drop(one.new_ones(one.shape))
    return x * drawn.repeat_interleave(group.order, 0)


def check_in_action(actions: Any) -> None:
    """Refuse actions on inputs that move something other than pixels and components.

    Raises:
        ValueError: There is one.
    """
    for name, action in nest_leaves(actions, "in_action"):
        if not isinstance(action, ScalarField | LabelMask | Invariant):
            advice = "coordinates of another frame do not fit an image that is not turned; use GroupAverage"
            raise invalid(name, "an action on images, or 'invariant'", action, advice)


def orbit_of(leaf: Leaf, group: Group) -> Any:
    """An input for all orientations, ``[B |G|, ...]``; what is no tensor stays."""
    x, action = leaf.value, leaf.action
    if not isinstance(x, Tensor) or x.ndim == 0:
        return x
    if not isinstance(action, ScalarField) or type(action) is ScalarField:
        return to_orbit(x, group)
    turned = [_turn_components(action, x, group, group.inverse(g)) for g in range(group.order)]
    return torch.stack(turned, dim=1).flatten(0, 1)


def in_the_image_frame(leaf: Leaf, group: Group) -> Tensor:
    """``[B, |G|, ...]``: what each orientation says of the image as it is.

    Shape:
        - leaf: ``[B |G|, ...]``
        - output: ``[B, |G|, ...]``
    """
    maps: Tensor = leaf.value.unflatten(0, (-1, group.order))
    action = leaf.action
    if isinstance(action, Invariant) or type(action) is ScalarField:
        return maps
    turned = []
    for g, y in enumerate(maps.unbind(1)):
        if isinstance(action, ScalarField):
            turned.append(_turn_components(action, y, group, g))
        else:
            # What the model saw was turned back by g: an action that knows the image's size starts from there.
            turned.append(action.after(group, group.inverse(g))(y, group, g))
    return torch.stack(turned, dim=1)


def _turn_components(action: Action, x: Tensor, group: Group, element: int) -> Tensor:
    """``L_g`` of every pixel by itself, as an image of one pixel."""
    pixels = x.movedim((-2, -1), (1, 2))
    return action(pixels[..., None, None], group, element)[..., 0, 0].movedim((1, 2), (-2, -1))
