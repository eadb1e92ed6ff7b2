"""Three segmenters, the same data, the same multiply-adds: what does each say when the image is turned?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data import Sample, load_sample
from ..groups import as_group
from ..models import EquivariantUNet
from ..training import SegmenterConfig

CHANNELS = 16  # orientations times fields of the finest level, and the channels of the plain twin
DEPTH = 3
AUGMENTATION = "D4"  # quarter turns and mirrors


@dataclass(frozen=True)
class Contestant:
    """A network to train, and how."""

    key: str  # names its files
    title: str
    config: SegmenterConfig
    augmentation: str | None


@dataclass(frozen=True)
class Contest:
    """The networks, and what they all share."""

    data: str
    sample: Sample
    group: str
    contestants: Sequence[Contestant]
    steps: int
    seed: int
    device: torch.device
    folder: Path

    def checkpoint(self, contestant: Contestant) -> Path:
        """Where its weights go."""
        return self.folder / f"{contestant.key}.safetensors"


def contestants(group: str, sample: Sample) -> list[Contestant]:
    """The equivariant network, its plain twin, and the twin that sees no turned image.

    Raises:
        NotImplementedError: There is no network for this group.
    """
    symmetry = as_group(group)
    arguments: dict[str, Any] = {
        "in_channels": sample.train.images.shape[1],
        "classes": len(sample.classes),
        "width": max(1, CHANNELS // symmetry.order),
        "depth": DEPTH,
        "kernel_size": 3 if symmetry.is_exact() else 5,  # 3 x 3 pixels are few to turn by 45 degrees
        "group": group,
    }
    twin = {**arguments, "width": EquivariantUNet(**arguments).plain_twin().width}
    del twin["group"]
    ours = SegmenterConfig("EquivariantUNet", arguments, sample.classes, sample.normalization)
    plain = SegmenterConfig("UNet", twin, sample.classes, sample.normalization)
    return [
        Contestant("equivariant", f"{group} U-Net", ours, AUGMENTATION),
        Contestant("plain", "plain twin", plain, AUGMENTATION),
        Contestant("plain-unaugmented", "twin, unaugmented", plain, None),
    ]


def prepare(group: str, data: str, *, steps: int, seed: int, device: torch.device, folder: Path) -> Contest:
    """The contest of ``gconv-ga demo``.

    Raises:
        NotImplementedError: There is no network for this group.
    """
    sample = load_sample(data)
    return Contest(data, sample, group, contestants(group, sample), steps, seed, device, folder)
