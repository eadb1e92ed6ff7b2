"""A segmenter that can be saved: its configuration, its checkpoint, and the devices it runs on.

Needs the extra ``train``.

Names: `SegmenterConfig` (architecture, classes, normalization; builds the network); `save_checkpoint`,
`load_checkpoint`, `Checkpoint` (one safetensors file without code); `as_device`, `Machines`, `PRECISIONS`;
`together`, `Team`, `LostProcessError` (several processes that share out work); `plain_smp` (a network of
segmentation_models_pytorch).

Example:
    >>> from gconv_ga.images import Normalization
    >>> from gconv_ga.segmenter import SegmenterConfig
    >>> arguments = dict(in_channels=1, classes=2, group="C4", width=4, depth=3)
    >>> config = SegmenterConfig("EquivariantUNet", arguments, ("background", "cell"), Normalization([0.3], [0.2]))
    >>> config.build(seed=0).group.name
    'C4'
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._checkpoint import Checkpoint, SegmenterConfig, load_checkpoint, save_checkpoint
    from ._devices import PRECISIONS, Machines, as_device
    from ._smp import plain_smp
    from ._team import LostProcessError, Team, together

__all__ = [
    "PRECISIONS",
    "Checkpoint",
    "LostProcessError",
    "Machines",
    "SegmenterConfig",
    "Team",
    "as_device",
    "load_checkpoint",
    "plain_smp",
    "save_checkpoint",
    "together",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_checkpoint": ["Checkpoint", "SegmenterConfig", "load_checkpoint", "save_checkpoint"],
        "_devices": ["PRECISIONS", "Machines", "as_device"],
        "_smp": ["plain_smp"],
        "_team": ["LostProcessError", "Team", "together"],
    },
    extra="train",
)
