"""Rotation-equivariant image networks: by design, by averaging, and the bridge between the two.

Road 1, by design: `LiftingConv2d`, `GroupConv2d`, `GroupPool`, and the layers of `gconv_ga.nn`. Road 2, by averaging:
`GroupAverage`, `FrameAverage`, `Canonicalize`. The bridge: `convert` for whole networks, `identities` for each
statement of the derivation. The actions of a group on images, vectors, labels, points and boxes are in
`gconv_ga.actions`, rotated kernels in `filters`, ready-made segmenters in `models`.

Example:
    >>> import torch
    >>> from gconv_ga import C4, GroupConv2d, GroupPool, LiftingConv2d
    >>> image = torch.randn(1, 3, 32, 48)
    >>> lift, conv = LiftingConv2d(3, 8, 3, padding=1, group=C4), GroupConv2d(8, 8, 3, padding=1, group=C4)
    >>> GroupPool(C4)(conv(lift(image))).shape
    torch.Size([1, 8, 32, 48])
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_names

if TYPE_CHECKING:
    from . import filters, identities, models
    from .averaging import GroupAverage
    from .checks import assert_equivariant, equivariance_error
    from .conversion import convert
    from .frames import Canonicalize, FrameAverage
    from .groups import C1, C2, C4, C8, D1, D2, D4, D8, CyclicGroup, DihedralGroup
    from .nn import GroupConv2d, GroupPool, LiftingConv2d

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
    "Canonicalize",
    "CyclicGroup",
    "DihedralGroup",
    "FrameAverage",
    "GroupAverage",
    "GroupConv2d",
    "GroupPool",
    "LiftingConv2d",
    "assert_equivariant",
    "convert",
    "equivariance_error",
    "filters",
    "identities",
    "models",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "": [
            "actions",
            "averaging",
            "checks",
            "conversion",
            "filters",
            "frames",
            "groups",
            "identities",
            "models",
            "nn",
        ],
        "averaging": ["GroupAverage"],
        "checks": ["assert_equivariant", "equivariance_error"],
        "conversion": ["convert"],
        "frames": ["Canonicalize", "FrameAverage"],
        "groups": ["C1", "C2", "C4", "C8", "D1", "D2", "D4", "D8", "CyclicGroup", "DihedralGroup"],
        "nn": ["GroupConv2d", "GroupPool", "LiftingConv2d"],
    },
)
