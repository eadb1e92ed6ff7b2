"""An image that is decoded from top to bottom, of which only the rows in use are held."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Pixels above which a PNG or JPEG is decoded row by row: below, Pillow holds 16 MiB of it at most, and any window is
# there at once.
LARGE = 2**22
BAND = 2**20  # bytes that are decoded at a time, if a row has no more


class Streamed:
    """A large image whose file can only be decoded from its first row to its last.

    Rows above the last window are let go; a window further up begins anew. So windows that go down the image, such as
    tiles, decode it once. The object goes to other processes, which begin anew.

    Args:
        shape: ``C, H, W``.
        decode: Begins at the first row and gives band after band, ``[C, h, W]``.
    """

    def __init__(self, shape: tuple[int, int, int], decode: Callable[[], Iterator[Tensor]]) -> None:
        self.shape = shape
        self.decode = decode
        self._begin(None)

    def _begin(self, bands: Iterator[Tensor] | None) -> None:
        self._bands = bands
        self._kept = deque[Tensor]()
        self._first = self._end = 0  # the rows that are kept

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
        if bands is None or top < self._first:
            bands = self.decode()
            self._begin(bands)
        try:
            self._reach(bands, top, top + height)
        except BaseException:
            self._begin(None)  # what failed cannot go on
            raise
        begins, parts = self._first, []
        for band in self._kept:
            parts.append(band[:, max(top - begins, 0) : max(top + height - begins, 0), left : left + width])
            begins += band.shape[1]
        return torch.cat(parts, dim=1)

    def _reach(self, bands: Iterator[Tensor], top: int, end: int) -> None:
        """Decodes up to row ``end``, and lets go what lies above ``top``."""
        while True:
            while self._kept and self._first + self._kept[0].shape[1] <= top:
                self._first += self._kept.popleft().shape[1]
            if self._end >= end:
                return
            band = next(bands, None)
            if band is None:
                raise OSError(f"the image ends after {self._end} of its {self.shape[1]} rows")
            self._kept.append(band)
            self._end += band.shape[1]
