"""Several windows as one: kernels padded with zeros, so that one convolution serves orientations with their own grids.

Windows that start a pixel apart, on grids of the same stride, all fit in a window one pixel larger. Multiplying zeros
is work, but calling a convolution for each part is more where the maps are large and the channels few.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .._validate import wrong_shape
from ._geometry import Axis, Geometry, Part, take

# How many multiply-adds with zeros, for each input value, cost as much as reading the input once more: measured on a
# CPU with windows of 1 x 1 to 7 x 7, strides 1, 2 and 4, C2 to D4, 8 to 64 fields (benchmarks/layers.py shows some).
ZEROS_WORTH_A_READING = 55


def common_window(parts: tuple[Part, ...], size: tuple[int, int]) -> Part:
    """The smallest window that holds those of all parts, for an output of ``size``."""
    top, left = min(part.top for part in parts), min(part.left for part in parts)
    bottom = max(part.top + part.rows.dilation * (part.rows.kernel - 1) for part in parts)
    right = max(part.left + part.columns.dilation * (part.columns.kernel - 1) for part in parts)
    rows = Axis(bottom - top + 1, parts[0].rows.stride, 1, 0, 0)
    columns = Axis(right - left + 1, parts[0].columns.stride, 1, 0, 0)
    elements = tuple(sorted(g for part in parts for g in part.elements))
    height, width = ((n - 1) * axis.stride + axis.kernel for n, axis in zip(size, (rows, columns), strict=True))
    return Part(elements, rows, columns, top, left, height, width)


def is_worth_it(parts: tuple[Part, ...], whole: Part, channels: int, readings: int) -> bool:
    """Whether one convolution with the common window is faster than one for each part.

    Args:
        parts: The windows.
        whole: Their `common_window`.
        channels: The output channels that an input channel contributes to.
        readings: How often the parts read an input value.
    """
    rows, columns = parts[0].rows, parts[0].columns
    if rows.dilation > 1 or columns.dilation > 1:
        return False
    zeros = whole.rows.kernel * whole.columns.kernel - rows.kernel * columns.kernel
    return channels * zeros <= ZEROS_WORTH_A_READING * readings * rows.stride * columns.stride


def enlarge(kernels: Tensor, parts: tuple[Part, ...], whole: Part) -> Tensor:
    """Kernels padded with zeros to the common window, each where its own window lies in it.

    Shape:
        - kernels: ``[C_out, |G|, J, kh kw]``
        - output: ``[C_out, |G|, J, KH KW]``
    """
    placed: dict[int, Tensor] = {}
    for part in parts:
        top, left = part.top - whole.top, part.left - whole.left
        kernel = part.rows.kernel, part.columns.kernel
        ends = (
            left, whole.columns.kernel - left - kernel[1],
            top, whole.rows.kernel - top - kernel[0],
        )  # fmt: skip
        for g in part.elements:
            placed[g] = F.pad(kernels[:, g].unflatten(2, kernel), ends)
    return torch.stack([placed[g] for g in whole.elements], dim=1).flatten(3)


def correlate(
    x: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    groups: int,
    padding_mode: str,
    elements_first: bool = False,
) -> Tensor:
    """Every kernel of the stack with ``x``, each orientation on its own grid.

    Args:
        x: The image or the map.
        kernels: The turned kernels.
        bias: One number for each output channel, or for each channel and orientation.
        geometry: The windows.
        groups: Blocks of channels, as in `torch.nn.functional.conv2d`.
        padding_mode: As in `torch.nn.Conv2d`.
        elements_first: Whether the element axis of the output comes before the fields.

    Shape:
        - x: ``[B, J groups, H, W]``, the same for every orientation, or ``[B, |G|, J groups, H, W]``, one for each
        - kernels: ``[C_out, |G|, J, kh kw]``
        - bias: ``[C_out]`` or ``[C_out, |G|]``
        - output: ``[B, C_out, |G|, H', W']``, or ``[B, |G|, C_out, H', W']`` with ``elements_first``

    Example:
        >>> import torch
        >>> from gconv_ga.nn.authoring import correlate
        >>> from gconv_ga.groups import C4
        >>> from gconv_ga.nn.authoring import make_geometry
        >>> windows = make_geometry(C4, (3, 3), (1, 1), "same", (1, 1))
        >>> correlate(torch.randn(1, 3, 8, 9), torch.randn(5, 4, 3, 9), None, windows, 1, "zeros").shape
        torch.Size([1, 5, 4, 8, 9])

    Raises:
        ValueError: The window is larger than the padded image, or the padding copies more than the image has.
    """
    if has_torch_function((x,)):
        # Under a TorchFunctionMode this is one function: what it pads and slices is its own affair.
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
        whole = common_window(parts, size)
        outputs, readings = (kernels.shape[1], len(parts)) if x.ndim == 4 else (1, 1)
        if is_worth_it(parts, whole, kernels.shape[0] * outputs // groups, readings):
            kernels, parts = enlarge(kernels, parts, whole), (whole,)
    offset = geometry.padding
    if padding_mode != "zeros" and any(offset):
        x, offset = _pad(x, offset, padding_mode), (0, 0)
    axis = 1 if elements_first else 2
    maps: dict[int, Tensor] = {}
    for part in parts:
        low = offset[0] - part.top, offset[1] - part.left
        if len(parts) == 1:
            return _convolve(*_window(x, part, low, size), kernels, biases, part, groups, elements_first)
        own = take(x, part.elements, 1) if x.ndim == 5 else x
        stack = take(kernels, part.elements, 1)
        added = None if biases is None else take(biases, part.elements, 1)
        y = _convolve(*_window(own, part, low, size), stack, added, part, groups, elements_first)
        maps.update(zip(part.elements, y.unbind(axis), strict=True))
    return torch.stack([maps[g] for g in range(len(maps))], dim=axis)


def _window(x: Tensor, part: Part, low: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """What the windows of a part cover, and the zeros that the convolution still has to add at both ends.

    Args:
        x: The image or the map.
        part: The windows.
        low: Where they start: so many pixels before the first one.
        size: How many windows there are.
    """
    height, width = x.shape[-2:]
    fitting = part.rows.windows(height, low[0], low[0]), part.columns.windows(width, low[1], low[1])
    if fitting == size and min(low) >= 0:
        return x, low
    high = part.height - height - low[0], part.width - width - low[1]
    return F.pad(x, (low[1], high[1], low[0], high[0])), (0, 0)


def _convolve(
    x: Tensor,
    padding: tuple[int, int],
    kernels: Tensor,
    biases: Tensor | None,
    part: Part,
    groups: int,
    elements_first: bool,
) -> Tensor:
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
        # One block of channels for each orientation: they do not mix here.
        x, groups = x.flatten(1, 2), order * groups
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups).unflatten(1, (order, out))
    return y if elements_first else y.transpose(1, 2).contiguous()


def _pad(x: Tensor, padding: tuple[int, int], mode: str) -> Tensor:
    rows, columns = padding
    most = {"reflect": 1, "circular": 0}
    if mode in most and (x.shape[-2] < rows + most[mode] or x.shape[-1] < columns + most[mode]):
        axes = f"[..., H >= {rows + most[mode]}, W >= {columns + most[mode]}]"
        raise wrong_shape("input", axes, x, f"there is no more to copy for padding_mode={mode!r}")
    # torch pads two axes of at most four dimensions in these modes.
    flat = x.flatten(1, 2) if x.ndim == 5 else x
    padded = F.pad(flat, (columns, columns, rows, rows), mode=mode)
    return padded.unflatten(1, x.shape[1:3]) if x.ndim == 5 else padded


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
        >>> from gconv_ga.nn.authoring import least_size
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
        >>> from gconv_ga.nn.authoring import correlate_transposed
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
