"""Images and label maps as arrays of colours: those of Okabe and Ito, which no colour blindness mixes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.float32]  # [H, W, 3], 0 .. 1

PAPER = "#f1f1ee"
HIT = "#5b5f66"
MISSED = "#e69f00"  # orange
EXTRA = "#0072b2"  # blue
WRONG = "#cc79a7"  # purple
CHANGED = "#882255"  # wine, of Tol's muted colours: darker than all above, and no grey
FAINT = "#d3d4d3"


def picture(image: Tensor) -> Pixels:
    """An image of any units and channels as colours in 0 .. 1; what is not RGB is shown grey, its channels' mean.

    Shape:
        - image: ``[C, H, W]``
        - output: ``[H, W, 3]``
    """
    pixels = image if image.shape[0] == 3 else image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    values = pixels.flatten().sort().values
    # The brightest and darkest half percent may saturate, or one hot pixel makes the whole image black.
    low, high = values[len(values) // 200], values[-1 - len(values) // 200]
    scaled = (pixels - low) / (high - low).clamp_min(1e-12)
    array: Pixels = scaled.clamp(0, 1).permute(1, 2, 0).to(torch.float32).numpy()
    return array


def region(labels: Tensor) -> Pixels:
    """What is no background."""
    return _paint((torch.ones_like(labels, dtype=torch.bool), PAPER), (labels > 0, HIT))


def against_truth(labels: Tensor, truth: Tensor) -> Pixels:
    """A prediction, coloured by what is right and wrong in it."""
    found, there = labels > 0, truth > 0
    return _paint(
        (torch.ones_like(found), PAPER),
        (found & there, HIT),
        (found & there & (labels != truth), WRONG),
        (there & ~found, MISSED),
        (found & ~there, EXTRA),
    )


def changed(labels: Tensor, expected: Tensor) -> Pixels:
    """Where two predictions differ, over the region that was expected."""
    return _paint(
        (torch.ones_like(labels, dtype=torch.bool), PAPER), (expected > 0, FAINT), (labels != expected, CHANGED)
    )


def _paint(*layers: tuple[Tensor, str]) -> Pixels:
    """Colours by masks ``[H, W]``, later ones over earlier ones; the first covers everything."""
    canvas = torch.empty(*layers[0][0].shape, 3)
    for mask, colour in layers:
        canvas[mask] = _rgb(colour)
    array: Pixels = canvas.numpy()
    return array


def _rgb(colour: str) -> Tensor:
    return torch.tensor([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
