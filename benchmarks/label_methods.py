"""Networks compared by label_efficiency.py, matched to the baseline U-Net in multiply-adds or to ours in parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from gconv_ga import GroupAverage
from gconv_ga.filters import SteerableFilters
from gconv_ga.groups import as_group
from gconv_ga.models import EquivariantUNet, UNet
from gconv_ga.nn import BatchNorm2d, GroupConv2d

DEPTH = 3


@dataclass(frozen=True)
class Method:
    """Network and its augmentation.

    Args:
        width: Maps the number of channels of the baseline to the width of this network, both at the finest level.
        build: Makes the network from the number of image channels, the number of classes and the width.
        symmetry: Group that augments the training crops. If None, no augmentation.
    """

    width: Callable[[int], int]
    build: Callable[[int, int, int], nn.Module]
    symmetry: str | None = "D4"


def plain(shrink: float = 1.0, symmetry: str | None = "D4") -> Method:
    """Return the baseline U-Net, with its channels divided by `shrink`."""
    return Method(lambda channels: round(channels / shrink), lambda c, k, w: UNet(c, k, width=w, depth=DEPTH), symmetry)


def averaged(group: str, order: int) -> Method:
    """Return the group average of a narrower U-Net, trained through the average; compute-matched as a whole."""
    return Method(
        lambda channels: round(channels / math.sqrt(order)),
        lambda c, k, w: GroupAverage(UNet(c, k, width=w, depth=DEPTH), group),
    )


def ours(
    group: str, order: int, taps: int | None = None, cost: int = 1, reduction: str = "mean", functions: int = 0
) -> Method:
    """Return the equivariant U-Net with `cost` times the multiply-adds of the baseline.

    Args:
        group: Name of the group.
        order: Number of elements of the group.
        taps: Number of taps. If None, all.
        cost: Multiply-adds relative to the baseline.
        reduction: Pooling over the group, "mean" or "max".
        functions: Number of functions of steerable kernels. If 0, the default filters of the group.
    """
    filters = SteerableFilters(as_group(group), (3, 3), functions=functions) if functions else "auto"
    return Method(
        lambda channels: max(1, round(channels * math.sqrt(cost / (order * (taps or order))))),
        lambda c, k, w: EquivariantUNet(
            c, k, group=group, width=w, depth=DEPTH, group_kernel_size=taps, reduction=reduction, filters=filters
        ),
    )


def ours_by_level(group: str, order: int, finest: int, coarser: int) -> Method:
    """Return the equivariant U-Net with one number of taps at the finest level and another at the coarser ones."""

    def build(channels: int, classes: int, width: int) -> nn.Module:
        net = EquivariantUNet(channels, classes, group=group, width=width, depth=DEPTH, group_kernel_size=coarser)
        for block in (net.encoder.blocks[0], net.decoder.blocks[-1]):
            for name, layer in block.named_children():
                if isinstance(layer, GroupConv2d):
                    block[int(name)] = GroupConv2d(
                        layer.in_channels, width, 3, padding=1, bias=False, group=group, group_kernel_size=finest
                    )
        return net

    # The three levels of the U-Net do 5, 5 1/2 and 1 1/2 width^2 |G| taps multiply-adds per image pixel, without the
    # layer that reads the image.
    mean_taps = (5 * finest + 7 * coarser) / 12
    return Method(lambda channels: round(channels / math.sqrt(order * mean_taps)), build)


def ours_with_head(group: str, order: int, fields: int = 16) -> Method:
    """Return the equivariant U-Net with a 1 x 1 layer before group pooling, so that the head sees `fields` channels."""

    def build(channels: int, classes: int, width: int) -> nn.Module:
        net = EquivariantUNet(channels, classes, group=group, width=width, depth=DEPTH)
        widen = GroupConv2d(width, fields, 1, bias=False, group=group)
        net.decoder.pool = nn.Sequential(widen, BatchNorm2d(fields), nn.ReLU(), net.decoder.pool)
        net.segmentation_head = nn.Conv2d(fields, classes, 1)
        return net

    return Method(ours(group, order).width, build)


METHODS = {
    "plain, augmented": plain(),
    "C4": ours("C4", 4),
    "D4": ours("D4", 8),
    "plain": plain(symmetry=None),
    "plain, augmented, parameters of C4": plain(2),
    "plain, augmented, parameters of D4": plain(math.sqrt(8)),
    "averaged in training, C4": averaged("C4", 4),
    "averaged in training, D4": averaged("D4", 8),
    "converted to C4, fine-tuned": plain(2),
    "C8": ours("C8", 8),
    "C4, steerable kernels of 7 functions": ours("C4", 4, functions=7),
    "C4, maximum over the group": ours("C4", 4, reduction="max"),
    "D4, maximum over the group": ours("D4", 8, reduction="max"),
    "C4, half the taps": ours("C4", 4, taps=2),
    "D4, half the taps": ours("D4", 8, taps=4),
    "C4, 16 fields pooled": ours_with_head("C4", 4),
    "D4, 16 fields pooled": ours_with_head("D4", 8),
    "C4, one tap at the finest level": ours_by_level("C4", 4, finest=1, coarser=4),
    "C4, one tap below the finest level": ours_by_level("C4", 4, finest=4, coarser=1),
    "plain, augmented, 4 x the multiply-adds": plain(1 / 2),
    "C4, 4 x the multiply-adds": ours("C4", 4, cost=4),
    "D4, 4 x the multiply-adds": ours("D4", 8, cost=4),
}
