"""When pools and interpolation commute with the group, and what they do where they do not."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..actions import leftover
from ..groups import Group
from ._orbit import conjugate, flip_each, moves_of, on_own_edges

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
