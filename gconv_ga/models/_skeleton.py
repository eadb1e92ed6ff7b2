"""The U-Net that the plain and the equivariant one share: encoder, decoder, skips, any size."""

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from .._validate import as_int, wrong_shape


class Parts(Protocol):
    """Who builds the layers; channels are fields where there is a group."""

    def convolution(self, in_channels: int, out_channels: int, *, first: bool) -> nn.Module:
        """A convolution that keeps the size and has no bias; ``first`` is the one that sees the image."""

    def norm(self, channels: int) -> nn.Module:
        """A batch norm."""

    def down(self) -> nn.Module:
        """Pooling by two."""

    def up(self) -> nn.Module:
        """Up-sampling by two, called with ``output_size``."""

    def pool(self) -> nn.Module:
        """What makes an image ``[B, width, H, W]`` of the decoder's finest map."""


def block(parts: Parts, in_channels: int, out_channels: int, *, first: bool = False) -> nn.Sequential:
    """Twice convolution, norm, ReLU."""
    return nn.Sequential(
        parts.convolution(in_channels, out_channels, first=first),
        parts.norm(out_channels),
        nn.ReLU(inplace=True),
        parts.convolution(out_channels, out_channels, first=False),
        parts.norm(out_channels),
        nn.ReLU(inplace=True),
    )


class Encoder(nn.Module):
    """Blocks with pooling between them; gives the maps of every level, finest first."""

    def __init__(self, parts: Parts, in_channels: int, widths: list[int]) -> None:
        super().__init__()
        channels = [in_channels, *widths]
        self.out_channels = tuple(widths)
        self.blocks = nn.ModuleList(
            block(parts, *pair, first=level == 0) for level, pair in enumerate(pairwise(channels))
        )
        self.down = parts.down()

    def forward(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for each in self.blocks:
            x = each(self.down(levels[-1]) if levels else x)
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """From the coarsest level up, joining each level's map; gives the finest, pooled over the group if there is one."""

    def __init__(self, parts: Parts, widths: list[int]) -> None:
        super().__init__()
        self.up = parts.up()
        self.blocks = nn.ModuleList(
            block(parts, coarse + fine, fine) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.pool = parts.pool()

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for each, skip in zip(self.blocks, levels[-2::-1], strict=True):
            x = each(torch.cat((skip, self.up(x, output_size=skip.shape[-2:])), dim=1))
        pooled: Tensor = self.pool(x)
        return pooled


class Skeleton(nn.Module):
    """What both U-Nets do: check, then ``segmentation_head(decoder(encoder(x)))``, as in smp."""

    def __init__(self, parts: Parts, in_channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.in_channels = as_int("in_channels", in_channels, minimum=1)
        self.classes = as_int("classes", classes, minimum=1)
        self.width = as_int("width", width, minimum=1)
        self.depth = as_int("depth", depth, minimum=1)
        widths = [self.width * 2**level for level in range(self.depth)]
        self.encoder = Encoder(parts, self.in_channels, widths)
        self.decoder = Decoder(parts, widths)
        self.segmentation_head = nn.Conv2d(self.width, self.classes, 1)

    def features(self, x: Tensor) -> Tensor:
        """The map that the head sees.

        Shape:
            - x: ``[B, C_in, H, W]``
            - output: ``[B, width, H, W]``
        """
        decoded: Tensor = self.decoder(self.encoder(x))
        return decoded

    def forward(self, x: Tensor) -> Tensor:
        smallest = 2 ** (self.depth - 1)
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[-2:]) < smallest:
            axes = f"[B, C={self.in_channels}, H >= {smallest}, W >= {smallest}]"
            raise wrong_shape("input", axes, x, f"each of the {self.depth} levels halves the image")
        logits: Tensor = self.segmentation_head(self.features(x))
        return logits
