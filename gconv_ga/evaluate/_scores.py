"""How well predicted classes cover the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.segmentation import dice_score

from .._validate import as_int, invalid, wrong_shape
from ..actions import LabelMask, ScalarField
from ..groups import CyclicGroup, Group, as_group
from ..predict import predict_image, predict_labels
from ._boundary import BoundaryDistance, class_distances


def dice(labels: Tensor, masks: Tensor, *, classes: int, ignore_index: int | None = None) -> float:
    """The Dice score: for each image and class but the background, ``2 |A and B| / (|A| + |B|)``; the mean of these.

    A class that is neither predicted nor there counts in no mean; where that holds of all, the score is NaN.

    Args:
        labels: The predicted classes.
        masks: The true ones.
        classes: How many there are; 0 is the background.
        ignore_index: Pixels that have this value in the mask count nowhere; None to count all.

    Shape:
        - labels: ``[N, H, W]``, class indices
        - masks: ``[N, H, W]``, class indices

    Raises:
        ValueError: The shapes differ, or there are fewer than two classes.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import dice
        >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), classes=2)
        0.6666666865348816
    """
    if labels.shape != masks.shape or labels.ndim != 3:
        raise wrong_shape("labels", f"[N, H, W] = {tuple(masks.shape)}, as the masks are", labels)
    count = as_int("classes", classes, minimum=2)
    if ignore_index is not None:
        # The background counts in no score, so what is ignored is called background in both.
        inside = masks != ignore_index
        labels, masks = labels * inside, masks * inside
    if max(int(labels.max()), int(masks.max())) >= count:
        raise invalid("classes", "more than the largest label", count, "labels are 0 .. classes - 1")
    scores = dice_score(labels, masks, count, include_background=False, average="none", input_format="index")
    return float(scores.nanmean())


OUTSIDE_LABEL = 255  # no class: what comes from outside the image


@dataclass(frozen=True)
class OrientationScores:
    """How a segmenter does on images as they are and on turned ones.

    Args:
        upright: Dice on the images as they are.
        turned: Dice on the moved images, the mean over the elements other than the identity.
        worst: The lowest of these.
        changed: The share of pixels, 0 .. 1, whose label is another one when the image is moved, averaged as
            ``turned``. For an equivariant segmenter 0.

    Example:
        >>> from gconv_ga.evaluate import OrientationScores
        >>> OrientationScores(upright=0.9, turned=0.89, worst=0.88, changed=0.004).changed
        0.004
    """

    upright: float
    turned: float
    worst: float
    changed: float


def orientation_scores(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    classes: int,
    group: Group | str,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
) -> OrientationScores:
    """Moves images by every element of a group and compares: with the moved masks, and with the moved prediction.

    ``changed`` is the share of pixels where ``labels(L_g x)`` and ``L_g labels(x)`` differ. Quarter turns and mirrors
    move pixels, so what differs is the model's doing. At other angles the image is interpolated and the labels are read
    from the nearest pixel: pixels from outside the image are left out, and borders of regions count a little even for
    a model that turns perfectly.

    Args:
        model: It gives logits.
        images: The images, normalised as in training.
        masks: Their true classes.
        classes: How many there are; 0 is the background.
        group: The group or its name.
        batch_size: Images at a time.
        device: Where to compute.

    Shape:
        - images: ``[N, C, H, W]``
        - masks: ``[N, H, W]``

    Raises:
        ValueError: The group has no element but the identity, or a shape does not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import orientation_scores
        >>> images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> brightness = torch.nn.Conv2d(1, 2, 1)  # one pixel at a time: it does not mind a turn
        >>> orientation_scores(brightness, images, (images[:, 0] > 0.5).long(), classes=2, group="C4").changed
        0.0
    """
    symmetry = as_group(group)
    if symmetry.order == 1:
        raise invalid("group", "a group of more than the identity", symmetry.name)
    upright = predict_labels(model, images, batch_size=batch_size, device=device)
    scores, changes = [], []
    for element in range(1, symmetry.order):
        move = LabelMask(fill=OUTSIDE_LABEL)
        labels = predict_labels(model, ScalarField()(images, symmetry, element), batch_size=batch_size, device=device)
        truth, expected = move(masks, symmetry, element), move(upright, symmetry, element)
        inside = truth != OUTSIDE_LABEL
        changes.append(float((labels != expected)[inside].double().mean()))
        # The background counts in no Dice score, so what lies outside is called background.
        scores.append(dice(labels * inside, truth * inside, classes=classes))
    mean = sum(scores) / len(scores)
    return OrientationScores(dice(upright, masks, classes=classes), mean, min(scores), sum(changes) / len(changes))


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
        >>> from gconv_ga.evaluate import BoundaryDistance, ImageScores
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
        >>> from gconv_ga.evaluate import evaluate_image
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
        >>> from gconv_ga.evaluate import mean_score
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
