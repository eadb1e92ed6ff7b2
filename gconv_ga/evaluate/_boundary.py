"""Distance between the predicted and the true outline of a region."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from .._validate import wrong_shape

Pixels = NDArray[np.bool_]


class BoundaryDistance(NamedTuple):
    """Distances in pixels between two outlines, pooled over the pixels of both.

    Args:
        mean: Mean distance, also called average symmetric surface distance.
        percentile_95: 95th percentile, also called 95 % Hausdorff distance.

    Example:
        >>> from gconv_ga.evaluate import BoundaryDistance
        >>> BoundaryDistance(mean=0.5, percentile_95=2.0).percentile_95
        2.0
    """

    mean: float
    percentile_95: float


def boundary_distance(predicted: Tensor, target: Tensor, *, ignored: Tensor | None = None) -> BoundaryDistance | None:
    """Return the distances from each outline pixel of one region to the nearest one of the other, both ways, pooled.

    The outline of a region consists of its pixels that have one of their four neighbours outside the region. Neither
    the border of the image nor the border of ignored pixels is part of an outline.

    Args:
        predicted: Predicted region.
        target: True region.
        ignored: Pixels that are excluded from both regions. If None, no pixel is.

    Returns:
        The distances, or None if one of the regions has no outline because it is empty or fills the image.

    Shape:
        - predicted, target, ignored: ``[H, W]``, bool

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import boundary_distance
        >>> predicted, target = torch.zeros(2, 20, 20, dtype=torch.bool)
        >>> predicted[4:12, 4:12], target[4:12, 6:14] = True, True
        >>> boundary_distance(predicted, target).percentile_95
        2.0

    References:
        Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15, 2015.
    """
    for name, region in (("predicted", predicted), ("ignored", ignored)):
        if region is not None and region.shape != target.shape:
            raise wrong_shape(name, f"[H, W] = {tuple(target.shape)}, the shape of target", region)
    excluded = np.zeros(tuple(target.shape), dtype=np.bool_) if ignored is None else ignored.cpu().numpy()
    first, second = (_outline(region.cpu().numpy(), excluded) for region in (predicted, target))
    if not (first.any() and second.any()):
        return None
    distances = np.concatenate((distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]))
    return BoundaryDistance(float(distances.mean()), float(np.percentile(distances, 95)))


def _outline(region: Pixels, ignored: Pixels) -> Pixels:
    """Return the pixels of a region that have a neighbour which is neither in the region nor ignored."""
    inside = region & ~ignored
    outline: Pixels = inside & ~binary_erosion(inside | ignored, border_value=1)
    return outline


def class_distances(
    labels: Tensor, target: Tensor, classes: int, ignored: Tensor
) -> tuple[BoundaryDistance | None, ...]:
    """Return the distances of each class.

    Shape:
        - labels, target: ``[H, W]``, class indices
        - ignored: ``[H, W]``, bool
    """
    return tuple(boundary_distance(labels == index, target == index, ignored=ignored) for index in range(classes))
