"""Functions called inside a plain ``forward`` that do not commute with the group, caught and conjugated."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..actions import leftover
from ..groups import Group
from ._orbit import conjugate

_POOLS = {
    F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d, F.avg_pool2d, F.lp_pool2d,
}  # fmt: skip
_REORDERING = {F.pixel_shuffle, F.pixel_unshuffle, torch.pixel_shuffle, torch.pixel_unshuffle}
_RESHAPES = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}


class OrbitMode(TorchFunctionMode):
    """Makes plain functions right for an orbit in the batch.

    Pools, nearest interpolation, sub-pixel shuffles and one-sided padding are conjugated. Flattening an image for a
    linear layer turns it upright first. Everything else is left alone: it commutes, or verification finds it.

    Args:
        group: The group.
        batch: The orbit's length, ``B |G|``; tensors of other lengths are none of its business.
    """

    def __init__(self, group: Group, batch: int) -> None:
        super().__init__()
        self.group = group
        self.batch = batch

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[0] != self.batch:
            return func(*args, **kwargs)
        if "input" in kwargs:
            kwargs = {name: value for name, value in kwargs.items() if name != "input"}
        rest = args[1:]
        if func in _RESHAPES:
            return self._reshape(func, x, rest, kwargs)
        if func is F.interpolate:
            return self._interpolate(x, rest, kwargs)
        if func is F.pad or func is torch.constant_pad_nd:
            return self._pad(func, x, rest, kwargs)
        if func in _REORDERING or (func in _POOLS and not _aligned(x, rest, kwargs)):
            return conjugate(lambda upright, _: func(upright, *rest, **kwargs), x, self.group)
        return func(x, *rest, **kwargs)

    def _reshape(self, func: Callable[..., Any], x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = func(x, *rest, **kwargs)
        vectors = isinstance(plain, Tensor) and plain.ndim == 2 and plain.shape[0] == self.batch
        if not vectors or x.shape[-2:] == (1, 1):
            return plain
        # Upright images are no views of x any more, so `view` would refuse them.
        return conjugate(lambda upright, _: upright.flatten(1), x, self.group)

    def _interpolate(self, x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
        given = dict(zip(names, rest, strict=False)) | kwargs
        if _interpolation_commutes(x, given):
            return F.interpolate(x, **given)

        def upright_interpolate(upright: Tensor, swapped: bool) -> Tensor:
            # A wanted size was read off tensors in the image's frame.
            return F.interpolate(upright, **{k: _swap(v, swapped and k == "size") for k, v in given.items()})

        return conjugate(upright_interpolate, x, self.group)

    def _pad(self, func: Callable[..., Any], x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        amounts = list(rest[0] if rest else kwargs["pad"])
        left, right, top, bottom = [*amounts, 0, 0, 0, 0][:4]
        if len(amounts) > 4 or (left == right and top == bottom):
            return func(x, *rest, **kwargs)
        options = {name: value for name, value in kwargs.items() if name != "pad"}

        def upright_pad(upright: Tensor, swapped: bool) -> Any:
            ends = [top, bottom, left, right] if swapped else [left, right, top, bottom]
            return func(upright, ends, *rest[1:], **options)

        return conjugate(upright_pad, x, self.group)


def _swap(pair: Any, swapped: bool) -> Any:
    return tuple(pair)[::-1] if swapped and isinstance(pair, tuple | list | torch.Size) else pair


def _aligned(x: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a square pool leaves nothing over, so that all orientations agree."""
    given = dict(zip(("kernel_size", "stride", "padding"), rest, strict=False)) | kwargs
    numbers = [given.get("kernel_size"), given.get("stride") or given.get("kernel_size"), given.get("padding", 0)]
    pairs = [tuple(n) if isinstance(n, tuple | list) else (n, n) for n in numbers]
    if any(len(set(pair)) != 1 or not isinstance(pair[0], int) for pair in pairs) or len(rest) > 3:
        return False
    if set(kwargs) - {"kernel_size", "stride", "padding", "ceil_mode", "return_indices", "dilation"}:
        return False
    dilation = kwargs.get("dilation", 1)
    if not isinstance(dilation, int):
        return False
    kernel, stride, padding = (pair[0] for pair in pairs)
    return not any(leftover(n, kernel, stride, padding, dilation) for n in x.shape[-2:])


def _interpolation_commutes(x: Tensor, given: dict[str, Any]) -> bool:
    size, factor, mode = given.get("size"), given.get("scale_factor"), given.get("mode", "nearest")
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else tuple(size)
    else:
        factors = (factor, factor) if isinstance(factor, int | float) else tuple(factor or ())
        if len(factors) != 2 or factors[0] != factors[1]:
            return False
        wanted = tuple(n * f for n, f in zip(x.shape[-2:], factors, strict=True))
    # A size that is no whole number is cut, and then the scale counts from one end.
    if any(n != int(n) for n in wanted):
        return False
    if mode in ("nearest", "nearest-exact"):
        return all(n % m == 0 for n, m in zip(wanted, x.shape[-2:], strict=True))
    return True
