"""Turned kernels with their windows, as the weights of plain torch convolutions."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..nn.authoring import Geometry


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
