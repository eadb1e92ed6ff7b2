"""Several windows as one: kernels padded with zeros, so that one convolution serves orientations with their own grids.

Windows that start a pixel apart, on grids of the same stride, all fit in a window one pixel larger. Multiplying zeros
is work, but calling a convolution for each part is more where the maps are large and the channels few.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._geometry import Axis, Part

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
