"""The functions that a ``forward`` calls, made right for orbits in the batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..actions import GridMove, leftover, move_grid, nest_leaves, rebuild_nest
from ._layers import (
    CONSTANT,
    Layout,
    conjugate,
    join_planes,
    layout_of,
    mark,
    run_as_one,
    tie_pixels,
    tie_samples,
)

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_ARGUMENT_NAMES: dict[Any, tuple[str, ...]] = {
    F.max_pool2d: _MAX,
    F.max_pool2d_with_indices: _MAX,
    torch.max_pool2d: _MAX,
    F.avg_pool2d: _AVG,
    F.lp_pool2d: ("norm_type", "kernel_size", "stride", "ceil_mode"),
    F.interpolate: ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias"),
}
_ADAPTIVE = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
_PERMUTATIONS = {
    torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, torch.movedim, Tensor.movedim, torch.swapaxes,
    Tensor.swapaxes, torch.swapdims, Tensor.swapdims, torch.moveaxis, Tensor.moveaxis,
}  # fmt: skip
_PARTS = {
    torch.split, Tensor.split, torch.chunk, Tensor.chunk, torch.tensor_split, Tensor.tensor_split,
}  # fmt: skip


_NARROWS = {torch.narrow, Tensor.narrow}
# What they return depends on no input, whatever the length of its first axis. Zeros and ones may be made for a batch.
_TABLES = {
    torch.tensor, torch.as_tensor, torch.from_numpy, torch.arange, torch.linspace, torch.logspace, torch.eye,
}  # fmt: skip
_CHECKPOINT: Any = torch.ops.higher_order.tag_activation_checkpoint
# They take nothing of their second argument but its dtype.
_CASTS = {Tensor.to, Tensor.type_as}


class OrbitMode(TorchFunctionMode):
    """Makes the functions that a ``forward`` calls right for an orbit in the batch.

    Pools, interpolation, one-sided padding, crops and slices start at the edge that each orientation has been rotated
    to. Convolutions with kernels of their own and sub-pixel shuffles run on upright images, and an image that is
    flattened for a linear layer is rotated upright first. Where an axis is folded into the batch, orientations keep
    their places. Everything else is left alone: it commutes, or verification finds it.

    Every tensor that depends on the input carries its `Layout`: the axes of its pixels, as far as they are known.
    Weights, buffers and tables are noted as constant, so that they are not taken for orbits, even if they have as many
    rows.

    Args:
        moves: The index moves of each element.
        length: The orbit's length, ``B |G|``.
        tied: Whether dropout draws once for all orientations of a sample.
        observe: A function that is told every function, its arguments and what it has returned.
        is_upright: A function that is asked of every function whether to run it on upright images.
    """

    def __init__(
        self,
        moves: Sequence[GridMove],
        length: int,
        tied: bool,
        observe: Callable[[Any, Any, Any], None] | None = None,
        is_upright: Callable[[Any], bool] | None = None,
    ) -> None:
        super().__init__()
        self.moves = moves
        self.length = length
        self.tied = tied
        self.observe = observe
        self.is_upright = is_upright

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = self._call(func, args, kwargs or {})
        if self.observe is not None:
            self.observe(func, args, output)
        return output

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.is_upright is not None and self.is_upright(func) and any(map(self._is_image, args)):
            output = conjugate(lambda nest: func(*nest[0], **nest[1]), (args, kwargs), self.moves)
            self._label(func, args, kwargs, output)
            return output
        if func is _CHECKPOINT:
            return self._checkpoint(*args, **kwargs)
        handle = _HANDLERS.get(func)
        if handle is None:
            output = func(*args, **kwargs)
            if isinstance(output, Tensor | tuple | list) and not isinstance(output, torch.Size):
                self._label(func, args, kwargs, output)
            return output
        x = args[0] if args else kwargs.get("input")
        layout = self._layout(x)
        if not isinstance(x, Tensor) or layout is None or (layout.inner > 1 and handle is _reshape):
            output = func(*args, **kwargs)
        else:
            rest, named = args[1:], {name: value for name, value in kwargs.items() if name != "input"}
            if layout.inner == 1:
                output = handle(self, func, x, layout, rest, named)
            else:
                output = self._with_orientations_last(handle, func, x, layout, rest, named)
        self._label(func, args, kwargs, output)
        return output

    def _checkpoint(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call what `torch.compile` makes of ``checkpoint(block, ...)``, with the block under this mode."""
        layouts = [layout_of(x) if isinstance(x, Tensor) else None for x in args]

        def run(*inputs: Any, **named: Any) -> Any:
            # On views: a compiler lets the block change nothing that was made outside of it.
            marked = [
                x if layout is None else mark(x.view_as(x), layout) for x, layout in zip(inputs, layouts, strict=True)
            ]
            with self:
                return block(*marked, **named)

        return _CHECKPOINT(run, *args, **kwargs)

    def _is_image(self, x: Any) -> bool:
        layout = self._layout(x)
        return layout is not None and layout.axes == (2, 3) and x.ndim == 4

    def _layout(self, x: Any) -> Layout | None:
        """Return the layout of an orbit, None for anything else. Where it was lost, images have their usual one."""
        if not isinstance(x, Tensor) or isinstance(x, nn.Parameter) or x.ndim == 0:
            return None
        layout = layout_of(x)
        if layout is None:
            return Layout((2, 3) if x.ndim == 4 else ()) if _same(x.shape[0], self.length) else None
        return layout if layout.is_orbit and _same(x.shape[0], self.length * layout.inner) else None

    def _with_orientations_last(
        self, handle: Any, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Handle a batch with another axis folded into it, rows (b, g, t), as rows (b, t, g)."""
        order = len(self.moves)

        def reorder(value: Any, inner: tuple[int, int]) -> Any:
            if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != x.shape[0]:
                return value
            return value.unflatten(0, (-1, *inner)).transpose(1, 2).flatten(0, 2)

        whole = self.length
        self.length = x.shape[0]
        try:
            output = handle(self, func, reorder(x, (order, layout.inner)), Layout(layout.axes), rest, named)
        finally:
            self.length = whole
        leaves = (reorder(value, (layout.inner, order)) for _, value in nest_leaves(output, "output"))
        return rebuild_nest(output, leaves)

    def _label(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note the layout of what a function has returned."""
        sources: list[tuple[Tensor, Layout]] = []
        constant, unknown = func in _TABLES, False
        values = args[:1] if func in _CASTS else (*args, *kwargs.values()) if kwargs else args
        for x in _tensors(values):
            layout = layout_of(x)
            if layout is not None and layout.is_orbit:
                sources.append((x, layout))
            elif layout is not None or isinstance(x, nn.Parameter):
                constant = True
            elif x.ndim and _same(x.shape[0], self.length):
                unknown = True
        if not sources and (unknown or not constant):
            return
        for y in (output,) if isinstance(output, Tensor) else output:
            if isinstance(y, Tensor) and not isinstance(y, nn.Parameter):
                mark(y, self._layout_of_output(func, args, kwargs, sources, y) if sources else CONSTANT)

    def _layout_of_output(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], sources: list[tuple[Tensor, Layout]], y: Tensor
    ) -> Layout:
        first, inner = sources[0][0], max(layout.inner for _, layout in sources)
        if y.ndim and inner > 1 and not _same(y.shape[0], self.length * inner):
            inner = 1
        if func in _RESHAPES and first.ndim > 1 and y.ndim and inner == 1 and _same(first.shape[0], self.length):
            # As in `x.reshape(B * T, C, H, W)`.
            times = y.shape[0] // self.length
            inner = times if times and _same(y.shape[0], times * self.length) else 1
        axes: tuple[int, ...] = ()
        if func in _IMAGES_OUT and y.ndim == 4:
            kept = _kept_axes(sources, y) if func is run_as_one else ()
            axes = kept or (2, 3)
        elif func in _PARTS or func in _NARROWS:
            axes = sources[0][1].axes if y.ndim == first.ndim else ()
        elif func in _PERMUTATIONS:
            axes = _permuted_axes(func, args, kwargs, first, sources[0][1].axes)
        elif func is Tensor.__getitem__ and _index_by_axis(first, args[1]) is not None:
            axes = _indexed_axes(sources[0][1].axes, _index_by_axis(first, args[1]) or [])
        else:
            axes = _kept_axes(sources, y)
        return Layout(axes, True, inner)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments and in lists among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (x for x in value if isinstance(x, Tensor))


def _same(a: Any, b: Any) -> bool:
    """Return whether two sizes are equal, without an assumption about sizes that an exported program leaves open."""
    if not torch.compiler.is_exporting():
        return bool(a == b)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return bool(statically_known_true(a == b))


def _kept_axes(sources: list[tuple[Tensor, Layout]], y: Tensor) -> tuple[int, ...]:
    """Return the pixel axes of an output in which those of an input can be recognized."""
    for x, layout in sources:
        if not layout.axes or y.ndim < 3:
            continue
        rows, columns = layout.axes
        if max(rows, columns) >= x.ndim:
            continue
        if y.ndim == x.ndim and _same(y.shape[rows], x.shape[rows]) and _same(y.shape[columns], x.shape[columns]):
            return layout.axes
        size = x.shape[rows], x.shape[columns]
        if (rows, columns) == (x.ndim - 2, x.ndim - 1) and all(map(_same, y.shape[-2:], size)):
            return y.ndim - 2, y.ndim - 1
        if (rows, columns) == (1, 2) and all(map(_same, y.shape[1:3], size)):
            return 1, 2
    return ()


def _permuted_axes(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor, axes: tuple[int, ...]
) -> tuple[int, ...]:
    """Return where the pixel axes have gone, found by permuting a small tensor whose axes all differ in length."""
    if not axes or args[:1] == () or args[0] is not x:
        return ()
    lengths = list(func(torch.empty(tuple(range(2, 2 + x.ndim)), device="meta"), *args[1:], **kwargs).shape)
    return lengths.index(axes[0] + 2), lengths.index(axes[1] + 2)


class _Arguments(dict[str, Any]):
    """The arguments of a call after its input, by name."""

    def __init__(self, func: Callable[..., Any], rest: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(zip(_ARGUMENT_NAMES[func], rest, strict=False))
        self.update(kwargs)

    def pair(self, name: str, default: Any) -> tuple[Any, Any]:
        """Return an argument for rows and columns."""
        value = self.get(name)
        value = default if value is None or value == [] else value
        return (value[0], value[-1]) if isinstance(value, tuple | list | torch.Size) else (value, value)


def _apply_from_own_edges(
    operation: Callable[[Tensor], Any],
    x: Tensor,
    axes: tuple[int, ...],
    moves: Sequence[GridMove],
    rows: bool,
    columns: bool,
    axes_out: tuple[int, ...] | None = None,
) -> Any:
    """Do the same as `conjugate` for an operation that is told sizes in the image's frame: flips are enough.

    Args:
        operation: A function from images to images, or to tuples of them, that treats samples alike.
        x: The orbit.
        axes: The axes of its rows and columns.
        moves: The index moves of each element.
        rows: Whether flipping the rows matters. It does not where windows leave nothing over.
        columns: Whether flipping the columns matters.
        axes_out: The axes of rows and columns in the output, if they are others.

    Shape:
        - x: ``[B |G|, ...]``
        - output: ``[B |G|, ...]``
    """
    if not (rows or columns):
        return operation(x)
    # While a compiler traces, a condition on the size is an expression, until a branch depends on it.
    sides = [side for side, matters in enumerate((rows, columns)) if matters]
    flips = [(move.flip_rows and 0 in sides, move.flip_columns and 1 in sides) for move in moves]
    planes = x.unflatten(0, (-1, len(moves))).unbind(1)
    outputs: list[Any] = [None] * len(moves)
    for kind in dict.fromkeys(flips):
        elements = [g for g, flip in enumerate(flips) if flip == kind]
        chosen = [axis for axis, flip in zip(axes, kind, strict=True) if flip]
        back = [axis for axis, flip in zip(axes if axes_out is None else axes_out, kind, strict=True) if flip]
        result = operation(join_planes([planes[g].flip(chosen) if chosen else planes[g] for g in elements]))
        parts = result if isinstance(result, tuple | list) else (result,)
        for i, g in enumerate(elements):
            own = [part.unflatten(0, (-1, len(elements)))[:, i] for part in parts]
            outputs[g] = [part.flip(back) if back else part for part in own]
    joined = [join_planes(column) for column in zip(*outputs, strict=True)]
    return type(result)(joined) if isinstance(result, tuple | list) else joined[0]


def _pool(mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Pool with windows that start, for each orientation, at the edge that it has been rotated to."""
    if x.ndim != 4:
        return func(x, *rest, **named)
    arguments = _Arguments(func, rest, named)
    kernel, padding = arguments.pair("kernel_size", 0), arguments.pair("padding", 0)
    stride, dilation = arguments.pair("stride", kernel), arguments.pair("dilation", 1)
    if padding == (0, 0) and dilation == (1, 1) and all(map(_same, kernel, x.shape[-2:])):
        # One window, the whole image: a global pool.
        return func(x, **arguments)
    if any(pair[0] != pair[1] for pair in (kernel, stride, padding, dilation)):
        return conjugate(lambda upright: func(upright, **arguments), x, mode.moves)
    if func is F.max_pool2d_with_indices or arguments.get("return_indices"):
        return _pool_with_indices(func, x, arguments, mode.moves)
    # An exported program must not depend on the size, since it is to run at other sizes.
    always = torch.compiler.is_exporting() and stride[0] > 1
    window = kernel[0], stride[0], padding[0], dilation[0]
    rows, columns = (always or leftover(n, *window) > 0 for n in x.shape[-2:])
    return _apply_from_own_edges(lambda flipped: func(flipped, **arguments), x, (2, 3), mode.moves, rows, columns)


def _pool_with_indices(
    func: Callable[..., Any], x: Tensor, arguments: _Arguments, moves: Sequence[GridMove]
) -> tuple[Tensor, Tensor]:
    values, indices = [], []
    for plane, move in zip(x.unflatten(0, (-1, len(moves))).unbind(1), moves, strict=True):
        flip = move._replace(transpose=False)
        value, index = func(move_grid(plane, flip), **arguments)
        values.append(move_grid(value, flip))
        indices.append(_unflip_indices(move_grid(index, flip), flip, x.shape[-2], x.shape[-1]))
    return join_planes(values), join_planes(indices)


def _unflip_indices(indices: Tensor, flip: GridMove, height: int, width: int) -> Tensor:
    """Convert indices of pixels of a flipped image to those of the image as it is."""
    row, column = indices // width, indices % width
    row = height - 1 - row if flip.flip_rows else row
    return row * width + (width - 1 - column if flip.flip_columns else column)


def _interpolate(
    mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    if x.ndim != 4:
        return func(x, *rest, **named)
    arguments = _Arguments(func, rest, named)
    flip = not _interpolation_commutes(x, arguments)
    return _apply_from_own_edges(lambda flipped: func(flipped, **arguments), x, (2, 3), mode.moves, flip, flip)


def _interpolation_commutes(x: Tensor, arguments: _Arguments) -> bool:
    """Return whether an interpolation treats both ends of an axis alike."""
    nearest = arguments.get("mode", "nearest") in ("nearest", "nearest-exact")
    sizes = x.shape[-2:]
    if arguments.get("size") is not None:
        wanted = arguments.pair("size", None)
        # An exported program must not depend on the size, since it is to run at other sizes.
        exporting = torch.compiler.is_exporting()
        return not nearest or (not exporting and all(n % m == 0 for n, m in zip(wanted, sizes, strict=True)))
    factors = arguments.pair("scale_factor", 1)
    if all(factor == int(factor) for factor in factors):
        return True
    # A size that is not a whole number is cut, and then the scale counts from one end.
    return not nearest and all(n * factor == int(n * factor) for n, factor in zip(sizes, factors, strict=True))


def _pad(mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Pad, for each orientation, the sides that the plain network pads."""
    if not layout.axes:
        return func(x, *rest, **named)
    amounts = [*(rest[0] if rest else named["pad"]), *[0] * 2 * x.ndim]
    rows, columns = (amounts[2 * (x.ndim - 1 - axis)] != amounts[2 * (x.ndim - 1 - axis) + 1] for axis in layout.axes)
    return _apply_from_own_edges(
        lambda flipped: func(flipped, *rest, **named), x, layout.axes, mode.moves, rows, columns
    )


def _index(mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Take slices of rows and columns that start, for each orientation, at its own edge."""
    items = _index_by_axis(x, rest[0]) if layout.axes else None
    if items is None or not _is_whole(items[0]):
        return func(x, *rest)
    slices = [items[axis] for axis in layout.axes]
    if not all(isinstance(item, slice) for item in slices):
        return func(x, *rest)
    rows, columns = (not _is_symmetric(item, x.shape[axis]) for item, axis in zip(slices, layout.axes, strict=True))
    axes_out = _indexed_axes(layout.axes, items)
    return _apply_from_own_edges(lambda y: func(y, *rest), x, layout.axes, mode.moves, rows, columns, axes_out)


def _index_by_axis(x: Tensor, index: Any) -> list[Any] | None:
    """Return what an index takes of every axis: a slice or an int; None for an index of another kind."""
    items = list(index) if isinstance(index, tuple) else [index]
    kinds = slice, int, torch.SymInt, type(Ellipsis)
    if any(isinstance(item, bool) or not isinstance(item, kinds) for item in items):
        return None
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    missing = [slice(None)] * (x.ndim - len(items) + len(dots))
    if dots:
        items[dots[0] : dots[0] + 1] = missing
        return items
    return items + missing


def _indexed_axes(axes: tuple[int, ...], items: list[Any]) -> tuple[int, ...]:
    """Return where the pixel axes are after an index that takes single entries of some axes."""
    if not all(isinstance(items[axis], slice) for axis in axes):
        return ()
    return tuple(axis - sum(not isinstance(item, slice) for item in items[:axis]) for axis in axes)


def _is_whole(item: Any) -> bool:
    return isinstance(item, slice) and item.start is item.stop is item.step is None


def _is_symmetric(item: slice, length: Any) -> bool:
    """Return whether a slice takes the same of an axis from both ends."""
    if _is_whole(item):
        return True
    if torch.compiler.is_exporting():
        # It must not depend on the size.
        return False
    chosen = range(*item.indices(int(length)))
    return len(chosen) == 0 or chosen[0] + chosen[-1] == length - 1


def _narrow(mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    dim, start, length = (
        rest[i] if i < len(rest) else named[name] for i, name in enumerate(("dim", "start", "length"))
    )
    if not layout.axes or dim % x.ndim not in layout.axes or isinstance(start, Tensor):
        return func(x, *rest, **named)
    index = [slice(None)] * x.ndim
    start = start if not isinstance(start, int) or start >= 0 else x.shape[dim] + start
    index[dim] = slice(start, start + length)
    return _index(mode, Tensor.__getitem__, x, layout, (tuple(index),), {})


def _split(mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    dim = named.get("dim", rest[1] if len(rest) > 1 else 0) % x.ndim
    sides = [axis == dim for axis in layout.axes]
    if not any(sides):
        return func(x, *rest, **named)
    return _apply_from_own_edges(lambda y: func(y, *rest, **named), x, layout.axes, mode.moves, *sides)


def _shuffle(
    mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    if x.ndim != 4:
        return func(x, *rest, **named)
    return conjugate(lambda upright: func(upright, *rest, **named), x, mode.moves)


def _convolve(
    mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """Convolve upright images: the kernel belongs to no layer."""
    weight = rest[0] if rest else named.get("weight")
    if x.ndim != 4 or not isinstance(weight, Tensor):
        return func(x, *rest, **named)
    noted = layout_of(weight)
    if noted is not None and noted.is_orbit:
        # A kernel for each orientation, computed from the image.
        return func(x, *rest, **named)
    stride = named.get("stride", rest[2] if len(rest) > 2 else 1)
    if tuple(weight.shape[-2:]) == (1, 1) and stride in (1, (1, 1), [1, 1]):
        return func(x, *rest, **named)
    return conjugate(lambda upright: func(upright, *rest, **named), x, mode.moves)


def _drop(mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
    training = named.get("training", named.get("train", rest[1] if len(rest) > 1 else True))
    if not (mode.tied and training):
        return func(x, *rest, **named)

    def drop(ones: Tensor) -> Any:
        return func(ones, *rest, **named)

    if func in (F.dropout, torch.dropout) and x.ndim > 2:
        return tie_pixels(drop, x, layout.axes, mode.moves)
    return tie_samples(drop, x, len(mode.moves))


def _reshape(
    mode: OrbitMode, func: Any, x: Tensor, layout: Layout, rest: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """Reshape; an image that becomes a vector is rotated upright first."""
    plain = func(x, *rest, **named)
    makes_vectors = x.ndim == 4 and layout.axes and isinstance(plain, Tensor) and plain.ndim == 2
    if not makes_vectors or not (_same(x.shape[0], mode.length) and _same(plain.shape[0], mode.length)):
        return plain
    rows, columns = layout.axes
    (other,) = {1, 2, 3} - {rows, columns}
    if _same(x.shape[rows], 1) and _same(x.shape[columns], 1):
        return plain
    back = [0, *(1 + (other, rows, columns).index(axis) for axis in (1, 2, 3))]
    # Not `view`, even if that was called: upright images are copies with other strides.
    return conjugate(lambda upright: upright.permute(back).flatten(1), x.permute(0, other, rows, columns), mode.moves)


_POOLS = [func for func in _ARGUMENT_NAMES if func is not F.interpolate]
_RESHAPES = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}
_SHUFFLES = [F.pixel_shuffle, F.pixel_unshuffle, torch.pixel_shuffle, torch.pixel_unshuffle]
_CONVOLUTIONS = [F.conv2d, F.conv_transpose2d]
_DROPOUTS = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout]
_HANDLERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_POOLS, _pool),
    F.interpolate: _interpolate,
    **dict.fromkeys([F.pad, torch.constant_pad_nd], _pad),
    **dict.fromkeys(_SHUFFLES, _shuffle),
    **dict.fromkeys(_CONVOLUTIONS, _convolve),
    **dict.fromkeys(_DROPOUTS, _drop),
    **dict.fromkeys(_RESHAPES, _reshape),
    Tensor.__getitem__: _index,
    **dict.fromkeys(_NARROWS, _narrow),
    **dict.fromkeys(_PARTS, _split),
    run_as_one: lambda mode, func, x, layout, rest, named: func(x, *rest, **named),
}
_IMAGES_OUT = {*_POOLS, *_SHUFFLES, *_CONVOLUTIONS, *_ADAPTIVE, F.interpolate, F.batch_norm, run_as_one}
