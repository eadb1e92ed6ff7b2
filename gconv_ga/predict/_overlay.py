"""Overlay of predicted classes on an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..images import ImageFile
from ._scratch import ScratchTensor, scratch
from ._writers import class_colors

WEIGHT = 0.45  # of the colour of a class over the image
SIDE = 256  # of the windows that are read: a row of tiles of a file should not be decoded for a few rows of pixels
SAMPLE = 2**20  # largest number of pixels from which black and white are found


class Overlay:
    """Overlay that is drawn band by band from top to bottom.

    Args:
        image: Open image file.
        colors: As for `class_colors`.
    """

    def __init__(self, image: ImageFile, colors: Sequence[Sequence[int]] | None) -> None:
        channels, _, _ = image.shape
        self.raw = image.unnormalized()
        self.shown = (0, 1, 2) if channels >= 3 else (0,)  # the first three of many channels
        self.colors = colors
        self.low, self.high = self._limits()
        self._top = 0
        self._read: Tensor | ScratchTensor = torch.empty(0, 0, 0)  # the rows in use, from `_top` on

    def _limits(self) -> tuple[float, float]:
        """Values of black and white: 0 and 255 for 8 bits; else half a percent of the values lies beyond each."""
        _, height, width = self.raw.shape
        step = max(64, height * width // SAMPLE) | 1  # odd, or some widths would sample one column only
        parts = []
        for piece in self.raw.raw_pieces():
            if piece.dtype == torch.uint8:
                return 0.0, 255.0
            parts.append(piece[list(self.shown)].flatten(1)[:, ::step].to(torch.float32).flatten())
        low, high = np.percentile(torch.cat(parts).numpy(), (0.5, 99.5))
        return float(low), float(high)

    def rows(self, top: int, labels: Tensor) -> NDArray[np.uint8]:
        """Return some rows of the overlay.

        Args:
            top: First row.
            labels: Classes of the rows.

        Shape:
            - labels: ``[h, W]``
            - output: ``[h, W, 3]``
        """
        pixels = self._pixels(top, top + len(labels)).expand(3, -1, -1)
        grey = ((pixels - self.low) / max(self.high - self.low, 1e-12)).clamp(0, 1) * 255
        table: NDArray[Any] = class_colors(int(labels.max()) + 1, self.colors)
        paint = torch.from_numpy(table)[labels].permute(2, 0, 1)
        mixed = torch.where(labels > 0, torch.lerp(grey, paint.to(grey.dtype), WEIGHT), grey)
        return mixed.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    def _pixels(self, top: int, end: int) -> Tensor:
        """Return some rows of the image, in the channels that are shown."""
        parts = []
        while top < end:
            if not self._top <= top < self._top + self._read.shape[1]:
                self._read_from(top)
            parts.append(self._read[:, top - self._top : end - self._top, :])
            top += parts[-1].shape[1]
        return torch.cat(parts, dim=1)

    def _read_from(self, top: int) -> None:
        _, height, width = self.raw.shape
        rows = min(SIDE, height - top)
        self._top, self._read = top, scratch((len(self.shown), rows, width), torch.float32)
        for left in range(0, width, SIDE):
            columns = min(SIDE, width - left)
            window = self.raw.window(top, left, rows, columns)
            self._read[..., :, left : left + columns] = window[list(self.shown)]
