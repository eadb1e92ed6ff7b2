"""The configuration of a training run. Imports nothing heavy, so that the command line can read the options."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .._validate import as_int, invalid, one_of
from ..groups import as_group
from ..images import Changes
from ..segmenter import PRECISIONS

if TYPE_CHECKING:
    from ..images import MaskEncoding
    from ..segmenter import SegmenterConfig

BALANCES = ("none", "crops", "weights")
OLD_NAMES = {"augmentation": "symmetry", "mask_code": "mask_encoding"}  # of fields in run.json


def _indices() -> "MaskEncoding":
    from ..images import MaskEncoding

    return MaskEncoding()


def _not_negative(boundary: float) -> None:
    if not 0 <= boundary < math.inf:
        raise invalid("boundary", "a number of at least 0", boundary)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, except the image files. It is converted to JSON and back.

    The metadata of a field that has ``help`` describes it as an option of ``gconv-ga train``; ``minimum``, ``above``,
    ``choices`` and ``check`` are also checked here.

    Args:
        segmenter: Network, classes and normalization.
        split: Part of the split, "train", "val" or "test", by the name of each image without its extension.
        steps: Number of training steps.
        batch_size: Number of crops in a step, of all processes together.
        crop: Height and width of a crop in pixels.
        learning_rate: Highest learning rate of the cycle.
        symmetry: Group from which each crop is moved by a random element, as for `CropStream`. If None, none is moved.
        augment: Random changes of the crops beyond that, by their name as for `gconv_ga.images.Changes.named`.
        balance: What rare classes are given: "crops", half of which then hold one; "weights" in the cross-entropy,
            those of `class_weights`; or "none".
        boundary: What is added to the weight 1 of pixels near a boundary between classes, as for `CrossEntropyDice`.
        seed: Random seed of the initial weights, the crops and their augmentation.
        mask_encoding: Encoding of the classes in mask files, and the ignored pixels.
        every: Number of steps between validations, at each of which the state is saved. If None, a tenth of all.
        patience: Number of validations in a row without a better score after which training stops early. If None, it
            never does.
        precision: Precision of the forward pass: "32", "bf16-mixed", or on a GPU "16-mixed". Weights are float32.
        init: Origin of the initial weights: "sha256:" and the hash of a checkpoint, or "pretrained:" and the name of
            the weights of an encoder, which is used with a new head. If None, the weights are random.

    Raises:
        ValueError: A number is out of its range, a random change is unknown or not for such images, or no image is for
            training.

    Example:
        >>> from gconv_ga.segmenter import SegmenterConfig
        >>> from gconv_ga.train import RunConfig
        >>> from gconv_ga.images import Normalization
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=4, depth=3)
        >>> segmenter = SegmenterConfig("EquivariantUNet", arguments, ("none", "cell"), Normalization([0.3], [0.2]))
        >>> config = RunConfig(segmenter, {"a": "train", "b": "val"}, steps=100, batch_size=8, crop=64)
        >>> RunConfig.from_json(config.to_json()) == config
        True
    """

    segmenter: "SegmenterConfig"
    split: Mapping[str, str]
    steps: int = field(metadata={"help": "Number of training steps.", "minimum": 1, "default": 1000})
    batch_size: int = field(metadata={"help": "Number of crops in a step.", "minimum": 1, "default": 8})
    crop: int = field(metadata={"minimum": 1})
    learning_rate: float = field(
        default=1e-2, metadata={"help": "Highest learning rate of the one-cycle schedule.", "above": 0}
    )
    symmetry: str | None = "D4"
    augment: str = field(
        default="none",
        metadata={
            "metavar": "NAMES",
            "help": "Random changes of crops: none, light, strong, or kinds such as color,scale,noise; see above.",
            "check": Changes.named,
        },
    )
    balance: str = field(
        default="none",
        metadata={
            "help": "For rare classes: crops (half of them hold one), weights (in the loss), or none.",
            "choices": BALANCES,
        },
    )
    boundary: float = field(
        default=0.0,
        metadata={"help": "Weight added to pixels near a boundary between classes.", "check": _not_negative},
    )
    seed: int = field(
        default=0,
        metadata={
            "help": "Random seed of the initial weights, crops and augmentation.",
            "minimum": 0,
            "maximum": 2**32 - 1,
        },
    )
    mask_encoding: "MaskEncoding" = field(default_factory=_indices)
    every: int | None = field(
        default=None,
        metadata={"help": "Steps between validations, which also save the state. If omitted: a tenth.", "minimum": 1},
    )
    patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many validations in a row without a better score.", "minimum": 1},
    )
    precision: str = field(
        default="32", metadata={"help": "32, bf16-mixed, or on a GPU 16-mixed.", "choices": PRECISIONS}
    )
    init: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value, limits = getattr(self, each.name), each.metadata
            if value is not None and "minimum" in limits:
                as_int(each.name, value, minimum=limits["minimum"])
            if "above" in limits and not value > limits["above"]:
                raise invalid(each.name, f"above {limits['above']}", value)
            if "choices" in limits:
                one_of(each.name, value, limits["choices"])
            if "check" in limits:
                limits["check"](value)
        channels = self.segmenter.arguments["in_channels"]
        if "color" in self.augment.replace(" ", "").split(",") and channels != 3:
            raise invalid("augment", f"without color for images of {channels} channels", self.augment)
        if self.symmetry is not None:
            as_group(self.symmetry, "symmetry")
        object.__setattr__(self, "split", dict(self.split))
        if "train" not in self.split.values():
            raise invalid("split", "one that has images for training", self.split)
        if self.patience is not None and "val" not in self.split.values():
            raise invalid("patience", "None where no image is for validation", self.patience)

    @property
    def interval(self) -> int:
        """Number of steps between validations."""
        return max(1, self.steps // 10) if self.every is None else self.every

    @property
    def finds_objects(self) -> bool:
        """True if the network has heads for objects and the masks hold the numbers of objects."""
        return self.segmenter.architecture == "ObjectUNet" and self.mask_encoding.instances

    @property
    def has_new_head(self) -> bool:
        """True if the segmentation head starts at random weights: pretrained weights are those of an encoder."""
        return self.init is None or self.init.startswith("pretrained:")

    def names(self, part: str) -> list[str]:
        """Return the names of the images in a part of the split.

        Args:
            part: "train", "val" or "test".
        """
        return sorted(name for name, where in self.split.items() if where == part)

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "RunConfig":
        """Return the configuration that `to_json` wrote, checked as if it had been typed.

        Args:
            text: The configuration as JSON. Names that fields had in earlier versions are accepted.

        Raises:
            ValueError: The text is not JSON, or a field is missing, unknown or wrong.
        """
        from ..images import MaskEncoding
        from ..segmenter import SegmenterConfig

        try:
            read: dict[str, Any] = {OLD_NAMES.get(name, name): value for name, value in json.loads(text).items()}
            segmenter = SegmenterConfig.from_json(json.dumps(read["segmenter"]))
            encoding = MaskEncoding(**read.get("mask_encoding", {}))
            return cls(**{**read, "segmenter": segmenter, "mask_encoding": encoding})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            advice = f"Python says: {type(error).__name__}: {error}"
            raise invalid("text", "a configuration of a run as JSON", text, advice) from None
