"""Evaluation: scores of a segmenter on images as they are and rotated, and a report of them.

Needs the extra ``train``.

Names: `dice`, `mean_score`; `orientation_scores`, `OrientationScores` (a batch of images under a group);
`evaluate_image`, `ImageScores` (one image of any size at eight angles); `changed_labels` (the pixels whose label
changes); `boundary_distance`, `BoundaryDistance`; `evaluation_report`, `page` (the report as JSON and as HTML).

Example:
    >>> import torch
    >>> from gconv_ga.evaluate import dice
    >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), classes=2)
    0.6666666865348816
"""

from .._validate import missing_extra

try:
    from ._boundary import BoundaryDistance, boundary_distance
    from ._report import evaluation_report, page
    from ._scores import (
        ImageScores,
        OrientationScores,
        changed_labels,
        dice,
        evaluate_image,
        mean_score,
        orientation_scores,
    )
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "BoundaryDistance",
    "ImageScores",
    "OrientationScores",
    "boundary_distance",
    "changed_labels",
    "dice",
    "evaluate_image",
    "evaluation_report",
    "mean_score",
    "orientation_scores",
    "page",
]
