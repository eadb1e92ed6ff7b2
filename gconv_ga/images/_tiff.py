"""TIFF: which of its pages are the image, and the tiles or strips of a page that a window touches."""

import io
import itertools
import logging
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from torch import Tensor

from ._pictures import CHOOSE_PAGE, webp_size
from ._rasters import (
    PIECE,
    Box,
    Mapped,
    Raster,
    Stacked,
    Uncompressed,
    as_tensor,
    colored,
    from_inks,
    inverted,
    oriented,
    refused,
)
from ._reading import Reading

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is said by our errors

WHITE_IS_ZERO, PALETTE, MASK, INKS, YCBCR = 0, 3, 4, 5, 6  # photometric interpretations
SHOWN_AS_THEY_ARE = (1, 2, MASK, 34892, 51177)  # black is zero, RGB, a mask, linear raw values, depths
OLD_JPEG, JPEGS = 6, (7, 34892, 33007)  # compressions
DESCRIPTION = 270  # tag
LOSSY = (OLD_JPEG, *JPEGS)
LARGEST_SEGMENT = 2**28  # values of a tile or strip of a slide
# Formats of slide scanners, whose first series is the slide; the others are its label and previews.
SLIDES = ("svs", "ndpi", "scn", "qpi", "bif", "philips", "avs")


@dataclass(frozen=True)
class Segmented:
    """A page of a TIFF in tiles or strips, of which a window decodes those that it touches.

    Args:
        path: The file.
        offset: Byte at which the directory of the page begins.
        lengths: Lengths of the axes in the order of the file.
        axes: Their names, as tifffile has them: Y, X and, if there are channels, S.
        numbers: Number type.
        limit: Largest number of values of a segment.
    """

    path: Path
    offset: int
    lengths: tuple[int, ...]
    axes: str
    numbers: str
    limit: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        sizes = dict(zip(self.axes, self.lengths, strict=True))
        return sizes.get("S", 1), sizes["Y"], sizes["X"]

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy.

        Raises:
            ValueError: The file ends before the segment does.
        """
        wanted = {"Y": (top, top + height), "X": (left, left + width), "S": (0, self.shape[0])}
        spans = [wanted[axis] for axis in self.axes]
        with open_file(self.path) as file:
            page = self._page(file)
            sides = self._sides(page)
            part = np.zeros([stop - start for start, stop in spans], dtype=page.dtype)
            reach = [range(start // side, -(-stop // side)) for (start, stop), side in zip(spans, sides, strict=True)]
            for chunk in itertools.product(*reach):
                values = self._segment(file, page, int(np.ravel_multi_index(chunk, page.chunked)))
                _paste(part, values, spans, [place * side for place, side in zip(chunk, sides, strict=True)])
        order = [self.axes.index(axis) for axis in "SYX" if axis in self.axes]
        moved = part.transpose(order)
        return as_tensor(moved if "S" in self.axes else moved[None])

    def pieces(self) -> Iterator[Tensor]:
        """Yield one segment at a time, or several if they are small."""
        with open_file(self.path) as file:
            page = self._page(file)
            sides, itemsize = dict(zip(self.axes, self._sides(page), strict=True)), page.dtype.itemsize
        (channels, height, width), high, wide = self.shape, sides["Y"], sides["X"]
        count = max(1, PIECE // (channels * high * wide * itemsize))
        high, wide = (high * count, wide) if wide >= width else (high, wide * count)
        for top, left in itertools.product(range(0, height, high), range(0, width, wide)):
            yield self.window(top, left, min(high, height - top), min(wide, width - left))

    def _page(self, file: Any) -> Any:
        file.filehandle.seek(self.offset)
        return tifffile.TiffPage(file, index=0)

    def _sides(self, page: Any) -> tuple[int, ...]:
        """Lengths of a segment along the axes of the file; with separate planes it holds one plane."""
        return (1,) * (len(self.axes) - len(page.chunks)) + tuple(page.chunks)

    def _segment(self, file: Any, page: Any, index: int) -> NDArray[Any]:
        """Decode one segment, with the axes of the file."""
        size = page.databytecounts[index]
        file.filehandle.seek(page.dataoffsets[index])
        data = file.filehandle.read(size)
        if not size or len(data) != size:
            raise ValueError(f"segment {index} has {len(data)} of its {size} bytes")
        claimed = _claimed_size(data)
        if claimed > self.limit:
            raise ValueError(f"segment {index} says that it has {claimed} pixels")
        values, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        # Segments come as [depth, rows, columns, samples]; axes that the file lacks have length one.
        rows, columns, samples = values.shape[-3:]
        lengths = {"Y": rows, "X": columns, "S": samples}
        return np.asarray(values).reshape([lengths[axis] for axis in self.axes])


def _claimed_size(data: bytes) -> int:
    """Pixels that an image inside a segment says it has, as decoders allocate them; 0 if that is not known here."""
    if data.startswith(b"\xff\xd8"):
        _, height, width, _ = tifffile.tifffile.jpeg_shape(data)
    elif data.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", data[16:24])
    elif data.startswith(b"RIFF"):
        height, width = webp_size(io.BytesIO(data))
    elif (start := data.find(b"\xff\x4f\xff\x51", 0, 2**12)) >= 0:  # JPEG 2000, bare or in its boxes
        right, bottom, left, top = struct.unpack(">IIII", data[start + 8 : start + 24])
        width, height = right - left, bottom - top
    else:
        return 0
    return int(height * width)


def _paste(part: NDArray[Any], values: NDArray[Any], spans: Box, begins: Sequence[int]) -> None:
    """Copy into ``part``, which covers ``spans``, what a segment that begins at ``begins`` has in common with it."""
    here, there = [], []
    for (start, stop), begin, side in zip(spans, begins, values.shape, strict=True):
        first, last = max(start, begin), min(stop, begin + side)
        here.append(slice(first - start, last - start))
        there.append(slice(first - begin, last - begin))
    part[tuple(here)] = values[tuple(there)]


def open_file(path: Path) -> Any:
    """Open a TIFF; other files that it names, as OME does, are not opened."""
    return tifffile.TiffFile(path, _multifile=False)


def open_tiff(path: Path, reading: Reading, *, palette: bool, mask: bool) -> Raster | None:
    """Open the image in a TIFF: one plane, or several that are its channels; None if it is left to Pillow.

    Levels of a pyramid, reduced images, transparency masks and the label of a slide are not planes of the image.

    Args:
        path: The file.
        reading: Page and channels, of which several planes are chosen, and largest size.
        palette: Whether a file with a palette gives indices into it, or colours.
        mask: Whether it is a mask, which lossy compressions spoil.

    Raises:
        ValueError: It has several planes and none is chosen, is too large, or its colours are unknown; errors of
            tifffile are of many types.
    """
    with open_file(path) as file:
        if not (file.is_ndpi or file.is_lsm):  # which write offsets beyond 4 GiB in ways of their own
            _check_pages(file)
        images = _images(path, file)
        image, plane = _chosen(path, images, reading, mask=mask)
        page = image.keyframe
        if mask and page.compression in LOSSY:
            raise refused(path, LOSSLESS, "this one has been compressed as JPEG, which changes values")
        if _is_left_to_pillow(page):
            return None
        planes = _planes_of(path, image, plane, split=reading.channels is not None and reading.page is None)
        channels = len(planes) * math.prod(page.shape) // (page.imagelength * page.imagewidth)
        reading.check_size(path, channels, page.imagelength, page.imagewidth)
        raster = _opened(path, file, image, planes, 4 * reading.max_pixels, palette=palette)
        return oriented(raster, page.tags.valueof("Orientation"))


def open_levels(path: Path, reading: Reading) -> list[Raster]:
    """Open all levels of the image in a TIFF, the finest first; they are as large as they like.

    Args:
        path: The file.
        reading: Page and channels, of which several planes are chosen.

    Raises:
        ValueError: As for `open_tiff`, except for the size; or its pixels are not in tiles or strips of a known kind.
    """
    with open_file(path) as file:
        image, plane = _chosen(path, _images(path, file), reading, mask=False)
        levels: list[Raster] = []
        for level in image.levels:
            page = level.keyframe
            if _is_left_to_pillow(page):
                raise refused(path, "a slide of pixels compressed as JPEG, JPEG 2000, deflate or LZW", "convert it")
            planes = _planes_of(path, level, plane, split=reading.channels is not None and reading.page is None)
            raster = _opened(path, file, level, planes, LARGEST_SEGMENT, palette=False)
            levels.append(oriented(raster, page.tags.valueof("Orientation")))
        return levels


def count_levels(path: Path) -> int:
    """Return the number of levels of the first image in a TIFF; 0 for other files.

    Args:
        path: The file.
    """
    try:
        with open_file(path) as file:
            return len(file.series[0].levels)
    except Exception:  # noqa: BLE001 - tifffile raises errors of many types
        return 0


def _opened(path: Path, file: Any, image: Any, planes: Sequence[int], limit: int, *, palette: bool) -> Raster:
    """Open some planes of one level of an image, as its channels.

    Raises:
        ValueError: Its colours are unknown, its segments are larger than ``limit`` values, or one is missing.
    """
    page = image.keyframe
    if page.photometric not in (*SHOWN_AS_THEY_ARE, WHITE_IS_ZERO, PALETTE, INKS, YCBCR):
        name = getattr(page.photometric, "name", page.photometric)
        raise refused(path, "an image in grey, RGB, CMYK or YCbCr", f"its colours are {name}; convert it to RGB")
    numbers = _numbers(path, page)
    if math.prod(page.chunks) > limit:
        raise refused(path, f"a file of tiles of at most {limit} values", f"they have {math.prod(page.chunks)}")
    pages = tuple(_plane(path, file, image, index, numbers, limit) for index in planes)
    return _as_shown(path, pages[0] if len(pages) == 1 else Stacked(pages), page, palette=palette)


def _check_pages(file: Any) -> None:
    """Check that the directories of all pages are in the file, and the description of the first, which counts planes.

    tifffile would go on without those that are cut off.

    Raises:
        ValueError: One of them is not.
    """
    handle, order = file.filehandle, file.byteorder
    sizes = ("Q", 8, 20) if file.is_bigtiff else ("H", 2, 12)
    number, wide = (f"{order}Q", 8) if file.is_bigtiff else (f"{order}I", 4)

    def read(form: str, place: int) -> int:
        handle.seek(place)
        size = struct.calcsize(form)
        data = handle.read(size)
        if len(data) < size:
            raise ValueError("it ends before the directories of its pages do")
        return int(struct.unpack(form, data)[0])

    seen = set[int]()
    place = read(number, wide)
    while place:
        if place in seen:  # tifffile would follow it for ever
            raise ValueError("the directories of its pages form a ring")
        seen.add(place)
        count = read(order + sizes[0], place)
        entries = place + sizes[1]
        for entry in range(entries, entries + count * sizes[2], sizes[2]) if len(seen) == 1 else ():
            length = read(number, entry + 4) if read(f"{order}H", entry) == DESCRIPTION else 0
            if length > wide and read(number, entry + 4 + wide) + length > handle.size:
                raise ValueError("it ends before its description does")
        place = read(number, entries + count * sizes[2])


LOSSLESS = "a mask file without lossy compression, such as PNG"


def _images(path: Path, file: Any) -> list[Any]:
    """The series of a file that are images of their own.

    Raises:
        ValueError: There are fewer planes than the file says.
    """
    series = [each for each in file.series if not each.keyframe.subfiletype & 4]  # 4: a transparency mask
    if not series:
        raise ValueError("there is no image in it")
    if series[0].kind in SLIDES:
        return series[:1]
    whole = [each for each in series if not each.keyframe.is_reduced] or series[:1]
    declared, found = _declared(file), sum(_count(each) for each in whole)
    if declared > found:
        raise refused(path, "an image file that is complete", f"it says that it has {declared} planes, and has {found}")
    return whole


def _count(series: Any) -> int:
    """Number of planes of a series."""
    return math.prod(series.shape) // math.prod(series.keyframe.shape)


def _declared(file: Any) -> int:
    """Number of planes that the metadata of a file declare, where tifffile ignores those that do not fit the file."""
    page = file.pages.first
    if file.is_imagej:
        about = file.imagej_metadata or {}
        counts = [about.get(name, 1) for name in ("frames", "slices", "channels")]
        planes = math.prod(count for count in counts if isinstance(count, int) and count > 0)
        return planes // page.samplesperpixel if planes % page.samplesperpixel == 0 else planes
    if file.is_shaped:
        shaped: Any = file.shaped_metadata or ({},)
        shape = tuple(shaped[0].get("shape", ()))
        own = page.shape
        return math.prod(shape[: -len(own)]) if shape[-len(own) :] == own else 1
    return 1


def _outer(path: Path, series: Any) -> tuple[str, tuple[int, ...]]:
    """Axes of a series beyond those of its pages, and their lengths.

    Raises:
        ValueError: The pages are not flat, or the series is no plain stack of them.
    """
    page = series.keyframe
    if page.axes not in ("YX", "YXS", "SYX"):
        raise refused(path, "a flat image", f"the axes of its pages are {page.axes}")
    cut = len(series.shape) - len(page.shape)
    if series.shape[cut:] != page.shape or series.transform is not None:
        raise ValueError(f"its pages {page.axes} {page.shape} do not make up its image {series.axes} {series.shape}")
    return series.axes[:cut], series.shape[:cut]


def _chosen(path: Path, images: Sequence[Any], reading: Reading, *, mask: bool) -> tuple[Any, int]:
    """The series to read, and which of its planes, not counting channels.

    Raises:
        ValueError: There are several planes and none is chosen, or there is no such plane.
    """
    counts = []
    for image in images:
        axes, lengths = _outer(path, image)
        counts.append(math.prod(length for axis, length in zip(axes, lengths, strict=True) if axis != "C"))
    total = sum(counts)
    if reading.page is None:
        axes, lengths = _outer(path, images[0])
        is_split = len(images) == 1 and "C" not in axes and images[0].keyframe.samplesperpixel == 1
        if total > 1 and not (is_split and reading.channels is not None):
            found = " ".join(f"{axis}={length}" for axis, length in zip(axes, lengths, strict=True) if axis != "C")
            about = f"this one has {total} pages" + (f" ({found})" if len(images) == 1 else "")
            more = "; or take several as channels with channels (--channels)" if is_split else ""
            raise refused(path, "an image file of one page", f"{about}; {CHOOSE_PAGE}{more}")
        return images[0], 0
    if mask and total == 1:  # of all pages of the image
        return images[0], 0
    if reading.page >= total:
        raise refused(path, f"a file that has page {reading.page}", f"it has {total}, counted from 0")
    plane = reading.page
    for image, count in zip(images, counts, strict=True):
        if plane < count:
            return image, plane
        plane -= count
    raise AssertionError


def _planes_of(path: Path, series: Any, plane: int, *, split: bool) -> list[int]:
    """The pages of a series that are the channels of one plane of it.

    Args:
        path: The file.
        series: Series.
        plane: Number of the plane, not counting channels.
        split: Whether all pages are channels of one plane, if no axis says which are.
    """
    axes, lengths = _outer(path, series)
    pages = np.arange(math.prod(lengths)).reshape(lengths)
    if split and "C" not in axes:
        return [int(page) for page in pages.ravel()]
    inner = [place for place, axis in enumerate(axes) if axis == "C"]
    moved = np.moveaxis(pages, inner, range(-len(inner), 0)) if inner else pages[..., None]
    channels = math.prod(lengths[place] for place in inner)
    return [int(page) for page in moved.reshape(-1, channels)[plane]]


def _plane(path: Path, file: Any, series: Any, index: int, numbers: str, limit: int) -> Raster:
    """One page of a series.

    Raises:
        ValueError: It is missing, or the file ends before it does.
    """
    page: Any = series.keyframe
    begin = series.dataoffset
    if begin is not None:
        begin += index * page.nbytes
    elif index >= len(series) or series[index] is None:
        raise ValueError(f"its plane {index} is missing, or in another file")
    elif page.is_final:
        begin = series[index].dataoffsets[0]
    if begin is None:
        return Segmented(path, series[index].offset, page.shape, page.axes, numbers, limit)
    if begin + page.nbytes > path.stat().st_size:
        raise ValueError(f"it ends before its {page.nbytes} bytes of pixels do")
    lengths = page.shape if "S" in page.axes else (1, *page.shape)
    order = (2, 0, 1) if page.axes == "YXS" else (0, 1, 2)
    return Uncompressed(path, begin, page.dtype.newbyteorder(file.byteorder), lengths, order)


def _is_left_to_pillow(page: Any) -> bool:
    """True for what tifffile does not decode, or not to the end."""
    if page.compression == OLD_JPEG or page.dtype is None:
        return True
    if page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        return True
    return bool(page.photometric == YCBCR and page.compression not in JPEGS)


def _numbers(path: Path, page: Any) -> str:
    """Number type of a page, as for `Reading`.

    Raises:
        ValueError: They are complex.
    """
    if page.dtype.kind not in "buif":
        raise refused(path, "a file of real numbers", f"this one holds {page.dtype}")
    if page.dtype.kind not in "bu":
        return str(page.dtype.name)
    return f"uint{page.bitspersample if isinstance(page.bitspersample, int) else 8 * page.dtype.itemsize}"


def _as_shown(path: Path, raster: Raster, page: Any, *, palette: bool) -> Raster:
    """Return a page in which black is zero and colours are red, green and blue."""
    channels, numbers = raster.shape[0], raster.numbers
    if page.photometric == PALETTE and not palette:
        if page.colormap is None or channels != 1:
            raise ValueError("its palette is missing")
        colors = page.colormap.T
        eight = (colors if colors.max() < 256 else colors // 256).astype(np.uint8)  # some writers fill 8 of 16 bits
        return Mapped(raster, 3, partial(colored, colors=eight), "uint8")
    if page.photometric not in (WHITE_IS_ZERO, INKS):
        return raster
    if not numbers.startswith("uint"):
        raise refused(path, "a file of whole numbers where zero is white", f"this one holds {numbers}")
    top = 2 ** int(numbers.removeprefix("uint")) - 1
    if page.photometric == WHITE_IS_ZERO:
        return Mapped(raster, channels, partial(inverted, top=top), numbers)
    if channels < 4:
        raise refused(path, "an image of four inks", f"this one has {channels}")
    return Mapped(raster, channels - 1, partial(from_inks, top=top), numbers)
