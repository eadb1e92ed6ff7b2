"""A segmenter as a file: its configuration, and checkpoints that hold it as JSON beside the weights, and no code."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .._files import write_atomically
from .._validate import as_int, invalid, one_of
from ..images import Normalization, Reading
from ..models import EquivariantUNet, UNet
from ._smp import converted_smp

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "EquivariantUNet": EquivariantUNet,
    "UNet": UNet,
    "smp": converted_smp,
}


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything that defines a segmenter except its weights. It is converted to JSON and back, and holds no code.

    Args:
        architecture: "EquivariantUNet", "UNet", or "smp" for a converted network of segmentation_models_pytorch, whose
            arguments are in_channels, classes, name (such as "Unet"), encoder (such as "resnet18"), group, open_taps.
        arguments: Arguments of the network by name: numbers, strings, None.
        classes: Names of the classes, in the order of their indices.
        normalization: Normalization of an image before it enters the network.
        reading: How image files are read, with the number type of the training images.

    Raises:
        ValueError: The architecture is not one of these, an argument is unknown or missing, or the number of class
            names differs from the number of classes.

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
    reading: Reading = field(default_factory=Reading)

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
        """Build the network with new weights. Torch's global generator is left unchanged, and nothing is downloaded.

        Args:
            seed: Random seed of the initial weights.
            verify: If True, compare a converted network with the group average of the plain one.

        Raises:
            ValueError: ``seed`` is not an int or is negative, or the network refuses an argument.
            NotConvertible: The network of segmentation_models_pytorch cannot be converted.
        """
        number = as_int("seed", seed, minimum=0)
        arguments = {**self.arguments, "verify": verify} if self.architecture == "smp" else self.arguments
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(number)
            return ARCHITECTURES[self.architecture](**arguments)

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SegmenterConfig":
        """Return the configuration that `to_json` wrote, checked as if it had been typed.

        Args:
            text: The configuration as JSON.

        Raises:
            ValueError: The text is not JSON, or a field is missing, unknown or wrong.
        """
        try:
            fields = json.loads(text)
            reading = Reading(**fields.get("reading", {}))
            return cls(**{**fields, "normalization": Normalization(**fields["normalization"]), "reading": reading})
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            advice = f"Python says: {type(error).__name__}: {error}"
            raise invalid("text", "a configuration of a segmenter as JSON", text, advice) from None


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    Args:
        model: Network with its weights, on the CPU, in eval mode.
        config: Architecture, classes and normalization.
        step: Number of training steps done.

    Example:
        >>> from gconv_ga.segmenter import Checkpoint
        >>> Checkpoint._fields
        ('model', 'config', 'step')
    """

    model: nn.Module
    config: SegmenterConfig
    step: int


def save_checkpoint(path: str | Path, model: nn.Module, config: SegmenterConfig, *, step: int = 0) -> Path:
    """Write a checkpoint; the file is complete or not there at all, whenever the program ends.

    Args:
        path: File to write. Its folder is made if need be, and an existing file is replaced.
        model: Network that ``config`` describes.
        config: Configuration that `load_checkpoint` builds the network from.
        step: Number of training steps done.

    Returns:
        The path.

    Raises:
        ValueError: ``step`` is not an int or is negative.

    Example:
        >>> import tempfile
        >>> from gconv_ga.segmenter import SegmenterConfig, load_checkpoint, save_checkpoint
        >>> from gconv_ga.images import Normalization
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=2, depth=2)
        >>> config = SegmenterConfig("EquivariantUNet", arguments, ("none", "cell"), Normalization([0.3], [0.2]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_checkpoint(f"{folder}/net.safetensors", config.build(seed=0), config, step=7)
        ...     load_checkpoint(path).step
        7
    """
    header = {"gconv_ga": config.to_json(), "step": str(as_int("step", step, minimum=0))}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return write_atomically(Path(path), save(tensors, header))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint. Only safetensors files are read: a pickle (``.pt``, ``.ckpt``) is refused, not unpickled.

    Args:
        path: File written by `save_checkpoint`.

    Raises:
        ValueError: The file does not exist, is damaged, is not a safetensors file, was not written by
            `save_checkpoint`, or its weights do not fit the network it describes.

    Example:
        >>> from gconv_ga.segmenter import load_checkpoint
        >>> load_checkpoint("weights.pt")
        Traceback (most recent call last):
            ...
        ValueError: path must be a checkpoint of gconv_ga, but got path='weights.pt'. There is no such file.
    """
    if not Path(path).is_file():
        raise _refused(path, "there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except SafetensorError as error:
        raise _refused(path, f"it is not an intact safetensors file, and pickles are never opened ({error})") from None
    if "gconv_ga" not in header:
        raise _refused(path, "it does not describe the network that its weights belong to")
    config = SegmenterConfig.from_json(header["gconv_ga"])
    model = config.build().eval()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise _refused(path, f"its weights do not fit: {' '.join(str(error).split())}") from None
    return Checkpoint(model, config, int(header.get("step", 0)))


def _refused(path: str | Path, reason: str) -> ValueError:
    return invalid("path", "a checkpoint of gconv_ga", str(path), reason)
