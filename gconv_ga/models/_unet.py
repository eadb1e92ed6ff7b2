"""The plain U-Net."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import as_int, invalid, one_of
from ._skeleton import Skeleton

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
