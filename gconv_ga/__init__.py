"""Rotation-equivariant image networks: by design, by averaging, and the bridge between the two.

Road 1, by design: `LiftingConv2d`, `GroupConv2d`, `GroupPool`, and the layers of `gconv_ga.nn`. Road 2, by averaging:
`GroupAverage`, `FrameAverage`, `Canonicalize`. The bridge: `convert` for whole networks, `identities` for each
statement of the derivation. What acts on images, vectors, labels, points and boxes is in `gconv_ga.actions`, what makes
kernels turn in `filters`, ready-made segmenters in `models`.

Example:
    >>> import torch
    >>> from gconv_ga import C4, GroupConv2d, GroupPool, LiftingConv2d
    >>> image = torch.randn(1, 3, 32, 48)
    >>> lift, conv = LiftingConv2d(3, 8, 3, padding=1, group=C4), GroupConv2d(8, 8, 3, padding=1, group=C4)
    >>> GroupPool(C4)(conv(lift(image))).shape
    torch.Size([1, 8, 32, 48])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

# The room of each name. Rooms are imported when they are first used: the command line answers without loading torch.
_ROOMS = {
    "averaging": ["GroupAverage"],
    "checks": ["assert_equivariant", "equivariance_error"],
    "conversion": ["convert"],
    "frames": ["Canonicalize", "FrameAverage"],
    "groups": ["C1", "C2", "C4", "C8", "D1", "D2", "D4", "D8", "CyclicGroup", "DihedralGroup"],
    "nn": ["GroupConv2d", "GroupPool", "LiftingConv2d"],
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_LOADED = [*_ROOMS, "actions", "filters", "identities", "models"]


def __getattr__(name: str) -> Any:
    """A public name or a room of the core, imported on first use."""
    if name in _ROOM_OF:
        value = getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)
    elif name in _LOADED:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LOADED})
