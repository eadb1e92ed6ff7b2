"""Where tiles lie along one axis of an image, and how much each counts; both the same when the axis is reversed."""

import torch
from torch import Tensor

from .._validate import as_int, invalid


def check_tile(tile: int, overlap: int | None) -> tuple[int, int]:
    """The side of a tile and the least overlap of neighbours; None stands for a quarter of the side.

    Raises:
        ValueError: A number is out of its range.
    """
    side = as_int("tile", tile, minimum=1)
    if overlap is None:
        return side, side // 4
    if as_int("overlap", overlap, minimum=0) > side // 2:
        raise invalid("overlap", f"at most {side // 2}, half of tile={side}", overlap)
    return side, overlap


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin: the first at the near end, the last at the far one, neighbours share ``overlap`` or more.

    ``starts[i] + starts[-1 - i] == size - tile``: seen from the other end the tiles lie the same.
    """
    span = size - tile
    if span <= 0:
        return [0]
    count = -(-(size - overlap) // (tile - overlap))
    # An odd number of tiles has one in the middle, and an odd span has no middle pixel for it to begin at.
    count += count % 2 * (span % 2)
    near = [-(-place * span // (count - 1)) for place in range(count // 2)]  # rounded up, so the middle gap is no wider
    middle = [span // 2] if count % 2 else []
    return near + middle + [span - start for start in reversed(near)]


def shares(size: int, tile: int, overlap: int) -> list[Tensor]:
    """How much each tile counts at each of its pixels; over all tiles that see a pixel it sums to one.

    A tile counts nothing within a quarter of the overlap from a side at which it was cut, for there the network sees
    the cut; from there its weight rises over half the overlap. At the image's own border it counts fully.

    Shape:
        - output: for each tile ``[min(tile, size)]``, float64
    """
    begins = starts(size, tile, overlap)
    side = min(tile, size)
    rise = (torch.arange(side, dtype=torch.float64) + 0.5 - overlap / 4) / (overlap / 2) if overlap else None
    weights, total = [], torch.zeros(size, dtype=torch.float64)
    for begin in begins:
        weight = torch.ones(side, dtype=torch.float64)
        if rise is not None and begin > 0:
            weight = weight.minimum(rise)
        if rise is not None and begin + side < size:
            weight = weight.minimum(rise.flip(0))
        weights.append(weight.clamp_(min=0))
        total[begin : begin + side] += weights[-1]
    return [weight / total[begin : begin + side] for begin, weight in zip(begins, weights, strict=True)]
