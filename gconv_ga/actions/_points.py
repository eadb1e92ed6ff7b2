"""Actions on coordinates: points of the plane, and keypoints and boxes of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from .._validate import as_int, invalid, wrong_shape
from ..groups import Group, as_group
from ._fields import Action, grid_move, linear_combination, require_signed


@dataclass(frozen=True)
class Points(Action):
    """The action on points of the plane about the origin: ``L_g x = R_g x``.

    Coordinates are ``(x, y)``, x to the right and y **up**, so that index 1 rotates counter-clockwise. Further
    coordinates do not change: in three dimensions the group rotates about the third axis.

    Shape:
        - x: ``[..., N, d]``, d >= 2
        - output: ``[..., N, d]``

    Raises:
        ValueError: ``x`` has fewer than two axes or fewer than two coordinates, or its type is unsigned.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Points
        >>> from gconv_ga.groups import C4
        >>> Points()(torch.tensor([[1.0, 2.0]]), C4, 1)
        tensor([[-2.,  1.]])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        if x.ndim < 2 or x.shape[-1] < 2:
            raise wrong_shape("x", "[..., N, d] with d >= 2", x)
        require_signed(x)
        group = as_group(group)
        (xx, xy), (yx, yy) = group.matrix(element)
        first, second, *others = x.unbind(-1)
        plane = linear_combination(xx, first, xy, second), linear_combination(yx, first, yy, second)
        return torch.stack((*plane, *others), dim=-1)


@dataclass(frozen=True)
class _ImageCoordinates(Action):
    """Base class for coordinates in an image of ``size = (H, W)``."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        if not isinstance(self.size, Sequence) or isinstance(self.size, str) or len(self.size) != 2:
            raise invalid("size", "the image's (H, W)", self.size)
        size = (as_int("size", self.size[0], minimum=1), as_int("size", self.size[1], minimum=1))
        object.__setattr__(self, "size", size)

    def after(self, group: Group | str, element: int) -> Self:
        """Return the same action for the moved image; a rotation by 90 degrees has swapped its height and width."""
        group = as_group(group)
        swapped = group.is_exact(element) and grid_move(group, element).transpose
        return replace(self, size=self.size[::-1]) if swapped else self

    def _move(self, x: Tensor, y: Tensor, group: Group, element: int, last: int) -> tuple[Tensor, Tensor]:
        """Move columns ``x`` and rows ``y``; a reflection sends column ``c`` to ``W - last - c``."""
        require_signed(x)
        height, width = self.after(group, element).size
        if group.is_exact(element):
            move = grid_move(group, element)
            if move.transpose:
                x, y = y, x
            return (width - last - x if move.flip_columns else x), (height - last - y if move.flip_rows else y)
        (xx, xy), (yx, yy) = group.matrix(element)
        middle_x, middle_y = (width - last) / 2, (height - last) / 2
        # y points down here and up in the matrix.
        right, down = x - middle_x, y - middle_y
        return (
            linear_combination(xx, right, -xy, down) + middle_x,
            linear_combination(-yx, right, yy, down) + middle_y,
        )


@dataclass(frozen=True)
class Keypoints(_ImageCoordinates):
    """The action on positions in an image: pixel coordinates ``(x, y)``, column before row.

    The **centre** of the pixel in row ``i`` and column ``j`` is ``(j, i)``, as in `torchvision.tv_tensors.KeyPoints`:
    a reflection sends ``x`` to ``W - 1 - x``. Angles off the grid rotate about the centre of the image on the same
    canvas, as `ScalarField` does.

    Args:
        size: The image's ``(H, W)`` in pixels before it is moved. The action for the moved image is
            ``action.after(group, element)``.

    Shape:
        - x: ``[..., 2]``
        - output: ``[..., 2]``

    Raises:
        ValueError: ``size`` is not a pair of positive ints, the last axis does not have two entries, or the type of
            ``x`` is unsigned.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Keypoints
        >>> from gconv_ga.groups import C4
        >>> Keypoints((2, 3))(torch.tensor([[2.0, 0.0]]), C4, 1)  # the upper right corner goes to the upper left
        tensor([[0., 0.]])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != 2:
            raise wrong_shape("x", "[..., 2] of pixel coordinates (x, y)", x)
        column, row = x.unbind(-1)
        return torch.stack(self._move(column, row, as_group(group), element, last=1), dim=-1)


@dataclass(frozen=True)
class Boxes(_ImageCoordinates):
    """The action on boxes in an image: ``(x1, y1, x2, y2)`` in pixels, column before row.

    Coordinates are **edges**, as in `torchvision.tv_tensors.BoundingBoxes`: the whole image is ``(0, 0, W, H)`` and a
    reflection sends ``x`` to ``W - x``. At angles off the grid the result is the smallest axis-aligned box around the
    rotated one. Such boxes grow with every rotation, so the composition law does not hold for them.

    Args:
        size: The image's ``(H, W)`` in pixels before it is moved.

    Shape:
        - x: ``[..., 4]``
        - output: ``[..., 4]``

    Raises:
        ValueError: ``size`` is not a pair of positive ints, the last axis does not have four entries, or the type of
            ``x`` is unsigned.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Boxes
        >>> from gconv_ga.groups import C4
        >>> Boxes((2, 3))(torch.tensor([[0.0, 0.0, 3.0, 1.0]]), C4, 1)
        tensor([[0., 0., 1., 3.]])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != 4:
            raise wrong_shape("x", "[..., 4] of box edges (x1, y1, x2, y2)", x)
        # All four corners: at angles off the grid two are not enough.
        columns, rows = self._move(x[..., [0, 2, 0, 2]], x[..., [1, 3, 3, 1]], as_group(group), element, last=0)
        return torch.stack((columns.amin(-1), rows.amin(-1), columns.amax(-1), rows.amax(-1)), dim=-1)
