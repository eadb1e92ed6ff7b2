"""The pixels of an image file, of which a window can be asked for; a file is held whole only where it must be."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ._scratch import read_box

PIECE = 2**20  # bytes


class Raster(Protocol):
    """An image file that is open for reading."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """``[C, height, width]`` in the file's own number type; the window lies inside the image."""

    def pieces(self) -> Iterator[Tensor]:
        """Windows that hold each pixel once, as they are read best; none takes much memory."""


@dataclass(frozen=True)
class Held:
    """An image that had to be decoded as a whole: Pillow keeps it, a byte a value for 8 bits, four bytes for RGB.

    Args:
        picture: The decoded image.
        palette: Whether one with a palette gives the indices into it, or its colours.
    """

    picture: Image.Image
    palette: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        indices = self.picture.mode == "P" and not self.palette
        return 3 if indices else len(self.picture.getbands()), self.picture.height, self.picture.width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A copy."""
        part = self.picture.crop((left, top, left + width, top + height))
        pixels = as_tensor(np.asarray(part.convert("RGB") if part.mode == "P" and not self.palette else part))
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def pieces(self) -> Iterator[Tensor]:
        """Some rows after some rows."""
        return _some_rows(self, 4)


@dataclass(frozen=True)
class Uncompressed:
    """An image whose values lie in the file as they are, one after the other.

    The file is opened anew for each window, so the object goes to other processes.

    Args:
        path: The file.
        offset: Where the values begin, in bytes.
        dtype: The number type, with its byte order.
        lengths: Of the axes as they lie in the file; the last one runs fastest.
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

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A copy."""
        spans = ((0, self.shape[0]), (top, top + height), (left, left + width))
        box = [spans[self.order.index(axis)] for axis in range(3)]
        with self.path.open("rb", buffering=0) as file:
            part = read_box(file, self.dtype, self.lengths, box, self.offset)
        return as_tensor(part.transpose(self.order))

    def pieces(self) -> Iterator[Tensor]:
        """Some rows after some rows."""
        return _some_rows(self, self.dtype.itemsize)


@dataclass(frozen=True)
class Segmented:
    """A TIFF in tiles or strips: those that a window touches are decoded.

    Args:
        path: The file.
        lengths: Of the axes as they lie in the file, of which one may be the channels.
        axes: Their names, as tifffile has them: Y, X and, if there are channels, S.
    """

    path: Path
    lengths: tuple[int, ...]
    axes: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        sizes = dict(zip(self.axes, self.lengths, strict=True))
        return sizes.get("S", 1), sizes["Y"], sizes["X"]

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A copy.

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
                values = self._decoded(file, page, int(np.ravel_multi_index(chunk, page.chunked)))
                _paste(part, values, spans, [place * side for place, side in zip(chunk, sides, strict=True)])
        order = [self.axes.index(axis) for axis in "SYX" if axis in self.axes]
        moved = part.transpose(order)
        return as_tensor(moved if "S" in self.axes else moved[None])

    def pieces(self) -> Iterator[Tensor]:
        """A segment after the other, or, if they are small, some of them at a time."""
        with tifffile.TiffFile(self.path) as file:
            page: Any = file.pages.first
            sides, itemsize = dict(zip(self.axes, self._sides(page), strict=True)), page.dtype.itemsize
        (channels, height, width), high, wide = self.shape, sides["Y"], sides["X"]
        count = max(1, PIECE // (channels * high * wide * itemsize))
        high, wide = (high * count, wide) if wide >= width else (high, wide * count)
        for top, left in itertools.product(range(0, height, high), range(0, width, wide)):
            yield self.window(top, left, min(high, height - top), min(wide, width - left))

    def _sides(self, page: Any) -> tuple[int, ...]:
        """Of a segment, with the axes of the file: of separate planes it holds one."""
        return (1,) * (len(self.axes) - len(page.chunks)) + tuple(page.chunks)

    def _decoded(self, file: Any, page: Any, index: int) -> NDArray[Any]:
        """One segment, with the axes of the file."""
        size = page.databytecounts[index]
        file.filehandle.seek(page.dataoffsets[index])
        data = file.filehandle.read(size)
        if not size or len(data) != size:
            raise ValueError(f"segment {index} has {len(data)} of its {size} bytes")
        values, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        return np.asarray(values).reshape(self._cut(values.shape))

    def _cut(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Segments come as ``[depth, rows, columns, samples]``; the axes that the file lacks have length one."""
        rows, columns, samples = shape[-3:]
        return tuple({"Y": rows, "X": columns, "S": samples}[axis] for axis in self.axes)


def _some_rows(raster: Raster, itemsize: int) -> Iterator[Tensor]:
    """The image from top to bottom, about `PIECE` bytes at a time."""
    channels, height, width = raster.shape
    rows = max(1, PIECE // (channels * width * itemsize))
    for top in range(0, height, rows):
        yield raster.window(top, 0, min(rows, height - top), width)


def _paste(part: NDArray[Any], values: NDArray[Any], spans: Sequence[tuple[int, int]], begins: Sequence[int]) -> None:
    """Puts into ``part``, which covers ``spans``, what a segment that begins at ``begins`` has of it."""
    here, there = [], []
    for (start, stop), begin, side in zip(spans, begins, values.shape, strict=True):
        first, last = max(start, begin), min(stop, begin + side)
        here.append(slice(first - start, last - start))
        there.append(slice(first - begin, last - begin))
    part[tuple(here)] = values[tuple(there)]


def as_tensor(values: NDArray[Any]) -> Tensor:
    """A copy of an array that torch can hold: in the machine's byte order, booleans as numbers."""
    dtype = np.dtype(np.uint8) if values.dtype == np.bool_ else values.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(values, dtype=dtype, order="C"))
