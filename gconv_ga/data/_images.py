"""Image files and mask files as tensors."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._validate import invalid

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read_image(path: Path) -> Tensor:
    """The grey levels or colours of an image file: PNG, JPEG, TIFF of 8 bits, of 16 bits if it is grey.

    Args:
        path: The file.

    Shape:
        - output: ``[C, H, W]``, float32, in the file's own units (0 .. 255 for 8 bit)

    Raises:
        ValueError: The file is absent, damaged, no image, or has several pages or 16-bit colours.

    Example:
        >>> from pathlib import Path
        >>> read_image(Path(__file__).parent / "sample" / "nuclei" / "images" / "00.png").shape
        torch.Size([1, 128, 128])
    """
    pixels = _decode(path, palette=False)
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def read_mask(path: Path) -> Tensor:
    """The class indices of a mask file.

    Shape:
        - output: ``[H, W]``, int64

    Raises:
        ValueError: As for `read_image`, or the file has several channels or holds other than whole numbers.
    """
    mask = _decode(path, palette=True)
    if mask.ndim != 2:
        advice = f"this one has {mask.shape[2]} channels"
        raise invalid("mask", "a file of one channel that holds class indices", str(path), advice)
    if not torch.equal(mask, mask.round()):  # NaN is no whole number either
        raise invalid("mask", "a file of whole numbers, the class indices", str(path))
    return mask.to(torch.int64)


def _decode(path: Path, *, palette: bool) -> Tensor:
    """``[H, W]`` or ``[H, W, C]``, float32: exact for whole numbers up to 16 million.

    Args:
        path: The file.
        palette: Whether a file with a palette is read as the indices into it, or as its colours.
    """
    try:
        with Image.open(path) as file:
            _refuse_what_pillow_drops(file, path)
            picture = file.convert("RGB") if file.mode == "P" and not palette else file
            return torch.from_numpy(np.asarray(picture, dtype=np.float32).copy())
    # No such file, no image, a truncated one, a damaged PNG, one of more than 179 million pixels.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise invalid("path", "a readable image file", str(path), f"Pillow says: {error}") from error


def _refuse_what_pillow_drops(file: Image.Image, path: Path) -> None:
    """Pillow reads the first page of several, and half of each 16-bit colour, and says nothing."""
    pages = getattr(file, "n_frames", 1)
    if pages > 1:
        raise invalid("path", "an image file of one page", str(path), f"this one has {pages} pages")
    if len(file.getbands()) > 1 and any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())):
        raise invalid("path", "a file of 8 bits a colour, or of 16 bits and grey", str(path))
