"""Pixels of image files by window: what all readers have in common, plain values in a file, and how rasters combine."""

import errno
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._validate import argument_of, invalid

PIECE = 2**20  # bytes of the windows that `Raster.pieces` gives
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
        """Yield parts ``[C, h, w]`` that together hold each pixel once, cut as the file is read fastest, and small."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises about a file into one ValueError with the name of the file."""
    try:
        yield
    except Exception as error:  # readers raise errors of many types about damaged files
        if argument_of(error) is not None or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise refused(path, "a readable image file", f"the reader says: {reason}") from error


def refused(path: Path, takes: str, advice: str) -> ValueError:
    """Return the error for a file that is not read."""
    return invalid("path", takes, str(path), advice)


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
        return bands(self, self.dtype.itemsize)


def open_array(path: Path) -> Uncompressed:
    """An array saved by numpy, which is not loaded; an array of Python objects is a pickle and is refused."""
    values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "buif":
        raise refused(path, "an array of numbers [H, W] or [C, H, W]", f"this one is {values.dtype} {values.shape}")
    fortran = bool(values.flags.f_contiguous and not values.flags.c_contiguous)
    lengths = values.shape if values.ndim == 3 else (1, *values.shape)
    if fortran:  # the axes of the file are in reverse order
        return Uncompressed(path, values.offset, values.dtype, lengths[::-1], (2, 1, 0))
    return Uncompressed(path, values.offset, values.dtype, lengths, (0, 1, 2))


@dataclass(frozen=True)
class Stacked:
    """Planes of one size and number type, as the channels of one image.

    Args:
        planes: Planes, each with one channel or several.
    """

    planes: tuple[Raster, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        _, height, width = self.planes[0].shape
        return sum(plane.shape[0] for plane in self.planes), height, width

    @property
    def numbers(self) -> str:
        """Number type."""
        return self.planes[0].numbers

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        return _joined([plane.window(top, left, height, width) for plane in self.planes])

    def pieces(self) -> Iterator[Tensor]:
        """Yield those of all planes together."""
        for parts in zip(*(plane.pieces() for plane in self.planes), strict=True):
            yield _joined(parts)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else as_tensor(np.concatenate([part.numpy() for part in parts]))


@dataclass(frozen=True)
class Mapped:
    """Image whose channels are made of the channels of another one, pixel by pixel.

    Args:
        raster: The other one.
        channels: Number of channels.
        change: Function of values ``[C, h, w]``. It can be pickled.
        numbers: Number type of the result.
    """

    raster: Raster
    channels: int
    change: Callable[[NDArray[Any]], NDArray[Any]]
    numbers: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        _, height, width = self.raster.shape
        return self.channels, height, width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        return as_tensor(self.change(self.raster.window(top, left, height, width).numpy()))

    def pieces(self) -> Iterator[Tensor]:
        """Yield those of the other image, changed."""
        for piece in self.raster.pieces():
            yield as_tensor(self.change(piece.numpy()))


# For each orientation of TIFF and EXIF, how the image that is shown is made of the one that is stored: whether rows and
# columns change places, and then whether the rows and the columns are reversed.
ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Oriented:
    """Image that is shown another way up than it is stored.

    Args:
        raster: Image as it is stored.
        orientation: 2 .. 8, as in TIFF and EXIF.
    """

    raster: Raster
    orientation: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W`` of the image that is shown."""
        channels, height, width = self.raster.shape
        return (channels, width, height) if ORIENTATIONS[self.orientation][0] else (channels, height, width)

    @property
    def numbers(self) -> str:
        """Number type."""
        return self.raster.numbers

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a copy."""
        turned, up, back = ORIENTATIONS[self.orientation]
        _, rows, columns = self.shape
        top = rows - top - height if up else top
        left = columns - left - width if back else left
        box = (left, top, width, height) if turned else (top, left, height, width)
        part = self.raster.window(*box).numpy()
        part = part.swapaxes(1, 2) if turned else part
        return as_tensor(part[:, :: -1 if up else 1, :: -1 if back else 1])

    def pieces(self) -> Iterator[Tensor]:
        """Yield those of the image as it is stored."""
        return self.raster.pieces()


def oriented(raster: Raster, orientation: object) -> Raster:
    """Return an image as it is shown; an orientation that does not exist is none."""
    return Oriented(raster, orientation) if isinstance(orientation, int) and orientation in ORIENTATIONS else raster


def taken(values: NDArray[Any], channels: Sequence[int]) -> NDArray[Any]:
    """Return some channels."""
    return values[list(channels)]


def colored(values: NDArray[Any], colors: NDArray[Any]) -> NDArray[Any]:
    """Return the colours ``[3, h, w]`` of indices into a palette ``[n, 3]``."""
    return colors[values[0]].transpose(2, 0, 1)


def inverted(values: NDArray[Any], top: int) -> NDArray[Any]:
    """Return values whose zero is white as values whose zero is black."""
    return (top - values.astype(np.uint64)).astype(values.dtype)


def from_inks(values: NDArray[Any], top: int) -> NDArray[Any]:
    """Return cyan, magenta, yellow and black as red, green and blue, without a colour profile; other channels stay."""
    light = top - values[3].astype(np.uint64)
    colors = light - (values[:3].astype(np.uint64) * light + top // 2) // top
    return np.concatenate((colors.astype(values.dtype), values[4:]))


def chosen(raster: Raster, channels: Sequence[int] | None, path: Path) -> Raster:
    """Return some channels of an image, or all of them.

    Raises:
        ValueError: There are not so many.
    """
    if channels is None:
        return raster
    there = raster.shape[0]
    if max(channels) >= there:
        found = f"it has {there}, counted from 0"
        raise refused(path, f"an image that has the channels {', '.join(map(str, channels))}", found)
    if isinstance(raster, Stacked) and len(raster.planes) == there:  # the others are not read
        return Stacked(tuple(raster.planes[channel] for channel in channels))
    return Mapped(raster, len(channels), partial(taken, channels=tuple(channels)), raster.numbers)


def bands(raster: Raster, itemsize: int) -> Iterator[Tensor]:
    """Yield the image from top to bottom, about `PIECE` bytes at a time."""
    channels, height, width = raster.shape
    rows = max(1, PIECE // (channels * width * itemsize))
    for top in range(0, height, rows):
        yield raster.window(top, 0, min(rows, height - top), width)


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
    # By kind and size: numpy has several types of 64 bits, of which torch knows one.
    dtype = np.dtype(np.uint8 if values.dtype == np.bool_ else f"{values.dtype.kind}{values.dtype.itemsize}")
    return torch.from_numpy(np.array(values, dtype=dtype, order="C").view(dtype))
