"""Predicted classes of a batch of images."""

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
    """The most likely class of each pixel.

    Args:
        model: It gives logits; it is used in eval mode, on ``device``, and left in the modes it came in.
        images: The images, normalised as in training.
        batch_size: Images at a time.
        device: Where to compute. The model stays there.

    Shape:
        - images: ``[N, C, H, W]``
        - output: ``[N, H, W]``, int64, on the CPU

    Raises:
        ValueError: ``images`` has other axes.

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
    """Eval mode for a while; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class ImagePrediction(NamedTuple):
    """The classes of an image's pixels.

    Args:
        labels: ``[H, W]``, int64, the most likely class.
        probabilities: ``[classes, H, W]``, float32, if they were asked for, else None.

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
    """Classes of an image by tiles, as `Tiled` cuts them; of the logits no more is held than a row of tiles.

    Args:
        model: It gives logits; it is used in eval mode, on ``device``, and left in the modes it came in.
        image: The image, normalised as in training; or an open file, `gconv_ga.images.ImageFile`.
        tile: Height and width of a tile.
        device: Where the network computes. The model stays there; the image and the result do not go there as a whole.
        probabilities: Whether to give the softmax of the logits too.
        progress: As for `Tiled`.

    Shape:
        - image: ``[C, H, W]``

    Raises:
        ValueError: The image has other axes, or ``tile`` is no positive int.

    Example:
        >>> import torch
        >>> from gconv_ga.predict import predict_image
        >>> labels, probabilities = predict_image(torch.nn.Conv2d(1, 3, 1), torch.zeros(1, 70, 45), tile=32)
        >>> labels.shape, probabilities
        (torch.Size([70, 45]), None)
    """
    labels, shares = [], []
    for band in logit_bands(model, image, tile=tile, device=device, progress=progress):
        labels.append(band.argmax(dim=0))
        if probabilities:
            shares.append(band.to(torch.float32).softmax(dim=0))
    return ImagePrediction(torch.cat(labels), torch.cat(shares, dim=1) if probabilities else None)


def logit_bands(
    model: nn.Module,
    image: Tensor | Windows,
    *,
    tile: int,
    device: str | torch.device,
    progress: Callable[[int, int], Any] | None = None,
) -> Iterator[Tensor]:
    """Logits from top to bottom, some rows at a time; arguments as for `predict_image`.

    Shape:
        - output: bands ``[classes, h, W]``
    """
    if isinstance(image, Tensor) and image.ndim != 3:
        raise wrong_shape("image", "[C, H, W]", image)
    tiled = Tiled(model, tile, device=device, progress=progress)
    with torch.no_grad(), evaluating(model.to(device)):
        for band in tiled.bands(image.unsqueeze(0) if isinstance(image, Tensor) else image):
            yield band[0]
