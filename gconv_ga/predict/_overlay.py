"""An image with its predicted classes laid over it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageColor
from torch import Tensor

from ..images import ImageFile
from ..plots import PALETTE
from ._scratch import ScratchTensor, scratch

WEIGHT = 0.45  # of a class's colour over the image
SIDE = 256  # of the windows that are read: rows of tiles that a file has should not be decoded for a few rows of pixels
SAMPLE = 2**20  # pixels at most that tell what is black and what is white


def class_colors(classes: int, colors: Sequence[Sequence[int]] | None = None) -> NDArray[np.uint8]:
    """A colour for each class: those that are given, then black for class 0 and ours, over and over.

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


class Overlay:
    """The picture, made band by band, from top to bottom.

    Args:
        image: The open file.
        colors: As for `class_colors`.
    """

    def __init__(self, image: ImageFile, colors: Sequence[Sequence[int]] | None) -> None:
        channels, _, _ = image.shape
        self.raw = image.unnormalized()
        self.shown = (0, 1, 2) if channels >= 3 else (0,)  # of many channels the first three
        self.colors = colors
        self.low, self.high = self._limits()
        self._top = 0
        self._read: Tensor | ScratchTensor = torch.empty(0, 0, 0)  # the rows in use, from that one on

    def _limits(self) -> tuple[float, float]:
        """What is black and what is white: 0 and 255 for 8 bits; else all but the extreme half percents show."""
        _, height, width = self.raw.shape
        step = max(64, height * width // SAMPLE) | 1  # odd, or pieces of many widths would be seen in one column only
        parts = []
        for piece in self.raw.raw_pieces():
            if piece.dtype == torch.uint8:
                return 0.0, 255.0
            parts.append(piece[list(self.shown)].flatten(1)[:, ::step].to(torch.float32).flatten())
        low, high = np.percentile(torch.cat(parts).numpy(), (0.5, 99.5))
        return float(low), float(high)

    def rows(self, top: int, labels: Tensor) -> NDArray[np.uint8]:
        """Some rows of the picture.

        Args:
            top: The first of them.
            labels: Their classes.

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
        """Some rows of the image, of the channels that are shown."""
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
