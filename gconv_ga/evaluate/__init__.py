"""Evaluation: scores of a segmenter on images as they are and rotated, and a report of them.

Needs the extra ``train``.

Names: `dice`, `mean_score`; `orientation_scores`, `OrientationScores` (a batch of images under a group);
`evaluate_image`, `ImageScores` (one image of any size at eight angles); `changed_labels` (the pixels whose label
changes); `evaluate_objects`, `ImageObjects` (the objects of an image at four angles); `boundary_distance`,
`BoundaryDistance`; `evaluation_report`, `page`, `Picture` (the report as JSON and as HTML).

Example:
    >>> import torch
    >>> from gconv_ga.evaluate import dice
    >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), classes=2)
    0.6666666865348816
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._boundary import BoundaryDistance, boundary_distance
    from ._objects import ImageObjects, evaluate_objects
    from ._report import Picture, evaluation_report, page
    from ._scores import (
        ImageScores,
        OrientationScores,
        changed_labels,
        dice,
        evaluate_image,
        mean_score,
        orientation_scores,
    )

__all__ = [
    "BoundaryDistance",
    "ImageObjects",
    "ImageScores",
    "OrientationScores",
    "Picture",
    "boundary_distance",
    "changed_labels",
    "dice",
    "evaluate_image",
    "evaluate_objects",
    "evaluation_report",
    "mean_score",
    "orientation_scores",
    "page",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_boundary": ["BoundaryDistance", "boundary_distance"],
        "_objects": ["ImageObjects", "evaluate_objects"],
        "_report": ["Picture", "evaluation_report", "page"],
        "_scores": [
            "ImageScores",
            "OrientationScores",
            "changed_labels",
            "dice",
            "evaluate_image",
            "mean_score",
            "orientation_scores",
        ],
    },
    extra="train",
)
