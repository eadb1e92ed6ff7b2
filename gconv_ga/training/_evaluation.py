"""How good a segmenter is, image by image and class by class, and at every angle."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.segmentation import dice_score

from .._validate import as_int, invalid, wrong_shape
from ..actions import LabelMask, ScalarField
from ..groups import CyclicGroup
from ._boundary import BoundaryDistance, class_distances
from ._predict_image import predict_image

OUTSIDE = -1  # no class: what comes from outside the image, and what is ignored
ANGLES = 8


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image; a score is None where the class is neither predicted nor there.

    Args:
        dice: One a class, the background first.
        iou: The same for the intersection over the union.
        boundary: One a class, in pixels; None where one of the two maps has no outline of the class.
        angles: The mean Dice score of the classes but the background at 0, 45, ..., 315 degrees.
        changed: The shares of pixels, 0 .. 1, whose label changes at 0, 45, ..., 315 degrees.

    Example:
        >>> ImageScores((0.9, 0.8), (0.82, 0.67), (None, BoundaryDistance(0.4, 2.0)), (0.8,) * 8, (0.0,) * 8).mean
        0.8
    """

    dice: tuple[float | None, ...]
    iou: tuple[float | None, ...]
    boundary: tuple[BoundaryDistance | None, ...]
    angles: tuple[float | None, ...]
    changed: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """The mean Dice score of the classes but the background."""
        return mean_score(self.dice[1:])


def evaluate_image(
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    *,
    classes: int,
    tile: int = 256,
    device: str | torch.device = "cpu",
    ignore_index: int | None = None,
) -> ImageScores:
    """Scores of an image as it is and turned by multiples of 45 degrees.

    Quarter turns move pixels. At the angles between them the image is interpolated and the true labels are read from
    the nearest pixel, what comes from outside counts nowhere, and borders of regions change a little even for a network
    that turns perfectly.

    Args:
        model: It gives logits.
        image: The image, normalised as in training.
        mask: The true classes.
        classes: How many there are; 0 is the background.
        tile: As for `predict_image`.
        device: Where to compute.
        ignore_index: Pixels that have this value in the mask count nowhere; None to count all.

    Shape:
        - image: ``[C, H, W]``
        - mask: ``[H, W]``, class indices

    Raises:
        ValueError: The mask does not fit the image, or holds other classes.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> brightness = torch.nn.Conv2d(1, 2, 1)  # one pixel at a time: it does not mind a quarter turn
        >>> evaluate_image(brightness, image, (image[0] > 0.5).long(), classes=2).changed[2]
        0.0
    """
    count = as_int("classes", classes, minimum=2)
    if mask.shape != image.shape[-2:]:
        raise wrong_shape("mask", f"[H, W] = {tuple(image.shape[-2:])}, as the image is", mask)
    ignored = torch.zeros_like(mask, dtype=torch.bool) if ignore_index is None else mask == ignore_index
    known = mask[~ignored]
    if known.numel() and (int(known.min()) < 0 or int(known.max()) >= count):
        raise invalid("mask", f"class indices from 0 to {count - 1}", mask)
    group, move = CyclicGroup(ANGLES), LabelMask(fill=OUTSIDE)
    truth = mask.masked_fill(ignored, OUTSIDE)
    upright = predict_image(model, image, tile=tile, device=device).labels
    dice = _dice(upright, truth, count)
    angles, changed = [mean_score(dice[1:])], [0.0]
    for element in range(1, ANGLES):
        labels = predict_image(model, ScalarField()(image, group, element), tile=tile, device=device).labels
        turned, expected = move(truth, group, element), move(upright, group, element)
        angles.append(mean_score(_dice(labels, turned, count)[1:]))
        differ = (labels != expected)[turned != OUTSIDE].double()
        changed.append(float(differ.mean()) if differ.numel() else 0.0)
    # |A and B| / |A or B| from 2 |A and B| / (|A| + |B|)
    iou = tuple(None if score is None else score / (2 - score) for score in dice)
    return ImageScores(dice, iou, class_distances(upright, truth, count, OUTSIDE), tuple(angles), tuple(changed))


def mean_score(scores: Sequence[float | None]) -> float | None:
    """The mean of the scores that there are; None if there is none.

    Args:
        scores: Numbers and Nones.

    Example:
        >>> mean_score([0.5, None, 1.0])
        0.75
    """
    there = [score for score in scores if score is not None]
    return sum(there) / len(there) if there else None


def _dice(labels: Tensor, truth: Tensor, classes: int) -> tuple[float | None, ...]:
    """One score a class, of the pixels that are not outside."""
    inside = truth != OUTSIDE
    found, there = labels[inside].view(1, 1, -1), truth[inside].view(1, 1, -1)
    if not there.numel():
        return (None,) * classes
    scores = dice_score(found, there, classes, average="none", input_format="index")[0]
    seen = [bool(((found == index) | (there == index)).any()) for index in range(classes)]
    return tuple(float(score) if known else None for score, known in zip(scores, seen, strict=True))
