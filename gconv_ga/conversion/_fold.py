"""Plain torch layers side by side, each for the orientations that count their windows from the same edges."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import invalid
from ..actions import GridMove, move_grid
from ..nn.authoring import Geometry, make_geometry
from ._orbit_layers import OrbitConv2d, OrbitConvolution, OrbitConvTranspose2d


class Job(NamedTuple):
    """A plain layer, the channels that it reads, the channels that it writes, and the axes to flip around it."""

    layer: nn.Module
    reads: list[int]
    writes: list[int]
    flips: list[int]


class PlainLayers(nn.Module):
    """``out[writes] = flip(layer(flip(x[reads])))`` for every job.

    What a strided layer of an equivariant network is made of once its kernels are turned: flipping an image is how a
    plain layer gets to count its windows from the other edge, and it does so at every size.

    Args:
        jobs: The layers; together they write every channel once.
        dim: The axis of the channels.

    Shape:
        - x: ``[B, C, H, W]``, or ``[B, C, |G|, H, W]`` with ``dim=2``
        - output: the same with other channels, height and width
    """

    def __init__(self, jobs: Sequence[Job], dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(job.layer for job in jobs)
        self.flips = [job.flips for job in jobs]
        for i, job in enumerate(jobs):
            self.register_buffer(f"reads{i}", torch.tensor(job.reads), persistent=False)
        written = [channel for job in jobs for channel in job.writes]
        places = sorted(range(len(written)), key=written.__getitem__)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    places: Tensor

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for i, (layer, axes) in enumerate(zip(self.layers, self.flips, strict=True)):
            y = x.index_select(self.dim, getattr(self, f"reads{i}"))
            parts.append(layer(y.flip(axes)).flip(axes) if axes else layer(y))
        return torch.cat(parts, dim=self.dim).index_select(self.dim, self.places)

    def extra_repr(self) -> str:
        return f"flips={self.flips}"


class OneSize(nn.Sequential):
    """A folded transposed convolution: its output padding is part of its kernels."""

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        y: Tensor = super().forward(input)
        if output_size is not None and tuple(output_size)[-2:] != tuple(y.shape[-2:]):
            takes = f"{tuple(y.shape[-2:])}, what the output_padding of the layer gives"
            raise invalid("output_size", takes, tuple(output_size), "a folded layer has no other")
        return y


def side_by_side(jobs: Sequence[Job], channels: int, dim: int = 1) -> nn.Module:
    """The jobs as one module; a single layer that reads and writes all channels in their order is left as it is.

    Args:
        jobs: The layers.
        channels: How many channels the input has.
        dim: The axis of the channels.
    """
    first = jobs[0]
    in_order = first.reads == list(range(channels)) and first.writes == list(range(len(first.writes)))
    return first.layer if len(jobs) == 1 and in_order and not first.flips else PlainLayers(jobs, dim)


class Windows(NamedTuple):
    """The window of a plain convolution, rows and columns of everything."""

    kernel: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


class Placement(NamedTuple):
    """One element: how its kernel is flipped, and where it starts in the common window."""

    flips: list[int]
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    start: tuple[int, int]


def placements(geometry: Geometry, *, extra: tuple[int, int] = (0, 0), adjoint: bool = False) -> list[Placement]:
    """Where each element's kernel lies in the window that all of them share.

    Zeros around a kernel move its window. Without a stride that is all an element needs, since its windows start at the
    same place whatever the size; with one its images are flipped instead.

    Args:
        geometry: The windows of the layer.
        extra: Output padding of a transposed convolution.
        adjoint: Whether the layer is a transposed convolution. Its windows never depend on the size.
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


def common_windows(geometry: Geometry, places: list[Placement], extra: tuple[int, int] = (0, 0)) -> Windows:
    """The window of one plain convolution that has room for every element's kernel, and as many outputs."""
    padding, axes = geometry.padding, (geometry.rows, geometry.columns)
    size = tuple(axis.shrink + 1 + 2 * pad + more for axis, pad, more in zip(axes, padding, extra, strict=True))
    first = places[0]
    own = tuple(d * (k - 1) + 1 for k, d in zip(first.kernel, first.dilation, strict=True))
    if size == own and all(place[1:] == (first.kernel, first.dilation, (0, 0)) for place in places):
        return Windows(first.kernel, padding, first.dilation)
    return Windows((size[0], size[1]), padding, (1, 1))


def placed(kernels: Tensor, places: list[Placement], windows: Windows) -> Tensor:
    """Every element's kernels in the common window, flipped as its images are.

    Shape:
        - kernels: ``[rows, |G|, J, kh kw]``
        - output: ``[rows, |G|, J, KH, KW]``
    """
    whole = kernels.new_zeros(*kernels.shape[:3], *windows.kernel)
    for g, place in enumerate(places):
        apart = (1, 1) if windows.dilation == place.dilation else place.dilation
        rows, columns = (
            slice(start, start + d * (k - 1) + 1, d)
            for start, k, d in zip(place.start, place.kernel, apart, strict=True)
        )
        whole[:, g, :, rows, columns] = kernels[:, g].unflatten(2, place.kernel).flip(place.flips)
    return whole


def plane_of_each(kernels: Tensor, sources: Tensor) -> Tensor:
    """Planes by element in place of planes by tap, zeros where there is none.

    Args:
        kernels: The stack of a transposed convolution with ``m`` planes.
        sources: The input ``g`` that gives plane ``u`` to output ``h``, ``[|G|, m]``.

    Shape:
        - kernels: ``[C_in, |G|, O, m, KH, KW]``
        - output: ``[C_in, |G|, O, |G|, KH, KW]``
    """
    order, count = sources.shape
    whole = kernels.new_zeros(*kernels.shape[:3], order, *kernels.shape[4:])
    for h in range(order):
        for u in range(count):
            g = int(sources[h, u])
            whole[:, g, :, h] += kernels[:, g, :, u]
    return whole


def spread(bias: Tensor | None, writes: list[int], order: int, elements_first: bool) -> Tensor | None:
    """The bias of every output channel."""
    if bias is None:
        return None
    fields = bias.shape[0]
    index = [channel % fields if elements_first else channel // order for channel in writes]
    return bias.detach()[torch.tensor(index, device=bias.device)]


class _Numbering:
    """The channels of a map: its fields and elements, and which of both comes first."""

    def __init__(self, fields: int, order: int, elements_first: bool) -> None:
        self.fields, self.order, self.elements_first = fields, order, elements_first

    def __call__(self, field: int, element: int) -> int:
        return element * self.fields + field if self.elements_first else field * self.order + element


def fold_convolution(conv: Any) -> nn.Module:
    """A lifting convolution, group convolution or convolution on an orbit."""
    orbit, lifting = isinstance(conv, OrbitConv2d), isinstance(conv, gnn.LiftingConv2d)
    if orbit and conv.taps is None and conv.kernel_size == conv.stride == (1, 1):
        # A single tap is its own turn: orientations are as good as samples.
        layer = nn.Conv2d(
            conv.in_channels, conv.out_channels, 1, 1, conv.padding, 1, conv.groups, conv.bias is not None,
            conv.padding_mode, device="meta",
        )  # fmt: skip
        return _with(layer, conv.weight.detach(), conv.bias)
    order, places = conv.group.order, placements(conv.geometry)
    windows = common_windows(conv.geometry, places)
    whole = placed(_turned(conv), places, windows)
    planes = 1 if lifting else order
    number_in, number_out = _Numbering(conv.in_channels, planes, orbit), _Numbering(conv.out_channels, order, orbit)
    everywhere = lifting or whole.shape[2] == conv.in_channels // conv.groups * order
    jobs = []
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
            weight, reads, writes = _in_order(weight, reads, writes)
        layer = nn.Conv2d(
            len(reads), len(writes), windows.kernel, conv.stride, windows.padding, windows.dilation, blocks,
            conv.bias is not None, conv.padding_mode, device="meta",
        )  # fmt: skip
        jobs.append(Job(_with(layer, weight, spread(conv.bias, writes, order, orbit)), reads, writes, list(flips)))
    return _around(side_by_side(jobs, conv.in_channels * planes), order, conv.out_channels, orbit, lifting)


def fold_transposed(conv: Any) -> nn.Module:
    """A transposed group convolution, or one on an orbit."""
    orbit, order = isinstance(conv, OrbitConvTranspose2d), conv.group.order
    extra = (conv.output_padding[0], conv.output_padding[1])
    places = placements(conv.geometry, extra=extra, adjoint=True)
    windows = common_windows(conv.geometry, places, extra)
    whole = placed(_turned(conv), places, windows).unflatten(2, (conv.out_channels // conv.groups, -1))
    number_in, number_out = (_Numbering(n, order, orbit) for n in (conv.in_channels, conv.out_channels))
    planes = whole.shape[3]
    if planes == 1 < order:
        # Every orientation for itself.
        weight, blocks = whole[:, :, :, 0].transpose(0, 1).flatten(0, 1), conv.groups * order
        reads = [number_in(c, g) for g in range(order) for c in range(conv.in_channels)]
        writes = [number_out(o, g) for g in range(order) for o in range(conv.out_channels)]
    else:
        stack = whole if planes == order else plane_of_each(whole, conv.neighbours if orbit else conv.sources)
        weight, blocks = stack.flatten(2, 3).flatten(0, 1), conv.groups
        reads = [number_in(c, g) for c in range(conv.in_channels) for g in range(order)]
        writes = [number_out(o, h) for o in range(conv.out_channels) for h in range(order)]
    if blocks == 1:
        weight, reads, writes = _in_order(weight.transpose(0, 1), reads, writes)
        weight = weight.transpose(0, 1)
    layer = nn.ConvTranspose2d(
        len(reads), len(writes), windows.kernel, conv.stride, windows.padding, 0, blocks, conv.bias is not None,
        windows.dilation, device="meta",
    )  # fmt: skip
    job = Job(_with(layer, weight, spread(conv.bias, writes, order, orbit)), reads, writes, [])
    inside = side_by_side([job], conv.in_channels * order)
    return _around(inside, order, conv.out_channels, orbit, False, OneSize)


def _turned(conv: Any) -> Tensor:
    """The stack of turned kernels, a plane for each element where they mix."""
    if isinstance(conv, OrbitConvolution):
        return conv.turned(conv.count == conv.group.order).detach()
    return conv.turned_kernels().detach()


def _in_order(weight: Tensor, reads: list[int], writes: list[int]) -> tuple[Tensor, list[int], list[int]]:
    """A dense kernel ``[writes, reads, KH, KW]`` with the channels of both in ascending order."""
    rows, columns = (sorted(range(len(x)), key=x.__getitem__) for x in (writes, reads))
    weight = weight[torch.tensor(rows, device=weight.device)][:, torch.tensor(columns, device=weight.device)]
    return weight, sorted(reads), sorted(writes)


def _with(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer with these parameters, where they are."""
    layer.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _around(
    inside: nn.Module, order: int, fields: int, orbit: bool, lifting: bool, kind: type[nn.Sequential] = nn.Sequential
) -> nn.Sequential:
    """What works on the channels of a map, made to work on the map."""
    if orbit:
        return kind(
            nn.Unflatten(0, (-1, order)), nn.Flatten(1, 2), inside, nn.Unflatten(1, (order, fields)), nn.Flatten(0, 1)
        )
    flat = [] if lifting else [nn.Flatten(1, 2)]
    return kind(*flat, inside, nn.Unflatten(1, (fields, order)))


def fold_pool(pool: Any) -> nn.Module:
    """A pool over windows: one of torch's for each way in which orientations are flipped."""
    geometry = pool.geometry
    swaps = [move.transpose and geometry.rows != geometry.columns for move in geometry.moves]
    kinds = [(swap, *place.flips) for swap, place in zip(swaps, placements(geometry), strict=True)]
    jobs = []
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
        jobs.append(Job(layer, elements, elements, list(kind[1:])))
    return side_by_side(jobs, pool.group.order, dim=2)


def fold_group_pool(pool: gnn.GroupPool) -> nn.Module:
    """A pool over all elements; one to a subgroup stays as it is."""
    if pool.subgroup is not None:
        return pool
    window = (pool.group.order, 1, 1)
    return nn.Sequential(nn.AvgPool3d(window) if pool.reduction == "mean" else nn.MaxPool3d(window), nn.Flatten(1, 2))


class PlainUpsample(nn.Module):
    """`Upsample` without a look at sizes: every orientation continues at the edge that its own flip makes the last.

    Args:
        layer: The layer in whose place it stands.
        flips: How each element flips the image.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H * scale_factor, W * scale_factor]``, or ``output_size``
    """

    def __init__(self, layer: gnn.Upsample, flips: Sequence[GridMove]) -> None:
        super().__init__()
        self.scale_factor, self.mode, self.flips = layer.scale_factor, layer.mode, tuple(flips)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        axes = input.shape[1:3]
        y = F.interpolate(input.flatten(1, 2), scale_factor=self.scale_factor, mode=self.mode)
        if output_size is None:
            return y.unflatten(1, axes)
        rows, columns = (output_size[axis] - y.shape[axis] for axis in (-2, -1))
        flat = self._flip(y.unflatten(1, axes)).flatten(1, 2)
        return self._flip(F.pad(flat, (0, columns, 0, rows), mode="replicate").unflatten(1, axes))

    def _flip(self, maps: Tensor) -> Tensor:
        return torch.stack([move_grid(x, flip) for x, flip in zip(maps.unbind(2), self.flips, strict=True)], dim=2)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}"


def fold_upsample(layer: gnn.Upsample) -> nn.Module:
    """Up-sampling by a whole number."""
    moves = make_geometry(layer.group, (1, 1), (1, 1), 0, (1, 1)).moves
    return PlainUpsample(layer, [move._replace(transpose=False) for move in moves])


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


def fold(net: nn.Module) -> nn.Module:
    """A copy with plain torch layers in place of ours, equal at every size, for inference and export.

    Turned kernels become the weights of `torch.nn.Conv2d` and `torch.nn.ConvTranspose2d`. A strided layer becomes one
    plain layer for each way in which orientations are flipped, with the flips around it: a plain layer counts its
    windows from one edge, and flipping the image is how it counts from the other, at every height and width. So
    nothing in the result depends on the size of an image, and it can be exported with all axes dynamic.

    Norms and pools become torch's too. What has no weights and is no layer of torch's (up-sampling, pooling to a
    subgroup, the frame of a `ConvertedNetwork`) is a call or two of torch's functions. The kernels of a folded network
    are no longer tied and there are ``|G|`` times as many weights: it is not for training, so its parameters ask for no
    gradient.

    Args:
        net: A `ConvertedNetwork`, with taps or without, or a network that holds layers of `gconv_ga.nn`, of any group.

    Returns:
        The copy, in eval mode.

    Raises:
        ValueError: ``net`` is no module.

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
    folded = _fold(deepcopy(net).eval(), {}).eval().requires_grad_(False)
    first = next(folded.parameters(), None)
    return folded if first is None else folded.to(first.device)


def _fold(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        kind = type(module)
        if kind in _FOLDS:
            done[module] = _FOLDS[kind](module)
        else:
            done[module] = module
            if kind in _NORMS:
                module.__class__ = _NORMS[kind]
            for name, child in list(module._modules.items()):  # noqa: SLF001  named_children() leaves out second names
                if child is not None:
                    setattr(module, name, _fold(child, done))
    return done[module]
