"""Pixels of image files by window: a reader for each way in which a file stores them."""

import errno
import itertools
import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from .._validate import argument_of, invalid
from ._pairs import FORMATS
from ._reading import Reading

# Pixels above which libvips decodes a PNG or JPEG. Up to that Pillow holds 16 MiB at most, without a temporary file.
LARGE = 2**22
BLOCK = (16, 128)  # rows and columns that lie together in the temporary file of a decoded image
PIECE = 2**20  # bytes of the windows that `Raster.pieces` gives
SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
UNCHANGED = (1, 2)  # photometric interpretations whose values are brightness: black is zero; RGB
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # a full disk, which is not a fault of the image

Box = Sequence[tuple[int, int]]  # for each axis the first index and the one after the last


class Raster(Protocol):
    """An open image file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""

    @property
    def numbers(self) -> str:
        """Number type, as for `Reading`."""

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return ``[C, height, width]`` in the number type of the file; the window lies inside the image."""

    def pieces(self) -> Iterator[Tensor]:
        """Yield windows that together hold each pixel once, cut as the file is read fastest, each of them small."""


def open_raster(path: Path, reading: Reading, *, palette: bool = False) -> Raster:
    """Open an image file of one of `FORMATS`; arrays saved by numpy are ``[H, W]`` or ``[C, H, W]``.

    Args:
        path: The file.
        reading: Channels, page and largest size.
        palette: Whether a file with a palette gives indices into it, or colours.

    Raises:
        ValueError: The file is missing, damaged or not an image, or it has several pages.
    """
    raster = _opened(path, palette=palette)
    reading.check_size(path, *raster.shape)
    return raster


def _opened(path: Path, *, palette: bool) -> Raster:
    with readable(path):
        if path.suffix.lower() in FORMATS["NPY"]:
            return _open_array(path)
        if path.suffix.lower() in FORMATS["TIFF"]:
            raster = _open_tiff(path)
            if raster is not None:
                return raster
        return _open_large(path, palette=palette) or _open_held(path, palette=palette)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises about a file into one ValueError with the name of the file."""
    try:
        yield
    except Exception as error:  # readers raise errors of many types about damaged files
        if argument_of(error) is not None or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise invalid("path", "a readable image file", str(path), f"the reader says: {reason}") from error


def _refused(path: Path, takes: str, advice: str) -> ValueError:
    return invalid("path", takes, str(path), advice)


@dataclass(frozen=True)
class Held:
    """An image that Pillow has decoded as a whole: one byte a value for 8 bits, but four bytes a pixel for RGB.

    Args:
        picture: The decoded image.
        palette: Whether an image with a palette gives indices into it, or colours.
    """

    picture: Image.Image
    palette: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        return _channels(self.picture, palette=self.palette), self.picture.height, self.picture.width

    @property
    def numbers(self) -> str:
        """Number type."""
        mode = self.picture.mode
        other = {"1": "uint1", "I": "int32", "F": "float32"}
        return "uint16" if mode.startswith("I;16") else other.get(mode, "uint8")

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        part = self.picture.crop((left, top, left + width, top + height))
        pixels = as_tensor(np.asarray(part.convert("RGB") if part.mode == "P" and not self.palette else part))
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return _bands(self, 4)


class Decoded:
    """A large PNG or JPEG, which libvips decodes row by row into a temporary file.

    Rows are decoded as far as windows need them, once, and stay on disk: windows may then be read in any order. The
    temporary file holds plain values in small blocks, has no name, lies where the system keeps such files (``TMPDIR``),
    and is gone with the object. It is not mapped, for mapped pages count as memory in use. While libvips decodes, it
    holds about 512 rows; of a progressive JPEG also two bytes a value, of an interlaced PNG the whole image.

    `pyvips.Image.new_from_file` with ``access="random"`` would do the same with less code, but with threads. A forked
    process, such as a worker of a DataLoader, has none of them and would wait forever; here the calling thread decodes.
    A pickled object begins anew, and so does one that a forked process finds half decoded.

    Args:
        path: The file.
        shape: ``C, H, W``.
        dtype: The number type of the values.
        bits: Whether the values are single bits, which libvips gives as 0 and 255.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], *, bits: bool = False) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.bits = bits
        self.numbers = "uint1" if bits else dtype.name
        self._file: Any = None  # the temporary file, from the first window on
        self._region: Any = None  # libvips, until all rows are decoded
        self._rows = 0  # decoded so far
        self._process = 0  # the one that decodes

    def __reduce__(self) -> tuple[Any, ...]:
        return _decoded, (self.path, self.shape, self.dtype, self.bits)

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy.

        Raises:
            OSError: The file ends before the window does, or the disk is full.
        """
        self._decode(top + height)
        (first, last), (begin, end) = (
            (start // side, -(-(start + length) // side))
            for start, length, side in zip((top, left), (height, width), BLOCK, strict=True)
        )
        lengths, (rows, columns), channels = self._lengths(), BLOCK, self.shape[0]
        box = ((first, last), (begin, end), (0, rows), (0, columns), (0, channels))
        blocks = read_box(self._file.fileno(), self.dtype, lengths, box).transpose(4, 0, 2, 1, 3)
        joined = blocks.reshape(channels, (last - first) * rows, (end - begin) * columns)
        y, x = top - first * rows, left - begin * columns
        return as_tensor(joined[:, y : y + height, x : x + width])

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return _bands(self, self.dtype.itemsize)

    def _decode(self, rows: int) -> None:
        """Decode until so many rows are on disk."""
        if self._file is None or (self._region is not None and self._process != os.getpid()):
            self._begin()
        _, height, width = self.shape
        _, blocks, side, columns, channels = self._lengths()
        band = np.zeros((side, blocks * columns, channels), self.dtype)
        # Below the size from which malloc maps memory: larger buffers between those of libvips leave holes in the heap.
        step = max(1, 2**16 // band[0].nbytes)
        try:
            while self._rows < rows:
                for row in range(0, min(side, height - self._rows), step):
                    count = min(step, side - row, height - self._rows - row)
                    fetched = self._region.fetch(0, self._rows + row, width, count)
                    values = np.frombuffer(fetched, self.dtype).reshape(count, width, -1)[..., :channels]
                    band[row : row + count, :width] = values & 1 if self.bits else values
                parts = band.reshape(side, blocks, columns, channels).swapaxes(0, 1)
                content = np.ascontiguousarray(parts).reshape(-1).view(np.uint8).data
                while content:  # one call may write less than there is
                    content = content[self._file.write(content) :]
                self._rows = min(self._rows + side, height)
        except BaseException:  # neither libvips nor the temporary file can go on from here
            self._region = self._file = None
            raise
        if self._rows == height:
            self._region = None  # closes the image file

    def _lengths(self) -> tuple[int, int, int, int, int]:
        """Lengths of the axes of the temporary file: blocks down, blocks across, rows and columns of one, channels."""
        (channels, height, width), (rows, columns) = self.shape, BLOCK
        return -(-height // rows), -(-width // columns), rows, columns, channels

    def _begin(self) -> None:
        """Open the file and check that libvips and Pillow agree on what is in it."""
        import pyvips

        with self.path.open("rb") as file:
            # Not by its name: libvips reads options out of names, and keeps what it has read under a name.
            source = pyvips.Source.new_from_descriptor(file.fileno())
            load = pyvips.Image.pngload_source if _kind(file) == "PNG" else pyvips.Image.jpegload_source
            image: Any = load(source, access="sequential", fail_on="truncated")  # or missing rows would be grey
        dtype = {"uchar": np.uint8, "ushort": np.uint16}.get(image.format)
        if (image.height, image.width) != self.shape[1:] or dtype != self.dtype or image.bands < self.shape[0]:
            raise ValueError(f"it has {image.bands} channels of {image.format}, {image.height} x {image.width}")
        self._process, self._rows, self._region = os.getpid(), 0, pyvips.Region.new(image)
        self._file = tempfile.TemporaryFile(prefix="gconv_ga-", buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)


def _decoded(path: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], bits: bool) -> Decoded:
    return Decoded(path, shape, dtype, bits=bits)


def _kind(file: Any) -> str:
    """The format of an open file by its first bytes, PNG or JPEG; empty for another one."""
    start = file.read(max(map(len, SIGNATURES)))
    file.seek(0)
    return next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), "")


def _open_large(path: Path, *, palette: bool) -> Decoded | Held | None:
    """A large PNG or JPEG; not by `Image.open`, which refuses sizes that are too large to be decoded as a whole."""
    with path.open("rb") as content:
        kind = _kind(content)
        if not kind:
            return None
        file = PngImageFile(content) if kind == "PNG" else jpeg_factory(content)
        if file.width * file.height <= LARGE:
            return None
        _refuse(path, file)
        if file.mode == "P" and palette:  # libvips gives colours only
            file.load()
            return Held(file.copy(), palette)
        shape = (_channels(file, palette=palette), file.height, file.width)
        dtype = np.dtype(np.uint16 if file.mode.startswith("I") else np.uint8)
        return Decoded(path, shape, dtype, bits=file.mode == "1")


def _open_held(path: Path, *, palette: bool) -> Held:
    """An image that Pillow decodes now, as a whole."""
    with Image.open(path) as file:
        _refuse(path, file)
        file.load()
        return Held(file.copy() if file.readonly else file, palette)


def _channels(file: Image.Image, *, palette: bool) -> int:
    return 3 if file.mode == "P" and not palette else len(file.getbands())


def _refuse(path: Path, file: Image.Image) -> None:
    """Refuse what Pillow would read in part."""
    _refuse_pages(path, getattr(file, "n_frames", 1))
    if len(file.getbands()) > 1 and any(";16" in str(tile[3]) for tile in getattr(file, "tile", ())):
        advice = "Pillow would drop half of each; save it as TIFF without compression"
        raise _refused(path, "a file of 8 bits a colour, or of 16 bits that is grey or TIFF", advice)


def _refuse_pages(path: Path, pages: int) -> None:
    """Refuse several pages, of which readers silently take the first."""
    if pages > 1:
        raise _refused(path, "an image file of one page", f"this one has {pages} pages")


@dataclass(frozen=True)
class Uncompressed:
    """An image whose values lie in the file as they are, one after the other.

    The file is opened anew for each window, so the object can be pickled and used in several processes.

    Args:
        path: The file.
        offset: Byte at which the values begin.
        dtype: The number type, with its byte order.
        lengths: Lengths of the axes in the order of the file; the last one varies fastest.
        order: Which of these axes are the channels, rows and columns.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    lengths: tuple[int, ...]
    order: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        channels, height, width = (self.lengths[axis] for axis in self.order)
        return channels, height, width

    @property
    def numbers(self) -> str:
        """Number type."""
        return "uint1" if self.dtype == np.bool_ else self.dtype.name

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy.

        Raises:
            OSError: The file ends before the window does.
        """
        spans = ((0, self.shape[0]), (top, top + height), (left, left + width))
        box = [spans[self.order.index(axis)] for axis in range(3)]
        with self.path.open("rb", buffering=0) as file:
            part = read_box(file.fileno(), self.dtype, self.lengths, box, self.offset)
        return as_tensor(part.transpose(self.order))

    def pieces(self) -> Iterator[Tensor]:
        """Yield bands of rows."""
        return _bands(self, self.dtype.itemsize)


@dataclass(frozen=True)
class Segmented:
    """A TIFF in tiles or strips, of which a window decodes those that it touches.

    Args:
        path: The file.
        lengths: Lengths of the axes in the order of the file.
        axes: Their names, as tifffile has them: Y, X and, if there are channels, S.
        numbers: The number type.
    """

    path: Path
    lengths: tuple[int, ...]
    axes: str
    numbers: str = "uint8"

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
        with tifffile.TiffFile(self.path) as file:
            page: Any = file.pages.first
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
        with tifffile.TiffFile(self.path) as file:
            page: Any = file.pages.first
            sides, itemsize = dict(zip(self.axes, self._sides(page), strict=True)), page.dtype.itemsize
        (channels, height, width), high, wide = self.shape, sides["Y"], sides["X"]
        count = max(1, PIECE // (channels * high * wide * itemsize))
        high, wide = (high * count, wide) if wide >= width else (high, wide * count)
        for top, left in itertools.product(range(0, height, high), range(0, width, wide)):
            yield self.window(top, left, min(high, height - top), min(wide, width - left))

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
        values, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        # Segments come as [depth, rows, columns, samples]; axes that the file lacks have length one.
        rows, columns, samples = values.shape[-3:]
        lengths = {"Y": rows, "X": columns, "S": samples}
        return np.asarray(values).reshape([lengths[axis] for axis in self.axes])


def _open_array(path: Path) -> Uncompressed:
    """An array saved by numpy, which is not loaded; an array of Python objects is a pickle and is refused."""
    values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "buif":
        raise _refused(path, "an array of numbers [H, W] or [C, H, W]", f"this one is {values.dtype} {values.shape}")
    fortran = bool(values.flags.f_contiguous and not values.flags.c_contiguous)
    lengths = values.shape if values.ndim == 3 else (1, *values.shape)
    if fortran:  # the axes of the file are in reverse order
        return Uncompressed(path, values.offset, values.dtype, lengths[::-1], (2, 1, 0))
    return Uncompressed(path, values.offset, values.dtype, lengths, (0, 1, 2))


def _open_tiff(path: Path) -> Uncompressed | Segmented | None:
    """A TIFF for tifffile; None if it has a palette or a compression that is left to Pillow."""
    with tifffile.TiffFile(path) as file:
        _refuse_pages(path, len(file.pages))
        page: Any = file.pages.first
        upright = getattr(page.tags.get("Orientation"), "value", 1) == 1
        if page.compression not in tifffile.TIFF.DECOMPRESSORS or page.photometric not in UNCHANGED or not upright:
            return None
        if page.dtype is None or page.bitspersample != 8 * page.dtype.itemsize:
            return None
        if page.axes not in ("YX", "YXS", "SYX"):
            raise _refused(path, "a flat image", f"the axes of this one are {page.axes}")
        if not page.is_memmappable:
            return Segmented(path, page.shape, page.axes, page.dtype.name)
        dtype = page.dtype.newbyteorder(file.byteorder)
        lengths = page.shape if "S" in page.axes else (1, *page.shape)
        order = (2, 0, 1) if page.axes == "YXS" else (0, 1, 2)
        if page.dataoffsets[0] + page.nbytes > path.stat().st_size:
            raise ValueError(f"it ends before its {page.nbytes} bytes of pixels do")
        return Uncompressed(path, page.dataoffsets[0], dtype, lengths, order)


def _bands(raster: Raster, itemsize: int) -> Iterator[Tensor]:
    """Yield the image from top to bottom, about `PIECE` bytes at a time."""
    channels, height, width = raster.shape
    rows = max(1, PIECE // (channels * width * itemsize))
    for top in range(0, height, rows):
        yield raster.window(top, 0, min(rows, height - top), width)


def _paste(part: NDArray[Any], values: NDArray[Any], spans: Box, begins: Sequence[int]) -> None:
    """Copy into ``part``, which covers ``spans``, what a segment that begins at ``begins`` has in common with it."""
    here, there = [], []
    for (start, stop), begin, side in zip(spans, begins, values.shape, strict=True):
        first, last = max(start, begin), min(stop, begin + side)
        here.append(slice(first - start, last - start))
        there.append(slice(first - begin, last - begin))
    part[tuple(here)] = values[tuple(there)]


def read_box(descriptor: int, dtype: np.dtype[Any], lengths: Sequence[int], box: Box, offset: int = 0) -> NDArray[Any]:
    """Read a part of an array whose last axis varies fastest, without mapping the file: mapped pages count as memory.

    Args:
        descriptor: Of the file.
        dtype: The number type, with its byte order.
        lengths: Lengths of the axes of the whole array.
        box: The part.
        offset: Byte at which the array begins.

    Raises:
        OSError: The file ends too early.
    """
    values: NDArray[Any] = np.empty([stop - start for start, stop in box], dtype)
    content, place = values.reshape(-1).view(np.uint8).data, 0
    starts, count = _runs(lengths, box)
    size = count * dtype.itemsize
    for begin in (starts * dtype.itemsize + offset).tolist():
        data = _pread(descriptor, size, begin)
        while len(data) < size:  # one call may read less than there is
            more = _pread(descriptor, size - len(data), begin + len(data))
            if not more:
                raise OSError(f"the file ends {size - len(data)} bytes too early")
            data += more
        content[place : place + size] = data
        place += size
    return values


def _runs(lengths: Sequence[int], box: Box) -> tuple[NDArray[np.int64], int]:
    """The runs of neighbouring values that make up a box: the index of the first value of each, and their length."""
    cut = len(lengths) - 1  # the last axis of which the box is a part only
    while cut > 0 and box[cut] == (0, lengths[cut]):
        cut -= 1
    steps = [math.prod(lengths[axis + 1 :]) for axis in range(cut + 1)]
    first, stop = box[cut]
    starts = np.array([first * steps[cut]], dtype=np.int64)
    for span, step in zip(box[:cut], steps, strict=False):
        starts = np.add.outer(starts, np.arange(*span) * step).reshape(-1)
    return starts, (stop - first) * steps[cut]


def _seek_and_read(descriptor: int, size: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


_pread = getattr(os, "pread", _seek_and_read)  # Windows lacks it


def as_tensor(values: NDArray[Any]) -> Tensor:
    """Copy an array into a tensor: in the byte order of the machine, booleans as numbers."""
    dtype = np.dtype(np.uint8) if values.dtype == np.bool_ else values.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(values, dtype=dtype, order="C"))
