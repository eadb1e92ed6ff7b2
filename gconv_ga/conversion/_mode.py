"""When pools and interpolation commute with the group, and what they do where they do not."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..actions import leftover
from ..groups import Group
from ._orbit import conjugate, flip_each, moves_of, on_own_edges, tie

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_NAMES: dict[Any, tuple[str, ...]] = {
    F.max_pool2d: _MAX,
    F.max_pool2d_with_indices: _MAX,
    torch.max_pool2d: _MAX,
    F.avg_pool2d: _AVG,
    F.lp_pool2d: ("norm_type", "kernel_size", "stride", "ceil_mode"),
    F.interpolate: ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias"),
}
POOLS = {func for func in _NAMES if func is not F.interpolate}


class Given(dict[str, Any]):
    """The arguments of a call after its input, by name."""

    def __init__(self, func: Callable[..., Any], rest: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(zip(_NAMES[func], rest, strict=False))
        self.update(kwargs)

    def pair(self, name: str, default: Any) -> tuple[Any, Any]:
        """Rows and columns of an argument."""
        value = self.get(name)
        value = default if value is None or value == [] else value
        return (value[0], value[-1]) if isinstance(value, tuple | list | torch.Size) else (value, value)


def pool_on_own_edges(
    func: Callable[..., Any], x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any], group: Group
) -> Any:
    """A pool whose windows start, for each orientation, at the edge that it has turned to."""
    given = Given(func, rest, kwargs)
    kernel, padding, dilation = given.pair("kernel_size", 0), given.pair("padding", 0), given.pair("dilation", 1)
    stride = given.pair("stride", kernel)
    if any(pair[0] != pair[1] for pair in (kernel, stride, padding, dilation)):
        return conjugate(lambda upright: func(upright, **given), x, group)
    # An exported program must not ask for the size: it is to run at others.
    free = torch.compiler.is_exporting() and stride[0] > 1
    window = kernel[0], stride[0], padding[0], dilation[0]
    rows, columns = (free or leftover(n, *window) > 0 for n in x.shape[-2:])
    if not (func is F.max_pool2d_with_indices or given.get("return_indices")):
        return on_own_edges(lambda flipped: func(flipped, **given), x, group, rows, columns)
    flips = [move._replace(transpose=False) for move in moves_of(group)]
    values, indices = func(flip_each(x, flips), **given)
    return flip_each(values, flips), _turn_back(flip_each(indices, flips), flips, x.shape[-2], x.shape[-1])


def _turn_back(indices: Tensor, flips: list[Any], height: int, width: int) -> Tensor:
    """Indices of pixels, as counted on flipped images, on the images as they are."""
    found = []
    for each, flip in zip(indices.unflatten(0, (-1, len(flips))).unbind(1), flips, strict=True):
        row, column = each // width, each % width
        row = height - 1 - row if flip.flip_rows else row
        found.append(row * width + (width - 1 - column if flip.flip_columns else column))
    return torch.stack(found, dim=1).flatten(0, 1)


def commutes(x: Tensor, given: Given) -> bool:
    """Whether an interpolation treats both ends of an axis alike."""
    nearest = given.get("mode", "nearest") in ("nearest", "nearest-exact")
    sizes = x.shape[-2:]
    if given.get("size") is not None:
        wanted = given.pair("size", None)
        # An exported program must not ask for the size: it is to run at others.
        exporting = torch.compiler.is_exporting()
        return not nearest or (not exporting and all(n % m == 0 for n, m in zip(wanted, sizes, strict=True)))
    factors = given.pair("scale_factor", 1)
    if all(factor == int(factor) for factor in factors):
        return True
    # A size that is no whole number is cut, and then the scale counts from one end.
    return not nearest and all(n * factor == int(n * factor) for n, factor in zip(sizes, factors, strict=True))


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
