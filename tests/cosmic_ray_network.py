"""A trained network in plain torch: deepCR, which finds cosmic rays in images of Hubble's ACS camera.

Zhang and Bloom, "deepCR: cosmic ray rejection with deep learning", ApJ 889 (2020) 24; weights BSD-3-Clause. The names
of the modules are those of its state dict.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Pair(nn.Module):
    """Two convolutions, each followed by batch norm and ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """A transposed convolution, then a pair of convolutions on its output and the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(64, 32, 2, stride=2), Pair(64, 32)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat((skip, self.up(coarse)), dim=1))


class CosmicRays(nn.Module):
    """Map counts above the background ``[B, 1, H, W]``, H and W even, to probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = nn.ModuleDict({"conv": Pair(1, 32)})
        self.down1 = nn.ModuleDict({"mpconv": nn.Sequential(nn.MaxPool2d(2), Pair(32, 64))})
        self.up8 = Up()
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(32, 1, 1)})

    def forward(self, x: Tensor) -> Tensor:
        skip = self.inc["conv"](x)
        return torch.sigmoid(self.outc["conv"](self.up8(self.down1["mpconv"](skip), skip)))


def load_network(file: Path) -> CosmicRays:
    """Return the trained network in eval mode."""
    with np.load(file) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    network = CosmicRays()
    network.load_state_dict(state)
    return network.eval()


def load_exposure(file: Path) -> Tensor:
    """Return the exposure minus its median, ``[1, 1, H, W]`` float32."""
    from PIL import Image

    with Image.open(file) as picture:
        counts = np.asarray(picture).astype(np.float32)
    assert counts.max() > 255, "the file was read as 8 bit"
    return torch.from_numpy(counts - np.median(counts))[None, None]
