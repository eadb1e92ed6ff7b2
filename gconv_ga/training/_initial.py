"""Weights to begin with: those of a checkpoint, or of an encoder that others have trained."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .._validate import invalid
from ._checkpoint import load_checkpoint
from ._config import SegmenterConfig
from ._converted_smp import plain_smp

SHOWN = 4  # names in a message


def initial_weights(config: SegmenterConfig, path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint as those of the network that ``config`` describes.

    Where the network is the same, they are its weights. Of a plain `UNet`, an `EquivariantUNet` of the same widths
    becomes the group average: each kernel is the one of the identity, the others are zero. The taps of a converted
    network whose taps were closed are zero too.

    Args:
        config: The network to begin with.
        path: A checkpoint.

    Raises:
        ValueError: It is no checkpoint, or its weights do not fit; the message names those that do not.

    Example:
        >>> import tempfile
        >>> from gconv_ga.data import Normalization
        >>> from gconv_ga.training import save_checkpoint
        >>> arguments, about = dict(in_channels=1, classes=2, width=2, depth=2), (("a", "b"), Normalization([0], [1]))
        >>> plain = SegmenterConfig("UNet", arguments, *about)
        >>> turning = SegmenterConfig("EquivariantUNet", {**arguments, "group": "D4"}, *about)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_checkpoint(f"{folder}/plain.safetensors", plain.build(), plain)
        ...     weights = initial_weights(turning, path)
        >>> weights["encoder.blocks.0.3.weight"].shape
        torch.Size([2, 2, 8, 3, 3])
    """
    return _fitted(load_checkpoint(path).model.state_dict(), config, "path", str(path))


def pretrained_weights(config: SegmenterConfig, weights: str, *, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a new network whose encoder is one that others have trained; it is downloaded if need be.

    Args:
        config: A network of segmentation_models_pytorch.
        weights: What that package calls the weights, such as "imagenet".
        seed: Of all weights but the encoder's.

    Raises:
        ValueError: There are no such weights for the encoder, or they cannot be had; or the network is another.

    Example:
        >>> from gconv_ga.data import Normalization
        >>> arguments = dict(in_channels=1, classes=2, width=2, depth=2)
        >>> pretrained_weights(SegmenterConfig("UNet", arguments, ("a", "b"), Normalization([0], [1])), "imagenet")
        Traceback (most recent call last):
            ...
        ValueError: weights must be for a network of segmentation_models_pytorch, but got weights='imagenet'.
    """
    if config.architecture != "smp":
        raise invalid("weights", "for a network of segmentation_models_pytorch", weights)
    names = ("name", "encoder", "in_channels", "classes")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        model = plain_smp(**{name: config.arguments[name] for name in names}, weights=weights)
    return _fitted(model.state_dict(), config, "weights", weights)


def _fitted(source: Mapping[str, Tensor], config: SegmenterConfig, argument: str, said: str) -> dict[str, Tensor]:
    """The tensors of ``source`` in the shapes of the network's own."""
    target = config.build().state_dict()
    found: dict[str, Tensor] = {}
    wrong = [f"{name} is not the network's" for name in source if name not in target]
    for name, own in target.items():
        given = source.get(name)
        if given is None and name.endswith(".taps"):
            found[name] = torch.zeros_like(own)
        elif given is None:
            wrong.append(f"{name} is not in it")
        elif given.shape == own.shape:
            found[name] = given.clone()
        elif given.ndim == 4 and own.ndim == 5 and given.shape == own[:, :, 0].shape:
            found[name] = torch.zeros_like(own)
            found[name][:, :, 0] = given
        else:
            wrong.append(f"{name} is {tuple(given.shape)} where {tuple(own.shape)} is needed")
    if wrong:
        more = f", and {len(wrong) - SHOWN} more" if wrong[SHOWN:] else ""
        takes = f"weights that fit {config.architecture} {config.arguments}"
        raise invalid(argument, takes, said, f"of them, {', '.join(wrong[:SHOWN])}{more}")
    return found
