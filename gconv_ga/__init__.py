"""Rotation-equivariant image networks: by design, by averaging, and the bridge between the two.

Example:
    >>> import torch
    >>> from gconv_ga import C4, GroupConv2d, GroupPool, LiftingConv2d
    >>> image = torch.randn(1, 3, 32, 48)
    >>> lift, conv = LiftingConv2d(3, 8, 3, padding=1, group=C4), GroupConv2d(8, 8, 3, padding=1, group=C4)
    >>> GroupPool(C4)(conv(lift(image))).shape
    torch.Size([1, 8, 32, 48])
"""

from . import filters, models
from .groups import C1, C2, C4, C8, D1, D2, D4, D8, CyclicGroup, DihedralGroup
from .nn import GroupConv2d, GroupConvTranspose2d, GroupPool, LiftingConv2d

__version__ = "0.1.0"

__all__ = [
    "C1",
    "C2",
    "C4",
    "C8",
    "D1",
    "D2",
    "D4",
    "D8",
    "CyclicGroup",
    "DihedralGroup",
    "GroupConv2d",
    "GroupConvTranspose2d",
    "GroupPool",
    "LiftingConv2d",
    "filters",
    "models",
]
