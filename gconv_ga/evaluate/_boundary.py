"""How far the predicted outline of a region lies from the true one."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor

from .._validate import wrong_shape

Pixels = NDArray[np.bool_]


class BoundaryDistance(NamedTuple):
    """Distances in pixels between two outlines, over the pixels of both.

    Args:
        mean: The mean, also called average symmetric surface distance.
        most: The 95th percentile, also called 95 % Hausdorff distance: what all but the worst twentieth keep to.

    Example:
        >>> from gconv_ga.evaluate import BoundaryDistance
        >>> BoundaryDistance(0.5, 2.0).most
        2.0
    """

    mean: float
    most: float


def boundary_distance(found: Tensor, there: Tensor, *, ignored: Tensor | None = None) -> BoundaryDistance | None:
    """The distances from each outline pixel of one region to the nearest one of the other, both ways, pooled.

    The outline of a region are its pixels that have one of the four neighbours outside of it. The image's border is no
    outline, and neither is that of pixels that are ignored.

    Args:
        found: The predicted region.
        there: The true region.
        ignored: Pixels that belong to neither; None for none.

    Returns:
        The distances; None if one of the regions has no outline: it is empty, or it is the whole image.

    Shape:
        - found, there, ignored: ``[H, W]``, bool

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> import torch
        >>> from gconv_ga.evaluate import boundary_distance
        >>> found, there = torch.zeros(2, 20, 20, dtype=torch.bool)
        >>> found[4:12, 4:12], there[4:12, 6:14] = True, True
        >>> boundary_distance(found, there).most
        2.0

    References:
        Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15, 2015.
    """
    for name, region in (("found", found), ("ignored", ignored)):
        if region is not None and region.shape != there.shape:
            raise wrong_shape(name, f"[H, W] = {tuple(there.shape)}, as the true region is", region)
    out = np.zeros(tuple(there.shape), dtype=np.bool_) if ignored is None else ignored.cpu().numpy()
    outlines = [_outline(region.cpu().numpy(), out) for region in (found, there)]
    if not all(outline.any() for outline in outlines):
        return None
    one, other = outlines
    away = np.concatenate((distance_transform_edt(~other)[one], distance_transform_edt(~one)[other]))
    return BoundaryDistance(float(away.mean()), float(np.percentile(away, 95)))


def _outline(region: Pixels, ignored: Pixels) -> Pixels:
    """Pixels of a region with a neighbour that counts and is not in it."""
    inside = region & ~ignored
    outline: Pixels = inside & ~binary_erosion(inside | ignored, border_value=1)
    return outline


def class_distances(
    labels: Tensor, mask: Tensor, classes: int, ignore_index: int | None = None
) -> tuple[BoundaryDistance | None, ...]:
    """The distances of each class.

    Shape:
        - labels, mask: ``[H, W]``, class indices
    """
    ignored = torch.zeros_like(mask, dtype=torch.bool) if ignore_index is None else mask == ignore_index
    return tuple(boundary_distance(labels == index, mask == index, ignored=ignored) for index in range(classes))
