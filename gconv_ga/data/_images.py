"""Image files and mask files as tensors."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._validate import invalid


def read_image(path: Path) -> Tensor:
    """The grey levels or colours of an image file.

    Shape:
        - output: ``[C, H, W]``, float32, in the file's own units (0 .. 255 for 8 bit)

    Raises:
        ValueError: The file is absent, damaged, or no image.
    """
    pixels = _decode(path)
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def read_mask(path: Path) -> Tensor:
    """The class indices of a mask file.

    Shape:
        - output: ``[H, W]``, int64

    Raises:
        ValueError: As for `read_image`, or the file has several channels.
    """
    mask = _decode(path)
    if mask.ndim != 2:
        advice = f"this one has {mask.shape[2]} channels"
        raise invalid("mask", "a file of one channel that holds class indices", str(path), advice)
    return mask.to(torch.int64)


def _decode(path: Path) -> Tensor:
    """``[H, W]`` or ``[H, W, C]``, float32: exact for whole numbers up to 16 million."""
    try:
        with Image.open(path) as file:
            return torch.from_numpy(np.asarray(file, dtype=np.float32).copy())
    except OSError as error:  # no such file, no image, a truncated one
        raise invalid("path", "a readable image file", str(path), f"Pillow says: {error}") from error
