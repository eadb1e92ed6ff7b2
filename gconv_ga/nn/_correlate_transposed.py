"""The adjoint of cross-correlation with stacks of turned kernels."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ._geometry import Geometry
from ._orientations import take


class _Crop(NamedTuple):
    """What some orientations cut from the start of the full result; ``swap`` exchanges the axes of the window."""

    swap: bool
    top: int
    left: int


def least_size(geometry: Geometry, height: int, width: int) -> tuple[int, int]:
    """Rows and columns that come out of ``height x width`` without output padding.

    Args:
        geometry: The windows of the correlation.
        height: Rows.
        width: Columns.

    Example:
        >>> from gconv_ga.groups import C4
        >>> from gconv_ga.nn.authoring import make_geometry
        >>> least_size(make_geometry(C4, (2, 2), (2, 2), 0, (1, 1)), 8, 9)
        (16, 18)
    """
    rows, columns = geometry.rows, geometry.columns
    return (height - 1) * rows.stride + rows.shrink + 1, (width - 1) * columns.stride + columns.shrink + 1


def correlate_transposed(
    maps: Tensor,
    kernels: Tensor,
    geometry: Geometry,
    extra: tuple[int, int],
    groups: int,
    sources: Tensor | None,
    elements_first: bool = False,
) -> Tensor:
    """Every orientation put back where a strided correlation has sampled it, then summed.

    Args:
        maps: The map on the group.
        kernels: The turned kernels, a stack for each input field.
        geometry: The windows of the correlation whose adjoint this is.
        extra: Output padding, rows and columns; each orientation adds it at the edge it has turned to.
        groups: Blocks of fields.
        sources: Where the kernels have ``m`` planes: ``h u^-1``, the input that gives plane ``u`` to output ``h``.
            None if every input goes to every output; with ``elements_first`` that needs ``groups=1``.
        elements_first: Whether the element axis comes before the fields, in and out.

    Shape:
        - maps: ``[B, C_in, |G|, H, W]``, or ``[B, |G|, C_in, H, W]`` with ``elements_first``
        - kernels: ``[C_in, |G|, (C_out / groups) |G|, kh kw]``, or with ``sources [|G|, m]``
          ``[C_in, |G|, (C_out / groups) m, kh kw]``
        - output: ``[B, C_out, |G|, H', W']``, or ``[B, |G|, C_out, H', W']`` with ``elements_first``

    Example:
        >>> import torch
        >>> from gconv_ga.groups import C4
        >>> from gconv_ga.nn.authoring import make_geometry
        >>> windows = make_geometry(C4, (2, 2), (2, 2), 0, (1, 1))
        >>> maps, kernels = torch.randn(1, 3, 4, 8, 8), torch.randn(3, 4, 5 * 4, 2 * 2)
        >>> correlate_transposed(maps, kernels, windows, (0, 0), 1, None).shape
        torch.Size([1, 5, 4, 16, 16])
    """
    if has_torch_function((maps,)):
        # As in `correlate`.
        return handle_torch_function(
            correlate_transposed, (maps,), maps, kernels, geometry, extra, groups, sources, elements_first
        )
    order = kernels.shape[1]
    least = least_size(geometry, maps.shape[-2], maps.shape[-1])
    size = least[0] + extra[0], least[1] + extra[1]
    crops = _crops(geometry, extra)
    if sources is None:
        stack = kernels.unflatten(2, (-1, order))
        # Channels are (field, element) or (element, field), in and out.
        stack = stack.permute(1, 0, 3, 2, 4) if elements_first else stack
        axis, out = (0, (order, -1)) if elements_first else (1, (-1, order))
        parts = []
        for crop, elements in crops.items():
            whole = len(elements) == order
            x = maps if whole else take(maps, elements, axis + 1)
            weight = stack if whole else take(stack, elements, axis)
            parts.append(_piece(x.flatten(1, 2), weight.flatten(2, 3).flatten(0, 1), crop, geometry, groups, size))
        return sum(parts[1:], parts[0]).unflatten(1, out)
    upright = maps if elements_first else maps.transpose(1, 2)
    planes: dict[int, Tensor] = {}
    for crop, elements in crops.items():
        whole = len(elements) == order
        x = upright if whole else take(upright, elements, 1)
        weight = (kernels if whole else take(kernels, elements, 1)).transpose(0, 1).flatten(0, 1)
        y = _piece(x.flatten(1, 2), weight, crop, geometry, groups * len(elements), size)
        planes.update(zip(elements, y.unflatten(1, (len(elements), -1)).unbind(1), strict=True))
    count = sources.shape[1]
    given = torch.stack([planes[g] for g in range(order)], dim=1).unflatten(2, (-1, count)).transpose(2, 3)
    summed = given[:, sources, torch.arange(count, device=maps.device)].sum(2)
    return summed if elements_first else summed.transpose(1, 2).contiguous()


def _crops(geometry: Geometry, extra: tuple[int, int]) -> dict[_Crop, list[int]]:
    """The elements sorted by what they crop."""
    found: dict[_Crop, list[int]] = {}
    square = geometry.rows == geometry.columns
    for g, (transpose, flip_rows, flip_columns) in enumerate(geometry.moves):
        swap = transpose and not square
        rows, columns = (geometry.columns, geometry.rows) if swap else (geometry.rows, geometry.columns)
        own = not geometry.shared
        crop = _Crop(swap, rows.low - extra[0] * (flip_rows and own), columns.low - extra[1] * (flip_columns and own))
        found.setdefault(crop, []).append(g)
    return found


def _piece(x: Tensor, weight: Tensor, crop: _Crop, geometry: Geometry, groups: int, size: tuple[int, int]) -> Tensor:
    """The full adjoint of some orientations, cut to size."""
    rows, columns = (geometry.columns, geometry.rows) if crop.swap else (geometry.rows, geometry.columns)
    window = weight.unflatten(2, (rows.kernel, columns.kernel))
    stride, dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
    full = F.conv_transpose2d(x, window, None, stride, 0, 0, groups, dilation)
    ends = (
        -crop.left, size[1] + crop.left - full.shape[-1],
        -crop.top, size[0] + crop.top - full.shape[-2],
    )  # fmt: skip
    return F.pad(full, ends) if any(ends) else full
