"""The U-Net that the plain and the equivariant one share: encoder, decoder, skips, any size."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import as_int, invalid, one_of, wrong_shape
from ..filters import Filters
from ..groups import Group, as_group


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


POOLINGS = ("max", "max_blur")


class UNet(Skeleton):
    """A plain U-Net of plain torch layers: the twin to compare with, and a model to convert.

    Each level is twice 3 x 3 convolution, batch norm and ReLU; max pooling goes down, bilinear up-sampling goes up. It
    does what `EquivariantUNet` with ``group="C1"`` does.

    Args:
        in_channels: Channels of the image.
        classes: Channels of the logits.
        width: Channels of the finest level; each coarser level has twice as many.
        depth: Levels; the image is halved ``depth - 1`` times.
        kernel_size: Of the convolutions, odd.
        pooling: "max", or "max_blur" as in `EquivariantUNet`.

    Shape:
        - input: ``[B, C_in, H, W]``, any H and W from ``2 ** (depth - 1)`` up
        - output: ``[B, classes, H, W]``, logits

    Raises:
        ValueError: An argument is out of its range, or the input has other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.models import UNet
        >>> UNet(3, 2, width=8, depth=3)(torch.randn(1, 3, 33, 40)).shape
        torch.Size([1, 2, 33, 40])

    References:
        Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        depth: int = 4,
        kernel_size: int = 3,
        pooling: str = "max",
    ) -> None:
        parts = _PlainParts(odd_kernel_size(kernel_size), one_of("pooling", pooling, POOLINGS))
        super().__init__(parts, in_channels, classes, width, depth)


def odd_kernel_size(kernel_size: int) -> int:
    """A kernel size that keeps the image's size under symmetric padding.

    Raises:
        ValueError: It is even, or no positive int.
    """
    number = as_int("kernel_size", kernel_size, minimum=1)
    if number % 2 == 0:
        raise invalid("kernel_size", "odd", kernel_size, "an even kernel shifts the image by half a pixel")
    return number


class _PlainParts:
    def __init__(self, kernel_size: int, pooling: str) -> None:
        self.kernel_size = kernel_size
        self.pooling = pooling

    def convolution(self, in_channels: int, out_channels: int, *, first: bool) -> nn.Module:
        conv = nn.Conv2d(in_channels, out_channels, self.kernel_size, padding=self.kernel_size // 2, bias=False)
        # The rule of our own layers, so that twins start alike.
        nn.init.kaiming_normal_(conv.weight, nonlinearity="linear" if first else "relu")
        return conv

    def norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels)

    def down(self) -> nn.Module:
        if self.pooling == "max":
            return nn.MaxPool2d(2)
        return nn.Sequential(nn.MaxPool2d(2, 1), nn.ReplicationPad2d(1), nn.AvgPool2d(2, 1), nn.AvgPool2d(2))

    def up(self) -> nn.Module:
        return UpsampleTo()

    def pool(self) -> nn.Module:
        return nn.Identity()


class UpsampleTo(nn.Module):
    """Bilinear up-sampling by two; the last row or column is repeated where ``output_size`` wants one more."""

    def forward(self, x: Tensor, output_size: Sequence[int]) -> Tensor:
        y = F.interpolate(x, scale_factor=2, mode="bilinear")
        rows, columns = (output_size[axis] - y.shape[axis - 2] for axis in (0, 1))
        return F.pad(y, (0, columns, 0, rows), mode="replicate")


class EquivariantUNet(Skeleton):
    """A U-Net whose logits turn and mirror with the image, whatever its weights and at every height and width.

    The image is lifted to a map on the group; each level is twice group convolution, batch norm and ReLU; max pooling
    goes down, bilinear up-sampling goes up, both in each orientation's own frame; the group is pooled once, before the
    1 x 1 head: ``segmentation_head(decoder(encoder(x)))``, parts that are named as in segmentation_models_pytorch; the
    encoder gives the maps on the group of all levels, finest first. With ``group_kernel_size=1`` and mean pooling it is
    the group average of `UNet` with the same weights.

    Exact for C1, C2, C4, D1, D2 and D4 (float64: 1e-10).

    Args:
        in_channels: Channels of the image.
        classes: Channels of the logits.
        group: The symmetry group or its name.
        width: Fields of the finest level; each coarser level has twice as many. The network does the multiply-adds of
            a plain one of ``width * |G|`` channels, with a ``|G|``-th of the weights: see `plain_twin`.
        depth: Levels; the image is halved ``depth - 1`` times.
        kernel_size: Of the convolutions, odd.
        group_kernel_size: How many elements the kernels have planes for, as in `GroupConv2d`; None for all.
        reduction: How the group is pooled, "mean" or "max".
        pooling: How a level goes down: "max", or "max_blur" for `gconv_ga.nn.MaxBlurPool2d`, which aliases less. It
            is for groups with other angles than 90 degrees: at 45 degrees C8 networks changed 0.47 % of the labels in
            place of 0.52 % on histology, 0.25 % in place of 0.27 % on nuclei, at the same Dice (benchmarks/README.md).
        filters: As in `GroupConv2d`.

    Shape:
        - input: ``[B, C_in, H, W]``, any H and W from ``2 ** (depth - 1)`` up
        - output: ``[B, classes, H, W]``, logits

    Raises:
        ValueError: An argument is out of its range, or the input has other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.models import EquivariantUNet
        >>> net = EquivariantUNet(3, 2, group="D4", width=4, depth=3).eval()
        >>> x = torch.randn(1, 3, 33, 40)
        >>> turned = net(torch.rot90(x, 1, (-2, -1)))
        >>> turned.shape, bool((turned - torch.rot90(net(x), 1, (-2, -1))).abs().max() < 1e-5)
        (torch.Size([1, 2, 40, 33]), True)

    References:
        Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015; Cohen and Welling, "Group equivariant convolutional
        networks", ICML 2016.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        group: Group | str = "C4",
        width: int = 8,
        depth: int = 4,
        kernel_size: int = 3,
        group_kernel_size: int | None = None,
        reduction: str = "mean",
        pooling: str = "max",
        filters: Filters | str = "auto",
    ) -> None:
        symmetry = as_group(group)
        pool = gnn.GroupPool(symmetry, reduction)
        one_of("pooling", pooling, POOLINGS)
        parts = _EquivariantParts(symmetry, odd_kernel_size(kernel_size), group_kernel_size, filters, pooling, pool)
        super().__init__(parts, in_channels, classes, width, depth)
        self.group = symmetry
        self.kernel_size = kernel_size
        self.pooling = pooling
        self.taps = symmetry.order if group_kernel_size is None else group_kernel_size

    def plain_twin(self) -> UNet:
        """A plain U-Net of as many multiply-adds, newly initialised.

        A group convolution of ``w`` fields and ``m`` taps does ``|G| m w^2`` multiply-adds where a plain one of ``c``
        channels does ``c^2``, so ``c = w sqrt(|G| m)``, rounded.

        Example:
            >>> from gconv_ga.models import EquivariantUNet
            >>> net = EquivariantUNet(1, 2, group="C4", width=8, depth=3)
            >>> net.plain_twin().width
            32
        """
        width = round(self.width * math.sqrt(self.group.order * self.taps))
        return UNet(
            self.in_channels, self.classes, width=width, depth=self.depth, kernel_size=self.kernel_size,
            pooling=self.pooling,
        )  # fmt: skip


class _EquivariantParts:
    def __init__(
        self,
        group: Group,
        kernel_size: int,
        group_kernel_size: int | None,
        filters: Filters | str,
        pooling: str,
        pool: gnn.GroupPool,
    ) -> None:
        self.group = group
        self.kernel_size = kernel_size
        self.group_kernel_size = group_kernel_size
        self.filters = filters
        self.pooling = pooling
        self.group_pool = pool

    def convolution(self, in_channels: int, out_channels: int, *, first: bool) -> nn.Module:
        size, padding = self.kernel_size, self.kernel_size // 2
        if first:
            return gnn.LiftingConv2d(
                in_channels, out_channels, size, padding=padding, bias=False, group=self.group, filters=self.filters
            )
        return gnn.GroupConv2d(
            in_channels, out_channels, size, padding=padding, bias=False, group=self.group,
            group_kernel_size=self.group_kernel_size, filters=self.filters,
        )  # fmt: skip

    def norm(self, channels: int) -> nn.Module:
        return gnn.BatchNorm2d(channels)

    def down(self) -> nn.Module:
        return gnn.MaxPool2d(2, group=self.group) if self.pooling == "max" else gnn.MaxBlurPool2d(self.group)

    def up(self) -> nn.Module:
        return gnn.Upsample(2, mode="bilinear", group=self.group)

    def pool(self) -> nn.Module:
        return self.group_pool
