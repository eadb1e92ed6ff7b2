"""Actions on images and on maps on the group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ..groups import Group, as_group
from ._action import Action
from ._grid import grid_move, move_grid
from ._plane import combine, refuse_unsigned
from ._sampling import interpolate, nearest, source_positions


@dataclass(frozen=True)
class ScalarField(Action):
    """The action on images: ``(L_g f)(y) = f(g^-1 y)``.

    Multiples of 90 degrees and mirrors move indices (a quarter turn of ``H x W`` is ``W x H``). Any other angle is
    interpolated about the image's centre on the same ``H x W`` canvas: corners leave it, and turning there and back
    does not give the same image. On a square image the two rules agree; on others the angles do not compose.

    Args:
        interpolation: "bilinear", "bicubic" or "nearest", for angles off the grid. Bicubic is the sharper one, and not
            the more exact one where the image is smooth: on three broad bumps, 65 pixels wide, the largest error is
            .3 % of the largest value for bilinear and .5 % for bicubic.
        border: What lies outside: "zeros", "border" or "reflection", as in `torch.nn.functional.grid_sample`.

    Shape:
        - x: ``[..., H, W]``, floating point (any dtype if only quarter turns and mirrors occur)
        - output: ``[..., H, W]`` or ``[..., W, H]``

    Raises:
        ValueError: An option is none of those listed; ``x`` has fewer than two axes; integers off the grid.

    Example:
        >>> import torch
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
        positions = source_positions(group, element, like=x)
        return interpolate(x, *positions, self.interpolation, self.border)


@dataclass(frozen=True)
class VectorField(ScalarField):
    """The action on fields of plane vectors (flow, gradients): the components turn with the pixels.

    ``(L_g v)(y) = R_g v(g^-1 y)``. Components follow pixel axes, as optical flow does: ``x`` along the columns, ``y``
    **down** the rows. Channels hold vectors one after another: ``x0, y0, x1, y1, ...``.

    Args:
        interpolation: As for `ScalarField`.
        border: As for `ScalarField`.
        order: "xy" or, with the component down the rows first (as `torch.gradient` over the last two axes), "yx".

    Shape:
        - x: ``[..., 2 m, H, W]``
        - output: ``[..., 2 m, H, W]`` or ``[..., 2 m, W, H]``

    Raises:
        ValueError: An option is none of those listed, the channels are not pairs, or ``x`` has no negative numbers
            (unsigned integers, bool).

    Example:
        >>> import torch
        >>> from gconv_ga.groups import C4
        >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> VectorField()(right, C4, 1).flatten()  # a quarter turn: now up, against the rows
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
        refuse_unsigned(x)
        moved = super().__call__(x, group, element).unflatten(-3, (-1, 2))
        (xx, xy), (yx, yy) = group.matrix(element)
        # y points down here and up in the matrix. With "yx" both rows and columns of the matrix swap.
        xy, yx = -xy, -yx
        if self.order == "yx":
            xx, xy, yx, yy = yy, yx, xy, xx
        first, second = moved.unbind(-3)
        turned = torch.stack((combine(xx, first, xy, second), combine(yx, first, yy, second)), dim=-3)
        return turned.flatten(-4, -3)


@dataclass(frozen=True)
class RegularField(ScalarField):
    """The action on maps on the group: ``(L_g f)(y, h) = f(g^-1 y, g^-1 h)``, turn and shift.

    Args:
        interpolation: As for `ScalarField`.
        border: As for `ScalarField`.

    Shape:
        - x: ``[..., |G|, H, W]``, in layers ``[B, C, |G|, H, W]``
        - output: ``[..., |G|, H, W]`` or ``[..., |G|, W, H]``

    Raises:
        ValueError: The element axis has not ``|G|`` entries.

    Example:
        >>> import torch
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
        order = torch.tensor([group.product(inverse, h) for h in range(group.order)], device=x.device)
        return moved.index_select(-3, order)


@dataclass(frozen=True)
class LabelMask(Action):
    """The action on class indices: as `ScalarField`, but the nearest pixel is read at angles off the grid.

    Args:
        fill: The class outside the image, such as the ``ignore_index`` of a loss.

    Shape:
        - x: ``[..., H, W]``, any dtype
        - output: ``[..., H, W]`` or ``[..., W, H]``

    Raises:
        ValueError: ``fill`` is no int, or none that ``x`` can hold; ``x`` has fewer than two axes.

    Example:
        >>> import torch
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
        if not can_hold(x.dtype, self.fill):
            raise invalid("fill", f"a class that {x.dtype} can hold", self.fill, "convert the mask to torch.int64")
        return nearest(x, *source_positions(group, element, like=x), self.fill)


def can_hold(dtype: torch.dtype, value: int) -> bool:
    """Whether a tensor of ``dtype`` can hold the int ``value`` (floats always can)."""
    if dtype == torch.bool:
        return value in (0, 1)
    if dtype.is_floating_point or dtype.is_complex:
        return True
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max
