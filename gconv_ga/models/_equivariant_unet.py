"""The equivariant U-Net."""

import math

from torch import nn

from .. import nn as gnn
from .._validate import one_of
from ..filters import Filters
from ..groups import Group, as_group
from ._skeleton import Skeleton
from ._unet import POOLINGS, UNet, odd_kernel_size


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
