"""Whole slides: images in several levels that are read by window, at the resolution that a network was trained at."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._validate import as_int, invalid
from ._pairs import OPENSLIDE, is_zarr
from ._pixel_size import read_pixel_size
from ._rasters import Raster, as_tensor, chosen, readable, refused
from ._reader import ImageFile, Normalization, read_window
from ._reading import Reading
from ._slide_files import open_with_openslide, open_zarr
from ._tiff import count_levels, open_levels

PYRAMIDS = (".tif", ".tiff", ".svs", ".qptiff")  # which tifffile reads
SLIDE_SUFFIXES = (".svs", *OPENSLIDE)
CLOSE = 0.05  # share by which the side of a pixel may differ from the wanted one and is taken as it is


def is_slide(path: str | Path) -> bool:
    """Return True if a file is a whole slide: SVS, NDPI, SCN, MRXS, VMS, BIF, a TIFF of several levels, an OME-Zarr.

    Args:
        path: The file, or the folder of an OME-Zarr.

    Example:
        >>> from gconv_ga.images import is_slide
        >>> is_slide("slide.mrxs"), is_slide("photo.png")
        (True, False)
    """
    suffix = Path(path).suffix.lower()
    if suffix in SLIDE_SUFFIXES or is_zarr(Path(path)):
        return True
    return suffix in PYRAMIDS and count_levels(Path(path)) > 1


class Slide:
    """An open whole slide. Nothing is read before a window is asked for.

    SVS, pyramidal TIFF, QPTIFF and OME-TIFF are read by tifffile, with any number of channels; NDPI, SCN, MRXS, VMS and
    BIF by OpenSlide, in red, green and blue; OME-Zarr by zarr. The last two need the extra ``slides``. The object can
    be pickled, and used in several processes.

    Args:
        path: The file, or the folder of an OME-Zarr.
        reading: Channels and page. If None, those of `Reading`; its largest size is not for slides.

    Attributes:
        path: The file.
        levels: ``C, H, W`` of each level, the finest first.
        pixel_size: Side of a pixel of the finest level in micrometres; None if the file does not state it.
        numbers: Number type of the file, as for `Reading`.

    Raises:
        ValueError: The file is missing, damaged or no slide, or has several pages and none is chosen; its levels get
            finer.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import tifffile
        >>> from gconv_ga.images import Slide
        >>> pixels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = dict(tile=(16, 16), resolution=(20000, 20000), resolutionunit="CENTIMETER")
        ...     with tifffile.TiffWriter(f"{folder}/a.tif") as file:
        ...         file.write(pixels, subifds=1, **options)
        ...         file.write(pixels[::2, ::2], subfiletype=1, tile=(16, 16))
        ...     slide = Slide(f"{folder}/a.tif")
        ...     slide.levels, slide.pixel_size, slide.read(1, 10, 20, 1, 3).tolist()
        (((1, 48, 64), (1, 24, 32)), 0.5, [[[1320, 1322, 1324]]])
    """

    def __init__(self, path: str | Path, reading: Reading | None = None) -> None:
        self.path = Path(path)
        how = Reading() if reading is None else reading
        with readable(self.path):
            suffix = self.path.suffix.lower()
            if not self.path.exists():
                raise refused(self.path, "a slide", "there is no such file")
            if is_zarr(self.path):
                found, self.pixel_size = open_zarr(self.path, how)
            elif suffix in OPENSLIDE:
                found, self.pixel_size = open_with_openslide(self.path)
            else:
                found, self.pixel_size = open_levels(self.path, how), read_pixel_size(self.path)
            self._rasters = [chosen(raster, how.channels, self.path) for raster in found]
        sides = [raster.shape[1:] for raster in self._rasters]
        if any(not all(0 < b <= a for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(sides)):
            raise refused(self.path, "a slide whose levels get coarser", f"they have {sides} pixels")

    @property
    def levels(self) -> tuple[tuple[int, int, int], ...]:
        """``C, H, W`` of each level, the finest first."""
        return tuple(raster.shape for raster in self._rasters)

    @property
    def numbers(self) -> str:
        """Number type of the file, as for `Reading`."""
        return self._rasters[0].numbers

    def raster(self, level: int) -> Raster:
        """Return a level as an image that is read by window.

        Args:
            level: Number of the level, from the finest, 0.
        """
        return self._rasters[level]

    def level_pixel_size(self, level: int) -> float | None:
        """Return the side of a pixel of a level in micrometres; None if the file does not state it.

        Args:
            level: Number of the level, from the finest, 0.
        """
        if self.pixel_size is None:
            return None
        (_, height, width), (_, rows, columns) = self.levels[0], self.levels[level]
        return self.pixel_size * (height / rows + width / columns) / 2

    def read(self, level: int, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window of a level in the number type of the file.

        Args:
            level: Number of the level, from the finest, 0.
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.

        Shape:
            - output: ``[C, height, width]``

        Raises:
            ValueError: The file is damaged there.
        """
        return read_window(self._rasters[level], self.path, top, left, height, width)

    def at(self, *, level: int | None = None, pixel_size: float | None = None) -> "SlideImage":
        """Return the slide at one resolution, as an image that is read by window.

        By ``pixel_size`` the coarsest level that is as fine as that is taken, as it is if its pixels differ by up to
        5 %, and else scaled down: a pixel is then the mean over its own area of the level.

        Args:
            level: Number of the level, from the finest, 0.
            pixel_size: Side of a pixel in micrometres.

        Raises:
            ValueError: Both or none are given, there is no such level, the file does not state the size of its pixels,
                or they are larger than wanted.
        """
        if level is not None and pixel_size is None:
            if as_int("level", level, minimum=0) >= len(self.levels):
                raise invalid("level", f"below {len(self.levels)}, the number of levels of {self.path.name}", level)
            return SlideImage(self, level, self.levels[level], self.level_pixel_size(level))
        if level is not None or pixel_size is None:
            raise invalid("pixel_size", "given where level is not, and only there", pixel_size)
        if not 0 < pixel_size < math.inf:
            raise invalid("pixel_size", "a positive number of micrometres", pixel_size)
        sizes = [self.level_pixel_size(place) or 0.0 for place in range(len(self.levels))]
        if self.pixel_size is None:
            advice = "the file does not state the size of its pixels, or they are not square; choose one of its levels "
            advice += "with level (--level)"
            raise refused(self.path, "a slide of a known size of pixels", advice)
        fine = [place for place, size in enumerate(sizes) if size <= pixel_size * (1 + CLOSE)]
        if not fine:
            found = f"those of its finest level are {sizes[0]:.4g}; to take them as they are, give level=0 (--level 0)"
            raise refused(self.path, f"a slide whose pixels are no larger than {pixel_size:.4g} micrometres", found)
        coarsest = fine[-1]
        if sizes[coarsest] >= pixel_size * (1 - CLOSE):
            return self.at(level=coarsest)
        channels, height, width = self.levels[coarsest]
        factor = sizes[coarsest] / pixel_size
        shape = (channels, max(1, round(height * factor)), max(1, round(width * factor)))
        return SlideImage(self, coarsest, shape, pixel_size)

    def overview(self, height: int, width: int) -> Tensor:
        """Return the slide scaled to a few pixels, each the mean over its area of the coarsest level that is as fine.

        It is read piece by piece; if the slide has no coarse level, that is a pass over all of it.

        Args:
            height: Number of rows, no more than the slide has.
            width: Number of columns.

        Shape:
            - output: ``[C, height, width]``, float32
        """
        fine = [place for place, (_, rows, columns) in enumerate(self.levels) if rows >= height and columns >= width]
        raster = Scaled(self._rasters[fine[-1]], height, width)
        with readable(self.path):
            return raster.whole()


@dataclass(frozen=True)
class SlideImage:
    """A slide at one resolution, made by `Slide.at`.

    Args:
        slide: The slide.
        level: Level that is read.
        shape: ``C, H, W`` of the image.
        pixel_size: Side of a pixel in micrometres, if it is known.

    Shape:
        - a window: ``[C, height, width]``, in the number type of the file, or float32 where the level is scaled

    Example:
        >>> from gconv_ga.images import SlideImage
        >>> SlideImage.__dataclass_fields__.keys()
        dict_keys(['slide', 'level', 'shape', 'pixel_size'])
    """

    slide: Slide
    level: int
    shape: tuple[int, int, int]
    pixel_size: float | None

    @property
    def scale(self) -> tuple[float, float]:
        """Height and width of a pixel in pixels of the finest level."""
        (_, rows, columns), (_, height, width) = self.slide.levels[0], self.shape
        return rows / height, columns / width

    @property
    def raster(self) -> Raster:
        """The pixels, read by window."""
        level = self.slide.raster(self.level)
        return level if self.shape == level.shape else Scaled(level, *self.shape[1:])

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the pixels of a window that lies inside the image.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.

        Raises:
            ValueError: The file is damaged there.
        """
        return read_window(self.raster, self.slide.path, top, left, height, width)

    def normalized(self, normalization: Normalization | None, reading: Reading | None = None) -> ImageFile:
        """Return the image as a network takes it.

        Args:
            normalization: Normalization of the pixels. If None, windows are in the units of the file.
            reading: Number type of the training images. If None, any is read.

        Raises:
            ValueError: As for `ImageFile`.
        """
        return ImageFile(self.slide.path, normalization, reading, raster=self.raster)


PIECE = 2**22  # pixels of the level that are read at a time


@dataclass(frozen=True)
class Scaled:
    """An image scaled down, each pixel the mean over its own area of the other one; parts of pixels count in part.

    Sums are sums of whole numbers for images of whole numbers, so the mean does not depend on the order of the pixels:
    the rotated image is scaled to the rotated result, exactly.

    Args:
        raster: The other one.
        height: Number of rows, no more than it has.
        width: Number of columns.
    """

    raster: Raster
    height: int
    width: int

    @property
    def numbers(self) -> str:
        """Number type of the other image, whose units the means have."""
        return self.raster.numbers

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        return self.raster.shape[0], self.height, self.width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        _, rows, columns = self.raster.shape
        down, across = _Means(rows, self.height, top, height), _Means(columns, self.width, left, width)
        part = self.raster.window(down.first, across.first, down.count, across.count).numpy().astype(np.float64)
        sums = across(down(part.swapaxes(1, 2)).swapaxes(1, 2))
        return as_tensor((sums / (down.total * across.total)).astype(np.float32))

    def pieces(self) -> Iterator[Tensor]:
        """Yield blocks whose area in the other image is about `PIECE` pixels."""
        for top, left, height, width in self._blocks():
            yield self.window(top, left, height, width)

    def whole(self) -> Tensor:
        """Return all of it, read in blocks."""
        found = torch.empty(self.shape, dtype=torch.float32)
        for (top, left, height, width), piece in zip(self._blocks(), self.pieces(), strict=True):
            found[:, top : top + height, left : left + width] = piece
        return found

    def _blocks(self) -> Iterator[tuple[int, int, int, int]]:
        _, rows, columns = self.raster.shape
        side = math.isqrt(PIECE)
        high, wide = max(1, side * self.height // rows), max(1, side * self.width // columns)
        for top in range(0, self.height, high):
            for left in range(0, self.width, wide):
                yield top, left, min(high, self.height - top), min(wide, self.width - left)


class _Means:
    """Weighted sums along the last axis: of the pixels under each of some larger ones, by their common lengths.

    With ``size`` pixels under ``target`` larger ones, lengths are counted in parts of ``1 / target`` of a pixel.

    Args:
        size: Number of pixels.
        target: Number of larger pixels.
        start: First larger pixel that is wanted.
        length: Number of those that are wanted.

    Attributes:
        first: First pixel that is needed.
        count: Number of pixels that are needed.
        total: Sum of the weights of a larger pixel.
    """

    def __init__(self, size: int, target: int, start: int, length: int) -> None:
        common = math.gcd(size, target)
        self.total, parts = size // common, target // common  # lengths of a larger and of a small pixel
        begins = (start + np.arange(length, dtype=np.int64)) * self.total
        self.first = int(begins[0]) // parts
        self.count = -(-int(begins[-1] + self.total) // parts) - self.first
        near = begins[:, None] // parts + np.arange(-(-self.total // parts) + 1)
        weights = np.minimum(begins[:, None] + self.total, (near + 1) * parts) - np.maximum(
            begins[:, None], near * parts
        )
        self._weights = weights.clip(min=0).T.astype(np.float64)
        self._places = (near - self.first).clip(max=self.count - 1).T

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = values[..., self._places[0]] * self._weights[0]
        for place, weight in zip(self._places[1:], self._weights[1:], strict=True):
            total += values[..., place] * weight
        return total
