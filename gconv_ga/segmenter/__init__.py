"""A segmenter as a thing to keep: its configuration, its checkpoint, and the devices it runs on.

Needs the extra ``train``.

Names: `SegmenterConfig` (architecture, classes, normalization; builds the network); `save_checkpoint`,
`load_checkpoint`, `Checkpoint` (one safetensors file, no code in it); `as_device`, `Machines`.

Example:
    >>> from gconv_ga.images import Normalization
    >>> from gconv_ga.segmenter import SegmenterConfig
    >>> arguments = dict(in_channels=1, classes=2, group="C4", width=4, depth=3)
    >>> config = SegmenterConfig("EquivariantUNet", arguments, ("background", "cell"), Normalization([0.3], [0.2]))
    >>> config.build(seed=0).group.name
    'C4'
"""

from .._validate import missing_extra

try:
    from ._checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from ._config import SegmenterConfig
    from ._devices import PRECISIONS, Machines, as_device
    from ._smp import plain_smp
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "PRECISIONS",
    "Checkpoint",
    "Machines",
    "SegmenterConfig",
    "as_device",
    "load_checkpoint",
    "plain_smp",
    "save_checkpoint",
]
