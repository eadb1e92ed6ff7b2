"""Image files and mask files as tensors, whole or by window."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from ._masks import MaskEncoding
from ._normalization import Normalization
from ._rasters import Raster, open_raster, readable

BAND = 512  # rows that are looked at together, where a whole image is gone through


class ImageFile:
    """An image file of which windows are read as numbers: what is held of it as float32 is never the whole.

    Where the format allows, a window is all that is read: TIFF without compression, by deflate or PackBits, and arrays
    saved by numpy. A PNG or JPEG of more than 4 million pixels is decoded from its first row on, as far as the windows
    need it, and the rows above the last window are let go: ask for windows from top to bottom, for one further up
    begins anew. Smaller ones, interlaced PNG, JPEG of CMYK or where pyvips is not installed, and other TIFF are decoded
    as a whole and held in their own number type. While a progressive JPEG is open, so are two bytes a value of it.

    Args:
        path: The file.
        normalization: What is done to the pixels; None for nothing.

    Shape:
        - a window: ``[C, height, width]``, float32

    Raises:
        ValueError: The file is absent, damaged, no image, has several pages, or other channels than the normalisation.

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
        """The same open file, whose windows are in the file's own units."""
        other = copy(self)
        other.normalization = None
        return other

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        return self.raster.shape

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """The pixels of a window that lies inside the image, normalised.

        Args:
            top: The first row.
            left: The first column.
            height: Rows.
            width: Columns.

        Raises:
            ValueError: The file is damaged there, or the normalisation is for other channels.
        """
        pixels = read_window(self.raster, self.path, top, left, height, width).to(torch.float32)
        if self.normalization is None:
            return pixels
        return self.normalization(pixels, self.level())

    def level(self) -> Tensor | None:
        """The brightness that the image is scaled by, found once; None if it is not scaled."""
        if self._level is None and self.normalization is not None:
            self._level = self.normalization.level(self.raw_pieces)
        return self._level

    def scale_by(self, level: Tensor | None) -> None:
        """Takes `level` from another object of the same file: to find it, the whole file must be read.

        Args:
            level: What it gave.
        """
        self._level = level

    def bands(self, rows: int = BAND) -> Iterator[Tensor]:
        """The pixels from top to bottom, some rows at a time, normalised.

        Args:
            rows: At most so many.

        Shape:
            - a band: ``[C, rows, W]``, float32
        """
        _, height, width = self.shape
        for top in range(0, height, rows):
            yield self.window(top, 0, min(rows, height - top), width)

    def raw_pieces(self) -> Iterator[Tensor]:
        """Windows that hold each pixel once, in the file's own number type: as the file gives them best, and small.

        Shape:
            - a piece: ``[C, h, w]``

        Raises:
            ValueError: The file is damaged.
        """
        with readable(self.path):
            yield from self.raster.pieces()


class MaskFile:
    """A mask file of which windows are read as class indices.

    Args:
        path: The file.
        code: How it says its classes.

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
        """The classes of a window that lies inside the mask.

        Args:
            top: The first row.
            left: The first column.
            height: Rows.
            width: Columns.

        Raises:
            ValueError: The file is damaged there, or its values say no class.
        """
        return self.code.indices(read_window(self.raster, self.path, top, left, height, width))

    def bands(self, rows: int = BAND) -> Iterator[Tensor]:
        """The classes from top to bottom, some rows at a time.

        Args:
            rows: At most so many.

        Shape:
            - a band: ``[rows, W]``
        """
        height, width = self.shape
        for top in range(0, height, rows):
            yield self.window(top, 0, min(rows, height - top), width)


def read_window(raster: Raster, path: Path, top: int, left: int, height: int, width: int) -> Tensor:
    """A window in the file's own number type.

    Raises:
        ValueError: The file is damaged there.
    """
    with readable(path):
        return raster.window(top, left, height, width)


def read_image(path: Path) -> Tensor:
    """The grey levels, colours or channels of an image file: PNG, JPEG, TIFF, and arrays saved by numpy.

    Args:
        path: The file; 8 or 16 bits a value, or any number type that TIFF and numpy have.

    Shape:
        - output: ``[C, H, W]``, float32, in the file's own units (0 .. 255 for 8 bit)

    Raises:
        ValueError: The file is absent, damaged, no image, or has several pages.

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
    """The class indices of a mask file.

    Args:
        path: The file.
        code: How it says its classes; None for indices.

    Shape:
        - output: ``[H, W]``, int64

    Raises:
        ValueError: As for `read_image`, or the file says no classes.

    Example:
        >>> from gconv_ga.images import read_mask
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> read_mask(Path(__file__).parent / "sample" / "nuclei" / "masks" / "00.png").unique()
        tensor([0, 1])
    """
    mask = MaskFile(path, code)
    return mask.window(0, 0, *mask.shape)
