"""Scores of the objects in an image, as it is, rotated by multiples of 90 degrees, and reflected."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._validate import invalid, wrong_shape
from ..actions import ScalarField
from ..groups import Group, as_group
from ..objects import Decoder, ObjectChanges, ObjectScores, changed_objects, object_scores
from ..predict import predict_objects
from ._scores import mean_score

MOVES = ("C4", "D4")


class ImageObjects(NamedTuple):
    """Scores of the objects of one image.

    Args:
        scores: Comparison with the true objects.
        changes: Comparison with the objects of the image rotated by 90, 180 and 270 degrees; of the group D4 also with
            those of the image reflected, and then rotated by 0, 90, 180 and 270 degrees.

    Example:
        >>> from gconv_ga.evaluate import ImageObjects
        >>> from gconv_ga.objects import ObjectChanges, ObjectScores
        >>> scores = ObjectScores(9, 10, (0.8,) * 9, 0.9, 0.8, 0.7)
        >>> ImageObjects(scores, (ObjectChanges(0.0, 0.0, 0),) * 3).scores.count_error
        -1
    """

    scores: ObjectScores
    changes: tuple[ObjectChanges, ...]


def evaluate_objects(
    model: nn.Module,
    image: Tensor,
    instances: Tensor,
    *,
    decoder: Decoder | None = None,
    group: Group | str = "C4",
    tile: int = 256,
    device: str | torch.device = "cpu",
    ignored: Tensor | None = None,
) -> ImageObjects:
    """Score the objects that are predicted in an image, whatever their class, and their changes when it is moved.

    Args:
        model: Network that returns logits.
        image: Image, normalized as in training.
        instances: Numbers of the true objects, 0 where there is none.
        decoder: As for `gconv_ga.predict.predict_objects`.
        group: Group by whose elements the image is moved, C4 or D4, or its name.
        tile: As for `gconv_ga.predict.predict_image`.
        device: Device to compute on.
        ignored: Pixels that are excluded: they belong to no object, and an object found that has more than half of its
            pixels there is left out. If None, no pixel is.

    Shape:
        - image: ``[C, H, W]``
        - instances: ``[H, W]``, integers
        - ignored: ``[H, W]``, bool

    Raises:
        ValueError: The true objects or the ignored pixels do not have the size of the image, or the former are no
            numbers of objects; or the group is another one.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import evaluate_objects
        >>> image = torch.zeros(1, 20, 24)
        >>> image[0, 4:9, 5:16] = image[0, 12:18, 3:9] = 1
        >>> pointwise = torch.nn.Conv2d(1, 2, 1)  # equivariant: it treats every pixel alike
        >>> with torch.no_grad():
        ...     _ = pointwise.weight.copy_(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1))
        ...     _ = pointwise.bias.copy_(torch.tensor([0.0, -1.0]))
        >>> instances = torch.zeros(20, 24, dtype=torch.int64)
        >>> instances[4:9, 5:16] = 1
        >>> found = evaluate_objects(pointwise, image, instances)
        >>> found.scores.average_precision[0], found.changes[0].pixels
        (0.5, 0.0)
    """
    excluded = torch.zeros(image.shape[-2:], dtype=torch.bool) if ignored is None else ignored
    for name, value in (("instances", instances), ("ignored", excluded)):
        if value.shape != image.shape[-2:]:
            raise wrong_shape(name, f"[H, W] = {tuple(image.shape[-2:])}, as the image is", value)
    moves = as_group(group)
    if moves.name not in MOVES:
        raise invalid("group", f"one of {', '.join(MOVES)}, whose elements move pixels to pixels", group)

    def labels(element: int) -> Tensor:
        moved = ScalarField()(image, moves, element)
        found = predict_objects(model, moved, decoder=decoder, tile=tile, device=device).objects.labels
        return _without(found, ScalarField()(excluded, moves, element))

    found = labels(0)
    changes = [changed_objects(found, labels(element), moves, element) for element in range(1, moves.order)]
    return ImageObjects(object_scores(found, instances.masked_fill(excluded, 0)), tuple(changes))


def _without(labels: Tensor, ignored: Tensor) -> Tensor:
    """Return the numbers of objects without ignored pixels, and without objects most of whose pixels are ignored."""
    if not bool(ignored.any()):
        return labels
    sizes, lost = labels.flatten().bincount(), labels[ignored].bincount(minlength=int(labels.max()) + 1)
    return labels.masked_fill(ignored | (2 * lost > sizes)[labels], 0)


def objects_report(images: Mapping[str, ImageObjects]) -> dict[str, Any]:
    """Return what ``report.json`` holds about objects: means over the images."""
    single = [image_objects_report(image) for image in images.values()]
    return {
        "found": sum(image["found"] for image in single),
        "true": sum(image["true"] for image in single),
        "average_precision": {
            threshold: mean_score([image["average_precision"][threshold] for image in single])
            for threshold in single[0]["average_precision"]
        },
        **{name: mean_score([image[name] for image in single]) for name in MEANS},
        "moves": max(len(image.changes) for image in images.values()),
        "absolute_count_error": mean_score([abs(image["count_error"]) for image in single]),
    }


MEANS = (
    "mean_average_precision", "precision", "recall", "panoptic_quality", "count_error", "partnerless", "changed_pixels"
)  # fmt: skip


def image_objects_report(image: ImageObjects) -> dict[str, Any]:
    """Return what ``report.json`` holds about the objects of one image. Changes are means over all moves."""
    scores, changes = image

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return {
        "found": scores.found,
        "true": scores.true,
        "average_precision": {f"{0.5 + 0.05 * step:.2f}": score for step, score in enumerate(scores.average_precision)},
        "mean_average_precision": scores.mean_average_precision,
        "precision": scores.precision,
        "recall": scores.recall,
        "panoptic_quality": scores.panoptic_quality,
        "count_error": scores.count_error,
        "partnerless": mean([change.partnerless for change in changes]),
        "changed_pixels": mean([change.pixels for change in changes]),
    }
