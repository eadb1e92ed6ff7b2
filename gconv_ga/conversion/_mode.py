"""Functions called inside a plain ``forward`` that do not commute with the group, caught and conjugated."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..groups import Group
from ._conjugated import tie
from ._orbit import conjugate, on_own_edges
from ._windows import POOLS, Given, commutes, pool_on_own_edges

_REORDERING = {F.pixel_shuffle, F.pixel_unshuffle, torch.pixel_shuffle, torch.pixel_unshuffle}
_RESHAPES = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}
_DROPOUTS = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout}


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
        if not isinstance(x, Tensor) or x.ndim == 0 or x.shape[0] != self.batch:
            return func(*args, **kwargs)
        rest = args[1:]
        kwargs = {name: value for name, value in kwargs.items() if name != "input"}
        if self.tied and func in _DROPOUTS:
            training = kwargs.get("training", kwargs.get("train", rest[1] if len(rest) > 1 else True))
            return tie(lambda ones: func(ones, *rest, **kwargs), x, self.group) if training else x
        if x.ndim != 4:
            return func(x, *rest, **kwargs)
        if func in _RESHAPES:
            return self._reshape(func, x, rest, kwargs)
        if func in _REORDERING:
            return conjugate(lambda upright: func(upright, *rest, **kwargs), x, self.group)
        if func in POOLS:
            return pool_on_own_edges(func, x, rest, kwargs, self.group)
        if func is F.interpolate:
            given = Given(F.interpolate, rest, kwargs)
            free = not commutes(x, given)
            return on_own_edges(lambda flipped: func(flipped, **given), x, self.group, free, free)
        if func is F.pad or func is torch.constant_pad_nd:
            left, right, top, bottom = [*(rest[0] if rest else kwargs["pad"]), 0, 0, 0, 0][:4]
            sides = top != bottom, left != right
            return on_own_edges(lambda flipped: func(flipped, *rest, **kwargs), x, self.group, *sides)
        return func(x, *rest, **kwargs)

    def _reshape(self, func: Callable[..., Any], x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = func(x, *rest, **kwargs)
        vectors = isinstance(plain, Tensor) and plain.ndim == 2 and plain.shape[0] == self.batch
        if not vectors or x.shape[-2:] == (1, 1):
            return plain
        # Upright images are no views of x any more, so `view` would refuse them.
        return conjugate(lambda upright: upright.flatten(1), x, self.group)
