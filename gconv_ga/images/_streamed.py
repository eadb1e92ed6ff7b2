"""An image that is decoded from top to bottom, of which only the rows in use are held."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ._scratch import ScratchTensor, scratch

# Pixels above which a PNG or JPEG is decoded row by row: below, Pillow holds 16 MiB of it at most, and any window is
# there at once.
LARGE = 2**22
BAND = 2**20  # bytes that are decoded at a time, if a row has no more


class Streamed:
    """A large image whose file can only be decoded from its first row to its last.

    Rows above the last window are let go; a window further up begins anew. So windows that go down the image, such as
    tiles, decode it once. What the rows in use take beyond some megabytes lies on disk, but for windows that take as
    much themselves. The object goes to other processes, which begin anew.

    Args:
        shape: ``C, H, W``.
        decode: Begins at the first row and gives band after band, ``[C, h, W]``.
    """

    def __init__(self, shape: tuple[int, int, int], decode: Callable[[], Iterator[Tensor]]) -> None:
        self.shape = shape
        self.decode = decode
        self._begin(None)

    def _begin(self, bands: Iterator[Tensor] | None, *, disk: bool = True) -> None:
        self._bands = bands
        self._kept = RowRing(disk=disk)

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "decode": self.decode}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shape, self.decode = state["shape"], state["decode"]
        self._begin(None)

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A copy.

        Raises:
            OSError: The file ends before the window does.
        """
        bands = self._bands
        if bands is None or top < self._kept.first:
            bands = self.pieces()
            self._begin(bands, disk=4 * width < self.shape[2])
        try:
            self._reach(bands, top, height)
        except BaseException:
            self._begin(None)  # what failed cannot go on
            raise
        return self._kept.read(top, top + height, left, left + width)

    def pieces(self) -> Iterator[Tensor]:
        """All rows, as they are decoded.

        Raises:
            OSError: The file ends too early.
        """
        rows = 0
        for band in self.decode():
            rows += band.shape[1]
            yield band
        if rows < self.shape[1]:
            raise OSError(f"the image ends after {rows} of its {self.shape[1]} rows")

    def _reach(self, bands: Iterator[Tensor], top: int, height: int) -> None:
        """Decodes what a window needs, and lets go what lies above it."""
        kept = self._kept
        kept.let_go(top)
        while kept.end < top + height:
            band = next(bands)  # there is one: the window lies inside the image, or the file ends too early
            kept.add(band, height + band.shape[1])
            kept.let_go(top)


class RowRing:
    """Some rows of an image that follow one another: new ones are added below, old ones let go above.

    Args:
        disk: Whether many of them may lie on disk.
    """

    def __init__(self, *, disk: bool = True) -> None:
        self.first = self.end = 0
        self.disk = disk
        self._room: Tensor | ScratchTensor = torch.empty(0, 0, 0)  # row r in place r modulo its height

    def let_go(self, first: int) -> None:
        """Rows above that one are not needed any more."""
        self.first = min(max(self.first, first), self.end)

    def add(self, band: Tensor, room: int) -> None:
        """The next rows.

        Args:
            band: ``[C, h, W]``.
            room: For so many rows there will be need at once.
        """
        channels, height, width = band.shape
        if self._room.shape[1] < self.end + height - self.first:
            self._make_room(channels, max(room, self.end - self.first + height), width, band.dtype)
        for rows, place in self._places(self.end, self.end + height):
            self._room[:, place] = band[:, rows]
        self.end += height

    def read(self, top: int, end: int, left: int, right: int) -> Tensor:
        """A copy of some of them."""
        parts = [self._room[:, place, left:right] for _, place in self._places(top, end)]
        return torch.cat(parts, dim=1)

    def _make_room(self, channels: int, height: int, width: int, dtype: torch.dtype) -> None:
        shape = (channels, height, width)
        other = scratch(shape, dtype) if self.disk else torch.zeros(shape, dtype=dtype)
        old, self._room = self._room, other
        for row in range(self.first, self.end):
            place, before = row % height, row % old.shape[1]
            other[:, place : place + 1] = old[:, before : before + 1]

    def _places(self, top: int, end: int) -> Iterator[tuple[slice, slice]]:
        """Where rows lie: a range of them, counted from ``top``, and their places."""
        room, row = self._room.shape[1], top
        while row < end:
            count = min(end - row, room - row % room)
            yield slice(row - top, row - top + count), slice(row % room, row % room + count)
            row += count
