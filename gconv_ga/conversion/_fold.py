"""`fold`: plain torch layers in place of ours, for inference and export."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid
from ..actions import GridMove
from ..nn.authoring import Geometry, KeepsTables, apply_per_orientation, make_geometry
from ._computed import OwnConvolution
from ._layers import OrbitConv2d, OrbitConvolution, OrbitConvTranspose2d


def fold(net: nn.Module) -> nn.Module:
    """Return a copy with plain torch layers in place of ours, equal at every size, for inference and export.

    Rotated kernels become the weights of `torch.nn.Conv2d` and `torch.nn.ConvTranspose2d`. The windows of a plain
    strided layer start at one edge. Flipping its input and output makes them start at the other edge, at every height
    and width, so a strided layer becomes one plain layer for each way in which orientations are flipped, with flips
    around it. Nothing in the result depends on the size of an image, and it can be exported with all axes dynamic.

    Norms and pools become torch's too. Layers without weights that torch does not have (up-sampling, pooling to a
    subgroup, the frame of a `ConvertedNetwork`) become one or two calls of torch's functions. The kernels of a folded
    network are no longer tied and there are ``|G|`` times as many weights. It is not for training, so its parameters
    require no gradient. Standardized, normalized and pruned weights are computed once; a convolution whose weight or
    padding depends on the input stays as it is.

    Args:
        net: A `ConvertedNetwork`, with or without taps, or a network with layers of `gconv_ga.nn`, of any group.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: ``net`` is not a module.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion import convert, fold
        >>> plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
        >>> folded = fold(convert(plain, "C4", torch.randn(1, 3, 12, 16)))
        >>> folded.model[0]
        Sequential(
          (0): Unflatten(dim=0, unflattened_size=(-1, 4))
          (1): Flatten(start_dim=1, end_dim=2)
          (2): Conv2d(12, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=4)
          (3): Unflatten(dim=1, unflattened_size=(4, 8))
          (4): Flatten(start_dim=0, end_dim=1)
        )
        >>> batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
        >>> sizes = ({0: batch, 2: height, 3: width},)
        >>> exported = torch.export.export(folded, (torch.randn(2, 3, 12, 16),), dynamic_shapes=sizes)
        >>> exported.module()(torch.randn(1, 3, 31, 25)).shape
        torch.Size([1, 2, 31, 25])
    """
    if not isinstance(net, nn.Module):
        raise invalid("net", "a torch.nn.Module", net)
    folded = _fold_modules(deepcopy(net).eval(), {}).eval().requires_grad_(False)
    first = next(folded.parameters(), None)
    return folded if first is None else folded.to(first.device)


def _fold_modules(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        # A convolution that computes its weight, or its padding, from the input has none to fold.
        layer = module.with_constant_weight() if isinstance(module, OwnConvolution) else module
        kind = next((each for each in type(layer).__mro__ if each in _FOLDS), type(module))
        if kind in _FOLDS:
            done[module] = _FOLDS[kind](layer)
        else:
            done[module] = module
            if kind in _NORMS:
                module.__class__ = _NORMS[kind]
            for name, child in list(module._modules.items()):  # noqa: SLF001  named_children() leaves out second names
                if child is not None:
                    setattr(module, name, _fold_modules(child, done))
    return done[module]


def fold_convolution(conv: Any) -> nn.Module:
    """Fold a lifting convolution, a group convolution or a convolution on an orbit."""
    orbit, lifting = isinstance(conv, OrbitConv2d), isinstance(conv, gnn.LiftingConv2d)
    if orbit and conv.taps is None and conv.kernel_size == conv.stride == (1, 1):
        # A single tap does not change when it is rotated: orientations can be treated like samples.
        layer = nn.Conv2d(
            conv.in_channels, conv.out_channels, 1, 1, conv.padding, 1, conv.groups, conv.bias is not None,
            conv.padding_mode, device="meta",
        )  # fmt: skip
        return _set_parameters(layer, conv.weight.detach(), conv.bias)
    order, places = conv.group.order, place_elements(conv.geometry)
    window = common_window(conv.geometry, places)
    whole = place_kernels(_rotated_kernels(conv), places, window)
    planes = 1 if lifting else order
    number_in = ChannelNumbering(conv.in_channels, planes, orbit)
    number_out = ChannelNumbering(conv.out_channels, order, orbit)
    everywhere = lifting or whole.shape[2] == conv.in_channels // conv.groups * order
    branches = []
    for flips in sorted({tuple(place.flips) for place in places}):
        elements = [g for g, place in enumerate(places) if tuple(place.flips) == flips]
        stack = whole[:, elements]
        if everywhere:
            reads = [number_in(c, h) for c in range(conv.in_channels) for h in range(planes)]
            writes = [number_out(o, g) for o in range(conv.out_channels) for g in elements]
            weight, blocks = stack.flatten(0, 1), conv.groups
        else:
            near = conv.neighbours.tolist()
            reads = [number_in(c, h) for g in elements for c in range(conv.in_channels) for h in near[g]]
            writes = [number_out(o, g) for g in elements for o in range(conv.out_channels)]
            weight, blocks = stack.transpose(0, 1).flatten(0, 1), conv.groups * len(elements)
        if blocks == 1:
            weight, reads, writes = _sort_channels(weight, reads, writes)
        layer = nn.Conv2d(
            len(reads), len(writes), window.kernel, conv.stride, window.padding, window.dilation, blocks,
            conv.bias is not None, conv.padding_mode, device="meta",
        )  # fmt: skip
        layer = _set_parameters(layer, weight, bias_of_channels(conv.bias, writes, order, orbit))
        branches.append(Branch(layer, reads, writes, list(flips)))
    return _reshape_around(join_branches(branches, conv.in_channels * planes), order, conv.out_channels, orbit, lifting)


def fold_transposed(conv: Any) -> nn.Module:
    """Fold a transposed group convolution, or one on an orbit."""
    orbit, order = isinstance(conv, OrbitConvTranspose2d), conv.group.order
    extra = (conv.output_padding[0], conv.output_padding[1])
    places = place_elements(conv.geometry, extra=extra, adjoint=True)
    window = common_window(conv.geometry, places, extra)
    whole = place_kernels(_rotated_kernels(conv), places, window).unflatten(2, (conv.out_channels // conv.groups, -1))
    number_in, number_out = (ChannelNumbering(n, order, orbit) for n in (conv.in_channels, conv.out_channels))
    planes = whole.shape[3]
    if planes == 1 < order:
        # Orientations do not mix.
        weight, blocks = whole[:, :, :, 0].transpose(0, 1).flatten(0, 1), conv.groups * order
        reads = [number_in(c, g) for g in range(order) for c in range(conv.in_channels)]
        writes = [number_out(o, g) for g in range(order) for o in range(conv.out_channels)]
    else:
        stack = whole if planes == order else planes_by_element(whole, conv.neighbours if orbit else conv.sources)
        weight, blocks = stack.flatten(2, 3).flatten(0, 1), conv.groups
        reads = [number_in(c, g) for c in range(conv.in_channels) for g in range(order)]
        writes = [number_out(o, h) for o in range(conv.out_channels) for h in range(order)]
    if blocks == 1:
        weight, reads, writes = _sort_channels(weight.transpose(0, 1), reads, writes)
        weight = weight.transpose(0, 1)
    layer = nn.ConvTranspose2d(
        len(reads), len(writes), window.kernel, conv.stride, window.padding, 0, blocks, conv.bias is not None,
        window.dilation, device="meta",
    )  # fmt: skip
    layer = _set_parameters(layer, weight, bias_of_channels(conv.bias, writes, order, orbit))
    inside = join_branches([Branch(layer, reads, writes, [])], conv.in_channels * order)
    return _reshape_around(inside, order, conv.out_channels, orbit, False, FixedSizeSequential)


def fold_pool(pool: Any) -> nn.Module:
    """Fold a pool over windows: one of torch's for each way in which orientations are flipped."""
    geometry = pool.geometry
    swaps = [move.transpose and geometry.rows != geometry.columns for move in geometry.moves]
    kinds = [(swap, *place.flips) for swap, place in zip(swaps, place_elements(geometry), strict=True)]
    branches = []
    for kind in sorted(set(kinds)):
        elements = [g for g in range(pool.group.order) if kinds[g] == kind]
        step = -1 if kind[0] else 1
        kernel, stride, padding = pool.kernel_size[::step], pool.stride[::step], pool.padding[::step]
        if isinstance(pool, gnn.MaxPool2d):
            dilation = pool.dilation[::step]
            plain: nn.Module = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=pool.ceil_mode)
        else:
            plain = nn.AvgPool2d(kernel, stride, padding, pool.ceil_mode, pool.count_include_pad)
        layer = nn.Sequential(nn.Flatten(1, 2), plain, nn.Unflatten(1, (-1, len(elements))))
        branches.append(Branch(layer, elements, elements, list(kind[1:])))
    return join_branches(branches, pool.group.order, dim=2)


def fold_group_pool(pool: gnn.GroupPool) -> nn.Module:
    """Fold a pool over all elements; a pool to a subgroup stays as it is."""
    if pool.subgroup is not None:
        return pool
    window = (pool.group.order, 1, 1)
    return nn.Sequential(nn.AvgPool3d(window) if pool.reduction == "mean" else nn.MaxPool3d(window), nn.Flatten(1, 2))


def fold_upsample(layer: gnn.Upsample) -> nn.Module:
    """Fold up-sampling by a whole number."""
    return PlainUpsample(layer, make_geometry(layer.group, (1, 1), (1, 1), 0, (1, 1)).moves)


_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    gnn.BatchNorm2d: nn.BatchNorm3d,
    gnn.InstanceNorm2d: nn.InstanceNorm3d,
    gnn.Dropout2d: nn.Dropout3d,
}
_FOLDS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    OrbitConv2d: fold_convolution,
    OrbitConvTranspose2d: fold_transposed,
    gnn.LiftingConv2d: fold_convolution,
    gnn.GroupConv2d: fold_convolution,
    gnn.GroupConvTranspose2d: fold_transposed,
    gnn.MaxPool2d: fold_pool,
    gnn.AvgPool2d: fold_pool,
    gnn.GroupPool: fold_group_pool,
    gnn.Upsample: fold_upsample,
}


class Branch(NamedTuple):
    """A plain layer, the channels that it reads, the channels that it writes, and the axes to flip around it."""

    layer: nn.Module
    reads: list[int]
    writes: list[int]
    flips: list[int]


class ParallelLayers(KeepsTables):
    """Plain layers side by side: ``out[writes] = flip(layer(flip(x[reads])))`` for every branch.

    A strided layer of an equivariant network becomes this once its kernels are rotated: each branch serves the
    orientations whose windows start at the same edges.

    Args:
        branches: The layers, which together write every channel once.
        dim: The axis of the channels.

    Shape:
        - x: ``[B, C, H, W]``, or ``[B, C, |G|, H, W]`` with ``dim=2``
        - output: the same with other channels, height and width
    """

    def __init__(self, branches: Sequence[Branch], dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(branch.layer for branch in branches)
        self.flips = [branch.flips for branch in branches]
        self.reads = [branch.reads for branch in branches]
        written = [channel for branch in branches for channel in branch.writes]
        self.places = sorted(range(len(written)), key=written.__getitem__)
        self._fill_tables(torch.device("cpu"), torch.float32)

    def _make_tables(self) -> dict[str, Tensor]:
        read = {f"read_index{i}": torch.tensor(channels) for i, channels in enumerate(self.reads)}
        return read | {"place_index": torch.tensor(self.places)}

    def forward(self, x: Tensor) -> Tensor:
        parts, tables = [], self._tables_like(x)
        for i, (layer, axes) in enumerate(zip(self.layers, self.flips, strict=True)):
            y = x.index_select(self.dim, tables[f"read_index{i}"])
            parts.append(layer(y.flip(axes)).flip(axes) if axes else layer(y))
        return torch.cat(parts, dim=self.dim).index_select(self.dim, tables["place_index"])

    def extra_repr(self) -> str:
        return f"flips={self.flips}"


def join_branches(branches: Sequence[Branch], channels: int, dim: int = 1) -> nn.Module:
    """Return the branches as one module, or the layer of a single one that reads and writes all channels in order.

    Args:
        branches: The layers.
        channels: Number of input channels.
        dim: The axis of the channels.
    """
    first = branches[0]
    in_order = first.reads == list(range(channels)) and first.writes == list(range(len(first.writes)))
    return first.layer if len(branches) == 1 and in_order and not first.flips else ParallelLayers(branches, dim)


class FixedSizeSequential(nn.Sequential):
    """A folded transposed convolution, with one output size: its output padding is part of its kernels."""

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        y: Tensor = super().forward(input)
        if output_size is not None and tuple(output_size)[-2:] != tuple(y.shape[-2:]):
            takes = f"{tuple(y.shape[-2:])}, what the output_padding of the layer gives"
            raise invalid("output_size", takes, tuple(output_size), "a folded layer has no other")
        return y


class PlainUpsample(nn.Module):
    """`Upsample` without checks of sizes: every orientation is extended at the edge that its own flip makes the last.

    Args:
        layer: The layer to replace.
        moves: The index moves of each element.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H * scale_factor, W * scale_factor]``, or ``output_size``
    """

    def __init__(self, layer: gnn.Upsample, moves: Sequence[GridMove]) -> None:
        super().__init__()
        self.scale_factor, self.mode, self.moves = layer.scale_factor, layer.mode, tuple(moves)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        axes = input.shape[1:3]
        y = F.interpolate(input.flatten(1, 2), scale_factor=self.scale_factor, mode=self.mode)
        if output_size is None:
            return y.unflatten(1, axes)
        rows, columns = (output_size[axis] - y.shape[axis] for axis in (-2, -1))

        def extend(x: Tensor) -> Tensor:
            return F.pad(x, (0, columns, 0, rows), mode="replicate")

        return apply_per_orientation(extend, y.unflatten(1, axes), self.moves, False, True, True)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}"


class Window(NamedTuple):
    """The window of a plain convolution, each as (rows, columns)."""

    kernel: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


class Placement(NamedTuple):
    """The kernel of one element: the axes to flip, its size, and where it starts in the common window."""

    flips: list[int]
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    start: tuple[int, int]


def place_elements(geometry: Geometry, *, extra: tuple[int, int] = (0, 0), adjoint: bool = False) -> list[Placement]:
    """Return where each element's kernel lies in the window that all of them share.

    Zeros around a kernel shift its window. Without a stride nothing else is needed, since the windows of an element
    start at the same place whatever the size. With a stride, the images of the element are flipped instead.

    Args:
        geometry: The windows of the layer.
        extra: Output padding of a transposed convolution.
        adjoint: Whether the layer is a transposed convolution, whose windows never depend on the size.
    """
    found = []
    for transpose, flip_rows, flip_columns in geometry.moves:
        axes = (geometry.columns, geometry.rows) if transpose else (geometry.rows, geometry.columns)
        flips, start = [], []
        for i, (axis, flip) in enumerate(zip(axes, (flip_rows, flip_columns), strict=True)):
            flip = flip and not geometry.shared
            if adjoint:
                start.append(geometry.padding[i] - axis.low + extra[i] * flip)
                continue
            if flip and axis.stride > 1:
                flips.append(i - 2)
            start.append(geometry.padding[i] - (axis.high if flip and axis.stride == 1 else axis.low))
        kernel, dilation = (axes[0].kernel, axes[1].kernel), (axes[0].dilation, axes[1].dilation)
        found.append(Placement(flips, kernel, dilation, (start[0], start[1])))
    return found


def common_window(geometry: Geometry, places: list[Placement], extra: tuple[int, int] = (0, 0)) -> Window:
    """Return the window of a plain convolution with room for every element's kernel and the same output size."""
    padding, axes = geometry.padding, (geometry.rows, geometry.columns)
    size = tuple(axis.shrink + 1 + 2 * pad + more for axis, pad, more in zip(axes, padding, extra, strict=True))
    first = places[0]
    own = tuple(d * (k - 1) + 1 for k, d in zip(first.kernel, first.dilation, strict=True))
    if size == own and all(place[1:] == (first.kernel, first.dilation, (0, 0)) for place in places):
        return Window(first.kernel, padding, first.dilation)
    return Window((size[0], size[1]), padding, (1, 1))


def place_kernels(kernels: Tensor, places: list[Placement], window: Window) -> Tensor:
    """Return every element's kernels in the common window, flipped like its images.

    Shape:
        - kernels: ``[rows, |G|, J, kh kw]``
        - output: ``[rows, |G|, J, KH, KW]``
    """
    whole = kernels.new_zeros(*kernels.shape[:3], *window.kernel)
    for g, place in enumerate(places):
        apart = (1, 1) if window.dilation == place.dilation else place.dilation
        rows, columns = (
            slice(start, start + d * (k - 1) + 1, d)
            for start, k, d in zip(place.start, place.kernel, apart, strict=True)
        )
        whole[:, g, :, rows, columns] = kernels[:, g].unflatten(2, place.kernel).flip(place.flips)
    return whole


def _rotated_kernels(conv: Any) -> Tensor:
    """Return the stack of rotated kernels, with a plane for each element where orientations mix."""
    if isinstance(conv, OrbitConvolution):
        return conv.rotated_kernels(shifted=conv.count == conv.group.order).detach()
    return conv.rotated_kernels().detach()


def planes_by_element(kernels: Tensor, sources: Tensor) -> Tensor:
    """Return planes by element in place of planes by tap, zeros where there is none.

    Args:
        kernels: The stack of a transposed convolution with ``m`` planes.
        sources: For each output ``h`` and plane ``u``, the input ``g`` that the plane is applied to.

    Shape:
        - kernels: ``[C_in, |G|, O, m, KH, KW]``
        - sources: ``[|G|, m]``
        - output: ``[C_in, |G|, O, |G|, KH, KW]``
    """
    order, count = sources.shape
    whole = kernels.new_zeros(*kernels.shape[:3], order, *kernels.shape[4:])
    for h in range(order):
        for u in range(count):
            g = int(sources[h, u])
            whole[:, g, :, h] += kernels[:, g, :, u]
    return whole


class ChannelNumbering:
    """The number of a channel of a feature map on the group, with fields or elements first."""

    def __init__(self, fields: int, order: int, elements_first: bool) -> None:
        self.fields, self.order, self.elements_first = fields, order, elements_first

    def __call__(self, field: int, element: int) -> int:
        return element * self.fields + field if self.elements_first else field * self.order + element


def _sort_channels(weight: Tensor, reads: list[int], writes: list[int]) -> tuple[Tensor, list[int], list[int]]:
    """Return a dense kernel ``[writes, reads, KH, KW]`` with the channels of both in ascending order."""
    rows, columns = (sorted(range(len(x)), key=x.__getitem__) for x in (writes, reads))
    weight = weight[torch.tensor(rows, device=weight.device)][:, torch.tensor(columns, device=weight.device)]
    return weight, sorted(reads), sorted(writes)


def bias_of_channels(bias: Tensor | None, writes: list[int], order: int, elements_first: bool) -> Tensor | None:
    """Return the bias of every output channel."""
    if bias is None:
        return None
    fields = bias.shape[0]
    index = [channel % fields if elements_first else channel // order for channel in writes]
    return bias.detach()[torch.tensor(index, device=bias.device)]


def _set_parameters(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """Return the layer with these parameters, on their device."""
    layer.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _reshape_around(
    inside: nn.Module, order: int, fields: int, orbit: bool, lifting: bool, kind: type[nn.Sequential] = nn.Sequential
) -> nn.Sequential:
    """Return a module on feature maps on the group, or on orbits, made of one on their channels."""
    if orbit:
        return kind(
            nn.Unflatten(0, (-1, order)), nn.Flatten(1, 2), inside, nn.Unflatten(1, (order, fields)), nn.Flatten(0, 1)
        )
    flat = [] if lifting else [nn.Flatten(1, 2)]
    return kind(*flat, inside, nn.Unflatten(1, (fields, order)))
