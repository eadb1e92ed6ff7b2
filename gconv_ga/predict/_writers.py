"""PNG and NPY files that are written row by row, and that exist under their name only when they are complete."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from .._files import growing
from ..plots import PALETTE

GREY, RGB, INDEXED = 0, 2, 3  # colour types of PNG


def class_colors(classes: int, colors: Sequence[Sequence[int]] | None = None) -> NDArray[np.uint8]:
    """Return a colour for each class: first the given ones; else black for class 0, and the palette in a cycle.

    Shape:
        - output: ``[classes, 3]``
    """
    ours = np.array([ImageColor.getrgb(colour) for colour in PALETTE], dtype=np.uint8)
    table = ours[np.arange(classes) % len(ours)]
    table[0] = 0
    if colors is not None:
        given = np.asarray(colors, dtype=np.uint8)[:classes]
        table[: len(given)] = given
    return table


@contextmanager
def growing_png(
    path: Path, height: int, width: int, *, palette: NDArray[np.uint8] | None = None
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a PNG row by row: indices into a palette, or else grey levels of 8 or 16 bits or RGB, as the rows are.

    Args:
        path: As for `growing`.
        height: Number of rows of the image.
        width: Number of columns.
        palette: Colours ``[colours, 3]``, if the rows are indices.

    Shape:
        - rows: ``[h, W]``, uint8 or uint16, or ``[h, W, 3]``, uint8; together ``H`` rows
    """
    with growing(path) as file:
        image = _Png(file, height, width, palette)
        yield image.add
        image.finish()


@contextmanager
def growing_npy(path: Path, height: int, width: int) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write an array ``[C, H, W]`` of float32, as `numpy.save` writes it, row by row.

    Args:
        path: As for `growing`.
        height: Number of rows of the array.
        width: Number of columns.

    Shape:
        - rows: ``[C, h, W]``; together ``H`` rows
    """
    with growing(path) as file:
        top = 0

        def add(rows: NDArray[Any]) -> None:
            nonlocal top
            channels = len(rows)
            file.seek(0)
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (channels, height, width)}
            )
            begin = file.tell()
            for channel, values in enumerate(rows.astype("<f4", copy=False)):
                file.seek(begin + 4 * width * (channel * height + top))
                file.write(np.ascontiguousarray(values).data)
            top += rows.shape[1]

        yield add


class _Png:
    """PNG that is written row by row."""

    def __init__(self, file: BinaryIO, height: int, width: int, palette: NDArray[np.uint8] | None) -> None:
        self.file, self.size, self.palette = file, (width, height), palette
        # Filter 2 stores differences from the row above, which help compression, but not of indices.
        self.filter = 2 if palette is None else 0
        self.compressor = zlib.compressobj()
        self.above: NDArray[np.uint8] | None = None  # the bytes of the last row

    def add(self, rows: NDArray[Any]) -> None:
        """Write the next rows."""
        values = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder(">")).view(np.uint8).reshape(len(rows), -1)
        if self.above is None:
            self._begin(rows)
            self.above = np.zeros_like(values[0])
        above = np.concatenate((self.above[None], values[:-1]))
        filtered = values - above if self.filter else values
        self.above = values[-1].copy()
        self._chunk(b"IDAT", self.compressor.compress(np.insert(filtered, 0, self.filter, axis=1).data))

    def finish(self) -> None:
        """Write the end of the file."""
        self._chunk(b"IDAT", self.compressor.flush())
        self._chunk(b"IEND")

    def _begin(self, rows: NDArray[Any]) -> None:
        kind = RGB if rows.ndim == 3 else GREY if self.palette is None else INDEXED
        self.file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *self.size, 8 * rows.dtype.itemsize, kind, 0, 0, 0))
        if self.palette is not None:
            self._chunk(b"PLTE", self.palette.tobytes())

    def _chunk(self, name: bytes, data: bytes = b"") -> None:
        if data or name == b"IEND":
            self.file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
