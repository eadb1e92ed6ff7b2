"""Ready-made segmentation networks: an equivariant U-Net and its baseline, a plain one, and networks that are trained.

Names: `EquivariantUNet`, `UNet`; `ObjectUNet` (with heads for objects); `load` (a trained network of the package; needs
the extra ``train``).

Example:
    >>> import torch
    >>> from gconv_ga.models import EquivariantUNet
    >>> net = EquivariantUNet(1, 2, group="C4", width=4, depth=3)
    >>> net(torch.randn(2, 1, 61, 50)).shape  # logits, at any height and width
    torch.Size([2, 2, 61, 50])
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ..pretrained import load
    from ._objects import ObjectUNet
    from ._unet import EquivariantUNet, UNet

__all__ = ["EquivariantUNet", "ObjectUNet", "UNet", "load"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_objects": ["ObjectUNet"],
        "_unet": ["EquivariantUNet", "UNet"],
        ".pretrained": ["load"],  # from a room above: a short way to the networks that are trained
    },
)
