"""What makes a segmenter out of raw images, in words: the network, its classes, the normalisation."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from .._validate import as_int, invalid, one_of
from ..images import Normalization
from ..models import EquivariantUNet, UNet
from ._smp import converted_smp

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "EquivariantUNet": EquivariantUNet,
    "UNet": UNet,
    "smp": converted_smp,
}


@dataclass(frozen=True)
class SegmenterConfig:
    """What must be known of a segmenter beside its weights; it goes to JSON and back, and holds no code.

    Args:
        architecture: "EquivariantUNet", "UNet", or "smp": a network of segmentation_models_pytorch, converted. Its
            arguments are in_channels, classes, name (such as "Unet"), encoder (such as "resnet18"), group, open_taps.
        arguments: What the network is built with, by name: numbers, strings, None.
        classes: The names of the classes, in the order of their indices.
        normalization: What is done to an image before the network sees it.

    Raises:
        ValueError: The architecture is none of those listed, an argument is none of its own or is missing, or there
            are not as many class names as classes.

    Example:
        >>> from gconv_ga.segmenter import SegmenterConfig
        >>> from gconv_ga.images import Normalization
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=4, depth=3)
        >>> config = SegmenterConfig("EquivariantUNet", arguments, ("none", "cell"), Normalization([0.3], [0.2]))
        >>> config.build(seed=0).group.name
        'C4'
        >>> SegmenterConfig.from_json(config.to_json()) == config
        True
    """

    architecture: str
    arguments: Mapping[str, Any]
    classes: Sequence[str]
    normalization: Normalization

    def __post_init__(self) -> None:
        network = ARCHITECTURES[one_of("architecture", self.architecture, tuple(ARCHITECTURES))]
        try:
            object.__setattr__(self, "arguments", json.loads(json.dumps(dict(self.arguments))))
        except TypeError:
            advice = "write a group by its name"
            raise invalid("arguments", "numbers, strings, None", self.arguments, advice) from None
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        try:
            inspect.signature(network).bind(**self.arguments)
        except TypeError as error:
            takes = f"what {self.architecture} takes"
            raise invalid("arguments", takes, self.arguments, f"Python says: {error}") from None
        if self.arguments["classes"] != len(self.classes):
            raise invalid("classes", f"{self.arguments['classes']} names, one a class", self.classes)

    def build(self, *, seed: int = 0, verify: bool = False) -> nn.Module:
        """The network, newly initialised; torch's global generator is left as it was. Nothing is downloaded.

        Args:
            seed: Of the initial weights.
            verify: Whether to compare a converted network with the group average of the plain one.

        Raises:
            ValueError: ``seed`` is no int or is negative, or the network refuses an argument.
            NotConvertible: The network of segmentation_models_pytorch cannot be converted.
        """
        number = as_int("seed", seed, minimum=0)
        arguments = {**self.arguments, "verify": verify} if self.architecture == "smp" else self.arguments
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(number)
            return ARCHITECTURES[self.architecture](**arguments)

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SegmenterConfig":
        """The configuration that `to_json` wrote, checked as if it had been typed.

        Args:
            text: The JSON.

        Raises:
            ValueError: It is no JSON, or a field is missing, superfluous or wrong.
        """
        try:
            fields = json.loads(text)
            return cls(**{**fields, "normalization": Normalization(**fields["normalization"])})
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            advice = f"Python says: {type(error).__name__}: {error}"
            raise invalid("text", "a configuration of a segmenter as JSON", text, advice) from None
