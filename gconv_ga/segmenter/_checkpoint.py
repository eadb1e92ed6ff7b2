"""A segmenter as a file: its configuration, and checkpoints that hold it as JSON beside the weights, and no code."""

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .._files import write_atomically
from .._validate import as_int, error_about, invalid, not_finite, one_of
from ..groups import Group, as_group
from ..images import Normalization, Reading
from ..models import EquivariantUNet, ObjectUNet, UNet
from ..objects import Decoder
from ._smp import converted_smp, plain_smp

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "EquivariantUNet": EquivariantUNet,
    "UNet": UNet,
    "ObjectUNet": ObjectUNet,
    "smp": converted_smp,
}
# Largest arguments of a network that is loaded, beside those that its tensors bound: no network of use has more, and
# the filters of a kernel of 31 pixels take minutes to compute.
LARGEST = {"depth": 32, "kernel_size": 31}
UNFIT = (TypeError, ValueError, ArithmeticError, RuntimeError, LookupError)  # what building a wrong network raises


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything that defines a segmenter except its weights. It is converted to JSON and back, and holds no code.

    Args:
        architecture: "EquivariantUNet", "UNet", "ObjectUNet", or "smp" for a converted network of
            segmentation_models_pytorch, whose arguments are in_channels, classes, name (such as "Unet"), encoder (such
            as "resnet18"), group, open_taps.
        arguments: Arguments of the network by name: numbers, strings, None.
        classes: Names of the classes, in the order of their indices.
        normalization: Normalization of an image before it enters the network.
        reading: How image files are read, with the number type of the training images.
        decoder: Rules by which objects are found, those of the best average precision on the validation images. If
            None, the usual ones.
        pixel_size: Side of a pixel of the training images in micrometres, to which slides are scaled. None if it is
            unknown.

    Raises:
        ValueError: The architecture is not one of these, an argument is unknown or missing, the number of class names
            differs from the number of classes, two classes have one name, a mean is not finite, or the size of a
            pixel is not positive.

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
    decoder: Decoder | None = None
    pixel_size: float | None = None

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
        if len(set(self.classes)) < len(self.classes):  # scores are listed by name
            raise invalid("classes", "different names", self.classes)
        if not all(math.isfinite(value) for value in self.normalization.mean):
            raise invalid("normalization", "one whose means are finite", self.normalization)
        if self.pixel_size is not None and not 0 < self.pixel_size < math.inf:
            raise invalid("pixel_size", "a positive number of micrometres", self.pixel_size)

    @property
    def group(self) -> Group:
        """Group under which the network is equivariant; C1, of one element, for a plain one.

        Raises:
            ValueError: There is no group of that name.
        """
        network = inspect.signature(ARCHITECTURES[self.architecture]).bind(**self.arguments)
        network.apply_defaults()
        return as_group(network.arguments.get("group") or "C1")

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

    def check_shapes(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Refuse tensors that are not those of the network, before any memory is allocated for it.

        A converted network is compared by its size only: the plain network may have no more than twice the weights.

        Args:
            shapes: Shape of each tensor by its name.

        Raises:
            ValueError: The network is larger than the tensors, or they differ from its own; one difference is named.
        """
        sizes = [math.prod(shape) for shape in shapes.values()]
        largest = max(64, *sizes) if sizes else 64
        for name, value in self.arguments.items():
            if type(value) is int and value > LARGEST.get(name, largest):
                takes = f"at most {LARGEST.get(name, largest)} for weights of {sum(sizes):,} numbers"
                raise invalid(name, takes, value)
        arguments = {name: value for name, value in self.arguments.items() if name not in ("group", "open_taps")}
        build = plain_smp if self.architecture == "smp" else ARCHITECTURES[self.architecture]
        with torch.device("meta"):
            model = build(**(arguments if self.architecture == "smp" else self.arguments))
        own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if self.architecture == "smp":
            if sum(math.prod(shape) for shape in own.values()) > 2 * sum(sizes):
                raise invalid("arguments", f"those of a network of {sum(sizes):,} weights", self.arguments)
            return
        found = {name: tuple(shape) for name, shape in shapes.items()}
        if wrong := list_misfits(found, own):
            takes = "those of the network that the weights are of"
            raise invalid("arguments", takes, self.arguments, f"they differ: {wrong}")

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
            parts: dict[str, Any] = {
                "normalization": Normalization(**fields["normalization"]),
                "reading": Reading(**fields.get("reading", {})),
                "decoder": Decoder(**fields["decoder"]) if fields.get("decoder") else None,
            }
            return cls(**{**fields, **parts})
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
        ValueError: ``step`` is not an int or is negative, or a weight is NaN or infinite.

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
    if name := not_finite(tensors):
        raise error_about("model", f"model must be a network of finite weights, but {name} has NaN or infinity in it.")
    return write_atomically(Path(path), save(tensors, header))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint. Only safetensors files are read: a pickle (``.pt``, ``.ckpt``) is refused, not unpickled.

    Args:
        path: File written by `save_checkpoint`.

    Raises:
        ValueError: The file does not exist, is damaged, is not a safetensors file, was not written by
            `save_checkpoint`, its weights do not fit the network it describes (one that is larger than the file is
            not built), or one of them is NaN or infinite.

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
            names = list(file.keys())
            shapes = {name: file.get_slice(name).get_shape() for name in names}
            config, step = _described(path, header, shapes)
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise _refused(path, f"it is not an intact safetensors file, and pickles are never opened ({error})") from None
    if name := not_finite(tensors):
        raise _refused(path, f"its weights {name} have NaN or infinity in them: the training diverged")
    model = config.build().eval()
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        raise _refused(path, f"its weights do not fit the network it describes: {list_misfits(shapes, own)}") from None
    return Checkpoint(model, config, step)


def _described(
    path: str | Path, header: Mapping[str, str], shapes: Mapping[str, Sequence[int]]
) -> tuple[SegmenterConfig, int]:
    """Return the configuration and the step in the header of a checkpoint, compared with the shapes of its tensors."""
    if "gconv_ga" not in header:
        raise _refused(path, "it does not describe the network that its weights belong to")
    try:
        config = SegmenterConfig.from_json(header["gconv_ga"])
        step = int(header.get("step", 0))
    except UNFIT as error:
        raise _refused(path, f"its description is wrong: {str(error).rstrip('.')}") from None
    try:
        config.check_shapes(shapes)
    except UNFIT as error:
        reason = str(error).rstrip(".")
        raise _refused(path, f"its weights do not fit the network it describes: {reason}") from None
    return config, step


def list_misfits(found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> str:
    """Return one line about the tensors that are not in the shapes of a network; empty if all are.

    Args:
        found: Shape of each tensor.
        wanted: Shape of each tensor of the network.
    """
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is not in the network" for name in found if name not in wanted]
    wrong += [
        f"{name} is {tuple(found[name])} where {tuple(shape)} is needed"
        for name, shape in wanted.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    return wrong[0] + (f", and {len(wrong) - 1} more" if wrong[1:] else "") if wrong else ""


def _refused(path: str | Path, reason: str) -> ValueError:
    return invalid("path", "a checkpoint of gconv_ga", str(path), reason)
