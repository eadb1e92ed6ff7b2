"""Two sides of an equation, and how far they are apart."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import wrong_shape


def relative_difference(left: Tensor, right: Tensor) -> float:
    """``max |left - right| / max(|left|, |right|)``.

    NaN where either side has one, and where both are zero: two zeros are no evidence of anything. Ask for
    ``error <= tolerance``, which a NaN fails.

    Raises:
        ValueError: The shapes differ.
    """
    if left.shape != right.shape:
        raise wrong_shape("left", f"of the shape of right, {tuple(right.shape)}", left)
    left, right = (side.detach().to(torch.promote_types(side.dtype, torch.float64)) for side in (left, right))
    if left.numel() == 0:
        return float("nan")
    return ((left - right).abs().max() / torch.maximum(left.abs().max(), right.abs().max())).item()


class Sides(NamedTuple):
    """Both sides of an equation, computed by different roads.

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
        """The largest difference relative to the largest value; NaN if a side holds one, or if both are zero.

        Raises:
            ValueError: The sides have different shapes.
        """
        return relative_difference(self.left, self.right)
