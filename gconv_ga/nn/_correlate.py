"""Cross-correlation of maps with stacks of turned kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._validate import wrong_shape
from ._geometry import Geometry, Part


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
        bias: One number for each output channel, shared by the orientations.
        geometry: The windows.
        groups: Blocks of channels, as in `torch.nn.functional.conv2d`.
        padding_mode: As in `torch.nn.Conv2d`.
        elements_first: Whether the element axis of the output comes before the fields.

    Shape:
        - x: ``[B, J groups, H, W]``, the same for every orientation, or ``[B, |G|, J groups, H, W]``, one for each
        - kernels: ``[C_out, |G|, J, kh kw]``
        - bias: ``[C_out]``
        - output: ``[B, C_out, |G|, H', W']``, or ``[B, |G|, C_out, H', W']`` with ``elements_first``

    Raises:
        ValueError: The window is larger than the padded image.
    """
    height, width = x.shape[-2:]
    geometry.warn_if_misaligned(height, width)
    if min(geometry.output_size(height, width)) < 1:
        axes = f"[..., H >= {geometry.rows.shrink + 1}, W >= {geometry.columns.shrink + 1}]"
        raise wrong_shape("input", axes, x, "the kernel is larger than the padded image")
    parts = geometry.parts(height, width)
    # torch pads with zeros while it convolves; any other padding, and any shifted start, is laid out before.
    rows, columns = parts[0].rows, parts[0].columns
    if len(parts) == 1 and padding_mode == "zeros" and rows.low == rows.high and columns.low == columns.high:
        return _convolve(x, kernels, bias, parts[0], groups, (rows.low, columns.low), elements_first)
    pad_rows, pad_columns = geometry.padding
    padded = _pad(x, (pad_columns, pad_columns, pad_rows, pad_rows), padding_mode)
    axis = 1 if elements_first else 2
    maps: dict[int, Tensor] = {}
    for part in parts:
        window = padded[..., part.top : part.top + part.height, part.left : part.left + part.width]
        if len(parts) == 1:
            return _convolve(window, kernels, bias, part, groups, (0, 0), elements_first)
        elements = list(part.elements)
        chosen = window[:, elements] if x.ndim == 5 else window
        y = _convolve(chosen, kernels[:, elements], bias, part, groups, (0, 0), elements_first)
        maps.update(zip(elements, y.unbind(axis), strict=True))
    return torch.stack([maps[g] for g in range(len(maps))], dim=axis)


def _convolve(
    x: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    part: Part,
    groups: int,
    padding: tuple[int, int],
    elements_first: bool,
) -> Tensor:
    out, order, channels, _ = kernels.shape
    kernels = kernels.view(out, order, channels, part.rows.kernel, part.columns.kernel)
    stride, dilation = (part.rows.stride, part.columns.stride), (part.rows.dilation, part.columns.dilation)
    if x.ndim == 4 and not elements_first:
        spread = None if bias is None else bias.repeat_interleave(order)
        y = F.conv2d(x, kernels.flatten(0, 1), spread, stride, padding, dilation, groups)
        return y.unflatten(1, (out, order))
    spread = None if bias is None else bias.repeat(order)
    weight = kernels.transpose(0, 1).flatten(0, 1)
    if x.ndim == 5:
        # One block of channels for each orientation: they do not mix here.
        x, groups = x.flatten(1, 2), order * groups
    y = F.conv2d(x, weight, spread, stride, padding, dilation, groups).unflatten(1, (order, out))
    return y if elements_first else y.transpose(1, 2).contiguous()


def _pad(x: Tensor, padding: tuple[int, int, int, int], mode: str) -> Tensor:
    if not any(padding):
        return x
    if mode == "zeros":
        return F.pad(x, padding)
    # torch pads two axes of at most four dimensions in the other modes.
    flat = x.flatten(1, 2) if x.ndim == 5 else x
    padded = F.pad(flat, padding, mode=mode)
    return padded.unflatten(1, x.shape[1:3]) if x.ndim == 5 else padded
