"""Vectors of the plane under a 2 x 2 matrix, without rounding where the matrix needs none."""

from torch import Tensor

from .._validate import invalid


def combine(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """``a x + b y``; factors 0, 1 and -1 multiply nothing, so that quarter turns keep integers, infinities and bits."""
    if b == 0:
        return _times(a, x)
    return _times(b, y) if a == 0 else a * x + b * y


def _times(a: float, x: Tensor) -> Tensor:
    if a == 1:
        return x
    return -x if a == -1 else a * x


def refuse_unsigned(x: Tensor) -> None:
    """Refuse vectors and coordinates that cannot change their sign.

    Raises:
        ValueError: ``x`` is of an unsigned integer type or bool.
    """
    if not x.dtype.is_signed:
        raise invalid("x", "of a type with negative numbers", x, "convert it to floating point")
