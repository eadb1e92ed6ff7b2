"""Initial weights: a bias that fits the frequency of the classes, weights of a checkpoint, pretrained encoders."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .._validate import invalid
from ..groups import as_group
from ..segmenter import Checkpoint, SegmenterConfig, load_checkpoint, plain_smp

HEAD = "segmentation_head"
LISTED = 4  # names in a message
KINDS = {  # of networks, none of whose weights are those of another
    "ObjectUNet": "a network for objects (--instances)",
    "EquivariantUNet": "a network for masks (--masks)",
    "UNet": "a network for masks (--masks)",
    "smp": "a network of segmentation_models_pytorch (--arch)",
}


def start_at_frequencies(
    model: nn.Module, masks: Iterable[Tensor] | Tensor, *, ignore_index: int | None = None
) -> None:
    """Set the bias of a segmentation head to the logarithm of the frequency of each class.

    Without it the first steps of training lower the score of a rare class everywhere, through all feature maps that
    contribute to it. If there are few, their ReLUs can be driven to zero for good, and the network then predicts
    background only.

    Args:
        model: Network with a ``segmentation_head`` that ends in a layer with a bias, such as `UNet`, `EquivariantUNet`
            and the networks of segmentation_models_pytorch, and their averages and conversions.
        masks: Masks of the training images, whole or in bands.
        ignore_index: Pixels of this class are excluded. If None, all pixels count.

    Shape:
        - masks: each ``[..., H, W]``, class indices

    Raises:
        ValueError: The network has no such head, or a mask has a class that the network does not have.

    Example:
        >>> import torch
        >>> from gconv_ga.train import start_at_frequencies
        >>> from gconv_ga.models import UNet
        >>> model = UNet(1, 2, width=2, depth=2)
        >>> start_at_frequencies(model, torch.tensor([[0, 0], [0, 1]]))
        >>> model.segmentation_head.bias.softmax(0)  # of 4 pixels, and one added for each class
        tensor([0.6667, 0.3333], grad_fn=<SoftmaxBackward0>)

    References:
        Lin, Goyal, Girshick, He, Dollar, "Focal loss for dense object detection", ICCV 2017, section 4.1.
    """
    biases = [
        parameter
        for name, parameter in model.named_parameters()
        if name.endswith(".bias") and HEAD in name.split(".") and parameter.ndim == 1
    ]
    if not biases:
        raise invalid("model", f"a network whose {HEAD} has a bias", type(model).__name__)
    bias = biases[-1]
    frequencies = _frequencies(masks, len(bias), ignore_index)
    with torch.no_grad():
        bias.copy_(frequencies.log())


def class_weights(
    masks: Iterable[Tensor] | Tensor, classes: int, *, ignore_index: int | None = None
) -> tuple[float, ...]:
    """Return weights of the classes for `CrossEntropyDice`: the inverse square roots of their frequencies.

    They are scaled so that the mean over the pixels is 1.

    Args:
        masks: As for `start_at_frequencies`.
        classes: Number of classes.
        ignore_index: As for `start_at_frequencies`.

    Shape:
        - masks: each ``[..., H, W]``, class indices

    Raises:
        ValueError: A mask has a class beyond their number.

    Example:
        >>> import torch
        >>> from gconv_ga.train import class_weights
        >>> masks = torch.zeros(1, 10, 10, dtype=torch.int64)
        >>> masks[:, :2, :5] = 1  # 10 of 100 pixels
        >>> [round(weight, 2) for weight in class_weights(masks, 2)]
        [0.83, 2.39]
    """
    frequencies = _frequencies(masks, classes, ignore_index)
    weights = frequencies.rsqrt()
    return tuple((weights / (frequencies * weights).sum()).tolist())


def _frequencies(masks: Iterable[Tensor] | Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """Return the share of each class in the pixels that count."""
    # One pixel is added for each class: a class that no mask has is rare, not impossible.
    counts = torch.ones(classes, dtype=torch.float64)
    for mask in masks:
        indices = mask.flatten().to(torch.int64)
        indices = indices if ignore_index is None else indices[indices != ignore_index]
        found = indices.bincount(minlength=classes).cpu()
        if len(found) > classes:
            takes = f"class indices below {classes}, as the network has classes"
            raise invalid("masks", takes, int(indices.max()), "use ignore_index if it is to be ignored")
        counts += found
    return counts / counts.sum()


def initial_weights(
    config: SegmenterConfig, path: str | Path, *, checkpoint: Checkpoint | None = None
) -> dict[str, Tensor]:
    """Return the weights of a checkpoint as initial weights of the network that ``config`` describes.

    For the same network these are its weights. From a plain `UNet` of the same widths, an `EquivariantUNet` becomes its
    group average: each kernel is placed at the identity, and the other group elements are zero. The taps of a converted
    network are zero if those of the checkpoint were closed.

    Args:
        config: Network to initialize.
        path: Checkpoint.
        checkpoint: Its content, if it is loaded already.

    Raises:
        ValueError: The file is not a checkpoint, or its weights are of another kind of network, for images of other
            channels, of another group or do not fit; the message names what differs.

    Example:
        >>> import tempfile
        >>> from gconv_ga.segmenter import SegmenterConfig
        >>> from gconv_ga.train import initial_weights
        >>> from gconv_ga.images import Normalization
        >>> from gconv_ga.segmenter import save_checkpoint
        >>> arguments, about = dict(in_channels=1, classes=2, width=2, depth=2), (("a", "b"), Normalization([0], [1]))
        >>> plain = SegmenterConfig("UNet", arguments, *about)
        >>> equivariant = SegmenterConfig("EquivariantUNet", {**arguments, "group": "D4"}, *about)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_checkpoint(f"{folder}/plain.safetensors", plain.build(), plain)
        ...     weights = initial_weights(equivariant, path)
        >>> weights["encoder.blocks.0.3.weight"].shape
        torch.Size([2, 2, 8, 3, 3])
    """
    model, origin, _ = load_checkpoint(path) if checkpoint is None else checkpoint
    kinds = KINDS[config.architecture], KINDS[origin.architecture]
    if kinds[0] != kinds[1]:
        raise invalid("path", f"weights of {kinds[0]}", str(path), f"these are of {kinds[1]}")
    channels, theirs = config.arguments["in_channels"], origin.arguments["in_channels"]
    if channels != theirs:
        takes = f"weights of a network for images of {channels} channel{'s' if channels > 1 else ''}"
        raise invalid("path", takes, str(path), f"these are for {theirs}")
    own, theirs = config.arguments.get("group", "C4"), origin.arguments.get("group", "C4")
    # The weights of a converted network are those of the plain one, whatever the group, unless its taps are open.
    depends = origin.architecture != "smp" or bool(origin.arguments.get("open_taps"))
    if depends and origin.architecture == config.architecture and as_group(own).name != as_group(theirs).name:
        raise invalid("path", f"weights of a network of the group {own}", str(path), f"these are of {theirs}")
    return _fitted(model.state_dict(), config, "path", str(path))


def pretrained_weights(config: SegmenterConfig, weights: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Return the weights of a new network with a pretrained encoder, which is downloaded if need be.

    Args:
        config: Network of segmentation_models_pytorch.
        weights: Name of the weights in that package, such as "imagenet".
        seed: Random seed of all weights except those of the encoder.

    Raises:
        ValueError: There are no such weights for the encoder, they could not be downloaded, or the network is not one
            of segmentation_models_pytorch.

    Example:
        >>> from gconv_ga.segmenter import SegmenterConfig
        >>> from gconv_ga.train import pretrained_weights
        >>> from gconv_ga.images import Normalization
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


def _fitted(source: Mapping[str, Tensor], config: SegmenterConfig, argument: str, value: str) -> dict[str, Tensor]:
    """Return the tensors of ``source`` in the shapes of the network; errors are about ``argument=value``."""
    target = config.build().state_dict()
    found: dict[str, Tensor] = {}
    wrong = [f"{name} is not in the network" for name in source if name not in target]
    for name, own in target.items():
        given = source.get(name)
        if given is None and name.endswith(".taps"):
            found[name] = torch.zeros_like(own)
        elif given is None:
            wrong.append(f"{name} is missing")
        elif given.shape == own.shape:
            found[name] = given.clone()
        elif given.ndim == 4 and own.ndim == 5 and given.shape == own[:, :, 0].shape:
            found[name] = torch.zeros_like(own)
            found[name][:, :, 0] = given
        else:
            wrong.append(f"{name} is {tuple(given.shape)} where {tuple(own.shape)} is needed")
    if wrong:
        more = f", and {len(wrong) - LISTED} more" if wrong[LISTED:] else ""
        takes = f"weights that fit {config.architecture} {config.arguments}"
        raise invalid(argument, takes, value, f"of them, {', '.join(wrong[:LISTED])}{more}")
    return found
