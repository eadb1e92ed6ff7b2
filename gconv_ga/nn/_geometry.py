"""Where a strided layer samples, for each orientation: the phase rule.

Along one axis of ``n`` pixels a window of ``k`` taps (``d`` apart) with padding ``lo`` and ``hi`` and stride ``s``
leaves ``r = (n + lo + hi - d (k - 1) - 1) mod s`` pixels over at the end. An element that flips the axis must leave
them over at the start, since ``L_g o layer o L_g^-1`` counts from the other end. Doing so makes every stride exact at
every size; one grid for all orientations is exact only where ``r = 0``.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._validate import as_pair, invalid, one_of
from ..actions import GridMove, good_sizes_near, grid_move, leftover, move_grid
from ..groups import Group

MOST_PLANS = 1024  # image sizes that a layer remembers


class Axis(NamedTuple):
    """One axis of a window: taps, stride, dilation and the padding at both ends."""

    kernel: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def shrink(self) -> int:
        """How many pixels a stride of one loses."""
        return self.dilation * (self.kernel - 1) - self.low - self.high

    def windows(self, n: int, low: int, high: int) -> int:
        """How many windows fit ``n`` pixels with other paddings than its own."""
        return (n + low + high - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def leftover(self, n: int) -> int:
        """How many of ``n`` pixels no window reaches."""
        return leftover(n, self.kernel, self.stride, (self.low, self.high), self.dilation)


class Part(NamedTuple):
    """Elements whose windows are the same: the windows, and where they start and end on the padded image."""

    elements: tuple[int, ...]
    rows: Axis
    columns: Axis
    top: int
    left: int
    height: int
    width: int


class Plan(NamedTuple):
    """What a layer does with an image of one size: output size, windows, and the padding of one plain convolution.

    ``padding`` is None where a plain convolution, which pads both ends alike, does not have these windows.
    """

    size: tuple[int, int]
    parts: tuple[Part, ...]
    padding: tuple[int, int] | None


@lru_cache(maxsize=256)
def element_moves(group: Group) -> tuple[GridMove, ...]:
    """For each element the index moves by which its sampling grid differs from the identity's.

    An element on the grid has its own. The others have those of ``u`` in ``g = u t``, with ``u`` on the grid and ``t``
    the first element of its coset: then the quarter turns and mirrors of C_8, say, stay exact.
    """
    exact = [u for u in range(group.order) if group.is_exact(u)]
    moves: dict[int, GridMove] = {}
    for t in range(group.order):
        if t not in moves:
            moves.update({group.product(u, t): grid_move(group, u) for u in exact})
    return tuple(moves[g] for g in range(group.order))


@dataclass(frozen=True)
class Geometry:
    """The windows of a layer under a group.

    Args:
        group: The group.
        rows: The window along the rows.
        columns: The window along the columns.
        shared: Whether all orientations sample the same grid, as other libraries do.

    Raises:
        ValueError: A quarter turn of the group would change the output's size.

    Example:
        >>> from gconv_ga.nn._geometry import Axis
        >>> from gconv_ga.nn.authoring import Geometry
        >>> from gconv_ga.groups import C4
        >>> windows = Axis(kernel=3, stride=2, dilation=1, low=1, high=1)
        >>> Geometry(C4, windows, windows).output_size(32, 33)
        (16, 17)
    """

    group: Group
    rows: Axis
    columns: Axis
    shared: bool = False
    # Looked up once: while it traces, torch.compile warns of every cache that it meets.
    moves: tuple[GridMove, ...] = field(init=False, repr=False, compare=False)
    # By image size, and here: to look in a cache of the module, all the fields would be hashed at every call.
    _plans: dict[tuple[int, int], Plan] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        # A frozen dataclass takes what is derived only this way.
        object.__setattr__(self, "moves", element_moves(self.group))
        if not self.transposes:
            return
        rows, columns, alike = self.rows, self.columns, f"the same for rows and columns under {self.group.name}"
        advice = "a quarter turn would change the output's size; C2, D1 and D2 have none"
        if rows.stride != columns.stride:
            raise invalid("stride", alike, (rows.stride, columns.stride), advice)
        if rows.shrink != columns.shrink:
            takes = f"such that dilation * (kernel_size - 1) - 2 * padding is {alike}"
            raise invalid("kernel_size", takes, (rows.kernel, columns.kernel), advice)

    @property
    def transposes(self) -> bool:
        """Whether an element exchanges rows and columns."""
        return any(move.transpose for move in self.moves)

    @property
    def padding(self) -> tuple[int, int]:
        """Padding at both ends, for rows and columns, that is enough for every orientation."""
        rows, columns = max(self.rows[3:]), max(self.columns[3:])
        return (max(rows, columns),) * 2 if self.transposes else (rows, columns)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that come out of ``height x width``."""
        return (
            self.rows.windows(height, self.rows.low, self.rows.high),
            self.columns.windows(width, self.columns.low, self.columns.high),
        )

    def plan(self, height: int, width: int) -> Plan:
        """The elements sorted by their windows, for an image of ``height x width``; none if no window fits.

        One part with all elements means that a single call of torch does.
        """
        # No tracer takes a cache, and sizes that are symbols have no hash.
        if torch.compiler.is_compiling() or not (type(height) is int and type(width) is int):
            return _make_plan(self, height, width)
        plan = self._plans.get((height, width))
        if plan is None:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            plan = self._plans[height, width] = _make_plan(self, height, width)
        return plan

    def flipped_axes(self) -> tuple[bool, bool]:
        """Whether any element flips the rows, and whether any flips the columns."""
        return any(move.flip_rows for move in self.moves), any(move.flip_columns for move in self.moves)

    def warn_if_misaligned(self, height: int, width: int) -> None:
        """Warn where one grid for all orientations is not equivariant, and name the nearest sizes where it is."""
        if not self.shared or torch.compiler.is_compiling():
            return
        flipped = self.flipped_axes()
        for name, n, axis, flips in (("H", height, self.rows, flipped[0]), ("W", width, self.columns, flipped[1])):
            if not flips or (axis.leftover(n) == 0 and axis.low == axis.high):
                continue
            near = good_sizes_near(n, axis.kernel, axis.stride, (axis.low, axis.high), axis.dilation)
            where = f"the nearest sizes where it is: {near[0]} and {near[1]}" if axis.low == axis.high else "no size is"
            warnings.warn(
                f"sampling='shared' is not equivariant at {name}={n} with kernel {axis.kernel}, stride {axis.stride}, "
                f"padding {axis.low} and {axis.high}; {where}. The default sampling='per_orientation' is exact at "
                "every size.",
                stacklevel=4,
            )
            return


def make_geometry(
    group: Group,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: Any,
    dilation: tuple[int, int],
    shared: bool = False,
) -> Geometry:
    """The windows of a layer from `torch.nn.Conv2d`'s arguments.

    Args:
        group: The group.
        kernel_size: Rows and columns.
        stride: For rows and columns.
        padding: An int, a pair, "valid" or "same".
        dilation: For rows and columns.
        shared: Whether all orientations sample the same grid, as other libraries do.

    Raises:
        ValueError: ``padding`` is neither an int, a pair of ints, "valid" nor "same"; "same" has a stride; or a
            quarter turn would change the output's size.

    Example:
        >>> from gconv_ga.nn.authoring import make_geometry
        >>> from gconv_ga.groups import C4
        >>> make_geometry(C4, (3, 3), (1, 1), "same", (1, 1)).output_size(32, 33)
        (32, 33)
    """
    if isinstance(padding, str):
        one_of("padding", padding, ("valid", "same"))
        if padding == "same" and stride != (1, 1):
            raise invalid(
                "padding", "an int or a pair of ints where there is a stride", padding, "'same' needs stride=1"
            )
    axes = []
    for axis in (0, 1):
        # As in torch, "same" puts an odd pixel at the end.
        total = dilation[axis] * (kernel_size[axis] - 1) if padding == "same" else 0
        ends = (total // 2, total - total // 2)
        if not isinstance(padding, str):
            ends = (as_pair("padding", padding, minimum=0)[axis],) * 2
        axes.append(Axis(kernel_size[axis], stride[axis], dilation[axis], *ends))
    return Geometry(group, axes[0], axes[1], shared)


def _span(n: int, axis: Axis, pad: int, flip: bool) -> tuple[int, int]:
    """Start and length of what the windows cover, on an axis padded by ``pad`` at both ends."""
    rest = axis.leftover(n)
    return (pad - axis.high + rest if flip else pad - axis.low), n + axis.low + axis.high - rest


def _find_parts(geometry: Geometry, height: int, width: int) -> list[Part]:
    pad_rows, pad_columns = geometry.padding
    axes = (height, geometry.rows), (width, geometry.columns)
    alike = geometry.rows == geometry.columns or not geometry.transposes
    if alike and (geometry.shared or all(axis.leftover(n) == 0 and axis.low == axis.high for n, axis in axes)):
        top, tall = _span(height, geometry.rows, pad_rows, False)
        left, wide = _span(width, geometry.columns, pad_columns, False)
        return [Part(tuple(range(geometry.group.order)), geometry.rows, geometry.columns, top, left, tall, wide)]
    found: dict[tuple[Axis, Axis, int, int, int, int], list[int]] = {}
    for g, (transpose, flip_rows, flip_columns) in enumerate(geometry.moves):
        rows, columns = (geometry.columns, geometry.rows) if transpose else (geometry.rows, geometry.columns)
        top, tall = _span(height, rows, pad_rows, flip_rows and not geometry.shared)
        left, wide = _span(width, columns, pad_columns, flip_columns and not geometry.shared)
        found.setdefault((rows, columns, top, left, tall, wide), []).append(g)
    return [Part(tuple(elements), *windows) for windows, elements in found.items()]


def _make_plan(geometry: Geometry, height: int, width: int) -> Plan:
    size = geometry.output_size(height, width)
    if min(size) < 1:
        return Plan(size, (), None)
    parts = _find_parts(geometry, height, width)
    first, padding = parts[0], geometry.padding
    low = padding[0] - first.top, padding[1] - first.left
    fitting = first.rows.windows(height, low[0], low[0]), first.columns.windows(width, low[1], low[1])
    plain = len(parts) == 1 and min(low) >= 0 and fitting == size
    return Plan(size, tuple(parts), low if plain else None)


def take(x: Tensor, elements: Sequence[int], dim: int) -> Tensor:
    """Some elements of the element axis; a list as an index would make an accelerator wait."""
    if len(elements) == 1:
        return x.narrow(dim, elements[0], 1)
    return torch.stack([x.select(dim, g) for g in elements], dim)


def per_orientation(
    operation: Callable[[Tensor], Tensor],
    f: Tensor,
    moves: tuple[GridMove, ...],
    transpose: bool,
    flip_rows: bool,
    flip_columns: bool,
) -> Tensor:
    """``out(., g) = L_g operation(L_g^-1 f(., g))``: equivariant whatever the operation does to a channel.

    Args:
        operation: A map of images, channel by channel.
        f: The map on the group.
        moves: What each element does to the grid, `Geometry.moves`.
        transpose: Whether transposing matters: it does not where the operation treats rows and columns alike.
        flip_rows: Whether flipping the rows matters.
        flip_columns: Whether flipping the columns matters.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H', W']``
    """
    found: dict[GridMove, list[int]] = {}
    for g, move in enumerate(moves):
        matters = GridMove(
            move.transpose and transpose, move.flip_rows and flip_rows, move.flip_columns and flip_columns
        )
        found.setdefault(matters, []).append(g)
    if len(found) == 1 and not any(next(iter(found))):
        return operation(f.flatten(1, 2)).unflatten(1, f.shape[1:3])
    maps: dict[int, Tensor] = {}
    for move, elements in found.items():
        # The inverse of "transpose, then flip" is "transpose, then flip the other axes".
        back = GridMove(move.transpose, move.flip_columns, move.flip_rows) if move.transpose else move
        upright = move_grid(take(f, elements, 2), back)
        turned = move_grid(operation(upright.flatten(1, 2)), move)
        maps.update(zip(elements, turned.unflatten(1, (-1, len(elements))).unbind(2), strict=True))
    return torch.stack([maps[g] for g in range(len(moves))], dim=2)
