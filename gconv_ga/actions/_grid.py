"""The pixel grid: rotations by multiples of 90 degrees and reflections as permutations, and what strides leave over."""

from typing import NamedTuple

from torch import Tensor

from .._validate import invalid
from ..groups import Group, as_group


class GridMove(NamedTuple):
    """A rotation by a multiple of 90 degrees or a reflection as a permutation of the pixel grid.

    The last two axes are transposed first; then the rows are flipped, then the columns.

    Args:
        transpose: Whether rows become columns.
        flip_rows: Whether the order of the rows is then reversed.
        flip_columns: Whether the order of the columns is then reversed.

    Example:
        >>> from gconv_ga.actions import grid_move
        >>> from gconv_ga.groups import C4
        >>> grid_move(C4, 1)  # what torch.rot90 does
        GridMove(transpose=True, flip_rows=True, flip_columns=False)
    """

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    @property
    def inverse(self) -> "GridMove":
        """The move that undoes this one: after a transposition, rows and columns have changed places."""
        return GridMove(True, self.flip_columns, self.flip_rows) if self.transpose else self


def grid_move(group: Group | str, element: int) -> GridMove:
    """Return the permutation of the pixel grid for a group element, ``(L_g f)(y) = f(g^-1 y)``.

    Args:
        group: The group or its name.
        element: Index of a rotation by a multiple of 90 degrees, with or without a reflection
            (``group.is_exact(element)``).

    Raises:
        ValueError: The element rotates by another angle, or it is not an element of the group.

    Example:
        >>> from gconv_ga.actions import grid_move
        >>> grid_move("D4", 4)  # the reflection
        GridMove(transpose=False, flip_rows=False, flip_columns=True)
    """
    group = as_group(group)
    if not group.is_exact(element):
        advice = "other angles need interpolation"
        raise invalid("element", f"a multiple of 90 degrees in {group.name}", element, advice)
    (xx, xy), (yx, yy) = group.matrix(element)
    # Rows count downwards while the matrix has y up: seen from the grid the off-diagonal entries change sign.
    return GridMove(xx == 0, flip_rows=yy - yx < 0, flip_columns=xx - xy < 0)


def move_grid(x: Tensor, move: GridMove) -> Tensor:
    """Apply a grid move to the last two axes of a tensor, without making the result contiguous.

    Args:
        x: An image, or any tensor whose last two axes are pixels.
        move: The grid move.

    Shape:
        - x: ``[..., H, W]``
        - output: ``[..., W, H]`` if the move transposes, else ``[..., H, W]``

    Example:
        >>> import torch
        >>> from gconv_ga.actions import grid_move, move_grid
        >>> from gconv_ga.groups import D4
        >>> x = torch.arange(6).view(2, 3)
        >>> torch.equal(move_grid(x, grid_move(D4, 4)), x.flip(-1))
        True
    """
    if move.transpose:
        x = x.transpose(-2, -1)
    axes = [axis for axis, flip in ((-2, move.flip_rows), (-1, move.flip_columns)) if flip]
    return x.flip(axes) if axes else x


def leftover(size: int, kernel: int, stride: int, padding: int | tuple[int, int], dilation: int) -> int:
    """Return the number of pixels at the end of an axis that no window covers.

    Args:
        size: Number of pixels along the axis.
        kernel: Number of taps of the window.
        stride: Distance between windows in pixels.
        padding: Number of pixels added at both ends, or a pair for the start and the end. Negative numbers crop.
        dilation: Distance between taps in pixels.

    Example:
        >>> from gconv_ga.actions import leftover
        >>> leftover(32, kernel=3, stride=2, padding=1, dilation=1), leftover(33, 3, 2, 1, 1)
        (1, 0)
    """
    return _last_start(size, kernel, padding, dilation) % stride


def good_sizes_near(
    size: int, kernel: int, stride: int, padding: int | tuple[int, int], dilation: int
) -> tuple[int, int]:
    """Return the nearest sizes at or below ``size`` and at or above it that leave no pixel over.

    Both are ``size`` if it leaves none over itself. If no smaller size is good (a window must fit), both are the larger
    one.

    Args:
        size: Number of pixels along the axis.
        kernel: Number of taps of the window.
        stride: Distance between windows in pixels.
        padding: Number of pixels added at both ends, or a pair for the start and the end.
        dilation: Distance between taps in pixels.

    Example:
        >>> from gconv_ga.actions import good_sizes_near
        >>> good_sizes_near(32, kernel=3, stride=2, padding=1, dilation=1)
        (31, 33)
    """
    smallest = max(1, size - _last_start(size, kernel, padding, dilation))
    rest = leftover(size, kernel, stride, padding, dilation)
    below, above = size - rest, size + (stride - rest) % stride
    if above < smallest:
        above += -(-(smallest - above) // stride) * stride
    return (below if below >= smallest else above), above


def _last_start(size: int, kernel: int, padding: int | tuple[int, int], dilation: int) -> int:
    """Return the start of the last window of stride 1 on the padded axis; negative if no window fits."""
    low, high = (padding, padding) if isinstance(padding, int) else padding
    return size + low + high - dilation * (kernel - 1) - 1
