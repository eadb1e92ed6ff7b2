"""Large images by tiles, without losing equivariance."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import wrong_shape
from ._tiles import check_tile, shares, starts


class Tiled(nn.Module):
    """Any network on images of any size, tile by tile, as equivariant as the network itself.

    Tiles are square, they lie the same from every side of the image, and where they overlap they are mixed by weights
    that are symmetric too. So a turned image is cut into the turned tiles: the prediction of an equivariant network
    turns with the image, and averaging over a group may be put inside or outside, ``GroupAverage(Tiled(net))`` or
    ``Tiled(GroupAverage(net))``, with the same result up to rounding.

    A tile counts nothing within a quarter of the overlap from its cut sides. Networks that look no further, and whose
    layers have no stride, give what they give on the whole image. Along an axis shorter than ``tile`` the tile is as
    long as the image; nothing is padded.

    Args:
        module: What gives a map of the size of its input, such as logits.
        tile: Height and width of a tile in pixels. Memory of the network's own maps grows with it.
        overlap: Pixels that neighbours share at least, up to half a tile; None for a quarter of the tile.
        device: Where the network computes, one tile at a time; None for where the image is. The module is not moved.
        progress: Called after each tile with the number of tiles done and their total.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, K, H, W]``, on the input's device, in the dtype that the module gives

    Raises:
        ValueError: An argument is out of its range, the input has other axes, or the module changes the size.

    Example:
        >>> import torch
        >>> from gconv_ga.models import EquivariantUNet
        >>> net = Tiled(EquivariantUNet(1, 2, group="C4", width=2, depth=2).eval(), tile=32)
        >>> x = torch.randn(1, 1, 70, 45)
        >>> y, turned = net(x), net(x.rot90(1, (-2, -1)))
        >>> y.shape, torch.allclose(turned, y.rot90(1, (-2, -1)), atol=1e-5)
        (torch.Size([1, 2, 70, 45]), True)
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        tile: int = 512,
        overlap: int | None = None,
        *,
        device: str | torch.device | None = None,
        progress: Callable[[int, int], Any] | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.tile, self.overlap = check_tile(tile, overlap)
        self.device = device
        self.progress = progress

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(list(self.bands(x)), dim=-2)

    def bands(self, x: Tensor) -> Iterator[Tensor]:
        """The output from top to bottom in bands of rows: no more than a band is held at a time.

        Shape:
            - x: ``[B, C, H, W]``
            - output: bands ``[B, K, h, W]`` whose heights sum to H

        Raises:
            ValueError: As for the class.
        """
        if x.ndim != 4 or 0 in x.shape:
            raise wrong_shape("input", "[B, C, H, W] with pixels in it", x)
        height, width = x.shape[-2:]
        tops = starts(height, self.tile, self.overlap)
        weights = shares(height, self.tile, self.overlap)
        below: Tensor | None = None  # rows that the next row of tiles adds to
        for row, (top, weight) in enumerate(zip(tops, weights, strict=True)):
            parts = list(self._parts(x[..., top : top + self.tile, :], row, len(tops)))
            strip = self._join(parts, width)
            strip *= weight.to(strip)[:, None]
            if below is not None:
                strip[..., : below.shape[-2], :] += below
            done = (tops[row + 1] if row + 1 < len(tops) else height) - top
            below = strip[..., done:, :]
            yield strip[..., :done, :].to(parts[0].dtype)

    def _parts(self, strip: Tensor, row: int, rows: int) -> Iterator[Tensor]:
        """What the module says of one row of tiles, from left to right."""
        lefts = starts(strip.shape[-1], self.tile, self.overlap)
        for column, left in enumerate(lefts):
            part = strip[..., left : left + self.tile]
            y = self.module(part if self.device is None else part.to(self.device)).to(strip.device)
            if y.ndim != 4 or y.shape[-2:] != part.shape[-2:]:
                raise wrong_shape("the module's output", f"[B, K, {part.shape[-2]}, {part.shape[-1]}], as its input", y)
            yield y
            if self.progress is not None:
                self.progress(row * len(lefts) + column + 1, rows * len(lefts))

    def _join(self, parts: list[Tensor], width: int) -> Tensor:
        """Parts side by side, mixed where they overlap."""
        dtype = torch.promote_types(parts[0].dtype, torch.float32)
        joined = parts[0].new_zeros(*parts[0].shape[:-1], width, dtype=dtype)
        lefts, weights = starts(width, self.tile, self.overlap), shares(width, self.tile, self.overlap)
        for left, weight, part in zip(lefts, weights, parts, strict=True):
            joined[..., left : left + self.tile] += weight.to(joined) * part
        return joined

    def extra_repr(self) -> str:
        return f"tile={self.tile}, overlap={self.overlap}"
