"""Predicted classes of a batch of images, or of one image of any size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._validate import as_int, wrong_shape
from ._tiles import Tiled, Windows


def predict_labels(
    model: nn.Module, images: Tensor, *, batch_size: int = 8, device: str | torch.device = "cpu"
) -> Tensor:
    """Return the most likely class of each pixel.

    Args:
        model: Module that returns logits; it runs in eval mode on ``device``, and its modes are restored.
        images: Images, normalized as in training.
        batch_size: Number of images at a time.
        device: Device to compute on. The model stays there.

    Shape:
        - images: ``[N, C, H, W]``
        - output: ``[N, H, W]``, int64, on the CPU

    Raises:
        ValueError: ``images`` is not ``[N, C, H, W]``.

    Example:
        >>> import torch
        >>> from gconv_ga.predict import predict_labels
        >>> predict_labels(torch.nn.Conv2d(1, 3, 1), torch.zeros(2, 1, 8, 10)).shape
        torch.Size([2, 8, 10])
    """
    if images.ndim != 4:
        raise wrong_shape("images", "[N, C, H, W]", images)
    with torch.no_grad(), evaluating(model.to(device)):
        parts = images.split(as_int("batch_size", batch_size, minimum=1))
        return torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in parts])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set eval mode for a while; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class ImagePrediction(NamedTuple):
    """Predicted classes of the pixels of an image.

    Args:
        labels: Most likely class, ``[H, W]``, int64.
        probabilities: Probability of each class, ``[classes, H, W]``, float32; None if not requested.

    Example:
        >>> from gconv_ga.predict import ImagePrediction
        >>> ImagePrediction._fields
        ('labels', 'probabilities')
    """

    labels: Tensor
    probabilities: Tensor | None


def predict_image(
    model: nn.Module,
    image: Tensor | Windows,
    *,
    tile: int = 256,
    device: str | torch.device = "cpu",
    probabilities: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> ImagePrediction:
    """Predict the classes of an image tile by tile, as `Tiled` does; no more logits are held than of a row of tiles.

    Args:
        model: Module that returns logits; it runs in eval mode on ``device``, and its modes are restored.
        image: Image, normalized as in training, or an open file, `gconv_ga.images.ImageFile`.
        tile: Side of a tile in pixels.
        device: Device of the network, one tile at a time. The model stays there.
        probabilities: Whether to return the softmax of the logits too.
        progress: As for `Tiled`.

    Shape:
        - image: ``[C, H, W]``

    Raises:
        ValueError: The image is not ``[C, H, W]``, or ``tile`` is not a positive int.

    Example:
        >>> import torch
        >>> from gconv_ga.predict import predict_image
        >>> labels, probabilities = predict_image(torch.nn.Conv2d(1, 3, 1), torch.zeros(1, 70, 45), tile=32)
        >>> labels.shape, probabilities
        (torch.Size([70, 45]), None)
    """
    labels, softmax = [], []
    for band in logit_bands(model, image, tile=tile, device=device, progress=progress):
        labels.append(band.argmax(dim=0))
        if probabilities:
            softmax.append(band.to(torch.float32).softmax(dim=0))
    return ImagePrediction(torch.cat(labels), torch.cat(softmax, dim=1) if probabilities else None)


def logit_bands(
    model: nn.Module,
    image: Tensor | Windows,
    *,
    tile: int,
    device: str | torch.device,
    progress: Callable[[int, int], Any] | None = None,
) -> Iterator[Tensor]:
    """Yield the logits from top to bottom, some rows at a time; arguments as for `predict_image`.

    Shape:
        - output: bands ``[classes, h, W]``
    """
    if isinstance(image, Tensor) and image.ndim != 3:
        raise wrong_shape("image", "[C, H, W]", image)
    tiled = Tiled(model, tile, device=device, progress=progress)
    with torch.no_grad(), evaluating(model.to(device)):
        for band in tiled.bands(image.unsqueeze(0) if isinstance(image, Tensor) else image):
            yield band[0]
