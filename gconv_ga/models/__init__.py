"""Ready-made segmentation networks: an equivariant U-Net and its baseline, a plain one.

Names: `EquivariantUNet`, `UNet`; `ObjectUNet` (with heads for objects).

Example:
    >>> import torch
    >>> from gconv_ga.models import EquivariantUNet
    >>> net = EquivariantUNet(1, 2, group="C4", width=4, depth=3)
    >>> net(torch.randn(2, 1, 61, 50)).shape  # logits, at any height and width
    torch.Size([2, 2, 61, 50])
"""

from ._objects import ObjectUNet
from ._unet import EquivariantUNet, UNet

__all__ = ["EquivariantUNet", "ObjectUNet", "UNet"]
