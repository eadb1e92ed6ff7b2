"""Road 1: layers of networks that are equivariant by design.

A lifting convolution takes an image ``[B, C, H, W]`` to a feature map on the group ``[B, C, |G|, H, W]``, group
convolutions process such maps, and group pooling takes them back to an image. The pointwise layers of torch (ReLU,
GELU, `torch.nn.Dropout`) work on these maps unchanged, and so do `torch.nn.GroupNorm` and `torch.nn.AdaptiveAvgPool3d`
with ``(None, n, n)``.

Names: `LiftingConv2d`, `GroupConv2d`, `GroupConvTranspose2d`, `GroupPool` and `VectorHead`; `BatchNorm2d`,
`InstanceNorm2d`, `Dropout2d`, `MaxPool2d`, `AvgPool2d`, `MaxBlurPool2d` and `Upsample` for feature maps on the group;
the layers as functions in `functional`, and their building blocks in `authoring`; `algorithm` chooses how group
convolutions are computed, and `algorithms` tells which ways are available.

Example:
    >>> import torch
    >>> import gconv_ga.nn as gnn
    >>> net = torch.nn.Sequential(
    ...     gnn.LiftingConv2d(1, 8, 3, padding=1, group="C4"),
    ...     gnn.BatchNorm2d(8),
    ...     torch.nn.ReLU(),
    ...     gnn.GroupConv2d(8, 2, 3, padding=1, group="C4"),
    ...     gnn.GroupPool("C4"),
    ... ).eval()
    >>> x = torch.randn(1, 1, 24, 32)
    >>> of_rotated = net(torch.rot90(x, 1, (-2, -1)))
    >>> of_rotated.shape, bool((of_rotated - torch.rot90(net(x), 1, (-2, -1))).abs().max() < 1e-5)
    (torch.Size([1, 2, 32, 24]), True)
"""

from . import authoring, functional
from ._algorithms import algorithm, algorithms
from ._convolution import GroupConv2d, LiftingConv2d
from ._layers import AvgPool2d, BatchNorm2d, Dropout2d, GroupPool, InstanceNorm2d, MaxBlurPool2d, MaxPool2d, Upsample
from ._transposed import GroupConvTranspose2d
from ._vector import VectorHead

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Dropout2d",
    "GroupConv2d",
    "GroupConvTranspose2d",
    "GroupPool",
    "InstanceNorm2d",
    "LiftingConv2d",
    "MaxBlurPool2d",
    "MaxPool2d",
    "Upsample",
    "VectorHead",
    "algorithm",
    "algorithms",
    "authoring",
    "functional",
]
