"""Which reader opens which file."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile

from .._validate import invalid
from ._jpeg_stream import jpeg_stream
from ._png_stream import SIGNATURE, png_stream
from ._rasters import Held, Raster, Segmented, Uncompressed
from ._streamed import LARGE, Streamed

TIFF, ARRAY = (".tif", ".tiff"), ".npy"
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF, ARRAY)
PLAIN = (1, 2)  # photometric interpretations that say "as it is": black is zero; RGB


def open_raster(path: Path, *, palette: bool = False) -> Raster:
    """Opens an image file: PNG, JPEG, TIFF, and arrays saved by numpy, ``[H, W]`` or ``[C, H, W]``.

    Arrays, and TIFF without compression, by deflate or PackBits, are read by window. Of a large PNG or JPEG rows are
    decoded as they are needed. Other files are decoded whole.

    Args:
        path: The file.
        palette: Whether a file with a palette is read as the indices into it, or as its colours.

    Raises:
        ValueError: The file is absent, damaged, no image, or has several pages.
    """
    try:
        if path.suffix.lower() == ARRAY:
            return _array(path)
        if path.suffix.lower() in TIFF:
            raster = _tiff(path)
            if raster is not None:
                return raster
        return _streamed(path, palette=palette) or _held(path, palette=palette)
    except RefusedError:
        raise
    except Exception as error:  # whatever a reader says of a damaged file
        raise unreadable(path, error) from error


class RefusedError(ValueError):
    """A file that could be read, and is not."""


def unreadable(path: Path, error: Exception) -> ValueError:
    """What is said of a file that a reader gave up on."""
    reason = str(error).strip() or type(error).__name__
    return invalid("path", "a readable image file", str(path), f"the reader says: {' '.join(reason.split())}")


def _array(path: Path) -> Uncompressed:
    """An array, looked at and not loaded; one that holds Python objects is a pickle and is refused."""
    values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "buif":
        takes = "an array of numbers [H, W] or [C, H, W]"
        raise RefusedError(str(invalid("path", takes, str(path), f"this one is {values.dtype} {values.shape}")))
    fortran = bool(values.flags.f_contiguous and not values.flags.c_contiguous)
    lengths = values.shape if values.ndim == 3 else (1, *values.shape)
    if fortran:  # the axes lie the other way about
        return Uncompressed(path, values.offset, values.dtype, lengths[::-1], (2, 1, 0))
    return Uncompressed(path, values.offset, values.dtype, lengths, (0, 1, 2))


def _tiff(path: Path) -> Uncompressed | Segmented | None:
    """A TIFF as tifffile reads it; None if it has a palette or a compression that is Pillow's affair."""
    with tifffile.TiffFile(path) as file:
        _refuse_pages(path, len(file.pages))
        page: Any = file.pages.first
        upright = getattr(page.tags.get("Orientation"), "value", 1) == 1
        if page.compression not in tifffile.TIFF.DECOMPRESSORS or page.photometric not in PLAIN or not upright:
            return None
        if page.dtype is None or page.bitspersample != 8 * page.dtype.itemsize:
            return None
        if page.axes not in ("YX", "YXS", "SYX"):
            raise RefusedError(str(invalid("path", "a flat image", str(path), f"the axes of this one are {page.axes}")))
        if not page.is_memmappable:
            return Segmented(path, page.shape, page.axes)
        dtype = page.dtype.newbyteorder(file.byteorder)
        lengths = page.shape if "S" in page.axes else (1, *page.shape)
        order = (2, 0, 1) if page.axes == "YXS" else (0, 1, 2)
        if page.dataoffsets[0] + page.nbytes > path.stat().st_size:
            raise ValueError(f"it ends before its {page.nbytes} bytes of pixels do")
        return Uncompressed(path, page.dataoffsets[0], dtype, lengths, order)


def _streamed(path: Path, *, palette: bool) -> Streamed | None:
    """A large PNG or JPEG; not by `Image.open`, which refuses a size that it would be too much to decode as a whole."""
    with path.open("rb") as content:
        start = content.read(len(SIGNATURE))
        content.seek(0)
        if start == SIGNATURE:
            png = PngImageFile(content)
            return png_stream(path, png, palette=palette) if _is_large(path, png) else None
        if start.startswith(b"\xff\xd8\xff"):
            jpeg = jpeg_factory(content)
            return jpeg_stream(path, jpeg) if _is_large(path, jpeg) else None
    return None


def _is_large(path: Path, file: Image.Image) -> bool:
    if file.width * file.height <= LARGE:
        return False
    _refuse(path, file)
    return True


def _held(path: Path, *, palette: bool) -> Held:
    """An image that Pillow decodes now, as a whole."""
    with Image.open(path) as file:
        _refuse(path, file)
        file.load()
        return Held(file.copy() if file.readonly else file, palette)


def _refuse(path: Path, file: Image.Image) -> None:
    """Refuses what Pillow would read in part."""
    _refuse_pages(path, getattr(file, "n_frames", 1))
    if len(file.getbands()) > 1 and any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())):
        advice = "Pillow would drop half of each; save it as TIFF without compression"
        takes = "a file of 8 bits a colour, or of 16 bits that is grey or TIFF"
        raise RefusedError(str(invalid("path", takes, str(path), advice)))


def _refuse_pages(path: Path, pages: int) -> None:
    """A reader takes the first of several pages and says nothing."""
    if pages > 1:
        raise RefusedError(str(invalid("path", "an image file of one page", str(path), f"this one has {pages} pages")))
