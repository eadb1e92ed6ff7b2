"""Where tiles lie along one axis of an image, and how much each counts; both the same when the axis is reversed."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, wrong_shape
from ._scratch import ScratchTensor, scratch


def check_tile(tile: int, overlap: int | None) -> tuple[int, int]:
    """The side of a tile and the least overlap of neighbours; None stands for a quarter of the side.

    Raises:
        ValueError: A number is out of its range.
    """
    side = as_int("tile", tile, minimum=1)
    if overlap is None:
        return side, side // 4
    if as_int("overlap", overlap, minimum=0) > side // 2:
        raise invalid("overlap", f"at most {side // 2}, half of tile={side}", overlap)
    return side, overlap


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin: the first at the near end, the last at the far one, neighbours share ``overlap`` or more.

    ``starts[i] + starts[-1 - i] == size - tile``: seen from the other end the tiles lie the same.
    """
    span = size - tile
    if span <= 0:
        return [0]
    count = -(-(size - overlap) // (tile - overlap))
    # An odd number of tiles has one in the middle, and an odd span has no middle pixel for it to begin at.
    count += count % 2 * (span % 2)
    near = [-(-place * span // (count - 1)) for place in range(count // 2)]  # rounded up, so the middle gap is no wider
    middle = [span // 2] if count % 2 else []
    return near + middle + [span - start for start in reversed(near)]


def shares(size: int, tile: int, overlap: int) -> list[Tensor]:
    """How much each tile counts at each of its pixels; over all tiles that see a pixel it sums to one.

    A tile counts nothing within a quarter of the overlap from a side at which it was cut, for there the network sees
    the cut; from there its weight rises over half the overlap. At the image's own border it counts fully.

    Shape:
        - output: for each tile ``[min(tile, size)]``, float64
    """
    begins = starts(size, tile, overlap)
    side = min(tile, size)
    rise = (torch.arange(side, dtype=torch.float64) + 0.5 - overlap / 4) / (overlap / 2) if overlap else None
    weights, total = [], torch.zeros(size, dtype=torch.float64)
    for begin in begins:
        weight = torch.ones(side, dtype=torch.float64)
        if rise is not None and begin > 0:
            weight = weight.minimum(rise)
        if rise is not None and begin + side < size:
            weight = weight.minimum(rise.flip(0))
        weights.append(weight.clamp_(min=0))
        total[begin : begin + side] += weights[-1]
    return [weight / total[begin : begin + side] for begin, weight in zip(begins, weights, strict=True)]


BAND = 2**18  # numbers that are given at a time


class Windows(Protocol):
    """What gives windows of an image, such as an open file."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """``[C, height, width]``, as the module takes it."""


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
        >>> from gconv_ga.predict import Tiled
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

    def bands(self, x: Tensor | Windows) -> Iterator[Tensor]:
        """The output from top to bottom in bands of rows.

        Args:
            x: The image; or what gives its windows, such as `gconv_ga.images.ImageFile`: then no more than some tiles
                are held, for rows of tiles that take more lie on disk, where the system keeps temporary files.

        Shape:
            - x: ``[B, C, H, W]``; windows: ``[C, H, W]``
            - output: bands ``[B, K, h, W]`` whose heights sum to H; of windows B is one

        Raises:
            ValueError: As for the class.
            OSError: The disk is full.
        """
        if isinstance(x, Tensor) and (x.ndim != 4 or 0 in x.shape):
            raise wrong_shape("input", "[B, C, H, W] with pixels in it", x)
        height, width = x.shape[-2:]
        tops = starts(height, self.tile, self.overlap)
        weights = shares(height, self.tile, self.overlap)
        above: Tensor | ScratchTensor | None = None
        done = 0
        for row, top in enumerate(tops):
            strip, dtype = self._row(x, top, weights[row], row, len(tops))
            step = max(1, BAND // (strip.shape[0] * strip.shape[1] * width))
            if above is not None:
                rest = above.shape[-2] - done  # rows that both tell of
                for begin, end in _ranges(rest, step):
                    strip[..., begin:end, :] += above[..., done + begin : done + end, :]
            done = (tops[row + 1] if row + 1 < len(tops) else height) - top
            for begin, end in _ranges(done, step):
                yield strip[..., begin:end, :].to(dtype)
            above = strip

    def _row(
        self, x: Tensor | Windows, top: int, share: Tensor, row: int, rows: int
    ) -> tuple[Tensor | ScratchTensor, torch.dtype]:
        """What the module says of one row of tiles, mixed where they overlap, and the number type that it gave."""
        height, width = x.shape[-2:]
        lefts, weights = starts(width, self.tile, self.overlap), shares(width, self.tile, self.overlap)
        joined: Tensor | ScratchTensor = torch.empty(0)
        dtype = torch.float32
        for column, (left, weight) in enumerate(zip(lefts, weights, strict=True)):
            part = _window(x, top, left, min(self.tile, height), min(self.tile, width))
            y = self.module(part if self.device is None else part.to(self.device)).to(part.device)
            if y.ndim != 4 or y.shape[-2:] != part.shape[-2:]:
                raise wrong_shape("the module's output", f"[B, K, {part.shape[-2]}, {part.shape[-1]}], as its input", y)
            if column == 0:
                dtype = y.dtype
                shape, mixed = (*y.shape[:-1], width), torch.promote_types(dtype, torch.float32)
                # Of a tensor all of the output will be held anyway; and a file passes no gradient on.
                held = isinstance(x, Tensor) or y.requires_grad
                joined = y.new_zeros(shape, dtype=mixed) if held else scratch(shape, mixed)
            joined[..., :, left : left + self.tile] += torch.outer(share, weight).to(y.device, mixed) * y
            if self.progress is not None:
                self.progress(row * len(lefts) + column + 1, rows * len(lefts))
        return joined, dtype

    def extra_repr(self) -> str:
        return f"tile={self.tile}, overlap={self.overlap}"


def _ranges(stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Zero to ``stop``, so many at a time."""
    for begin in range(0, stop, step):
        yield begin, min(begin + step, stop)


def _window(x: Tensor | Windows, top: int, left: int, height: int, width: int) -> Tensor:
    """``[B, C, height, width]``."""
    if isinstance(x, Tensor):
        return x[..., top : top + height, left : left + width]
    return x.window(top, left, height, width).unsqueeze(0)
