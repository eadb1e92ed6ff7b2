"""Turning a pixel grid by any angle: where each output pixel looks, and what it reads there."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..groups import Group


def source_positions(group: Group, element: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each output pixel of ``L_g f`` the position ``g^-1 y`` it reads, in pixels, about the image's centre.

    The canvas stays that of ``like[..., H, W]``. At least float32, whatever its dtype: bfloat16 cannot count pixels
    past 256.

    Returns:
        Columns and rows, each ``[H, W]``; pixel centres are at whole numbers.
    """
    dtype = torch.promote_types(like.dtype, torch.float32) if like.is_floating_point() else torch.float64
    height, width = like.shape[-2:]
    matrix = group.matrix(group.inverse(element))
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    x = torch.arange(width, device=like.device, dtype=dtype) - middle_column
    y = middle_row - torch.arange(height, device=like.device, dtype=dtype).unsqueeze(-1)
    columns = matrix[0][0] * x + matrix[0][1] * y + middle_column
    rows = middle_row - (matrix[1][0] * x + matrix[1][1] * y)
    return columns, rows


def interpolate(x: Tensor, columns: Tensor, rows: Tensor, interpolation: str, border: str) -> Tensor:
    """``x[..., H, W]`` read at the given positions by `torch.nn.functional.grid_sample`."""
    height, width = x.shape[-2:]
    # align_corners=False: -1 and 1 are the outer edges of the outer pixels.
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    flat = x.reshape(1, -1, height, width).to(grid.dtype)
    read = F.grid_sample(flat, grid.unsqueeze(0), mode=interpolation, padding_mode=border, align_corners=False)
    return read.to(x.dtype).view(x.shape)


def nearest(x: Tensor, columns: Tensor, rows: Tensor, fill: int) -> Tensor:
    """``x[..., H, W]`` read at the nearest pixels; ``fill`` outside. Works on integers of any size."""
    height, width = x.shape[-2:]
    column, row = columns.round().long(), rows.round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    read = x[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return read.masked_fill(~inside, fill)
