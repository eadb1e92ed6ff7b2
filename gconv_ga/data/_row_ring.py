"""The latest rows of an image, in a room that is used over and over."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ._scratch import ScratchTensor, scratch


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
