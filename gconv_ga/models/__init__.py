"""Ready-made networks: the equivariant U-Net and its plain twin, and a geometric network on point clouds.

Names: `EquivariantUNet`, `UNet`; `FrameAveragedGNN`, and `PointOutputs`, what it returns.

Example:
    >>> import torch
    >>> from gconv_ga.models import EquivariantUNet
    >>> net = EquivariantUNet(1, 2, group="C4", width=4, depth=3)
    >>> net(torch.randn(2, 1, 61, 50)).shape  # logits, any height and width
    torch.Size([2, 2, 61, 50])
"""

from ._equivariant_unet import EquivariantUNet
from ._gnn import FrameAveragedGNN, PointOutputs
from ._unet import UNet

__all__ = ["EquivariantUNet", "FrameAveragedGNN", "PointOutputs", "UNet"]
