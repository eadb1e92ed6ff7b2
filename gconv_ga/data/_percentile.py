"""A percentile of an image that is read piece by piece."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

HALF = 2**16  # values of half of the 32 bits


def rank_of(count: int, percentile: float) -> int:
    """The place of the percentile among so many sorted values, from 1 on."""
    return max(1, math.ceil(percentile / 100 * count))


def piecewise_percentile(pieces: Callable[[], Iterable[Tensor]], percentile: float) -> Tensor:
    """The value of the image itself that so many percent do not exceed, as float32; no more than a piece is held.

    Values are counted by the upper half of their bits, which are put in the order of the numbers, and then by the lower
    half those that agree with the wanted one in the upper. Of 8 and 16 bits there is no lower half to be read for.

    Args:
        pieces: Reads the image anew, in parts that hold each pixel once.
        percentile: Above 0, up to 100.

    Shape:
        - output: a scalar
    """
    counts, small = torch.zeros(HALF, dtype=torch.int64), True
    for piece in pieces():
        small = piece.dtype in (torch.uint8, torch.uint16)
        keys = piece.flatten().to(torch.int64) if small else _keys(piece) // HALF
        counts += keys.bincount(minlength=HALF)
    rank = rank_of(int(counts.sum()), percentile)
    upper = int(torch.searchsorted(counts.cumsum(0), rank))
    if small:
        return torch.tensor(float(upper))
    rank -= int(counts[:upper].sum())
    counts.zero_()
    for piece in pieces():
        keys = _keys(piece)
        counts += (keys[keys // HALF == upper] % HALF).bincount(minlength=HALF)
    return _number(upper * HALF + int(torch.searchsorted(counts.cumsum(0), rank)))


def _keys(piece: Tensor) -> Tensor:
    """Whole numbers from 0 up in the order of the values as float32."""
    bits = piece.flatten().to(torch.float32).view(torch.int32).to(torch.int64)
    # As whole numbers the bits of negative values run the other way.
    return torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + 2**31


def _number(key: int) -> Tensor:
    value = key - 2**31
    bits = value if value >= 0 else -1 - value - 2**31
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32)
