"""Evaluation: how well a segmenter does, upright and rotated, and the report of it.

Needs the extra ``train``.

Names: `dice`, `mean_score`; `orientation_scores`, `OrientationScores` (a batch under a group); `evaluate_image`,
`ImageScores` (one image of any size at eight angles); `boundary_distance`, `BoundaryDistance`; `page`.

Example:
    >>> import torch
    >>> from gconv_ga.evaluate import dice
    >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), classes=2)
    0.6666666865348816
"""

from .._validate import missing_extra

try:
    from ._boundary import BoundaryDistance, boundary_distance
    from ._page import page
    from ._scores import ImageScores, OrientationScores, dice, evaluate_image, mean_score, orientation_scores
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "BoundaryDistance",
    "ImageScores",
    "OrientationScores",
    "boundary_distance",
    "dice",
    "evaluate_image",
    "mean_score",
    "orientation_scores",
    "page",
]
