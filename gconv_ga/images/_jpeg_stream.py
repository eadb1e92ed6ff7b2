"""JPEG row by row, by libvips: Pillow decodes a JPEG as a whole only."""

import io
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from ._streamed import BAND, Streamed

CHANNELS = {"L": 1, "RGB": 3}  # of inks, CMYK, there are several kinds, and they are rare


def jpeg_stream(path: Path, file: JpegImageFile) -> Streamed | None:
    """A JPEG to be read row by row; None for inks, or if pyvips is absent or decodes otherwise than Pillow.

    libvips keeps some 512 rows, 100 MB of the widest JPEG there can be. Of a progressive JPEG each row needs the whole
    file: while it is read libjpeg holds two bytes a value, fewer for colours at half the resolution.

    Args:
        path: The file.
        file: The same, open and not decoded.
    """
    if file.mode not in CHANNELS or not _as_pillow():
        return None
    shape = CHANNELS[file.mode], file.height, file.width
    return Streamed(shape, partial(_file_bands, path, shape))


def _file_bands(path: Path, shape: tuple[int, int, int]) -> Iterator[Tensor]:
    with path.open("rb") as stream:
        yield from _bands(stream, shape)


def _bands(stream: BinaryIO, shape: tuple[int, int, int]) -> Iterator[Tensor]:
    """The image from top to bottom in bands ``[C, h, W]``."""
    import pyvips

    # Not by its path: libvips would map the file, and what it read of it would stay in memory.
    source = pyvips.SourceCustom()
    source.on_read(stream.read)
    source.on_seek(stream.seek)
    image: Any = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="truncated")
    if (image.bands, image.height, image.width, image.format) != (*shape, "uchar"):
        raise ValueError(f"it has {image.bands} channels of {image.format}, {image.height} x {image.width}")
    region, (channels, height, width) = pyvips.Region.new(image), shape
    rows = max(1, BAND // (channels * width))
    for top in range(0, height, rows):
        count = min(rows, height - top)
        values = np.frombuffer(region.fetch(0, top, width, count), dtype=np.uint8).reshape(count, width, channels)
        yield torch.from_numpy(np.moveaxis(values, -1, 0).copy())


@cache
def _as_pillow() -> bool:
    """Whether pyvips is there and decodes to the last bit what Pillow does: both bring a libjpeg of their own."""
    try:
        import pyvips  # noqa: F401
    except (ImportError, OSError):  # OSError: without its library
        return False
    noise = np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", subsampling=subsampling)
        expected = np.asarray(Image.open(file))
        file.seek(0)
        found = torch.cat(list(_bands(file, (3, 45, 61))), dim=1)
        if not np.array_equal(np.moveaxis(found.numpy(), 0, -1), expected):
            return False
    return True
