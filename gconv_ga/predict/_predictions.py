"""Predictions as files: class indices with a colour map, probabilities, an overlay."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .._files import growing
from .._validate import invalid, wrong_shape
from ..images import ImageFile
from ._image import ImagePrediction, logit_bands
from ._overlay import Overlay
from ._writers import class_colors, growing_npy, growing_png


def save_prediction(
    prediction: ImagePrediction, path: str | Path, *, colors: Sequence[Sequence[int]] | None = None
) -> Path:
    """Write the class indices as a PNG of 8 bits with a colour map, or for more than 256 classes of 16 bits in grey.

    The values of the pixels are the class indices; the colours are for viewers. Probabilities are written beside it, as
    ``.npy``. A file exists under its name only when it is complete, and the PNG is written last.

    Args:
        prediction: Result of `predict_image`.
        path: The PNG; its folder is made if need be.
        colors: Red, green and blue of each class, 0 .. 255. If None, black for class 0 and a palette for the others.

    Returns:
        The path.

    Raises:
        ValueError: The labels are not ``[H, W]``, or a label is not a class index below 65536.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from gconv_ga.predict import ImagePrediction, save_prediction
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_prediction(ImagePrediction(torch.tensor([[0, 1], [2, 0]]), None), f"{folder}/a.png")
        ...     path.name
        'a.png'
    """
    labels, file = prediction.labels, Path(path)
    if labels.ndim != 2:
        raise wrong_shape("labels", "[H, W]", labels)
    highest = int(labels.max())
    if int(labels.min()) < 0 or highest > 65535:
        raise invalid("labels", "class indices from 0 to 65535", labels)
    if prediction.probabilities is not None:
        with growing(file.with_suffix(".npy")) as array:
            np.save(array, prediction.probabilities.cpu().numpy(), allow_pickle=False)
    with growing_png(file, *labels.shape, palette=_palette(highest + 1, colors)) as add:
        add(labels.cpu().numpy().astype(_dtype(highest + 1)))
    return file


def predict_to_file(
    model: nn.Module,
    image: ImageFile,
    path: str | Path,
    *,
    tile: int = 256,
    device: str | torch.device = "cpu",
    probabilities: bool = False,
    overlay: bool = False,
    colors: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Path:
    """Predict an image file of any size and write the files of `save_prediction`.

    Besides the network no more than some tiles are held: memory does not grow with the image, except where
    `gconv_ga.images.ImageFile` holds some of the file. Output is written as it is computed.

    Args:
        model: As for `predict_image`.
        image: Open file, with the normalization of the training.
        path: The PNG; its folder is made if need be.
        tile: As for `predict_image`.
        device: As for `predict_image`.
        probabilities: Whether to write ``NAME.npy`` too, the probabilities, float32 ``[classes, H, W]``.
        overlay: Whether to write ``NAME_overlay.png`` too, the image with all classes but the first laid over it.
        colors: As for `save_prediction`.
        progress: As for `Tiled`.

    Returns:
        The path.

    Raises:
        ValueError: The file is damaged, or the normalization is for other channels.
        OSError: The disk is full.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from gconv_ga.images import ImageFile
        >>> from gconv_ga.predict import predict_to_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((1, 70, 45), dtype=np.uint8))
        ...     net = torch.nn.Conv2d(1, 3, 1)
        ...     predict_to_file(net, ImageFile(f"{folder}/a.npy"), f"{folder}/a.png", tile=32).name
        'a.png'
    """
    file, (_, height, width) = Path(path), image.shape
    drawn = Overlay(image, colors) if overlay else None
    top = 0
    with ExitStack() as files:
        for band in logit_bands(model, image, tile=tile, device=device, progress=progress):
            classes = len(band)
            if not top:  # the labels are opened first and closed last
                add_labels = files.enter_context(growing_png(file, height, width, palette=_palette(classes, colors)))
                if probabilities:
                    add_probabilities = files.enter_context(growing_npy(file.with_suffix(".npy"), height, width))
                if drawn is not None:
                    beside = file.with_name(f"{file.stem}_overlay.png")
                    add_drawn = files.enter_context(growing_png(beside, height, width))
            found = band.argmax(dim=0)
            add_labels(found.numpy().astype(_dtype(classes)))
            if probabilities:
                add_probabilities(band.to(torch.float32).softmax(dim=0).numpy())
            if drawn is not None:
                add_drawn(drawn.rows(top, found))
            top += band.shape[1]
    return file


def _dtype(classes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if classes <= 256 else np.uint16


def _palette(classes: int, colors: Sequence[Sequence[int]] | None) -> NDArray[np.uint8] | None:
    """Colours of all values of 8 bits; None for 16 bits."""
    return class_colors(256, colors) if classes <= 256 else None
