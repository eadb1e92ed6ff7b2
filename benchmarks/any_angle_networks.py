"""Networks compared by any_angle.py. Each builder takes the number of image channels and of classes."""

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
    """Binomial blur of each plane with replicated borders; exact under C4 and D4 where the stride skips no pixels.

    Args:
        taps: Number of taps along each axis, 3 or 4.
        stride: Stride, 1 or 2.
    """

    def __init__(self, taps: int = 3, stride: int = 1) -> None:
        super().__init__()
        row = torch.tensor([math.comb(taps - 1, position) for position in range(taps)]) / 2 ** (taps - 1)
        self.stride = stride
        self.register_buffer("kernel", torch.outer(row, row).view(1, 1, taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = F.pad(x.flatten(0, -3).unsqueeze(1), (1, 1, 1, 1), mode="replicate")
        smooth = F.conv2d(flat, self.kernel.to(x.dtype), stride=self.stride)
        return smooth.view(*x.shape[:-2], *smooth.shape[-2:])


def ours(
    k: int, modify: Callable[[EquivariantUNet], None] | None = None, filters: Any = SteerableFilters, **options: Any
) -> Callable[..., nn.Module]:
    """Return a builder of the equivariant U-Net.

    Args:
        k: Size of the kernels.
        modify: Changes the network after it is built.
        filters: Class of the filters.
        options: Options of the filters.
    """

    def build(channels: int, classes: int) -> nn.Module:
        kernels = filters(C8, (k, k), **options)
        net = EquivariantUNet(channels, classes, group="C8", width=WIDTH, depth=DEPTH, kernel_size=k, filters=kernels)
        if modify is not None:
            modify(net)
        return net

    return build


@dataclass(frozen=True)
class ScaledFilters(SteerableFilters):
    """Steerable filters whose functions carry the scale of the initial weights; it favours smooth ones throughout."""

    def tables(self) -> dict[str, Tensor]:
        scale = torch.tensor(self.basis.spread, dtype=torch.float64)
        tables = super().tables()
        tables["rotated_functions"] *= scale.view(-1, 1)
        if "rotated_pairs" in tables:
            tables["rotated_pairs"] *= scale.repeat(2).view(-1, 1)
        return tables

    def variance(self, channels: float, *, rectified: bool) -> Tensor:
        return (super().variance(channels, rectified=rectified) / torch.tensor(self.basis.spread).square()).float()


def escnn(k: int, reduction: str = "mean") -> Callable[..., nn.Module]:
    """Return a builder of the same network from the layers of escnn."""

    def build(channels: int, classes: int) -> nn.Module:
        from escnn_unet import EscnnUNet

        return EscnnUNet(channels, classes, "C8", WIDTH, DEPTH, kernel_size=k, reduction=reduction)

    return build


def plain(channels: int, classes: int) -> nn.Module:
    """Build the compute-matched baseline, an ordinary U-Net."""
    return UNet(channels, classes, width=8 * WIDTH, depth=DEPTH)


def blur_after_relu(net: EquivariantUNet) -> None:
    """Add a blur after every ReLU."""
    for block in (*net.encoder.blocks, *net.decoder.blocks):
        for position in (2, 5):
            block[position] = nn.Sequential(nn.ReLU(), Blur())


def mean_pools(net: EquivariantUNet) -> None:
    """Replace max pooling by the mean of 2 x 2 pixels."""
    net.encoder.down = gnn.AvgPool2d(2, group=net.group)


def blurred_pools(net: EquivariantUNet) -> None:
    """Replace max pooling by a 4 x 4 binomial blur with stride 2, centred between pixels as 2 x 2 pools are."""
    net.encoder.down = Blur(4, stride=2)


def blurred_maxima(net: EquivariantUNet) -> None:
    """Replace max pooling by 2 x 2 maxima with stride 1, blurred and then subsampled (Zhang, ICML 2019)."""
    net.encoder.down = gnn.MaxBlurPool2d(net.group)


METHODS: dict[str, Callable[..., nn.Module]] = {
    "plain": plain,
    "escnn, k=3": escnn(3),
    "ours, k=3": ours(3),
    "escnn, k=5": escnn(5),
    "ours, k=5": ours(5),
    "ours, k=3, smoothing=0": ours(3, smoothing=0.0),
    "ours, k=5, smoothing=0": ours(5, smoothing=0.0),
    "ours, k=5, 12 functions, smoothing=0": ours(5, functions=12, smoothing=0.0),
    "ours, k=3, maxima and blur": ours(3, blurred_maxima),
    "scaled, k=3": ours(3, filters=ScaledFilters),
    "scaled, k=5": ours(5, filters=ScaledFilters),
    "scaled, k=3, maxima and blur": ours(3, blurred_maxima, ScaledFilters),
    "scaled, k=3, 4 functions": ours(3, filters=ScaledFilters, functions=4),
    "scaled, k=3, blur after ReLU": ours(3, blur_after_relu, ScaledFilters),
    "scaled, k=3, mean pools": ours(3, mean_pools, ScaledFilters),
    "scaled, k=3, blurred pools": ours(3, blurred_pools, ScaledFilters),
    "scaled, k=3, smoothing=0.1": ours(3, filters=ScaledFilters, smoothing=0.1),
    "scaled, k=3, smoothing=0.5": ours(3, filters=ScaledFilters, smoothing=0.5),
    "scaled, k=5, 12 functions": ours(5, filters=ScaledFilters, functions=12),
    "scaled, k=5, blur after ReLU": ours(5, blur_after_relu, ScaledFilters),
    "scaled, k=5, smoothing=0.1": ours(5, filters=ScaledFilters, smoothing=0.1),
    "escnn, k=3, maximum over the group": escnn(3, "max"),
}

# All seeds of these run before any of the others.
MAIN_METHODS = ("plain", "escnn, k=3", "ours, k=3", "escnn, k=5", "ours, k=5")
