"""Functions called inside a plain ``forward`` that do not commute with the group, caught and conjugated."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..groups import Group
from ._conjugated import tie
from ._orbit import conjugate, on_own_edges
from ._windows import POOLS, Given, commutes, pool_on_own_edges

_REORDERING = {F.pixel_shuffle, F.pixel_unshuffle, torch.pixel_shuffle, torch.pixel_unshuffle}
_RESHAPES = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout}
_PADS = {F.pad, torch.constant_pad_nd}
_CAUGHT = _REORDERING | _RESHAPES | _DROPOUTS | POOLS | _PADS | {F.interpolate}


class OrbitMode(TorchFunctionMode):
    """Makes plain functions right for an orbit in the batch.

    Pools, interpolation and one-sided padding start at the edge that each orientation has turned to; sub-pixel
    shuffles run on upright images. Flattening an image for a linear layer turns it upright first. Everything else is
    left alone: it commutes, or verification finds it.

    Args:
        group: The group.
        batch: The orbit's length, ``B |G|``; tensors of other lengths are none of its business.
        tied: Whether dropout draws once for all orientations of a sample.
    """

    def __init__(self, group: Group, batch: int, tied: bool) -> None:
        super().__init__()
        self.group = group
        self.batch = batch
        self.tied = tied

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args else kwargs.get("input")
        # A parameter is no orbit, even if it has as many rows.
        if func not in _CAUGHT or not isinstance(x, Tensor) or isinstance(x, nn.Parameter):
            return func(*args, **kwargs)
        rest = args[1:]
        kwargs = {name: value for name, value in kwargs.items() if name != "input"}
        if func in _DROPOUTS:
            return self._drop(func, x, rest, kwargs)
        if func in _RESHAPES:
            return self._reshape(func, x, rest, kwargs)
        if x.ndim != 4 or x.shape[0] != self.batch:
            return func(x, *rest, **kwargs)
        if func in _REORDERING:
            return conjugate(lambda upright: func(upright, *rest, **kwargs), x, self.group)
        if func in POOLS:
            return pool_on_own_edges(func, x, rest, kwargs, self.group)
        if func is F.interpolate:
            given = Given(F.interpolate, rest, kwargs)
            free = not commutes(x, given)
            return on_own_edges(lambda flipped: func(flipped, **given), x, self.group, free, free)
        left, right, top, bottom = [*(rest[0] if rest else kwargs["pad"]), 0, 0, 0, 0][:4]
        sides = top != bottom, left != right
        return on_own_edges(lambda flipped: func(flipped, *rest, **kwargs), x, self.group, *sides)

    def _drop(self, func: Callable[..., Any], x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        training = kwargs.get("training", kwargs.get("train", rest[1] if len(rest) > 1 else True))
        if not (self.tied and training and x.ndim and x.shape[0] == self.batch):
            return func(x, *rest, **kwargs)
        return tie(lambda ones: func(ones, *rest, **kwargs), x, self.group)

    def _reshape(self, func: Callable[..., Any], x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = func(x, *rest, **kwargs)
        vectors = x.ndim == 4 and isinstance(plain, Tensor) and plain.ndim == 2
        if not vectors or not (x.shape[0] == plain.shape[0] == self.batch) or x.shape[-2:] == (1, 1):
            return plain
        # Upright images are no views of x any more, so `view` would refuse them.
        return conjugate(lambda upright: upright.flatten(1), x, self.group)
