"""Files that are written piece by piece: complete under their name, or not there at all."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._files import growing

GREY, RGB, PALETTE = 0, 2, 3  # colour types of PNG


@contextmanager
def growing_png(
    path: Path, height: int, width: int, *, palette: NDArray[np.uint8] | None = None
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """A PNG that grows row by row: indices into a palette, else grey levels of 8 or 16 bits, or RGB, as the rows are.

    Args:
        path: As for `growing`.
        height: Rows of the whole.
        width: Columns.
        palette: ``[colours, 3]``, if the rows are indices.

    Shape:
        - rows: ``[h, W]``, uint8 or uint16, or ``[h, W, 3]``, uint8; together ``H`` rows
    """
    with growing(path) as file:
        image = _Png(file, height, width, palette)
        yield image.add
        image.finish()


@contextmanager
def growing_npy(path: Path, height: int, width: int) -> Iterator[Callable[[NDArray[Any]], None]]:
    """An array ``[C, H, W]`` of float32, as `numpy.save` writes it, that grows row by row.

    Args:
        path: As for `growing`.
        height: Rows of the whole.
        width: Columns.

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
    """What has been written of a PNG."""

    def __init__(self, file: BinaryIO, height: int, width: int, palette: NDArray[np.uint8] | None) -> None:
        self.file, self.size, self.palette = file, (width, height), palette
        # Filter 2 writes the difference from the row above; for indices it would mean nothing.
        self.filter = 2 if palette is None else 0
        self.squeeze = zlib.compressobj()
        self.above: NDArray[np.uint8] | None = None  # the bytes of the last row

    def add(self, rows: NDArray[Any]) -> None:
        """Writes the next rows."""
        values = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder(">")).view(np.uint8).reshape(len(rows), -1)
        if self.above is None:
            self._begin(rows)
            self.above = np.zeros_like(values[0])
        above = np.concatenate((self.above[None], values[:-1]))
        filtered = values - above if self.filter else values
        self.above = values[-1].copy()
        self._chunk(b"IDAT", self.squeeze.compress(np.insert(filtered, 0, self.filter, axis=1).data))

    def finish(self) -> None:
        """Writes the end."""
        self._chunk(b"IDAT", self.squeeze.flush())
        self._chunk(b"IEND")

    def _begin(self, rows: NDArray[Any]) -> None:
        kind = RGB if rows.ndim == 3 else GREY if self.palette is None else PALETTE
        self.file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *self.size, 8 * rows.dtype.itemsize, kind, 0, 0, 0))
        if self.palette is not None:
            self._chunk(b"PLTE", self.palette.tobytes())

    def _chunk(self, name: bytes, data: bytes = b"") -> None:
        if data or name == b"IEND":
            self.file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
