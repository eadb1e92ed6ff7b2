"""Turning a pixel grid by index moves: quarter turns and mirrors, no interpolation."""

from typing import NamedTuple

from torch import Tensor

from .._validate import invalid
from ..groups import Group, as_group


class GridMove(NamedTuple):
    """A quarter turn or mirror as index moves: first transpose the last two axes, then flip rows, then columns.

    Args:
        transpose: Whether rows become columns.
        flip_rows: Whether the rows then change their order.
        flip_columns: Whether the columns then change their order.

    Example:
        >>> from gconv_ga.actions import grid_move
        >>> from gconv_ga.groups import C4
        >>> grid_move(C4, 1)  # what torch.rot90 does
        GridMove(transpose=True, flip_rows=True, flip_columns=False)
    """

    transpose: bool
    flip_rows: bool
    flip_columns: bool


def grid_move(group: Group | str, element: int) -> GridMove:
    """The index moves of an element, ``(L_g f)(y) = f(g^-1 y)``.

    Args:
        group: The group or its name.
        element: A multiple of 90 degrees, mirrored or not (``group.is_exact(element)``).

    Raises:
        ValueError: The element turns pixels between pixels, or it is no element.

    Example:
        >>> from gconv_ga.actions import grid_move
        >>> grid_move("D4", 4)  # the mirror
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
    """``x`` with its last two axes moved; the strides are whatever the moves leave.

    Args:
        x: An image, or anything else with pixels in its last two axes.
        move: The index moves.

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
    """How many pixels at the end of an axis no window reaches.

    Args:
        size: Pixels of the axis.
        kernel: Taps of the window.
        stride: Pixels from window to window.
        padding: Pixels added at both ends, or a pair for the start and the end; negative to crop.
        dilation: Pixels from tap to tap.

    Example:
        >>> from gconv_ga.actions import leftover
        >>> leftover(32, kernel=3, stride=2, padding=1, dilation=1), leftover(33, 3, 2, 1, 1)
        (1, 0)
    """
    return _last_start(size, kernel, padding, dilation) % stride


def good_sizes_near(
    size: int, kernel: int, stride: int, padding: int | tuple[int, int], dilation: int
) -> tuple[int, int]:
    """The nearest sizes at and below ``size``, and at and above it, that leave nothing over.

    Both are ``size`` if it is good itself. Where nothing below is good (a window must fit), both are the one above.

    Args:
        size: Pixels of the axis.
        kernel: Taps of the window.
        stride: Pixels from window to window.
        padding: Pixels added at both ends, or a pair for the start and the end.
        dilation: Pixels from tap to tap.

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
    """Where the last window of stride 1 starts on the padded axis; negative if none fits."""
    low, high = (padding, padding) if isinstance(padding, int) else padding
    return size + low + high - dilation * (kernel - 1) - 1
