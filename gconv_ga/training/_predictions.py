"""Predictions as files."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .._validate import invalid, wrong_shape
from ._checkpoint import write_atomically
from ._predict_image import ImagePrediction


def save_prediction(prediction: ImagePrediction, path: str | Path) -> Path:
    """Writes the class indices as a grey PNG of 8 bits (16 beyond 256 classes), probabilities beside it as ``.npy``.

    Each file is complete or not there at all; the PNG is written last, so where it is, all is.

    Args:
        prediction: What `predict_image` gave.
        path: The PNG; its folder is made if need be.

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
    picture = io.BytesIO()
    dtype = torch.uint8 if highest < 256 else torch.uint16
    Image.fromarray(labels.cpu().to(dtype).numpy()).save(picture, format="PNG")
    return write_atomically(file, picture.getvalue())
