"""The networks that any_angle.py compares: of the channels of the image and the classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gconv_ga.nn as gnn
from gconv_ga.filters import SteerableFilters
from gconv_ga.groups import C8
from gconv_ga.models import EquivariantUNet, UNet

DEPTH, WIDTH = 3, 4


class Blur(nn.Module):
    """Binomial smoothing of each map, the border repeated; turns with C_4 and D_4 exactly where it skips nothing.

    Args:
        taps: Along each axis, 3 or 4.
        stride: 1 or 2.
    """

    def __init__(self, taps: int = 3, stride: int = 1) -> None:
        super().__init__()
        row = torch.tensor([math.comb(taps - 1, place) for place in range(taps)]) / 2 ** (taps - 1)
        self.stride = stride
        self.register_buffer("kernel", torch.outer(row, row).view(1, 1, taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = F.pad(x.flatten(0, -3).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
        smooth = F.conv2d(flat, self.kernel.to(x.dtype), stride=self.stride)
        return smooth.view(*x.shape[:-2], *smooth.shape[-2:])


def ours(
    k: int, change: Callable[[EquivariantUNet], None] | None = None, make: Any = SteerableFilters, **knobs: Any
) -> Callable[..., nn.Module]:
    """The equivariant U-Net; ``knobs`` are those of the filters."""

    def build(channels: int, classes: int) -> nn.Module:
        filters = make(C8, (k, k), **knobs)
        net = EquivariantUNet(channels, classes, group="C8", width=WIDTH, depth=DEPTH, kernel_size=k, filters=filters)
        if change is not None:
            change(net)
        return net

    return build


@dataclass(frozen=True)
class Scaled(SteerableFilters):
    """Functions that are scaled as initial weights are, so that smooth ones are ahead through all of the training."""

    def tables(self) -> dict[str, Tensor]:
        scale = torch.tensor(self.basis.spread, dtype=torch.float64)
        tables = super().tables()
        tables["turned_functions"] *= scale.view(-1, 1)
        if "turned_pairs" in tables:
            tables["turned_pairs"] *= scale.repeat(2).view(-1, 1)
        return tables

    def variance(self, channels: float, *, rectified: bool) -> Tensor:
        return (super().variance(channels, rectified=rectified) / torch.tensor(self.basis.spread).square()).float()


def escnns(k: int, reduction: str = "mean") -> Callable[..., nn.Module]:
    """The same network of escnn's layers."""

    def build(channels: int, classes: int) -> nn.Module:
        from escnn_unet import EscnnUNet

        return EscnnUNet(channels, classes, "C8", WIDTH, DEPTH, kernel_size=k, reduction=reduction)

    return build


def plain(channels: int, classes: int) -> nn.Module:
    """As many multiply-adds."""
    return UNet(channels, classes, width=8 * WIDTH, depth=DEPTH)


def blur_after_relu(net: EquivariantUNet) -> None:
    """A blur after every nonlinearity."""
    for block in (*net.encoder.blocks, *net.decoder.blocks):
        for place in (2, 5):
            block[place] = nn.Sequential(nn.ReLU(), Blur())


def mean_pools(net: EquivariantUNet) -> None:
    """Means of 2 x 2."""
    net.encoder.down = gnn.AvgPool2d(2, group=net.group)


def blurred_pools(net: EquivariantUNet) -> None:
    """Weighted means of 4 x 4: every second value of the binomial blur, between the pixels as 2 x 2 pools are."""
    net.encoder.down = Blur(4, stride=2)


def blurred_maxima(net: EquivariantUNet) -> None:
    """Maxima of 2 x 2 at every place, blurred, every second kept (Zhang, ICML 2019)."""
    net.encoder.down = gnn.MaxBlurPool2d(net.group)


METHODS: dict[str, Callable[..., nn.Module]] = {
    "plain": plain,
    "escnn, k=3": escnns(3),
    "ours, k=3": ours(3),
    "escnn, k=5": escnns(5),
    "ours, k=5": ours(5),
    "ours, k=3, smoothing=0": ours(3, smoothing=0.0),
    "ours, k=5, smoothing=0": ours(5, smoothing=0.0),
    "ours, k=5, 12 functions, smoothing=0": ours(5, functions=12, smoothing=0.0),
    "ours, k=3, maxima and blur": ours(3, blurred_maxima),
    "scaled, k=3": ours(3, make=Scaled),
    "scaled, k=5": ours(5, make=Scaled),
    "scaled, k=3, maxima and blur": ours(3, blurred_maxima, Scaled),
    "scaled, k=3, 4 functions": ours(3, make=Scaled, functions=4),
    "scaled, k=3, blur after ReLU": ours(3, blur_after_relu, Scaled),
    "scaled, k=3, mean pools": ours(3, mean_pools, Scaled),
    "scaled, k=3, blurred pools": ours(3, blurred_pools, Scaled),
    "scaled, k=3, smoothing=0.1": ours(3, make=Scaled, smoothing=0.1),
    "scaled, k=3, smoothing=0.5": ours(3, make=Scaled, smoothing=0.5),
    "scaled, k=5, 12 functions": ours(5, make=Scaled, functions=12),
    "scaled, k=5, blur after ReLU": ours(5, blur_after_relu, Scaled),
    "scaled, k=5, smoothing=0.1": ours(5, make=Scaled, smoothing=0.1),
    "escnn, k=3, maximum over the group": escnns(3, "max"),
}

MAIN = ("plain", "escnn, k=3", "ours, k=3", "escnn, k=5", "ours, k=5")  # all seeds of these before any of the others
