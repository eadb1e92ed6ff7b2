"""The two sides of an equation, and their distance from each other."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import wrong_shape


class Sides(NamedTuple):
    """The two sides of an equation, computed independently of each other.

    Args:
        left: The left-hand side.
        right: The right-hand side.

    Shape:
        - left: any
        - right: the same

    Example:
        >>> import torch
        >>> from gconv_ga.identities import Sides
        >>> Sides(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 3.0])).error
        0.25
    """

    left: Tensor
    right: Tensor

    @property
    def error(self) -> float:
        """The largest difference relative to the largest value, ``max |left - right| / max(|left|, |right|)``.

        It is NaN if a side contains NaN, and if both sides are zero, since two zeros prove nothing. Test
        ``error <= tolerance``, which is False for NaN.

        Raises:
            ValueError: The sides have different shapes.
        """
        return relative_difference(self.left, self.right)


def relative_difference(left: Tensor, right: Tensor) -> float:
    """Return ``max |left - right| / max(|left|, |right|)`` in float64; NaN where `Sides.error` says so.

    Raises:
        ValueError: The shapes differ.
    """
    if left.shape != right.shape:
        raise wrong_shape("left", f"of the shape of right, {tuple(right.shape)}", left)
    left, right = (side.detach().to(torch.promote_types(side.dtype, torch.float64)) for side in (left, right))
    if left.numel() == 0:
        return float("nan")
    return ((left - right).abs().max() / torch.maximum(left.abs().max(), right.abs().max())).item()
