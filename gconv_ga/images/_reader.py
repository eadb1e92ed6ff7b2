"""Image files and mask files as tensors, whole or by window."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from ._masks import MaskEncoding
from ._normalization import Normalization
from ._rasters import Raster, open_raster, readable

BAND = 512  # rows at a time, where a whole image is read


class ImageFile:
    """An open image file that is read by window; the whole image is never held as float32.

    Of arrays saved by numpy, and of TIFF without compression or compressed by deflate or PackBits, a window reads no
    more than it needs. A PNG or JPEG of more than 4 million pixels is decoded by libvips, as far down as windows need
    it, into a temporary file (``TMPDIR``) of the size of the decoded image; windows are then read in any order.
    Meanwhile about 512 rows are held in memory; of a progressive JPEG also two bytes a value, of an interlaced PNG the
    whole image. Smaller PNG and JPEG, and other TIFF, are decoded and held as a whole in their own number type. EXIF
    orientation and colour profiles are not applied.

    Args:
        path: The file.
        normalization: Normalization of the pixels. If None, windows are in the units of the file.

    Shape:
        - a window: ``[C, height, width]``, float32

    Raises:
        ValueError: The file is missing, damaged or not an image, or it has several pages or other channels than the
            normalization.
        OSError: The disk is full.

    Example:
        >>> from gconv_ga.images import ImageFile
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> image = ImageFile(Path(__file__).parent / "sample" / "nuclei" / "images" / "00.png")
        >>> image.shape, image.window(100, 20, 8, 12).shape
        ((1, 128, 128), torch.Size([1, 8, 12]))
    """

    def __init__(self, path: str | Path, normalization: Normalization | None = None) -> None:
        self.path = Path(path)
        self.raster: Raster = open_raster(self.path)
        self.normalization = normalization
        self._level: Tensor | None = None

    def unnormalized(self) -> "ImageFile":
        """Return the same open file with windows in the units of the file."""
        raw = copy(self)
        raw.normalization = None
        return raw

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        return self.raster.shape

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the normalized pixels of a window that lies inside the image.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.

        Raises:
            ValueError: The file is damaged there, or the normalization is for other channels.
            OSError: The disk is full.
        """
        pixels = read_window(self.raster, self.path, top, left, height, width).to(torch.float32)
        if self.normalization is None:
            return pixels
        return self.normalization(pixels, self.level())

    def level(self) -> Tensor | None:
        """Return the brightness that the image is scaled by, computed once; None if images are not scaled."""
        if self._level is None and self.normalization is not None:
            self._level = self.normalization.level(self.raw_pieces)
        return self._level

    def scale_by(self, level: Tensor | None) -> None:
        """Take over the `level` of another object of the same file, for which the whole file had to be read.

        Args:
            level: Brightness to scale by.
        """
        self._level = level

    def bands(self, rows: int = BAND) -> Iterator[Tensor]:
        """Yield the normalized pixels from top to bottom.

        Args:
            rows: Largest number of rows at a time.

        Shape:
            - a band: ``[C, rows, W]``, float32
        """
        _, height, width = self.shape
        for top in range(0, height, rows):
            yield self.window(top, 0, min(rows, height - top), width)

    def raw_pieces(self) -> Iterator[Tensor]:
        """Yield small windows that hold each pixel once, in the number type of the file, cut as it is read fastest.

        Shape:
            - a piece: ``[C, h, w]``

        Raises:
            ValueError: The file is damaged.
        """
        with readable(self.path):
            yield from self.raster.pieces()


class MaskFile:
    """An open mask file that is read by window, as class indices.

    A large PNG with a palette is held as a whole, one byte a pixel; other files as for `ImageFile`.

    Args:
        path: The file.
        code: Encoding of the classes. If None, the file holds indices.

    Shape:
        - a window: ``[height, width]``, int64

    Raises:
        ValueError: As for `ImageFile`.

    Example:
        >>> from gconv_ga.images import MaskFile
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> mask = MaskFile(Path(__file__).parent / "sample" / "nuclei" / "masks" / "00.png")
        >>> mask.shape, mask.window(100, 20, 8, 12).shape
        ((128, 128), torch.Size([8, 12]))
    """

    def __init__(self, path: str | Path, code: MaskEncoding | None = None) -> None:
        self.path = Path(path)
        self.code = MaskEncoding() if code is None else code
        self.raster: Raster = open_raster(self.path, palette=self.code.colors is None)

    @property
    def shape(self) -> tuple[int, int]:
        """``H, W``."""
        _, height, width = self.raster.shape
        return height, width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the classes of a window that lies inside the mask.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.

        Raises:
            ValueError: The file is damaged there, or its values are not classes.
        """
        return self.code.indices(read_window(self.raster, self.path, top, left, height, width))

    def bands(self, rows: int = BAND) -> Iterator[Tensor]:
        """Yield the classes from top to bottom.

        Args:
            rows: Largest number of rows at a time.

        Shape:
            - a band: ``[rows, W]``
        """
        height, width = self.shape
        for top in range(0, height, rows):
            yield self.window(top, 0, min(rows, height - top), width)


def read_window(raster: Raster, path: Path, top: int, left: int, height: int, width: int) -> Tensor:
    """Return a window in the number type of the file.

    Raises:
        ValueError: The file is damaged there.
    """
    with readable(path):
        return raster.window(top, left, height, width)


def read_image(path: Path) -> Tensor:
    """Read the grey levels, colours or channels of an image file: PNG, JPEG, TIFF, or an array saved by numpy.

    Args:
        path: The file; 8 or 16 bits a value, or any number type of TIFF and numpy.

    Shape:
        - output: ``[C, H, W]``, float32, in the units of the file (0 .. 255 for 8 bits)

    Raises:
        ValueError: The file is missing, damaged or not an image, or it has several pages.

    Example:
        >>> from gconv_ga.images import read_image
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> read_image(Path(__file__).parent / "sample" / "nuclei" / "images" / "00.png").shape
        torch.Size([1, 128, 128])
    """
    image = ImageFile(path)
    return image.window(0, 0, *image.shape[1:]).contiguous()


def read_mask(path: Path, code: MaskEncoding | None = None) -> Tensor:
    """Read the class indices of a mask file.

    Args:
        path: The file.
        code: Encoding of the classes. If None, the file holds indices.

    Shape:
        - output: ``[H, W]``, int64

    Raises:
        ValueError: As for `read_image`, or the values of the file are not classes.

    Example:
        >>> from gconv_ga.images import read_mask
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> read_mask(Path(__file__).parent / "sample" / "nuclei" / "masks" / "00.png").unique()
        tensor([0, 1])
    """
    mask = MaskFile(path, code)
    return mask.window(0, 0, *mask.shape)
