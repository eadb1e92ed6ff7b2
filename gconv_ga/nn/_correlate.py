"""Correlations in which every orientation samples its own grid, and their adjoints.

Orientations with different windows need a convolution each, unless one larger window serves them all: windows that
start a pixel apart, on grids of the same stride, fit in a window that is one pixel larger. Multiplying by the zeros
around each kernel costs work, but where maps are large and channels few, further convolutions cost more.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .._validate import wrong_shape
from ._geometry import Axis, Geometry, Part, select_elements

# Number of multiply-adds with zeros, for each input value, that cost as much as reading the input once more. Measured
# on a CPU with windows of 1 x 1 to 7 x 7, strides 1, 2 and 4, C2 to D4, 8 to 64 fields (benchmarks/layers.py).
ZEROS_PER_READ = 55


def correlate(
    x: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    groups: int,
    padding_mode: str,
    elements_first: bool = False,
) -> Tensor:
    """Correlate ``x`` with every kernel of a stack, each orientation on its own grid.

    Args:
        x: The image or the feature map on the group.
        kernels: The transformed kernels.
        bias: One number per output channel, or per output channel and orientation.
        geometry: The windows.
        groups: Blocks of channels, as in `torch.nn.functional.conv2d`.
        padding_mode: As in `torch.nn.Conv2d`.
        elements_first: Whether the element axis of the output comes before the fields.

    Shape:
        - x: ``[B, J groups, H, W]``, the same for every orientation, or ``[B, |G|, J groups, H, W]``, one for each
        - kernels: ``[C_out, |G|, J, kh kw]``
        - bias: ``[C_out]`` or ``[C_out, |G|]``
        - output: ``[B, C_out, |G|, H', W']``, or ``[B, |G|, C_out, H', W']`` with ``elements_first``

    Raises:
        ValueError: The window is larger than the padded image, or the padding copies more pixels than there are.

    Example:
        >>> import torch
        >>> from gconv_ga.nn.authoring import correlate, make_geometry
        >>> from gconv_ga.groups import C4
        >>> windows = make_geometry(C4, (3, 3), (1, 1), "same", (1, 1))
        >>> correlate(torch.randn(1, 3, 8, 9), torch.randn(5, 4, 3, 9), None, windows, 1, "zeros").shape
        torch.Size([1, 5, 4, 8, 9])
    """
    if has_torch_function((x,)):
        # A TorchFunctionMode sees one function, not the padding and slicing inside.
        return handle_torch_function(
            correlate, (x,), x, kernels, bias, geometry, groups, padding_mode, elements_first=elements_first
        )
    height, width = x.shape[-2:]
    if geometry.shared:
        geometry.warn_if_misaligned(height, width)
    size, parts, padding = geometry.plan(height, width)
    biases = bias.unsqueeze(1).expand(-1, kernels.shape[1]) if bias is not None and bias.ndim == 1 else bias
    if padding is not None and (padding_mode == "zeros" or padding == (0, 0)):
        return _convolve(x, padding, kernels, biases, parts[0], groups, elements_first)
    if not parts:
        axes = f"[..., H >= {geometry.rows.shrink + 1}, W >= {geometry.columns.shrink + 1}]"
        raise wrong_shape("input", axes, x, "the kernel is larger than the padded image")
    if len(parts) > 1:
        whole = _common_window(parts, size)
        outputs, reads = (kernels.shape[1], len(parts)) if x.ndim == 4 else (1, 1)
        if _common_window_is_faster(parts, whole, kernels.shape[0] * outputs // groups, reads):
            kernels, parts = _pad_to_window(kernels, parts, whole), (whole,)
    offset = geometry.padding
    if padding_mode != "zeros" and any(offset):
        x, offset = _pad(x, offset, padding_mode), (0, 0)
    axis = 1 if elements_first else 2
    maps: dict[int, Tensor] = {}
    for part in parts:
        low = offset[0] - part.top, offset[1] - part.left
        if len(parts) == 1:
            return _convolve(*_crop_or_pad(x, part, low, size), kernels, biases, part, groups, elements_first)
        own_x = select_elements(x, part.elements, 1) if x.ndim == 5 else x
        own_kernels = select_elements(kernels, part.elements, 1)
        own_biases = None if biases is None else select_elements(biases, part.elements, 1)
        y = _convolve(*_crop_or_pad(own_x, part, low, size), own_kernels, own_biases, part, groups, elements_first)
        maps.update(zip(part.elements, y.unbind(axis), strict=True))
    return torch.stack([maps[g] for g in range(len(maps))], dim=axis)


def _convolve(
    x: Tensor,
    padding: tuple[int, int],
    kernels: Tensor,
    biases: Tensor | None,
    part: Part,
    groups: int,
    elements_first: bool,
) -> Tensor:
    """Compute one convolution for all orientations of a part."""
    out, order, channels, _ = kernels.shape
    kernel = part.rows.kernel, part.columns.kernel
    stride, dilation = (part.rows.stride, part.columns.stride), (part.rows.dilation, part.columns.dilation)
    if x.ndim == 4 and not elements_first:
        weight, bias = kernels.reshape(out * order, channels, *kernel), None if biases is None else biases.flatten()
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return y.view(y.shape[0], out, order, *y.shape[2:])
    weight = kernels.transpose(0, 1).reshape(order * out, channels, *kernel)
    bias = None if biases is None else biases.t().flatten()
    if x.ndim == 5:
        # One block of channels for each orientation: orientations do not mix here.
        x, groups = x.flatten(1, 2), order * groups
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups).unflatten(1, (order, out))
    return y if elements_first else y.transpose(1, 2).contiguous()


def _crop_or_pad(x: Tensor, part: Part, low: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Return the pixels that the windows of a part cover, and the padding left to the convolution.

    Args:
        x: The image or the feature map.
        part: The windows.
        low: Number of pixels by which the windows start before the first pixel.
        size: Number of windows along rows and columns.
    """
    height, width = x.shape[-2:]
    fitting = part.rows.windows(height, low[0], low[0]), part.columns.windows(width, low[1], low[1])
    if fitting == size and min(low) >= 0:
        return x, low
    high = part.height - height - low[0], part.width - width - low[1]
    return F.pad(x, (low[1], high[1], low[0], high[0])), (0, 0)


def _pad(x: Tensor, padding: tuple[int, int], mode: str) -> Tensor:
    rows, columns = padding
    most = {"reflect": 1, "circular": 0}
    if mode in most and (x.shape[-2] < rows + most[mode] or x.shape[-1] < columns + most[mode]):
        axes = f"[..., H >= {rows + most[mode]}, W >= {columns + most[mode]}]"
        raise wrong_shape("input", axes, x, f"padding_mode={mode!r} cannot copy more pixels than there are")
    # In these modes torch pads two axes of at most four dimensions.
    flat = x.flatten(1, 2) if x.ndim == 5 else x
    padded = F.pad(flat, (columns, columns, rows, rows), mode=mode)
    return padded.unflatten(1, x.shape[1:3]) if x.ndim == 5 else padded


def _common_window(parts: tuple[Part, ...], size: tuple[int, int]) -> Part:
    """Return the smallest window that contains those of all parts, for an output of ``size``."""
    top, left = min(part.top for part in parts), min(part.left for part in parts)
    bottom = max(part.top + part.rows.dilation * (part.rows.kernel - 1) for part in parts)
    right = max(part.left + part.columns.dilation * (part.columns.kernel - 1) for part in parts)
    rows = Axis(bottom - top + 1, parts[0].rows.stride, 1, 0, 0)
    columns = Axis(right - left + 1, parts[0].columns.stride, 1, 0, 0)
    elements = tuple(sorted(g for part in parts for g in part.elements))
    height, width = ((n - 1) * axis.stride + axis.kernel for n, axis in zip(size, (rows, columns), strict=True))
    return Part(elements, rows, columns, top, left, height, width)


def _common_window_is_faster(parts: tuple[Part, ...], whole: Part, channels: int, reads: int) -> bool:
    """Return whether one convolution with the common window is faster than one for each part.

    Args:
        parts: The windows.
        whole: Their `_common_window`.
        channels: Number of output channels that an input channel contributes to.
        reads: Number of times that the parts read an input value.
    """
    rows, columns = parts[0].rows, parts[0].columns
    if rows.dilation > 1 or columns.dilation > 1:
        return False
    zeros = whole.rows.kernel * whole.columns.kernel - rows.kernel * columns.kernel
    return channels * zeros <= ZEROS_PER_READ * reads * rows.stride * columns.stride


def _pad_to_window(kernels: Tensor, parts: tuple[Part, ...], whole: Part) -> Tensor:
    """Pad kernels with zeros to the common window, each at the place of its own window.

    Shape:
        - kernels: ``[C_out, |G|, J, kh kw]``
        - output: ``[C_out, |G|, J, KH KW]``
    """
    padded: dict[int, Tensor] = {}
    for part in parts:
        top, left = part.top - whole.top, part.left - whole.left
        kernel = part.rows.kernel, part.columns.kernel
        ends = (
            left, whole.columns.kernel - left - kernel[1],
            top, whole.rows.kernel - top - kernel[0],
        )  # fmt: skip
        for g in part.elements:
            padded[g] = F.pad(kernels[:, g].unflatten(2, kernel), ends)
    return torch.stack([padded[g] for g in whole.elements], dim=1).flatten(3)


def correlate_transposed(
    maps: Tensor,
    kernels: Tensor,
    geometry: Geometry,
    extra: tuple[int, int],
    groups: int,
    sources: Tensor | None,
    elements_first: bool = False,
) -> Tensor:
    """Compute the adjoint of `correlate`: each orientation returns to the pixels it was sampled at, and all are summed.

    Args:
        maps: The feature map on the group.
        kernels: The transformed kernels, a stack for each input field.
        geometry: The windows of the correlation whose adjoint this is.
        extra: Output padding of rows and columns. Each orientation adds it at the edges that its group element moves
            the lower and right edges to.
        groups: Blocks of fields.
        sources: For kernels with ``m`` planes, the elements ``g h^-1``, that is, the input orientation that plane
            ``h`` takes to output ``g``. If None, every input orientation contributes to every output orientation;
            with ``elements_first`` this needs ``groups=1``.
        elements_first: Whether the element axis comes before the fields, in the input and the output.

    Shape:
        - maps: ``[B, C_in, |G|, H, W]``, or ``[B, |G|, C_in, H, W]`` with ``elements_first``
        - kernels: ``[C_in, |G|, (C_out / groups) |G|, kh kw]``, or with ``sources [|G|, m]``
          ``[C_in, |G|, (C_out / groups) m, kh kw]``
        - output: ``[B, C_out, |G|, H', W']``, or ``[B, |G|, C_out, H', W']`` with ``elements_first``

    Example:
        >>> import torch
        >>> from gconv_ga.nn.authoring import correlate_transposed, make_geometry
        >>> from gconv_ga.groups import C4
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
    elements_by_crop = _group_by_crop(geometry, extra)
    if sources is None:
        stack = kernels.unflatten(2, (-1, order))
        # Channels are (field, element) or (element, field), in the input and the output.
        stack = stack.permute(1, 0, 3, 2, 4) if elements_first else stack
        axis, out = (0, (order, -1)) if elements_first else (1, (-1, order))
        terms = []
        for crop, elements in elements_by_crop.items():
            has_all = len(elements) == order
            x = maps if has_all else select_elements(maps, elements, axis + 1)
            weight = stack if has_all else select_elements(stack, elements, axis)
            weight = weight.flatten(2, 3).flatten(0, 1)
            terms.append(_convolve_transposed(x.flatten(1, 2), weight, crop, geometry, groups, size))
        return sum(terms[1:], terms[0]).unflatten(1, out)
    by_element = maps if elements_first else maps.transpose(1, 2)
    planes: dict[int, Tensor] = {}
    for crop, elements in elements_by_crop.items():
        has_all = len(elements) == order
        x = by_element if has_all else select_elements(by_element, elements, 1)
        weight = (kernels if has_all else select_elements(kernels, elements, 1)).transpose(0, 1).flatten(0, 1)
        y = _convolve_transposed(x.flatten(1, 2), weight, crop, geometry, groups * len(elements), size)
        planes.update(zip(elements, y.unflatten(1, (len(elements), -1)).unbind(1), strict=True))
    taps = sources.shape[1]
    spread = torch.stack([planes[g] for g in range(order)], dim=1).unflatten(2, (-1, taps)).transpose(2, 3)
    summed = spread[:, sources, torch.arange(taps, device=maps.device)].sum(2)
    return summed if elements_first else summed.transpose(1, 2).contiguous()


def least_size(geometry: Geometry, height: int, width: int) -> tuple[int, int]:
    """Return the output size of a transposed convolution of ``height x width`` without output padding.

    Args:
        geometry: The windows of the correlation whose adjoint it is.
        height: Rows of the input.
        width: Columns of the input.

    Example:
        >>> from gconv_ga.nn.authoring import least_size, make_geometry
        >>> from gconv_ga.groups import C4
        >>> least_size(make_geometry(C4, (2, 2), (2, 2), 0, (1, 1)), 8, 9)
        (16, 18)
    """
    rows, columns = geometry.rows, geometry.columns
    return (height - 1) * rows.stride + rows.shrink + 1, (width - 1) * columns.stride + columns.shrink + 1


class _Crop(NamedTuple):
    """Rows and columns to cut from the start of the full result; ``swap`` exchanges the axes of the window."""

    swap: bool
    top: int
    left: int


def _group_by_crop(geometry: Geometry, extra: tuple[int, int]) -> dict[_Crop, list[int]]:
    found: dict[_Crop, list[int]] = {}
    square = geometry.rows == geometry.columns
    for g, (transpose, flip_rows, flip_columns) in enumerate(geometry.moves):
        swap = transpose and not square
        rows, columns = (geometry.columns, geometry.rows) if swap else (geometry.rows, geometry.columns)
        own = not geometry.shared
        crop = _Crop(swap, rows.low - extra[0] * (flip_rows and own), columns.low - extra[1] * (flip_columns and own))
        found.setdefault(crop, []).append(g)
    return found


def _convolve_transposed(
    x: Tensor, weight: Tensor, crop: _Crop, geometry: Geometry, groups: int, size: tuple[int, int]
) -> Tensor:
    """Compute the full adjoint for the orientations that share a crop, and cut it to ``size``."""
    rows, columns = (geometry.columns, geometry.rows) if crop.swap else (geometry.rows, geometry.columns)
    window = weight.unflatten(2, (rows.kernel, columns.kernel))
    stride, dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
    full = F.conv_transpose2d(x, window, None, stride, 0, 0, groups, dilation)
    ends = (
        -crop.left, size[1] + crop.left - full.shape[-1],
        -crop.top, size[0] + crop.top - full.shape[-2],
    )  # fmt: skip
    return F.pad(full, ends) if any(ends) else full
