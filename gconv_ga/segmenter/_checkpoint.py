"""Checkpoints: one safetensors file with the configuration as JSON in its header. Nothing in it is ever executed."""

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .._files import write_atomically
from .._validate import as_int, invalid
from ._config import SegmenterConfig


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
