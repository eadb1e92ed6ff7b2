"""Actions on images: scalar, vector and regular fields and label masks; their base class; moves of the pixel grid."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ..groups import Group, as_group


class Action(ABC):
    """Base class for the action of a group on a kind of tensor, ``L_g x``.

    Actions are immutable, comparable and picklable. They satisfy ``act(g, act(h, x)) == act(g h, x)``: to the last
    bit for multiples of 90 degrees and reflections (except that coordinates in an image, `Keypoints` and `Boxes`, are
    rounded when they are reflected), up to interpolation for other angles.

    Subclasses define ``__call__``.
    """

    @abstractmethod
    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        """Return ``L_g x`` for ``g = element``.

        Args:
            x: The tensor. Each action documents its axes.
            group: The group or its name.
            element: Index of the group element ``g``, ``0 .. |G| - 1``.

        Returns:
            The moved tensor, contiguous. It may share memory with ``x`` (for the identity, for example).

        Raises:
            ValueError: ``x`` does not have the axes that this action takes, or ``element`` is not an element of
                ``group``.
        """

    def after(self, group: Group | str, element: int) -> "Action":
        """Return the action for tensors that this action has already moved by ``element``.

        This is the same action, except for actions that hold the size of the image (`Keypoints`, `Boxes`): a rotation
        by 90 degrees swaps height and width. In full, the composition law therefore reads
        ``act.after(h)(act(x, h), g) == act(x, g h)``.
        """
        return self


@dataclass(frozen=True)
class Invariant(Action):
    """The trivial representation: ``L_g x = x``, for any tensor.

    Use it for class scores, image-level statistics, and extra inputs that do not rotate with the image.

    Shape:
        - x: any; the output is the same.

    Raises:
        ValueError: The element is not an element of the group.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Invariant
        >>> from gconv_ga.groups import C4
        >>> Invariant()(torch.arange(3), C4, 1)
        tensor([0, 1, 2])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        as_group(group).matrix(element)  # raises if there is no such element
        return x.contiguous()


def linear_combination(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """Return ``a x + b y`` without multiplying by 0, 1 or -1.

    Rotations by 90 degrees therefore keep integers, infinities and every bit.
    """
    if b == 0:
        return _scaled(a, x)
    return _scaled(b, y) if a == 0 else a * x + b * y


def _scaled(a: float, x: Tensor) -> Tensor:
    if a == 1:
        return x
    return -x if a == -1 else a * x


def require_signed(x: Tensor) -> None:
    """Refuse vectors and coordinates whose type cannot hold negative numbers.

    Raises:
        ValueError: ``x`` has an unsigned integer type or is bool.
    """
    if not x.dtype.is_signed:
        raise invalid("x", "of a type with negative numbers", x, "convert it to floating point")


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
