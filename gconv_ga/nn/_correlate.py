"""Cross-correlation of maps with stacks of turned kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from .._validate import wrong_shape
from ._geometry import Geometry, Part
from ._one_call import common_window, enlarge, is_worth_it
from ._orientations import take


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
