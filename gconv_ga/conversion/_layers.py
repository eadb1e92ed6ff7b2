"""Layers on the orbit in the batch, which the modules of a plain network become.

The orbit of a batch is ``[B |G|, C, H, W]``: all orientations of the first sample, then those of the second. Every
feature map lies in the image's frame: that of element ``g`` is ``L_g`` of what the plain network computes on
``L_g^-1 x``. So every operation becomes ``L_g o operation o L_g^-1``, all feature maps keep the height and width of the
image, and nothing has to be rotated back at the end. A map rotated back, ``L_g^-1 x_g``, is called upright here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import SymInt, Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from .. import nn as gnn
from .._validate import invalid
from ..actions import GridMove, grid_move, move_grid, nest_leaves, rebuild_nest
from ..filters import GridFilters
from ..groups import Group
from ..nn.authoring import (
    Geometry,
    KeepsKernels,
    KeepsTables,
    correlate,
    correlate_transposed,
    least_size,
    make_geometry,
    nearest_elements,
)

# A layer rotates its maps in place of its kernels where the maps have fewer numbers than this for each number of the
# kernels. Measured on a CPU with benchmarks/conversion.py. Cached kernels need no rotation, only more memory traffic.
MAP_NUMBERS_PER_WEIGHT = {"cached": 4.0, "rotated": 8.0}
# So much more where taps are open: rotated kernels are then joined and expanded, which the maps' way does without.
OPENED = 1.5


class Layout(NamedTuple):
    """Facts about a tensor that a network computes, noted on the tensor itself.

    Args:
        axes: The axes of the pixels' rows and columns; none where they are not known, as for tokens.
        is_orbit: Whether it depends on the input, so that its rows are those of an orbit. Weights do not.
        inner: The length of an axis that is folded into the batch, after the orientations.
    """

    axes: tuple[int, ...] = ()
    is_orbit: bool = True
    inner: int = 1


CONSTANT = Layout((), False)


def mark(x: Tensor, layout: Layout) -> Tensor:
    """Note the layout of a tensor on it."""
    x._orbit_layout = layout  # type: ignore[attr-defined]  # noqa: SLF001  an attribute of our own
    return x


def layout_of(x: Tensor) -> Layout | None:
    """Return the layout that was noted on a tensor, None if there is none."""
    layout: Layout | None = getattr(x, "_orbit_layout", None)
    return layout


def mark_constants(model: nn.Module) -> None:
    """Note of buffers, and of other tensors that modules hold, that they do not depend on the input."""
    for module in model.modules():
        for x in (*module._buffers.values(), *module.__dict__.values()):  # noqa: SLF001  faster than buffers()
            if isinstance(x, Tensor) and layout_of(x) is None:
                mark(x, CONSTANT)


def run_as_one(x: Tensor, function: Callable[..., Any], *rest: Any) -> Any:
    """Call ``function(x, *rest)`` as one function for `OrbitMode`, which leaves alone what is called within."""
    if has_torch_function((x,)):
        return handle_torch_function(run_as_one, (x,), x, function, *rest)
    # A compiler does not see that there is a mode.
    with torch._C.DisableTorchFunction():  # noqa: SLF001  torch has no public name
        y = function(x, *rest)
    return mark(y, Layout((2, 3))) if isinstance(y, Tensor) and y.ndim == 4 and layout_of(x) is not None else y


class OrbitConvolution(KeepsKernels, KeepsTables):
    """A plain convolution changed in place into one on orbits; the parameters stay, under their names.

    The maps of orientation ``g`` are correlated with ``L_g k``. Where kernels are large and maps are small, the same
    result is computed the other way round: the maps are rotated upright, correlated with the kernel as it is, and
    rotated back.
    """

    neighbours: Tensor
    weight: Tensor
    rows: int  # length of the weight's first axis
    stride: tuple[int, ...]
    kernel_size: tuple[int, ...]
    groups: int
    taps: nn.Parameter | None
    runs_plain_forward: bool = False
    group: Group
    geometry: Geometry
    filters: GridFilters
    # The elements that the kernel has planes for. With one plane, every orientation depends on itself alone.
    elements: tuple[int, ...] = (0,)
    # Whether all orientations of the example's input are equal, as they are for the image itself.
    lifts: bool = False

    @classmethod
    def of(cls, plain: Any, group: Group) -> Self:
        """Make ``plain`` itself a layer on orbits, so that every reference to it stays valid.

        Raises:
            ValueError: A rotation by 90 degrees would change the output's size.
        """
        geometry = make_geometry(group, plain.kernel_size, plain.stride, plain.padding, plain.dilation)
        filters = GridFilters(group, plain.kernel_size)
        device, dtype, rows = plain.weight.device, plain.weight.dtype, plain.weight.shape[0]
        plain.__class__ = orbit_class(type(plain), cls)
        plain.group, plain.geometry, plain.filters = group, geometry, filters
        plain.rows = rows
        plain.register_parameter("taps", None)
        plain._fill_tables(device, dtype)  # noqa: SLF001
        return plain

    @property
    def count(self) -> int:
        """The number of elements that the kernel has planes for."""
        return 1 if self.taps is None else 1 + self.taps.shape[0] // self.rows

    def open(self, count: int) -> None:
        """Add planes of zeros for the ``count`` elements nearest the identity; existing planes are kept.

        Raises:
            ValueError: ``count`` is not within ``1 .. |G|``, or it is less than the number of planes.
        """
        elements = nearest_elements(self.group, count)
        if count < self.count:
            raise invalid("group_kernel_size", f"at least {self.count}, the planes that are open", count)
        if count == self.count:
            return
        self.elements = elements
        weight = self.weight.detach()
        self._fill_tables(weight.device, weight.dtype)
        # Four axes: `.to(memory_format=torch.channels_last)` takes no more.
        taps = weight.new_zeros(((count - 1) * self.rows, *weight.shape[1:]))
        if self.taps is not None:
            taps[: self.taps.shape[0]] = self.taps.detach()
        self.taps = nn.Parameter(taps)

    def _make_tables(self) -> dict[str, Tensor]:
        table = [[self._neighbour(g, h) for h in self.elements] for g in range(self.group.order)]
        return self.filters.tables() | {"neighbours": torch.tensor(table)}

    def _neighbour(self, g: int, h: int) -> int:
        """Return the orientation that plane ``h`` reads to compute orientation ``g``."""
        raise NotImplementedError

    def planes(self, weight: Tensor) -> Tensor:
        """Return the kernel with all its planes, ``[rows, columns, m, kh, kw]``."""
        weights = weight if self.taps is None else torch.cat((weight, self.taps))
        return weights.unflatten(0, (self.count, -1)).permute(1, 2, 0, 3, 4)

    def rotated_kernels(self, shifted: bool, weight: Tensor | None = None) -> Tensor:
        """Return the kernels rotated by every element, ``[rows, |G|, J, kh kw]`` with J = (column, plane).

        Args:
            shifted: Whether plane ``h`` belongs to orientation ``h`` of the input, ``k_(g^-1 h)``, rather than to
                ``g h``. This takes a plane for every element.
            weight: The weight of this call. If None, the parameter.
        """
        planes = self.planes(self.weight if weight is None else weight)
        tables = self._tables_like(planes)
        if shifted:
            return self.filters.rotate_and_shift(planes, tables)
        return self.filters.rotate(planes.flatten(1, 2), tables)

    @property
    def _mixes_all(self) -> bool:
        return self.taps is not None and self.count == self.group.order and self.groups == 1

    def _weights(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (weight,) if self.taps is None else (weight, self.taps)

    def _kernels(self, weight: Tensor) -> Tensor:
        return self._cached(lambda: self._kernels_by_element(weight), *self._weights(weight))

    def _kernels_by_element(self, weight: Tensor) -> Tensor:
        """Return `rotated_kernels` with elements first in memory, the order in which a convolution reads them."""
        return self.rotated_kernels(self._mixes_all, weight).transpose(0, 1).contiguous().transpose(0, 1)

    def _rotates_maps(self, numbers: int, weight: Tensor, geometry: Geometry) -> bool:
        """Return whether rotating maps of so many numbers costs less than rotating the kernel.

        An exported program always rotates the maps of a layer whose orientations have windows of their own, since it
        is to run at other sizes than the example's.
        """
        if torch.compiler.is_exporting():
            rows, columns = geometry.rows, geometry.columns
            return max(rows.stride, columns.stride) > 1 or rows != columns or rows.low != rows.high
        weights = self._weights(weight)
        trains = torch.is_grad_enabled() and any(each.requires_grad for each in weights)
        cached = isinstance(weight, nn.Parameter) and not (self.training or trains)
        each = MAP_NUMBERS_PER_WEIGHT["cached" if cached else "rotated"]
        return numbers < sum(map(Tensor.numel, weights)) * each * (1 if cached or self.taps is None else OPENED)

    def _repr_with_group(self, plain: str) -> str:
        text = f"{plain}, group={self.group.name!r}"
        return text if self.taps is None else f"{text}, taps={self.count}"


class OrbitConv2d(OrbitConvolution, nn.Conv2d):
    """`torch.nn.Conv2d` on an orbit: ``out_g = sum_h (L_g k_h) * x_(g h)``, each orientation on its own grid.

    At first the identity is the only ``h`` and orientations do not mix: the layer is the plain one, conjugated.
    `open` adds kernels ``k_h`` that start at zero.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
        - weight: ``[C_out, C_in / groups, kh, kw]``; taps: ``[(m - 1) C_out, C_in / groups, kh, kw]``
    """

    _fourier_layer: gnn.GroupConv2d | None = None

    def _neighbour(self, g: int, h: int) -> int:
        return self.group.products[g][h]

    def _kernels_by_element(self, weight: Tensor) -> Tensor:
        if not self._mixes_all:
            return super()._kernels_by_element(weight)
        # The maps lie beside each other element by element: planes come before columns.
        stack = self.rotated_kernels(True, weight).unflatten(2, (-1, self.group.order))
        return stack.permute(1, 0, 3, 2, 4).flatten(2, 3).transpose(0, 1)

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = run_as_one(input, self._convolve, self._conv_forward, self.weight, self.bias, self.geometry)
        return y

    def _convolve(self, input: Tensor, plain: Any, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        """Convolve an orbit.

        Args:
            input: The orbit.
            plain: The plain convolution, a function of images, kernel and bias.
            weight: The kernel of the identity.
            bias: The bias.
            geometry: The windows.
        """
        if self.taps is None and all(axis.kernel == axis.stride == 1 for axis in (geometry.rows, geometry.columns)):
            # A single tap does not change when it is rotated.
            y: Tensor = plain(input, weight, bias)
            return y
        height, width = geometry.output_size(input.shape[-2], input.shape[-1])
        numbers = input.numel() * self.count + input.shape[0] * self.out_channels * height * width
        layer = self._layer_by_fourier(input, geometry)
        if layer is not None:
            return self._convolve_by(layer, input, weight, bias)
        if self._rotates_maps(numbers, weight, geometry):
            return self._convolve_upright(input, plain, weight, bias)
        maps = input.unflatten(0, (-1, self.group.order))
        x = maps.flatten(1, 2) if self._mixes_all else self._gather_neighbours(maps)
        y = correlate(x, self._kernels(weight), bias, geometry, self.groups, self.padding_mode, elements_first=True)
        return y.flatten(0, 1)

    def _layer_by_fourier(self, input: Tensor, geometry: Geometry) -> gnn.GroupConv2d | None:
        """Return a group convolution if it computes this orbit in the Fourier basis; else None."""
        rows, columns = geometry.rows, geometry.columns
        plain = rows == columns and rows.stride == rows.dilation == 1 and rows.low == rows.high
        if not (self._mixes_all and plain and self.padding_mode == "zeros") or torch.compiler.is_compiling():
            return None
        layer = self._fourier_layer
        if layer is None or layer.padding != (rows.low, rows.low) or layer.weight.dtype != input.dtype:
            layer = gnn.GroupConv2d(
                self.in_channels, self.out_channels, rows.kernel, padding=rows.low, group=self.group,
                bias=self.bias is not None,
            )  # fmt: skip
            # Each call brings the weights: these would only take memory.
            layer.weight = nn.Parameter(layer.weight.new_empty(0, dtype=input.dtype), requires_grad=False)
            self.__dict__["_fourier_layer"] = layer
        return layer if layer.uses_fourier(self._by_channel(input)) else None

    def _by_channel(self, input: Tensor) -> Tensor:
        """Return an orbit as a feature map on the group, ``[B, C, |G|, H, W]``."""
        return input.unflatten(0, (-1, self.group.order)).transpose(1, 2)

    def _convolve_by(self, layer: gnn.GroupConv2d, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return layer.convolve_with(self._by_channel(input), weight, self.taps, bias).transpose(1, 2).flatten(0, 1)

    def _gather_neighbours(self, maps: Tensor) -> Tensor:
        """Return the maps that each orientation depends on, ``[B, |G|, C m, H, W]``."""
        if self.taps is None:
            return maps
        return maps[:, self._tables_like(maps)["neighbours"]].transpose(2, 3).flatten(2, 3)

    def _convolve_upright(self, input: Tensor, plain: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        maps, kernels = [input], [weight]
        if self.taps is not None:
            # Plane by plane: joining large weights would cost more than the additions of small maps.
            by_element = input.unflatten(0, (-1, self.group.order))
            neighbours = self._tables_like(input)["neighbours"]
            maps = [by_element[:, neighbours[:, p]].flatten(0, 1) for p in range(self.count)]
            kernels = [weight, *self.taps.unflatten(0, (-1, self.rows)).unbind(0)]

        def correlate_all(upright: Sequence[Tensor]) -> Tensor:
            y: Tensor = plain(upright[0], kernels[0], bias)
            for x, kernel in zip(upright[1:], kernels[1:], strict=True):
                y = y + plain(x, kernel, None)
            return y

        y: Tensor = conjugate(correlate_all, maps, self.geometry.moves)
        return y

    def extra_repr(self) -> str:
        return self._repr_with_group(super().extra_repr())


class OrbitConvTranspose2d(OrbitConvolution, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on an orbit: each orientation goes back to its own grid; see `OrbitConv2d`.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
        - weight: ``[C_in, C_out / groups, kh, kw]``; taps: ``[(m - 1) C_in, C_out / groups, kh, kw]``
    """

    def _neighbour(self, g: int, h: int) -> int:
        return self.group.products[g][self.group.inverse(h)]

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        extra = self.output_padding[0], self.output_padding[1]
        if output_size is not None:
            # torch's own check of which sizes are possible.
            stride, kernel, dilation = list(self.stride), list(self.kernel_size), list(self.dilation)
            padding = [self.geometry.rows.low, self.geometry.columns.low]
            rows, columns = self._output_padding(input, list(output_size), stride, padding, kernel, 2, dilation)
            extra = rows, columns
        y: Tensor = run_as_one(input, self._convolve, self.weight, self.bias, self.geometry, extra)
        return y

    def _convolve(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, extra: tuple[int, int]
    ) -> Tensor:
        """Convolve an orbit; ``extra`` are the rows and columns of output padding."""
        least = least_size(geometry, input.shape[-2], input.shape[-1])
        size = (least[0] + extra[0]) * (least[1] + extra[1])
        numbers = input.numel() + input.shape[0] * self.out_channels * size
        if self.taps is None and extra[0] == extra[1] and self._rotates_maps(numbers, weight, geometry):
            return self._convolve_upright(input, weight, bias, geometry, extra[0])
        maps = input.unflatten(0, (-1, self.group.order))
        sources = None if self._mixes_all else self._tables_like(maps)["neighbours"]
        y = correlate_transposed(maps, self._kernels(weight), geometry, extra, self.groups, sources, True)
        y = y if bias is None else y + bias.view(-1, 1, 1)
        return y.flatten(0, 1)

    def _convolve_upright(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, extra: int
    ) -> Tensor:
        stride = geometry.rows.stride, geometry.columns.stride
        padding = geometry.rows.low, geometry.columns.low
        dilation = geometry.rows.dilation, geometry.columns.dilation

        def transposed(upright: Tensor) -> Tensor:
            return F.conv_transpose2d(upright, weight, bias, stride, padding, extra, self.groups, dilation)

        y: Tensor = conjugate(transposed, input, geometry.moves)
        return y

    def extra_repr(self) -> str:
        return self._repr_with_group(super().extra_repr())


def orbit_class(kind: type[nn.Module], base: type[OrbitConvolution]) -> Any:
    """Return the class of a convolution on orbits that was of class ``kind``, and still is an instance of it."""
    if kind in (nn.Conv2d, nn.ConvTranspose2d) and not base.runs_plain_forward:
        return base
    name = f"_as_{base.__name__}"
    # Kept with the class itself: parametrized modules have a class each.
    if name not in kind.__dict__:
        members = {
            "plain_class": kind,
            "__module__": base.__module__,
            "__reduce_ex__": _reduce,
            "__doc__": base.__doc__,
        }
        setattr(kind, name, type(f"{base.__name__}From{kind.__name__}", (base, kind), members))
    return kind.__dict__[name]


def _reduce(module: Any, protocol: int) -> Any:
    base = next(each for each in type(module).__mro__[1:] if issubclass(each, OrbitConvolution))
    return _restore, (type(module).plain_class, base), module.__getstate__()


def _restore(kind: type[nn.Module], base: type[OrbitConvolution]) -> Any:
    orbit = orbit_class(kind, base)
    return orbit.__new__(orbit)


class ConjugatedForward:
    """Replacement of a module's ``forward``: ``L_g module(L_g^-1 x_g)`` for all images among its arguments.

    It is exact for every module from images to images or to numbers. A call without images, or with channels last, is
    left to the module. So is one with a size among its arguments, which belongs to images that are not upright; there
    `OrbitMode` does what it can. The instance's ``forward`` is replaced, so that class, parameters, names and hooks
    stay.
    """

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.moves = grid_moves(group)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        images = [x for _, x in nest_leaves((args, kwargs), "input") if is_image(x) and _has_pixels_last(x)]
        if not images or _contains_size((args, kwargs)):
            return type(self.module).forward(self.module, *args, **kwargs)
        # Outside of `OrbitMode`, which is for images that are not upright.
        return run_as_one(images[0], self._forward_upright, args, kwargs)

    def _forward_upright(self, image: Tensor, args: Any, kwargs: Any) -> Any:
        module = self.module
        return conjugate(lambda nest: type(module).forward(module, *nest[0], **nest[1]), (args, kwargs), self.moves)


def _has_pixels_last(x: Tensor) -> bool:
    """Return whether the pixels may be the last two axes; they are not where channels are known to be last."""
    layout = layout_of(x)
    return layout is None or layout.axes in ((), (2, 3))


def _contains_size(nest: Any) -> bool:
    """Return whether a nest contains a sequence of ints."""
    if isinstance(nest, Mapping):
        return any(_contains_size(part) for part in nest.values())
    if isinstance(nest, tuple | list):
        is_size = len(nest) > 1 and all(isinstance(part, int | SymInt) for part in nest)
        return is_size or any(_contains_size(part) for part in nest)
    return False


class TiedForward:
    """Replacement of a random drop's ``forward``: one draw for each sample, shared by all its orientations."""

    def __init__(self, module: nn.Module, group: Group) -> None:
        self.module = module
        self.order = group.order

    def __call__(self, x: Tensor) -> Any:
        def drop(ones: Tensor) -> Any:
            return type(self.module).forward(self.module, ones)

        return run_as_one(x, lambda y: tie_samples(drop, y, self.order)) if self.module.training else drop(x)


def tie_samples(drop: Callable[[Tensor], Any], x: Tensor, order: int) -> Tensor:
    """Multiply an orbit by one random mask for each sample.

    Args:
        drop: A function that multiplies a tensor by a random mask.
        x: The orbit, ``[B |G|, ...]``.
        order: The number of elements, ``|G|``.
    """
    first = x.unflatten(0, (-1, order))[:, 0]
    mask: Tensor = drop(first.new_ones(first.shape))
    return x * mask.repeat_interleave(order, 0)


def tie_pixels(drop: Callable[[Tensor], Any], x: Tensor, axes: tuple[int, ...], moves: Sequence[GridMove]) -> Tensor:
    """Multiply an orbit by random masks of the upright image, each rotated with its orientation.

    Tokens, whose pixels are not known, have one mask for each channel.

    Args:
        drop: A function that multiplies a tensor by a random mask.
        x: The orbit, ``[B |G|, ...]``.
        axes: The axes of rows and columns; none for tokens.
        moves: The index moves of each element.
    """
    shape = [x.shape[0] // len(moves), *x.shape[1:]]
    if not axes:
        mask: Tensor = drop(x.new_ones([shape[0], *[1] * (x.ndim - 2), shape[-1]]))
        return x * mask.repeat_interleave(len(moves), 0)
    size = shape[axes[0]], shape[axes[1]]
    sizes = {size[::-1] if move.transpose else size for move in moves}
    masks: dict[tuple[int, ...], Tensor] = {}
    # In an order that does not depend on how the image is rotated.
    for upright in sorted(sizes):
        shape[axes[0]], shape[axes[1]] = upright
        masks[upright] = drop(x.new_ones(shape)).movedim(axes, (-2, -1))
    rotated = [move_grid(masks[size[::-1] if move.transpose else size], move) for move in moves]
    return x * join_planes([mask.movedim((-2, -1), axes) for mask in rotated])


def grid_moves(group: Group) -> tuple[GridMove, ...]:
    """Return the index moves of every element of a group of quarter turns and reflections."""
    return tuple(grid_move(group, g) for g in range(group.order))


def conjugate(operation: Callable[..., Any], nest: Any, moves: Sequence[GridMove]) -> Any:
    """Compute ``L_g operation(L_g^-1 x_g)`` for every orientation in the batch, which is right for any operation.

    All upright images of one shape go through the operation in one batch, so that batch statistics are shared. Under
    quarter turns, images that are not square come in two shapes.

    Args:
        operation: A function of the nest with upright images. Images in its result are rotated back; tensors with other
            axes are not, since they belong to no pixel.
        nest: A tensor, or tensors and others in dicts, tuples and lists. Images are the tensors ``[B |G|, C, H, W]``.
        moves: The index moves of each element.

    Shape:
        - images in ``nest``: ``[B |G|, C, H, W]``
        - output: tensors ``[B |G|, ...]``
    """
    order = len(moves)
    values = [value for _, value in nest_leaves(nest, "input")]
    length = next(value.shape[0] for value in values if is_image(value))
    noted = any(layout_of(value) is not None for value in values if isinstance(value, Tensor))
    planes = [
        value.unflatten(0, (-1, order)).unbind(1) if _is_orbit(value, length, noted) else None for value in values
    ]
    outputs: dict[int, list[Any]] = {}
    for elements in _group_by_shape(values, moves):
        upright = (
            value if maps is None else join_planes([_move_image(maps[g], moves[g].inverse) for g in elements])
            for value, maps in zip(values, planes, strict=True)
        )
        result = operation(rebuild_nest(nest, iter(list(upright))))
        leaves = [value for _, value in nest_leaves(result, "output")]
        parts = [
            leaf.unflatten(0, (-1, len(elements))).unbind(1) if isinstance(leaf, Tensor) and leaf.ndim else None
            for leaf in leaves
        ]
        for i, g in enumerate(elements):
            outputs[g] = [
                leaf if part is None else _move_image(part[i], moves[g])
                for leaf, part in zip(leaves, parts, strict=True)
            ]
    joined = (
        join_planes(column) if isinstance(column[0], Tensor) and column[0].ndim else column[0]
        for column in map(list, zip(*(outputs[g] for g in range(order)), strict=True))
    )
    return rebuild_nest(result, joined)


def _group_by_shape(values: list[Any], moves: Sequence[GridMove]) -> list[list[int]]:
    """Return lists of elements whose upright images have the same shape."""
    everything = list(range(len(moves)))
    # An exported program must not depend on the size, since it is to run at other sizes.
    if not torch.compiler.is_exporting() and all(v.shape[-2] == v.shape[-1] for v in values if is_image(v)):
        return [everything]
    halves = [[g for g in everything if moves[g].transpose == transpose] for transpose in (False, True)]
    return [half for half in halves if half]


def is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _is_orbit(value: Any, length: int, noted: bool) -> bool:
    """Return whether a value has a row for every orientation; a table may have as many rows, but depends on no input.

    Args:
        value: The value.
        length: The orbit's length.
        noted: Whether layouts were noted, so that a tensor without one is no orbit, unless it is an image.
    """
    if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != length:
        return False
    layout = layout_of(value)
    return value.ndim == 4 or not noted if layout is None else layout.is_orbit


def _move_image(plane: Tensor, move: GridMove) -> Tensor:
    return move_grid(plane, move) if plane.ndim == 4 else plane


def join_planes(planes: Sequence[Tensor]) -> Tensor:
    """Join one plane ``[B, ...]`` for each orientation to an orbit ``[B |G|, ...]``."""
    return torch.stack(list(planes), dim=1).flatten(0, 1)
