"""The equivariant U-Net and the plain one: one architecture, built from two sets of layers."""

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


class _UNetBase(nn.Module):
    """The architecture of both U-Nets: ``segmentation_head(decoder(encoder(x)))``, as in segmentation_models_pytorch.

    Subclasses choose the layers.
    """

    def __init__(self, layers: "_Layers", in_channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.in_channels = as_int("in_channels", in_channels, minimum=1)
        self.classes = as_int("classes", classes, minimum=1)
        self.width = as_int("width", width, minimum=1)
        self.depth = as_int("depth", depth, minimum=1)
        widths = [self.width * 2**level for level in range(self.depth)]
        self.encoder = _Encoder(layers, self.in_channels, widths)
        self.decoder = _Decoder(layers, widths)
        self.segmentation_head = nn.Conv2d(self.width, self.classes, 1)

    @property
    def stride(self) -> int:
        """Number of pixels of the image between those of the coarsest feature map, along an axis."""
        return 2 ** (self.depth - 1)

    def features(self, x: Tensor) -> Tensor:
        """Return the features that the segmentation head takes.

        Shape:
            - x: ``[B, C_in, H, W]``
            - output: ``[B, width, H, W]``
        """
        decoded: Tensor = self.decoder(self.encoder(x))
        return decoded

    def forward(self, x: Tensor) -> Tensor:
        smallest = self.stride
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[-2:]) < smallest:
            axes = f"[B, C={self.in_channels}, H >= {smallest}, W >= {smallest}]"
            advice = f"a network of depth {self.depth} halves the image {self.depth - 1} times"
            raise wrong_shape("input", axes, x, advice)
        logits: Tensor = self.segmentation_head(self.features(x))
        return logits


class EquivariantUNet(_UNetBase):
    """A U-Net whose logits rotate and reflect with the image, for any weights and at every height and width.

    The image is lifted to a feature map on the group. Each level is two group convolutions, each followed by batch norm
    and ReLU; max pooling goes down and bilinear upsampling goes up, both in each orientation's own frame. The group is
    pooled once, before the 1 x 1 head. The parts are named as in segmentation_models_pytorch,
    ``segmentation_head(decoder(encoder(x)))``; the encoder returns the feature maps on the group of all levels, finest
    first. With ``group_kernel_size=1`` and mean pooling the network is the group average of `UNet` with the same
    weights.

    Exact for C1, C2, C4, D1, D2 and D4 (float64: 1e-10), and in other groups for their rotations by multiples of 90
    degrees and reflections; at other angles see `gconv_ga.filters.describe`.

    Args:
        in_channels: Number of channels of the image.
        classes: Number of channels of the logits.
        group: The symmetry group or its name.
        width: Number of fields of the finest level. Each coarser level has twice as many. The network does as many
            multiply-adds as a plain one with ``width * |G|`` channels (fewer where `gconv_ga.nn.algorithm` chooses
            "fourier") and has about a ``|G|``-th of its weights: see `baseline`.
        depth: Number of levels. The image is halved ``depth - 1`` times.
        kernel_size: Side of the convolution kernels, odd.
        group_kernel_size: Number of group elements that the kernels span, as in `GroupConv2d`. If None, all of them.
        reduction: Pooling over the group, "mean" or "max".
        pooling: Pooling between levels: "max", or "max_blur" for `gconv_ga.nn.MaxBlurPool2d`, which aliases less. The
            latter is meant for groups with angles other than multiples of 90 degrees: at 45 degrees, C8 networks
            changed 0.47 % of the labels instead of 0.52 % on histology, and 0.25 % instead of 0.27 % on nuclei, at the
            same Dice (benchmarks/README.md).
        filters: Filter basis, as in `GroupConv2d`.

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
        >>> y = net(torch.rot90(x, 1, (-2, -1)))
        >>> y.shape, bool((y - torch.rot90(net(x), 1, (-2, -1))).abs().max() < 1e-5)
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
        one_of("pooling", pooling, _POOLINGS)
        layers = _EquivariantLayers(symmetry, _odd_size(kernel_size), group_kernel_size, filters, pooling, pool)
        super().__init__(layers, in_channels, classes, width, depth)
        self.group = symmetry
        self.kernel_size = kernel_size
        self.pooling = pooling
        self.taps = symmetry.order if group_kernel_size is None else group_kernel_size

    def baseline(self) -> "UNet":
        """Return a compute-matched plain `UNet`, newly initialized: same depth, kernels and pooling, but wider.

        A group convolution of ``w`` fields and ``m`` taps does ``|G| m w^2`` multiply-adds per pixel where a plain one
        of ``c`` channels does ``c^2``, so the width is ``c = w sqrt(|G| m)``, rounded. With all taps, ``c = w |G|``:
        the convolutions do exactly as many multiply-adds, and only the small 1 x 1 head does more (in all below 0.5 %
        from ``w = 8`` up, for 20 classes). With fewer taps the rounding adds up to 4 % either way from ``w = 8`` up,
        and up to 25 % below.

        Example:
            >>> from gconv_ga.models import EquivariantUNet
            >>> net = EquivariantUNet(1, 2, group="C4", width=8, depth=3)
            >>> net.baseline().width
            32
        """
        width = round(self.width * math.sqrt(self.group.order * self.taps))
        return UNet(
            self.in_channels, self.classes, width=width, depth=self.depth, kernel_size=self.kernel_size,
            pooling=self.pooling,
        )  # fmt: skip


class UNet(_UNetBase):
    """A U-Net of torch's own layers: the baseline of `EquivariantUNet`, and a model to convert.

    Each level is two convolutions, each followed by batch norm and ReLU; max pooling goes down and bilinear upsampling
    goes up. It computes what `EquivariantUNet` with ``group="C1"`` computes.

    Args:
        in_channels: Number of channels of the image.
        classes: Number of channels of the logits.
        width: Number of channels of the finest level. Each coarser level has twice as many.
        depth: Number of levels. The image is halved ``depth - 1`` times.
        kernel_size: Side of the convolution kernels, odd.
        pooling: Pooling between levels, "max" or "max_blur", as in `EquivariantUNet`.

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
        layers = _PlainLayers(_odd_size(kernel_size), one_of("pooling", pooling, _POOLINGS))
        super().__init__(layers, in_channels, classes, width, depth)


_POOLINGS = ("max", "max_blur")


def _odd_size(kernel_size: int) -> int:
    """Return the kernel size if symmetric padding can keep the size of the image.

    Raises:
        ValueError: It is even, or not a positive int.
    """
    number = as_int("kernel_size", kernel_size, minimum=1)
    if number % 2 == 0:
        raise invalid("kernel_size", "odd", kernel_size, "an even kernel shifts the image by half a pixel")
    return number


class _Encoder(nn.Module):
    """Blocks with pooling between them. Returns the feature maps of all levels, finest first."""

    def __init__(self, layers: "_Layers", in_channels: int, widths: list[int]) -> None:
        super().__init__()
        channels = [in_channels, *widths]
        self.out_channels = tuple(widths)
        self.blocks = nn.ModuleList(
            _block(layers, *pair, first=level == 0) for level, pair in enumerate(pairwise(channels))
        )
        self.down = layers.down()

    def forward(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for block in self.blocks:
            x = block(self.down(levels[-1]) if levels else x)
            levels.append(x)
        return levels


class _Decoder(nn.Module):
    """Blocks from the coarsest level up, each joined with the encoder's level. Pools the finest over the group."""

    def __init__(self, layers: "_Layers", widths: list[int]) -> None:
        super().__init__()
        self.up = layers.up()
        self.blocks = nn.ModuleList(
            _block(layers, coarse + fine, fine) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.pool = layers.pool()

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for block, skip in zip(self.blocks, levels[-2::-1], strict=True):
            x = block(torch.cat((skip, self.up(x, output_size=skip.shape[-2:])), dim=1))
        pooled: Tensor = self.pool(x)
        return pooled


def _block(layers: "_Layers", in_channels: int, out_channels: int, *, first: bool = False) -> nn.Sequential:
    """Return two convolutions, each followed by a norm and ReLU."""
    return nn.Sequential(
        layers.convolution(in_channels, out_channels, first=first),
        layers.norm(out_channels),
        nn.ReLU(inplace=True),
        layers.convolution(out_channels, out_channels, first=False),
        layers.norm(out_channels),
        nn.ReLU(inplace=True),
    )


class _Layers(Protocol):
    """The layers that a U-Net is built from. With a group, channels are fields."""

    def convolution(self, in_channels: int, out_channels: int, *, first: bool) -> nn.Module:
        """Return a convolution without bias that keeps the size; ``first`` for the one that takes the image."""

    def norm(self, channels: int) -> nn.Module:
        """Return a batch norm."""

    def down(self) -> nn.Module:
        """Return a pooling by two."""

    def up(self) -> nn.Module:
        """Return an upsampling by two, called with ``output_size``."""

    def pool(self) -> nn.Module:
        """Return the module that takes the decoder's finest feature map to an image ``[B, width, H, W]``."""


class _EquivariantLayers:
    """The layers of `EquivariantUNet`."""

    def __init__(
        self,
        group: Group,
        kernel_size: int,
        group_kernel_size: int | None,
        filters: Filters | str,
        pooling: str,
        group_pool: gnn.GroupPool,
    ) -> None:
        self.group = group
        self.kernel_size = kernel_size
        self.group_kernel_size = group_kernel_size
        self.filters = filters
        self.pooling = pooling
        self.group_pool = group_pool

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


class _PlainLayers:
    """The layers of `UNet`."""

    def __init__(self, kernel_size: int, pooling: str) -> None:
        self.kernel_size = kernel_size
        self.pooling = pooling

    def convolution(self, in_channels: int, out_channels: int, *, first: bool) -> nn.Module:
        conv = nn.Conv2d(in_channels, out_channels, self.kernel_size, padding=self.kernel_size // 2, bias=False)
        # The initialization of our own layers, so that network and baseline start alike.
        if not conv.weight.is_meta:  # nothing to draw; torch would load its compiler for it
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear" if first else "relu")
        return conv

    def norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels)

    def down(self) -> nn.Module:
        if self.pooling == "max":
            return nn.MaxPool2d(2)
        return nn.Sequential(nn.MaxPool2d(2, 1), nn.ReplicationPad2d(1), nn.AvgPool2d(2, 1), nn.AvgPool2d(2))

    def up(self) -> nn.Module:
        return _UpsampleTo()

    def pool(self) -> nn.Module:
        return nn.Identity()


class _UpsampleTo(nn.Module):
    """Bilinear upsampling by two. Repeats the last row or column where ``output_size`` has one more."""

    def forward(self, x: Tensor, output_size: Sequence[int]) -> Tensor:
        y = F.interpolate(x, scale_factor=2, mode="bilinear")
        rows, columns = (output_size[axis] - y.shape[axis - 2] for axis in (0, 1))
        return F.pad(y, (0, columns, 0, rows), mode="replicate")
