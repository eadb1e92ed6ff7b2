"""Predictions as files: class indices with a colour map, probabilities, an overlay."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from .._validate import invalid, wrong_shape
from ..data import ImageFile
from ._checkpoint import write_atomically
from ._overlay import Overlay, class_colors
from ._predict_image import ImagePrediction, logit_bands


def save_prediction(
    prediction: ImagePrediction, path: str | Path, *, colors: Sequence[Sequence[int]] | None = None
) -> Path:
    """Writes the class indices as a PNG of 8 bits with a colour map (16 bits and grey beyond 256 classes).

    The values of its pixels are the class indices; the colours are for viewers. Probabilities go beside it, ``.npy``.
    Each file is complete or not there at all; the PNG is written last, so where it is, all is.

    Args:
        prediction: What `predict_image` gave.
        path: The PNG; its folder is made if need be.
        colors: Red, green and blue of each class, 0 .. 255; None for black and then colours of ours.

    Returns:
        The path.

    Raises:
        ValueError: The labels are not ``[H, W]``, or a label is no class index below 65536.

    Example:
        >>> import tempfile
        >>> import torch
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
        array = io.BytesIO()
        np.save(array, prediction.probabilities.cpu().numpy(), allow_pickle=False)
        write_atomically(file.with_suffix(".npy"), array.getvalue())
    return _write_labels(file, labels.cpu().numpy().astype(_number(highest + 1)), colors)


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
    """Predicts an image file of any size and writes what `save_prediction` writes.

    Beside the network and a row of tiles no more is held than the file's own pixels, if it cannot be read by window,
    and a byte a pixel for the classes; probabilities go to their file as they come.

    Args:
        model: As for `predict_image`.
        image: The open file, with the normalisation of the training.
        path: The PNG; its folder is made if need be.
        tile: As for `predict_image`.
        device: As for `predict_image`.
        probabilities: Whether to write them beside it, ``NAME.npy``, float32 ``[classes, H, W]``.
        overlay: Whether to write ``NAME_overlay.png``: the image with its classes, but the first, laid over it; that
            holds four bytes a pixel more.
        colors: As for `save_prediction`.
        progress: As for `Tiled`.

    Returns:
        The path.

    Raises:
        ValueError: The file is damaged, or the normalisation is for other channels.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.zeros((1, 70, 45), dtype=np.uint8))
        ...     net = torch.nn.Conv2d(1, 3, 1)
        ...     predict_to_file(net, ImageFile(f"{folder}/a.npy"), f"{folder}/a.png", tile=32).name
        'a.png'
    """
    file, (_, height, width) = Path(path), image.shape
    drawn = Overlay(image, colors) if overlay else None
    labels: NDArray[Any] = np.empty((0, 0))
    top = 0
    with _growing(file.with_suffix(".npy") if probabilities else None) as shares:
        for band in logit_bands(model, image, tile=tile, device=device, progress=progress):
            classes, rows = band.shape[:2]
            if not top:
                labels = np.empty((height, width), _number(classes))
            found = band.argmax(dim=0)
            labels[top : top + rows] = found.numpy()
            if drawn is not None:
                drawn.add(top, found)
            if shares is not None:
                _add_shares(shares, band.to(torch.float32).softmax(dim=0).numpy(), top, (classes, height, width))
            top += rows
    if drawn is not None:
        drawn.write(file.with_name(f"{file.stem}_overlay.png"))
    return _write_labels(file, labels, colors)


def _number(classes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if classes <= 256 else np.uint16


def _write_labels(path: Path, labels: NDArray[Any], colors: Sequence[Sequence[int]] | None) -> Path:
    if labels.dtype == np.uint8:
        # Not `fromarray`: it copies.
        picture = Image.frombuffer("P", labels.shape[::-1], np.ascontiguousarray(labels), "raw", "P", 0, 1)
        picture.putpalette(class_colors(256, colors).tobytes())
    else:
        picture = Image.fromarray(labels)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return write_atomically(path, content.getvalue())


@contextmanager
def _growing(path: Path | None) -> Iterator[BinaryIO | None]:
    """A file that is written piece by piece beside its name, and gets the name when all is well."""
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _add_shares(file: BinaryIO, shares: NDArray[Any], top: int, shape: tuple[int, int, int]) -> None:
    """Rows of each class to where they belong in an array ``[classes, H, W]``."""
    _, height, width = shape
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file.seek(0)
    file.write(head.getvalue())
    for index, rows in enumerate(shares.astype("<f4", copy=False)):
        file.seek(len(head.getvalue()) + 4 * width * (index * height + top))
        file.write(np.ascontiguousarray(rows).data)
