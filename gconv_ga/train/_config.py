"""A training run in words: all that decides its result."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from .._validate import as_int, invalid, one_of
from ..groups import as_group
from ..images import MaskEncoding
from ..segmenter import PRECISIONS, SegmenterConfig


@dataclass(frozen=True)
class RunConfig:
    """What a run is made of beside the image files; it goes to JSON and back.

    Args:
        segmenter: The network, its classes, the normalisation.
        split: For the name of each image, without its ending: "train", "val" or "test".
        steps: How many.
        batch_size: Crops a step.
        crop: Height and width of a crop.
        learning_rate: The highest rate.
        augmentation: Crops are moved by a random element of this group; None for none.
        seed: Of the initial weights, crops and turns.
        mask_code: How mask files say their classes, and which pixels count nowhere.
        every: Steps from one look at the validation images, and one saved state, to the next; None for a tenth of all.
        patience: The training ends after so many looks in a row that find no better score; None to go on to the end.
        precision: What the forward pass computes in: "32", "bf16-mixed", or on a GPU "16-mixed". Weights are float32.
        init: Where the first weights come from; None for random ones. "pretrained:" and a name say that they are those
            of an encoder, beside a new head.

    Raises:
        ValueError: A number is out of its range, or no image is for training.

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

    segmenter: SegmenterConfig
    split: Mapping[str, str]
    steps: int
    batch_size: int
    crop: int
    learning_rate: float = 1e-2
    augmentation: str | None = "D4"
    seed: int = 0
    mask_code: MaskEncoding = field(default_factory=MaskEncoding)
    every: int | None = None
    patience: int | None = None
    precision: str = "32"
    init: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("crop", 1), ("seed", 0)):
            as_int(name, getattr(self, name), minimum=least)
        for name in ("every", "patience"):
            if getattr(self, name) is not None:
                as_int(name, getattr(self, name), minimum=1)
        one_of("precision", self.precision, PRECISIONS)
        if self.augmentation is not None:
            as_group(self.augmentation, "augmentation")
        object.__setattr__(self, "split", dict(self.split))
        if "train" not in self.split.values():
            raise invalid("split", "one that has images for training", self.split)
        if self.patience is not None and "val" not in self.split.values():
            raise invalid("patience", "None where no image is for validation", self.patience)

    @property
    def interval(self) -> int:
        """Steps from one look at the validation images to the next."""
        return max(1, self.steps // 10) if self.every is None else self.every

    @property
    def has_new_head(self) -> bool:
        """Whether the segmentation head begins at random: pretrained weights are those of an encoder."""
        return self.init is None or self.init.startswith("pretrained:")

    def names(self, part: str) -> list[str]:
        """The names of the images of a part of the split.

        Args:
            part: "train", "val" or "test".
        """
        return sorted(name for name, where in self.split.items() if where == part)

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "RunConfig":
        """The configuration that `to_json` wrote, checked as if it had been typed.

        Args:
            text: The JSON.

        Raises:
            ValueError: It is no JSON, or a field is missing, superfluous or wrong.
        """
        try:
            fields = json.loads(text)
            segmenter = SegmenterConfig.from_json(json.dumps(fields["segmenter"]))
            code = MaskEncoding(**fields.get("mask_code", {}))
            return cls(**{**fields, "segmenter": segmenter, "mask_code": code})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            advice = f"Python says: {type(error).__name__}: {error}"
            raise invalid("text", "a configuration of a run as JSON", text, advice) from None
