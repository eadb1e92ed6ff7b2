"""Building blocks of convolutions and pools: where they look, on image and group, and a cache for kernels.

The phase rule says where each orientation samples the image under a stride. Take an axis of ``n`` pixels and windows of
``k`` taps that are ``d`` pixels apart, with padding ``low`` and ``high`` and stride ``s``. The last
``r = (n + low + high - d (k - 1) - 1) mod s`` pixels are covered by no window. Since ``L_g o layer o L_g^-1`` counts
from the other end where ``g`` flips the axis, the orientation ``g`` must leave out the *first* ``r`` pixels instead.
With this rule every stride is exactly equivariant at every image size. A single grid shared by all orientations is
exact only where ``r = 0``.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from .._validate import as_int, as_pair, invalid, one_of
from ..actions import GridMove, good_sizes_near, grid_move, leftover, move_grid
from ..groups import DihedralGroup, Group

SAMPLINGS = ("per_orientation", "shared")
MAX_CACHED_PLANS = 1024  # image sizes for each layer


class Axis(NamedTuple):
    """A window along one axis: number of taps, stride, dilation, and padding at both ends."""

    kernel: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def shrink(self) -> int:
        """Number of pixels by which the output is shorter than the input at stride 1."""
        return self.dilation * (self.kernel - 1) - self.low - self.high

    def windows(self, n: int, low: int, high: int) -> int:
        """Number of windows that fit ``n`` pixels with the given padding instead of the axis' own."""
        return (n + low + high - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def leftover(self, n: int) -> int:
        """Number of pixels, out of ``n``, that no window covers."""
        return leftover(n, self.kernel, self.stride, (self.low, self.high), self.dilation)


class Part(NamedTuple):
    """Elements that share their windows, and the start and extent of these windows on the padded image."""

    elements: tuple[int, ...]
    rows: Axis
    columns: Axis
    top: int
    left: int
    height: int
    width: int


class Plan(NamedTuple):
    """The windows of a layer on images of one size.

    Args:
        size: Rows and columns of the output.
        parts: The elements, grouped by their windows.
        padding: Padding with which one plain convolution has these windows. None if there is none, since a plain
            convolution pads both ends alike.
    """

    size: tuple[int, int]
    parts: tuple[Part, ...]
    padding: tuple[int, int] | None


@dataclass(frozen=True)
class Geometry:
    """The windows of a layer under a group.

    Args:
        group: The group.
        rows: The window along the rows.
        columns: The window along the columns.
        shared: Whether all orientations sample the same grid, as in other libraries.

    Raises:
        ValueError: A rotation by 90 degrees would change the size of the output.

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
    # Looked up once: torch.compile warns about every cache that it meets while tracing.
    moves: tuple[GridMove, ...] = field(init=False, repr=False, compare=False)
    # By image size. Kept in the object: a cache of the module would hash all fields at every call.
    _plans: dict[tuple[int, int], Plan] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        # A frozen dataclass can only set derived fields in this way.
        object.__setattr__(self, "moves", sampling_moves(self.group))
        if not self.transposes:
            return
        rows, columns, alike = self.rows, self.columns, f"the same for rows and columns under {self.group.name}"
        advice = "a rotation by 90 degrees would change the output's size; C2, D1 and D2 have none"
        if rows.stride != columns.stride:
            raise invalid("stride", alike, (rows.stride, columns.stride), advice)
        if rows.shrink != columns.shrink:
            takes = f"such that dilation * (kernel_size - 1) - 2 * padding is {alike}"
            raise invalid("kernel_size", takes, (rows.kernel, columns.kernel), advice)

    @property
    def transposes(self) -> bool:
        """True if any element exchanges rows and columns."""
        return any(move.transpose for move in self.moves)

    @property
    def padding(self) -> tuple[int, int]:
        """Padding of rows and columns, the same at both ends, that is enough for every orientation."""
        rows, columns = max(self.rows[3:]), max(self.columns[3:])
        return (max(rows, columns),) * 2 if self.transposes else (rows, columns)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the output for an input of ``height x width``."""
        return (
            self.rows.windows(height, self.rows.low, self.rows.high),
            self.columns.windows(width, self.columns.low, self.columns.high),
        )

    def plan(self, height: int, width: int) -> Plan:
        """Return the windows on an image of ``height x width``; there are no parts if no window fits.

        If one part holds all elements, a single convolution computes the layer.
        """
        # Tracers do not accept a cache, and symbolic sizes cannot be hashed.
        if torch.compiler.is_compiling() or not (type(height) is int and type(width) is int):
            return _make_plan(self, height, width)
        plan = self._plans.get((height, width))
        if plan is None:
            if len(self._plans) >= MAX_CACHED_PLANS:
                self._plans.clear()
            plan = self._plans[height, width] = _make_plan(self, height, width)
        return plan

    def flipped_axes(self) -> tuple[bool, bool]:
        """Return whether any element flips the rows, and whether any element flips the columns."""
        return any(move.flip_rows for move in self.moves), any(move.flip_columns for move in self.moves)

    def warn_if_misaligned(self, height: int, width: int) -> None:
        """Warn if a shared grid is not equivariant at this size, and name the nearest sizes at which it is."""
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
    """Build the windows of a layer from the arguments of `torch.nn.Conv2d`.

    Args:
        group: The group.
        kernel_size: Rows and columns of the kernel.
        stride: Stride along rows and columns.
        padding: An int, a pair of ints, "valid" or "same".
        dilation: Dilation along rows and columns.
        shared: Whether all orientations sample the same grid, as in other libraries.

    Raises:
        ValueError: ``padding`` is neither an int, a pair of ints, "valid" nor "same"; "same" is combined with a
            stride; or a rotation by 90 degrees would change the size of the output.

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


@lru_cache(maxsize=256)
def sampling_moves(group: Group) -> tuple[GridMove, ...]:
    """Return, for each element, the index moves from the identity's sampling grid to the element's own.

    Elements that map pixels to pixels have their own grid. Any other element ``g = h t`` uses the grid of ``h``, where
    ``h`` maps pixels to pixels and ``t`` is the first element of its coset. In this way the exact elements of larger
    groups, such as the rotations of C8 by 90 degrees, stay exact.
    """
    exact = [h for h in range(group.order) if group.is_exact(h)]
    moves: dict[int, GridMove] = {}
    for t in range(group.order):
        if t not in moves:
            moves.update({group.products[h][t]: grid_move(group, h) for h in exact})
    return tuple(moves[g] for g in range(group.order))


def _make_plan(geometry: Geometry, height: int, width: int) -> Plan:
    size = geometry.output_size(height, width)
    if min(size) < 1:
        return Plan(size, (), None)
    parts = _group_by_windows(geometry, height, width)
    first, padding = parts[0], geometry.padding
    low = padding[0] - first.top, padding[1] - first.left
    fitting = first.rows.windows(height, low[0], low[0]), first.columns.windows(width, low[1], low[1])
    is_plain = len(parts) == 1 and min(low) >= 0 and fitting == size
    return Plan(size, tuple(parts), low if is_plain else None)


def _group_by_windows(geometry: Geometry, height: int, width: int) -> list[Part]:
    pad_rows, pad_columns = geometry.padding
    axes = (height, geometry.rows), (width, geometry.columns)
    alike = geometry.rows == geometry.columns or not geometry.transposes
    if alike and (geometry.shared or all(axis.leftover(n) == 0 and axis.low == axis.high for n, axis in axes)):
        top, tall = _covered_span(height, geometry.rows, pad_rows, False)
        left, wide = _covered_span(width, geometry.columns, pad_columns, False)
        return [Part(tuple(range(geometry.group.order)), geometry.rows, geometry.columns, top, left, tall, wide)]
    found: dict[tuple[Axis, Axis, int, int, int, int], list[int]] = {}
    for g, (transpose, flip_rows, flip_columns) in enumerate(geometry.moves):
        rows, columns = (geometry.columns, geometry.rows) if transpose else (geometry.rows, geometry.columns)
        top, tall = _covered_span(height, rows, pad_rows, flip_rows and not geometry.shared)
        left, wide = _covered_span(width, columns, pad_columns, flip_columns and not geometry.shared)
        found.setdefault((rows, columns, top, left, tall, wide), []).append(g)
    return [Part(tuple(elements), *windows) for windows, elements in found.items()]


def _covered_span(n: int, axis: Axis, pad: int, flip: bool) -> tuple[int, int]:
    """Return start and length of the pixels that the windows cover, on an axis padded by ``pad`` at both ends."""
    rest = axis.leftover(n)
    return (pad - axis.high + rest if flip else pad - axis.low), n + axis.low + axis.high - rest


def select_elements(x: Tensor, elements: Sequence[int], dim: int) -> Tensor:
    """Select group elements along the element axis ``dim``.

    Indexing with a list would do the same, but it makes an accelerator wait for the host.
    """
    if len(elements) == 1:
        return x.narrow(dim, elements[0], 1)
    return torch.stack([x.select(dim, g) for g in elements], dim)


def apply_per_orientation(
    operation: Callable[[Tensor], Tensor],
    f: Tensor,
    moves: Sequence[GridMove],
    transpose: bool,
    flip_rows: bool,
    flip_columns: bool,
    dim: int = 2,
) -> Tensor:
    """Compute ``out(., g) = L_g operation(L_g^-1 f(., g))``, which is equivariant for any such operation.

    Args:
        operation: A function of images that treats all channels and all samples alike.
        f: The feature map on the group.
        moves: The index moves of each element, `Geometry.moves`.
        transpose: Whether a transposition of the image matters. It does not if the operation treats rows and columns
            alike.
        flip_rows: Whether flipping the rows matters.
        flip_columns: Whether flipping the columns matters.
        dim: The element axis. It is merged with the axis before it for the operation.

    Shape:
        - f: ``[B, C, |G|, H, W]``, or ``[B, |G|, C, H, W]`` with ``dim=1``
        - output: ``[B, C, |G|, H', W']``, or ``[B, |G|, C, H', W']`` with ``dim=1``

    Example:
        >>> import torch
        >>> from gconv_ga.groups import C4
        >>> from gconv_ga.nn.authoring import apply_per_orientation, make_geometry
        >>> moves = make_geometry(C4, (2, 2), (2, 2), 0, (1, 1)).moves
        >>> f = torch.randn(1, 3, 4, 9, 9)
        >>> pool = torch.nn.MaxPool2d(2)
        >>> apply_per_orientation(pool, f, moves, False, True, True).shape
        torch.Size([1, 3, 4, 4, 4])
    """
    relevant = [
        GridMove(move.transpose and transpose, move.flip_rows and flip_rows, move.flip_columns and flip_columns)
        for move in moves
    ]
    if not any(any(move) for move in relevant):
        return operation(f.flatten(dim - 1, dim)).unflatten(dim - 1, f.shape[dim - 1 : dim + 1])
    # One call for each orientation: a single call for all of them would need a copy of the stacked input.
    planes = [
        move_grid(operation(move_grid(plane, move.inverse)), move)
        for plane, move in zip(f.unbind(dim), relevant, strict=True)
    ]
    return torch.stack(planes, dim)


@lru_cache(maxsize=256)
def nearest_elements(group: Group, count: int | None) -> tuple[int, ...]:
    """Return the ``count`` elements nearest the identity.

    They are sorted by angle, counter-clockwise first, and rotations come before reflections.

    Args:
        group: The group.
        count: Number of elements, ``1 .. |G|``. If None, all elements in the group's order.

    Raises:
        ValueError: ``count`` is out of range.

    Example:
        >>> from gconv_ga.nn.authoring import nearest_elements
        >>> from gconv_ga.groups import C8, D4
        >>> nearest_elements(C8, 3), nearest_elements(D4, 5)
        ((0, 1, 7), (0, 1, 3, 2, 4))
    """
    if count is None:
        return tuple(range(group.order))
    number = as_int("group_kernel_size", count, minimum=1)
    if number > group.order:
        raise invalid("group_kernel_size", f"an int from 1 to |G|={group.order}, or None for all", count)
    if number == group.order:
        return tuple(range(group.order))
    by_angle = sorted(range(group.n), key=lambda i: (min(i, group.n - i), i))
    reflections = [group.n + i for i in by_angle] if isinstance(group, DihedralGroup) else []
    return tuple((by_angle + reflections)[:number])


def gathering_is_faster(taps: int, order: int, fields: int) -> bool:
    """Return whether few taps are faster as a small convolution per orientation than as a large one with zeros.

    The small convolutions do ``taps / order`` of the work, but they reach their full speed only with many output
    channels, in multiples of eight. The slowdown per multiplication was measured on a CPU with 4 to 32 fields
    (benchmarks/layers.py, "taps").

    Args:
        taps: Number of elements that the kernel has planes for.
        order: Number of elements of the group.
        fields: Number of output fields in a block of channels.

    Example:
        >>> from gconv_ga.nn._geometry import gathering_is_faster
        >>> [gathering_is_faster(2, 4, fields) for fields in (8, 11, 32)]
        [False, False, True]
    """
    slowdown = (1 + 16 / fields) * (1.8 if fields % 8 else 1.0)
    return taps * slowdown < order


def fill_absent_planes(weight: Tensor, taps: tuple[int, ...], group: Group) -> Tensor:
    """Extend a kernel to one plane per element of the group, with zeros where it has none.

    Args:
        weight: The free weights.
        taps: The elements that they have planes for.
        group: The group.

    Shape:
        - weight: ``[C_out, C_in, m, ...]``
        - output: ``[C_out, C_in, |G|, ...]``
    """
    if len(taps) == group.order:
        return weight
    planes = dict(zip(taps, weight.unbind(2), strict=True))
    zeros = torch.zeros_like(weight[:, :, 0])
    return torch.stack([planes.get(h, zeros) for h in range(group.order)], dim=2)


@cache
def neighbour_table(group: Group, taps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the elements ``g h`` for all ``g`` and taps ``h``: what the output at ``g`` depends on."""
    return tuple(tuple(row[h] for h in taps) for row in group.products)


@cache
def source_table(group: Group, taps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the elements ``g h^-1`` for all ``g`` and taps ``h``: what a transposed convolution adds up at ``g``."""
    return neighbour_table(group, tuple(group.inverse(h) for h in taps))


def gather_neighbours(f: Tensor, neighbours: Tensor) -> Tensor:
    """Gather the maps ``f(., g h)`` at the taps ``h``, one block of channels for each orientation ``g``.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - neighbours: ``[|G|, m]``, the `neighbour_table`
        - output: ``[B, |G|, C m, H, W]``
    """
    return f[:, :, neighbours].transpose(1, 2).flatten(2, 3)


T = TypeVar("T")


class KeepsKernels(nn.Module):
    """Base class of layers that derive kernels from their weights, and cache them in eval mode.

    While the layer is in train mode or gradients flow to the weights, kernels are computed at every call. Cached
    kernels are never saved, copied or moved, and they are dropped by ``train()`` and when a weight changes. A change
    that leaves no trace goes unnoticed in eval mode on a device other than the CPU, where to compare numbers would make
    the accelerator wait: an edit through ``weight.data`` (rather than of ``weight`` under `torch.no_grad`), or a
    training step that is replayed from a CUDA graph. Subclasses call ``self._cached(compute, *weights)``.

    Shape:
        - input and output: those of the layer

    Example:
        >>> import torch
        >>> from gconv_ga.nn.authoring import KeepsKernels
        >>> class Symmetric(KeepsKernels, torch.nn.Conv2d):
        ...     def forward(self, input):
        ...         kernel = self._cached(lambda: (self.weight + self.weight.flip(-1)) / 2, self.weight)
        ...         return torch.nn.functional.conv2d(input, kernel, self.bias)
        >>> Symmetric(1, 2, 3)(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 6, 6])
    """

    _cache_entry: "_CacheEntry | None" = None

    def _cached(self, compute: Callable[[], T], *weights: Tensor) -> T:
        """Return ``compute()``, a tensor or a tuple of tensors, or its earlier result for the same weights."""
        if self.training or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return compute()
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return compute()
        entry = self._cache_entry
        if entry is None or not entry.is_valid(weights):
            entry = _CacheEntry.of(compute, weights)
            if entry is None:
                return compute()
            self._cache_entry = entry
        result: T = entry.result
        return result

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._cache_entry = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._cache_entry = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache_entry"}


class _WeightState(NamedTuple):
    """State of a weight: the tensor, its count of in-place edits, its address, and on the CPU a copy of its numbers."""

    weight: Tensor
    edits: int
    address: int
    numbers: Tensor | None
    copy: Tensor | None

    @classmethod
    def of(cls, weight: Tensor) -> "_WeightState":
        # An edit through `.data` leaves no mark, so on the CPU the numbers are compared as well. torch has no public
        # name for the count of a tensor's in-place edits.
        numbers = _as_int64(weight.detach()) if weight.device.type == "cpu" else None
        copy = None if numbers is None else numbers.clone()
        return cls(weight, weight._version, weight.data_ptr(), numbers, copy)  # noqa: SLF001


class _CacheEntry(NamedTuple):
    """A result, and the state of the weights that it was computed from."""

    result: Any
    states: tuple[_WeightState, ...]

    @classmethod
    def of(cls, compute: Callable[[], Any], weights: tuple[Tensor, ...]) -> "_CacheEntry | None":
        """Compute the result and record the weights; None if nothing may be cached."""
        if not all(_is_cacheable(weight) for weight in weights):
            return None
        # The result must not depend on the caller's modes: inference tensors, for one, cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
            result = compute()
            tensors = result if isinstance(result, tuple) else (result,)
            if any(type(tensor) is not Tensor for tensor in tensors):
                return None
            return cls(result, tuple(_WeightState.of(weight) for weight in weights))

    def is_valid(self, weights: tuple[Tensor, ...]) -> bool:
        """Return whether these are the recorded weights, unchanged."""
        if len(weights) != len(self.states):
            return False
        # A plain loop is faster than generators, and this runs at every call.
        for now, (weight, edits, address, numbers, copy) in zip(weights, self.states, strict=True):
            if now is not weight or now._version != edits or now.data_ptr() != address:  # noqa: SLF001
                return False
            if numbers is not None and copy is not None and not torch.equal(numbers, copy):
                return False
        return True


def _as_int64(numbers: Tensor) -> Tensor:
    """Return a view of the same memory as int64 where that is possible: such tensors compare twice as fast."""
    flat = numbers.flatten()
    viewable = flat.nbytes % 8 == 0 and flat.data_ptr() % 8 == 0 and flat.data_ptr() == numbers.data_ptr()
    return flat.view(torch.int64) if viewable else numbers


def _is_cacheable(weight: Tensor) -> bool:
    """Return whether a weight is an ordinary parameter: fake, functional and traced tensors have other types."""
    return type(weight) is nn.Parameter and not (weight.is_meta or weight.is_inference())
