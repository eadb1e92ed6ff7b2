"""Actions on fields over the image plane: scalar fields, vector fields, feature maps on the group and label masks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ..groups import Group, as_group
from ._action import Action, linear_combination, require_signed
from ._grid import grid_move, move_grid


@dataclass(frozen=True)
class ScalarField(Action):
    """The action on images: ``(L_g f)(y) = f(g^-1 y)``.

    Multiples of 90 degrees and reflections permute pixels (a rotation by 90 degrees takes ``H x W`` to ``W x H``). Any
    other angle is interpolated about the centre of the image on the same ``H x W`` canvas: the corners leave the
    canvas, and rotating forth and back does not restore the image. The two rules agree on square images; on others,
    angles off the grid do not compose.

    Args:
        interpolation: "bilinear", "bicubic" or "nearest", for angles off the grid. Bicubic keeps the image sharper
            but is not more accurate where the image is smooth: on three broad bumps, 65 pixels wide, the largest error
            is 0.3 % of the largest value for bilinear and 0.5 % for bicubic.
        border: Values outside the image: "zeros", "border" or "reflection", as in
            `torch.nn.functional.grid_sample`.

    Shape:
        - x: ``[..., H, W]``, floating point (any dtype for multiples of 90 degrees and reflections)
        - output: ``[..., H, W]`` or ``[..., W, H]``

    Raises:
        ValueError: An option is not one of those listed, ``x`` has fewer than two axes, or ``x`` holds integers and
            the angle is off the grid.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import ScalarField
        >>> from gconv_ga.groups import C8
        >>> ScalarField()(torch.ones(2, 3, 9, 9), C8, 1).shape
        torch.Size([2, 3, 9, 9])
    """

    interpolation: str = "bilinear"
    border: str = "zeros"

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, ("bilinear", "bicubic", "nearest"))
        one_of("border", self.border, ("zeros", "border", "reflection"))

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        group = as_group(group)
        if x.ndim < 2:
            raise wrong_shape("x", "[..., H, W]", x)
        if group.is_exact(element):
            return move_grid(x, grid_move(group, element)).contiguous()
        if not x.is_floating_point():
            raise invalid("x", "floating point at angles off the grid", x, "use LabelMask for class indices")
        columns, rows = _source_positions(group, element, like=x)
        return _interpolate(x, columns, rows, self.interpolation, self.border)


@dataclass(frozen=True)
class VectorField(ScalarField):
    """The action on fields of plane vectors (optical flow, gradients): the components rotate with the pixels.

    ``(L_g v)(y) = R_g v(g^-1 y)``. Components follow the pixel axes, as in optical flow: ``x`` along the columns, ``y``
    **down** the rows. The channels hold one vector after another: ``x0, y0, x1, y1, ...``.

    Args:
        interpolation: As for `ScalarField`.
        border: As for `ScalarField`.
        order: Order of the components: "xy", or "yx" for the component down the rows first (as in `torch.gradient`
            over the last two axes).

    Shape:
        - x: ``[..., 2 m, H, W]``
        - output: ``[..., 2 m, H, W]`` or ``[..., 2 m, W, H]``

    Raises:
        ValueError: An option is not one of those listed, the number of channels is odd, or the type of ``x`` has no
            negative numbers (unsigned integers, bool).

    Example:
        >>> import torch
        >>> from gconv_ga.actions import VectorField
        >>> from gconv_ga.groups import C4
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> VectorField()(right, C4, 1).flatten()  # rotated by 90 degrees: now up, against the rows
        tensor([ 0., -1.])
    """

    order: str = "xy"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("order", self.order, ("xy", "yx"))

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        group = as_group(group)
        if x.ndim < 3 or x.shape[-3] % 2:
            raise wrong_shape("x", "[..., 2 m, H, W] of vectors with two components", x)
        require_signed(x)
        moved = super().__call__(x, group, element).unflatten(-3, (-1, 2))
        (xx, xy), (yx, yy) = group.matrix(element)
        # y points down here and up in the matrix. With "yx" both rows and columns of the matrix swap.
        xy, yx = -xy, -yx
        if self.order == "yx":
            xx, xy, yx, yy = yy, yx, xy, xx
        first, second = moved.unbind(-3)
        components = linear_combination(xx, first, xy, second), linear_combination(yx, first, yy, second)
        return torch.stack(components, dim=-3).flatten(-4, -3)


@dataclass(frozen=True)
class RegularField(ScalarField):
    """The action on feature maps on the group: ``(L_g f)(y, h) = f(g^-1 y, g^-1 h)``.

    Every map rotates, and the element axis is permuted.

    Args:
        interpolation: As for `ScalarField`.
        border: As for `ScalarField`.

    Shape:
        - x: ``[..., |G|, H, W]``, in layers ``[B, C, |G|, H, W]``
        - output: ``[..., |G|, H, W]`` or ``[..., |G|, W, H]``

    Raises:
        ValueError: The element axis does not have ``|G|`` entries.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import RegularField
        >>> from gconv_ga.groups import C4
        >>> RegularField()(torch.arange(4.0).view(1, 1, 4, 1, 1), C4, 1).flatten()
        tensor([3., 0., 1., 2.])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        group = as_group(group)
        if x.ndim < 3 or x.shape[-3] != group.order:
            raise wrong_shape("x", f"[..., |G|={group.order}, H, W]", x)
        moved = super().__call__(x, group, element)
        inverse = group.inverse(element)
        sources = torch.tensor([group.product(inverse, h) for h in range(group.order)], device=x.device)
        return moved.index_select(-3, sources)


@dataclass(frozen=True)
class LabelMask(Action):
    """The action on class indices: that of `ScalarField`, reading the nearest pixel at angles off the grid.

    Args:
        fill: Class index outside the image, such as the ``ignore_index`` of a loss.

    Shape:
        - x: ``[..., H, W]``, any dtype
        - output: ``[..., H, W]`` or ``[..., W, H]``

    Raises:
        ValueError: ``fill`` is not an int or does not fit the dtype of ``x``, or ``x`` has fewer than two axes.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import LabelMask
        >>> from gconv_ga.groups import C8
        >>> LabelMask(fill=255)(torch.ones(5, 5, dtype=torch.uint8), C8, 1)[0]
        tensor([255,   1,   1,   1, 255], dtype=torch.uint8)
    """

    fill: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.fill, bool) or not isinstance(self.fill, int):
            raise invalid("fill", "an int", self.fill)

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        group = as_group(group)
        if x.ndim < 2:
            raise wrong_shape("x", "[..., H, W]", x)
        if group.is_exact(element):
            return move_grid(x, grid_move(group, element)).contiguous()
        if not _can_hold(x.dtype, self.fill):
            raise invalid("fill", f"a class that {x.dtype} can hold", self.fill, "convert the mask to torch.int64")
        columns, rows = _source_positions(group, element, like=x)
        return _read_nearest(x, columns, rows, self.fill)


def _source_positions(group: Group, element: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position ``g^-1 y``, about the centre of the image, that each pixel ``y`` of ``L_g f`` reads.

    The canvas is that of ``like[..., H, W]``. Positions are float32 at least: bfloat16 cannot count beyond 256 pixels.

    Returns:
        Columns and rows in pixels, each ``[H, W]``. Pixel centres are at whole numbers.
    """
    dtype = torch.promote_types(like.dtype, torch.float32) if like.is_floating_point() else torch.float64
    height, width = like.shape[-2:]
    matrix = group.matrix(group.inverse(element))
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    x = torch.arange(width, device=like.device, dtype=dtype) - middle_column
    y = middle_row - torch.arange(height, device=like.device, dtype=dtype).unsqueeze(-1)
    columns = matrix[0][0] * x + matrix[0][1] * y + middle_column
    rows = middle_row - (matrix[1][0] * x + matrix[1][1] * y)
    return columns, rows


def _interpolate(x: Tensor, columns: Tensor, rows: Tensor, interpolation: str, border: str) -> Tensor:
    """Read ``x[..., H, W]`` at the given positions by `torch.nn.functional.grid_sample`."""
    height, width = x.shape[-2:]
    # align_corners=False: -1 and 1 are the outer edges of the outer pixels.
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    flat = x.reshape(1, -1, height, width).to(grid.dtype)
    read = F.grid_sample(flat, grid.unsqueeze(0), mode=interpolation, padding_mode=border, align_corners=False)
    return read.to(x.dtype).view(x.shape)


def _read_nearest(x: Tensor, columns: Tensor, rows: Tensor, fill: int) -> Tensor:
    """Read ``x[..., H, W]`` at the nearest pixels, and ``fill`` outside. Exact for integers of any size."""
    height, width = x.shape[-2:]
    column, row = columns.round().long(), rows.round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    read = x[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return read.masked_fill(~inside, fill)


def _can_hold(dtype: torch.dtype, value: int) -> bool:
    """Return whether a tensor of ``dtype`` can hold the int ``value`` (floats always can)."""
    if dtype == torch.bool:
        return value in (0, 1)
    if dtype.is_floating_point or dtype.is_complex:
        return True
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max
