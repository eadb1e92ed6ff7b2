"""Checkpoints: one safetensors file, the configuration as JSON in its header. Nothing in it is ever executed."""

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .._files import write_atomically
from .._validate import as_int, invalid
from ._config import SegmenterConfig


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Args:
        model: The network with its weights, on the CPU, in eval mode.
        config: How it was built, its classes, its normalisation.
        step: The training steps it has seen.

    Example:
        >>> from gconv_ga.segmenter import Checkpoint
        >>> Checkpoint._fields
        ('model', 'config', 'step')
    """

    model: nn.Module
    config: SegmenterConfig
    step: int


def save_checkpoint(path: str | Path, model: nn.Module, config: SegmenterConfig, *, step: int = 0) -> Path:
    """Writes a checkpoint; the file is complete or not there at all, whenever the program ends.

    Args:
        path: The file; its folder is made if need be. A file of that name is replaced.
        model: The network that ``config`` describes.
        config: What `load_checkpoint` builds the network from.
        step: The training steps it has seen.

    Returns:
        The path.

    Raises:
        ValueError: ``step`` is no int or is negative.

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
    """Reads a checkpoint. Only safetensors are read: a pickle (``.pt``, ``.ckpt``) is refused and not opened as one.

    Args:
        path: The file that `save_checkpoint` wrote.

    Raises:
        ValueError: The file is absent or damaged, is no safetensors file, was not written by `save_checkpoint`, or its
            weights are not those of the network it describes.

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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise _refused(path, f"it is no intact safetensors file, and pickles are never opened ({error})") from None
    if "gconv_ga" not in header:
        raise _refused(path, "it says nothing of the network that its weights belong to")
    config = SegmenterConfig.from_json(header["gconv_ga"])
    model = config.build().eval()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise _refused(path, f"its weights do not fit: {' '.join(str(error).split())}") from None
    return Checkpoint(model, config, int(header.get("step", 0)))


def _refused(path: str | Path, reason: str) -> ValueError:
    return invalid("path", "a checkpoint of gconv_ga", str(path), reason)
