"""Road 1: networks that are equivariant by design.

An image ``[B, C, H, W]`` is lifted to a map on the group ``[B, C, |G|, H, W]``, group convolutions go on from there,
and group pooling comes back to an image. On such maps torch's own pointwise layers are right as they are (ReLU, GELU,
`torch.nn.Dropout`), and so are `torch.nn.GroupNorm` and `torch.nn.AdaptiveAvgPool3d` with ``(None, n, n)``.

Names: `LiftingConv2d`, `GroupConv2d`, `GroupConvTranspose2d`, `GroupPool`; `BatchNorm2d`, `InstanceNorm2d`,
`Dropout2d`, `MaxPool2d`, `AvgPool2d`, `MaxBlurPool2d`, `Upsample` for maps on the group; the layers as functions in
`functional`, and what they are made of in `authoring`.

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
    >>> turned = net(torch.rot90(x, 1, (-2, -1)))
    >>> turned.shape, bool((turned - torch.rot90(net(x), 1, (-2, -1))).abs().max() < 1e-5)
    (torch.Size([1, 2, 32, 24]), True)
"""

from . import authoring, functional
from ._convolution import GroupConv2d, LiftingConv2d
from ._norms import BatchNorm2d, Dropout2d, InstanceNorm2d
from ._pooling import AvgPool2d, GroupPool, MaxBlurPool2d, MaxPool2d
from ._transposed import GroupConvTranspose2d
from ._upsampling import Upsample

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
    "authoring",
    "functional",
]
