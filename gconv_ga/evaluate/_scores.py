"""Scores of predicted classes on images as they are and on rotated and reflected images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid, wrong_shape
from ..actions import LabelMask, ScalarField
from ..groups import CyclicGroup, Group, as_group
from ..predict import predict_image, predict_labels
from ._boundary import BoundaryDistance, class_distances

ANGLES = 8  # `evaluate_image` rotates by multiples of 45 degrees
OUTSIDE = -1  # label of excluded pixels: the ignored ones, and what a rotation brings in from outside the image


def dice(labels: Tensor, masks: Tensor, *, classes: int, ignore_index: int | None = None) -> float:
    """Return the Dice score ``2 |A and B| / (|A| + |B|)``, averaged over images and classes other than the background.

    A class that is absent from both the prediction and the mask of an image is left out of the mean. If that holds for
    all classes of all images, the score is NaN.

    Args:
        labels: Predicted classes.
        masks: True classes.
        classes: Number of classes, including the background, which is class 0.
        ignore_index: Mask value of pixels that are excluded from the score. If None, no pixel is.

    Shape:
        - labels: ``[N, H, W]``, class indices
        - masks: ``[N, H, W]``, class indices

    Raises:
        ValueError: The shapes differ, there are fewer than two classes, or a label is not one of 0 .. ``classes`` - 1.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import dice
        >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), classes=2)
        0.6666666865348816
    """
    if labels.shape != masks.shape or labels.ndim != 3:
        raise wrong_shape("labels", f"[N, H, W] = {tuple(masks.shape)}, the shape of the masks", labels)
    count = as_int("classes", classes, minimum=2)
    ignored = None if ignore_index is None else masks == ignore_index
    _refuse_negative("masks", masks, ignored)
    _refuse_negative("labels", labels)
    return _foreground_mean(_class_dice(labels, _exclude(masks, ignored), count))


def mean_score(scores: Sequence[float | None]) -> float | None:
    """Return the mean of the scores that are not None, or None if there are none.

    Args:
        scores: Scores, with None for those that are not defined.

    Example:
        >>> from gconv_ga.evaluate import mean_score
        >>> mean_score([0.5, None, 1.0])
        0.75
    """
    defined = [score for score in scores if score is not None]
    return sum(defined) / len(defined) if defined else None


def changed_labels(
    labels: Tensor,
    moved_labels: Tensor,
    group: Group | str,
    element: int,
    *,
    ignored: Tensor | None = None,
) -> Tensor:
    """Return a map of the pixels whose label changes when the image is moved by a group element.

    These are the pixels at which the prediction for the moved image, ``labels(L_g x)``, differs from the moved
    prediction, ``L_g labels(x)``. Pixels that a rotation brings in from outside the image, and ignored pixels, are
    never marked.

    Args:
        labels: Predictions for the images as they are.
        moved_labels: Predictions for the moved images.
        group: Group or its name.
        element: Index of the group element that moved the images.
        ignored: Pixels of the images that are excluded. If None, no pixel is.

    Shape:
        - labels, ignored: ``[..., H, W]``, class indices and bool
        - moved_labels, output: ``[..., H, W]`` or ``[..., W, H]``, as `gconv_ga.actions.LabelMask` moves them

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import changed_labels
        >>> labels = torch.tensor([[0, 1, 1]])
        >>> changed_labels(labels, labels.rot90(), "C4", 1).any()
        tensor(False)
        >>> changed_labels(labels, torch.zeros(3, 1, dtype=torch.int64), "C4", 1).sum()
        tensor(2)
    """
    expected = LabelMask(fill=OUTSIDE)(_exclude(labels, ignored), group, element)
    return (moved_labels != expected) & (expected != OUTSIDE)


class GroupScores(NamedTuple):
    """Scores of predictions for images moved by every element of a group.

    Args:
        labels: ``[N, H, W]``, predictions for the images as they are.
        dice: ``[|G|, N, classes]``, Dice scores; NaN where a class is neither predicted nor in the mask.
        changed: For each group element the share of pixels, 0 .. 1, whose label changes.
    """

    labels: Tensor
    dice: Tensor
    changed: tuple[float, ...]


def score_over_group(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    masks: Tensor,
    group: Group,
    *,
    classes: int,
    ignored: Tensor | None = None,
) -> GroupScores:
    """Predict images moved by every element of a group, and compare with the moved masks and the moved predictions.

    Args:
        predict: Maps images ``[N, C, H, W]`` to class indices ``[N, H, W]``.
        images: Images, normalized as in training.
        masks: True classes.
        group: Group whose elements move the images.
        classes: Number of classes.
        ignored: Pixels that are excluded from all scores. If None, no pixel is.

    Shape:
        - images: ``[N, C, H, W]``
        - masks, ignored: ``[N, H, W]``, class indices and bool
    """
    move, target = LabelMask(fill=OUTSIDE), _exclude(masks, ignored)
    labels = predict(images)
    scores, changed = [_class_dice(labels, target, classes)], [0.0]
    for element in range(1, group.order):
        moved_labels, moved_target = predict(ScalarField()(images, group, element)), move(target, group, element)
        scores.append(_class_dice(moved_labels, moved_target, classes))
        differs = changed_labels(labels, moved_labels, group, element, ignored=ignored)
        counted = differs[moved_target != OUTSIDE]
        changed.append(float(counted.double().mean()) if counted.numel() else 0.0)
    return GroupScores(labels, torch.stack(scores), tuple(changed))


@dataclass(frozen=True)
class OrientationScores:
    """Scores of a segmenter on images as they are and on images moved by the elements of a group.

    Args:
        upright: Dice score on the images as they are.
        rotated: Dice score on the moved images, averaged over the group elements other than the identity.
        worst: Lowest of these Dice scores.
        changed: Share of pixels, 0 .. 1, whose label changes when the image is moved, averaged in the same way. It is
            0 for an equivariant segmenter.

    Example:
        >>> from gconv_ga.evaluate import OrientationScores
        >>> OrientationScores(upright=0.9, rotated=0.89, worst=0.88, changed=0.004).changed
        0.004
    """

    upright: float
    rotated: float
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
    """Score a segmenter on images moved by every element of a group.

    The prediction for a moved image is compared with the moved mask (Dice) and with the moved prediction: ``changed``
    is the share of pixels where ``labels(L_g x)`` and ``L_g labels(x)`` differ. Rotations by 90 degrees and reflections
    permute the pixels, so any difference is due to the model. At other angles the image is interpolated and labels are
    read from the nearest pixel. Pixels that come from outside the image are excluded, and a few labels change at the
    borders of regions even for a perfectly equivariant model.

    Args:
        model: Network that returns logits.
        images: Images, normalized as in training.
        masks: True classes.
        classes: Number of classes, including the background, which is class 0.
        group: Group or its name.
        batch_size: Number of images that are predicted together.
        device: Device to compute on.

    Shape:
        - images: ``[N, C, H, W]``
        - masks: ``[N, H, W]``, class indices

    Raises:
        ValueError: The group has no element but the identity, a shape does not fit, or a label is not one of
            0 .. ``classes`` - 1.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import orientation_scores
        >>> images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> pointwise = torch.nn.Conv2d(1, 2, 1)  # equivariant: it treats every pixel alike
        >>> orientation_scores(pointwise, images, (images[:, 0] > 0.5).long(), classes=2, group="C4").changed
        0.0
    """
    symmetry = as_group(group)
    if symmetry.order == 1:
        raise invalid("group", "a group of more than the identity", symmetry.name)
    count = as_int("classes", classes, minimum=2)
    if images.ndim == 4 and masks.shape != (len(images), *images.shape[-2:]):
        raise wrong_shape("masks", f"[N, H, W] = {(len(images), *images.shape[-2:])}, as the images are", masks)
    _refuse_negative("masks", masks)

    def predict(moved: Tensor) -> Tensor:
        return predict_labels(model, moved, batch_size=batch_size, device=device)

    scores = score_over_group(predict, images, masks, symmetry, classes=count)
    upright, *rotated = (_foreground_mean(each) for each in scores.dice)
    changed = scores.changed[1:]
    return OrientationScores(upright, sum(rotated) / len(rotated), min(rotated), sum(changed) / len(changed))


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image. A score is None where a class is neither predicted nor in the mask.

    Args:
        dice: Dice score of each class, the background first.
        iou: Intersection over union of each class.
        boundary: Distances between the outlines of each class, or None where the prediction or the mask has no outline
            of the class.
        angles: Mean Dice score of the classes other than the background at 0, 45, ..., 315 degrees.
        changed: Share of pixels, 0 .. 1, whose label changes at 0, 45, ..., 315 degrees.
        precision: Share of the pixels predicted as each class that are of it. None where no pixel is.
        recall: Share of the pixels of each class that are predicted as such. None where there are none.

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
    precision: tuple[float | None, ...] = ()
    recall: tuple[float | None, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean Dice score of the classes other than the background."""
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
    """Score the prediction for an image as it is and rotated by multiples of 45 degrees.

    Rotations by 90 degrees permute the pixels. At the angles between them the image is interpolated and the true
    classes are read from the nearest pixel. Pixels that come from outside the image are excluded, and a few labels
    change at the borders of regions even for a perfectly equivariant network.

    Args:
        model: Network that returns logits.
        image: Image, normalized as in training.
        mask: True classes.
        classes: Number of classes, including the background, which is class 0.
        tile: As for `gconv_ga.predict.predict_image`.
        device: Device to compute on.
        ignore_index: Mask value of pixels that are excluded from all scores. If None, no pixel is.

    Shape:
        - image: ``[C, H, W]``
        - mask: ``[H, W]``, class indices

    Raises:
        ValueError: The mask does not have the size of the image, or a label is not one of 0 .. ``classes`` - 1.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import evaluate_image
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> pointwise = torch.nn.Conv2d(1, 2, 1)  # equivariant: it treats every pixel alike
        >>> evaluate_image(pointwise, image, (image[0] > 0.5).long(), classes=2).changed[2]
        0.0
    """
    count = as_int("classes", classes, minimum=2)
    if mask.shape != image.shape[-2:]:
        raise wrong_shape("mask", f"[H, W] = {tuple(image.shape[-2:])}, as the image is", mask)
    ignored = torch.zeros_like(mask, dtype=torch.bool) if ignore_index is None else mask == ignore_index
    counted = mask[~ignored]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= count):
        raise invalid("mask", f"class indices from 0 to {count - 1}", mask)

    def predict(moved: Tensor) -> Tensor:
        return predict_image(model, moved[0], tile=tile, device=device).labels[None]

    group = CyclicGroup(ANGLES)
    scores = score_over_group(predict, image[None], mask[None], group, classes=count, ignored=ignored[None])
    by_angle = [tuple(None if isnan(score) else score for score in each[0].tolist()) for each in scores.dice]
    # |A and B| / |A or B| from 2 |A and B| / (|A| + |B|)
    iou = tuple(None if score is None else score / (2 - score) for score in by_angle[0])
    precision, recall = _precision_and_recall(scores.labels[0][~ignored], counted, count)
    return ImageScores(
        dice=by_angle[0],
        iou=iou,
        boundary=class_distances(scores.labels[0], mask, count, ignored),
        angles=tuple(mean_score(each[1:]) for each in by_angle),
        changed=scores.changed,
        precision=precision,
        recall=recall,
    )


def _precision_and_recall(
    labels: Tensor, target: Tensor, classes: int
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Return the precision and the recall of each class, None where a class is not predicted or not in the target.

    Shape:
        - labels, target: ``[N]``, class indices
    """
    right = labels[labels == target].bincount(minlength=classes).tolist()

    def shares(of: Tensor) -> tuple[float | None, ...]:
        return tuple(
            hits / total if total else None
            for hits, total in zip(right, of.bincount(minlength=classes).tolist(), strict=True)
        )

    return shares(labels), shares(target)


def _exclude(labels: Tensor, ignored: Tensor | None) -> Tensor:
    """Mark the ignored pixels as lying outside."""
    indices = labels.to(torch.int64)  # unsigned integers have no room for OUTSIDE
    return indices if ignored is None else indices.masked_fill(ignored, OUTSIDE)


def _refuse_negative(argument: str, labels: Tensor, ignored: Tensor | None = None) -> None:
    counted = labels if ignored is None else labels[~ignored]
    if counted.numel() and int(counted.min()) < 0:
        raise invalid(argument, "class indices of at least 0", labels)


def _class_dice(labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return the Dice score of each image and class; NaN where a class is neither predicted nor in the target.

    Shape:
        - labels, target: ``[N, H, W]``; pixels whose target is `OUTSIDE` are excluded
        - output: ``[N, classes]``, float32
    """
    outside = target == OUTSIDE
    labels = labels.masked_fill(outside, OUTSIDE)
    if max(int(labels.max()), int(target.max())) >= classes:
        raise invalid("classes", "more than the largest label", classes, "labels are 0 .. classes - 1")
    # Excluded pixels get a class of their own in both maps. Its score is dropped.
    predicted, true = (each.masked_fill(outside, classes) for each in (labels, target))

    def areas(of: Tensor) -> Tensor:
        count = classes + 1
        images = torch.arange(len(of), device=of.device).view(-1, 1, 1)
        return (images * count + of).flatten().bincount(minlength=len(of) * count).view(-1, count)[:, :classes]

    both = areas(true.masked_fill(predicted != true, classes))
    return 2 * both / (areas(predicted) + areas(true))


def _foreground_mean(scores: Tensor) -> float:
    """Return the mean over images and classes other than the background, NaN where no score is defined."""
    return float(scores[:, 1:].contiguous().nanmean())
