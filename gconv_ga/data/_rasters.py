"""The pixels of an image file, of which a window can be asked for; a file is held whole only where it must be."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


class Raster(Protocol):
    """An image file that is open for reading."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """``[C, height, width]`` in the file's own number type; the window lies inside the image."""


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


@dataclass(frozen=True)
class Mapped:
    """An image whose values lie in the file as they are, one after the other.

    The file is mapped anew for each window and let go: pages that were read do not stay in memory, and the object
    goes to other processes.

    Args:
        path: The file.
        offset: Where the values begin, in bytes.
        dtype: The number type, with its byte order.
        lengths: Of the axes as they lie in the file.
        order: Which of these axes are the channels, rows and columns.
        fortran: Whether the first axis runs fastest.
    """

    path: Path
    offset: int
    dtype: np.dtype[Any]
    lengths: tuple[int, ...]
    order: tuple[int, int, int]
    fortran: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        channels, height, width = (self.lengths[axis] for axis in self.order)
        return channels, height, width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A copy."""
        values: NDArray[Any] = np.memmap(
            self.path, self.dtype, "r", self.offset, self.lengths, "F" if self.fortran else "C"
        )
        part = values.transpose(self.order)[:, top : top + height, left : left + width]
        return as_tensor(part)


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
            sides = (1,) * (len(spans) - len(page.chunks)) + page.chunks  # separate planes: one a segment
            part = np.zeros([stop - start for start, stop in spans], dtype=page.dtype)
            reach = [range(start // side, -(-stop // side)) for (start, stop), side in zip(spans, sides, strict=True)]
            for chunk in itertools.product(*reach):
                values = self._decoded(file, page, int(np.ravel_multi_index(chunk, page.chunked)))
                _paste(part, values, spans, [place * side for place, side in zip(chunk, sides, strict=True)])
        order = [self.axes.index(axis) for axis in "SYX" if axis in self.axes]
        moved = part.transpose(order)
        return as_tensor(moved if "S" in self.axes else moved[None])

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
