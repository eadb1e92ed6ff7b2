"""Scores of objects: against true objects, and against the objects that are found in the rotated image."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching
from torch import Tensor

from .._validate import invalid, wrong_shape
from ..actions import LabelMask
from ..groups import Group, as_group

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(9))  # 0.5, 0.55, ..., 0.9
OUTSIDE = -1

Whole = NDArray[np.int64]


class _Overlaps(NamedTuple):
    """Pairs of objects of two label maps that share pixels, by number from 0, and the sizes of all objects."""

    first: Whole
    second: Whole
    shared: Whole
    first_sizes: Whole
    second_sizes: Whole

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        union = self.first_sizes[self.first] + self.second_sizes[self.second] - self.shared
        quotients: NDArray[np.float64] = self.shared / union
        return quotients


def _overlaps(first: Tensor, second: Tensor) -> _Overlaps:
    if first.ndim != 2 or first.shape != second.shape:
        raise wrong_shape("labels", f"[H, W] = {tuple(second.shape)}, the shape of the labels compared with", first)
    for labels in (first, second):
        if labels.is_floating_point() or (labels.numel() and int(labels.min()) < 0):
            raise invalid("labels", "numbers of objects, 0 where there is none", labels)
    # Numbers without gaps: an object that lost all its pixels is none.
    values, pixels, sizes = zip(
        *(np.unique(each.cpu().numpy(), return_inverse=True, return_counts=True) for each in (first, second)),
        strict=True,
    )
    begins = [int(len(value) > 0 and value[0] == 0) for value in values]  # the background is no object
    one, two = (inverse.ravel().astype(np.int64) - begin for inverse, begin in zip(pixels, begins, strict=True))
    both = (one >= 0) & (two >= 0)
    sizes_one, sizes_two = (size[begin:].astype(np.int64) for size, begin in zip(sizes, begins, strict=True))
    pairs, shared = np.unique(one[both] * max(len(sizes_two), 1) + two[both], return_counts=True)
    rows, columns = np.divmod(pairs, max(len(sizes_two), 1))
    return _Overlaps(rows, columns, shared, sizes_one, sizes_two)


def _matched(found: _Overlaps, threshold: float) -> int:
    """Return the largest number of one-to-one pairs with at least this intersection over union."""
    good = found.iou >= threshold
    if not good.any():
        return 0
    shape = len(found.first_sizes), len(found.second_sizes)
    graph = coo_array((np.ones(int(good.sum())), (found.first[good], found.second[good])), shape=shape)
    return int((maximum_bipartite_matching(graph.tocsr(), perm_type="column") >= 0).sum())


def match_objects(labels: Tensor, true: Tensor) -> Tensor:
    """Return the pairs of objects that share more than half of their union; there is at most one for each object.

    Args:
        labels: Numbers of the objects found, 0 where there is none.
        true: Numbers of the true objects, 0 where there is none.

    Shape:
        - labels, true: ``[H, W]``, integers
        - output: ``[pairs, 2]``, the numbers in ``labels`` and in ``true``

    Raises:
        ValueError: The shapes differ, or a map holds something other than numbers of objects.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import match_objects
        >>> match_objects(torch.tensor([[5, 5, 0, 7]]), torch.tensor([[1, 1, 2, 2]]))
        tensor([[5, 1]])
    """
    found = _overlaps(labels, true)
    good = found.iou > 0.5
    numbers = [torch.unique(each[each > 0]) for each in (labels.cpu(), true.cpu())]
    return torch.stack(
        [kept[torch.from_numpy(which[good])] for kept, which in zip(numbers, (found.first, found.second), strict=True)],
        dim=1,
    )


class ObjectScores(NamedTuple):
    """Scores of the objects in one image.

    Args:
        found: Number of objects found.
        true: Number of true objects.
        average_precision: ``TP / (TP + FP + FN)`` at intersections over union of 0.5, 0.55, ..., 0.9, with one-to-one
            matching. None where there are no objects at all.
        precision: Share of the objects found that have a partner with an intersection over union of at least 0.5. None
            if none is found.
        recall: Share of the true objects that have such a partner. None if there is none.
        panoptic_quality: Sum of the intersections over union above 0.5, divided by the mean of ``found`` and ``true``.

    Example:
        >>> from gconv_ga.objects import ObjectScores
        >>> ObjectScores(9, 10, (0.8,) * 9, 0.9, 0.8, 0.7).count_error
        -1
    """

    found: int
    true: int
    average_precision: tuple[float | None, ...]
    precision: float | None
    recall: float | None
    panoptic_quality: float | None

    @property
    def count_error(self) -> int:
        """Number of objects found less the number of true ones."""
        return self.found - self.true

    @property
    def mean_average_precision(self) -> float | None:
        """Mean of ``average_precision`` over the nine thresholds."""
        scores = [score for score in self.average_precision if score is not None]
        return sum(scores) / len(scores) if scores else None


def object_scores(labels: Tensor, true: Tensor) -> ObjectScores:
    """Compare objects with true objects.

    Args:
        labels: Numbers of the objects found, 0 where there is none.
        true: Numbers of the true objects, 0 where there is none.

    Shape:
        - labels, true: ``[H, W]``, integers

    Raises:
        ValueError: As for `match_objects`.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import object_scores
        >>> scores = object_scores(torch.tensor([[1, 1, 0, 2]]), torch.tensor([[1, 1, 2, 2]]))
        >>> scores.average_precision[:2], scores.panoptic_quality
        ((1.0, 0.3333333333333333), 0.5)

    References:
        Caicedo et al., Nature Methods 16, 2019 (average precision as the 2018 Data Science Bowl and cellpose take it);
        Kirillov et al., "Panoptic segmentation", CVPR 2019.
    """
    found = _overlaps(labels, true)
    own, there = len(found.first_sizes), len(found.second_sizes)
    matched = [_matched(found, threshold) for threshold in THRESHOLDS]
    iou = found.iou
    return ObjectScores(
        found=own,
        true=there,
        average_precision=tuple(count / (own + there - count) if own + there else None for count in matched),
        precision=matched[0] / own if own else None,
        recall=matched[0] / there if there else None,
        panoptic_quality=float(2 * iou[iou > 0.5].sum() / (own + there)) if own + there else None,
    )


class ObjectChanges(NamedTuple):
    """Changes of the objects when the image is rotated or reflected.

    Args:
        pixels: Share of the object pixels (those in an object before or after) that end up in another object, if
            objects are paired so that as many pixels as possible stay in theirs.
        partnerless: Share of the objects, before and after together, that have no partner with an intersection over
            union of at least 0.5.
        count_change: Number of objects after less the number before.

    Example:
        >>> from gconv_ga.objects import ObjectChanges
        >>> ObjectChanges(0.0, 0.0, 0).pixels
        0.0
    """

    pixels: float
    partnerless: float
    count_change: int


def changed_objects(labels: Tensor, moved_labels: Tensor, group: Group | str, element: int) -> ObjectChanges:
    """Compare the objects of an image that a group element moved with the objects of the image, moved.

    At angles other than multiples of 90 degrees the labels are read from the nearest pixel, and pixels that come from
    outside the image are excluded.

    Args:
        labels: Numbers of the objects of the image as it is, 0 where there is none.
        moved_labels: Numbers of the objects of the moved image.
        group: Group or its name.
        element: Index of the group element that moved the image.

    Shape:
        - labels: ``[H, W]``, integers
        - moved_labels: ``[H, W]`` or ``[W, H]``, as `gconv_ga.actions.LabelMask` moves them

    Raises:
        ValueError: The shapes do not fit, or a map holds something other than numbers of objects.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import changed_objects
        >>> labels = torch.tensor([[0, 1, 1, 2]])
        >>> changed_objects(labels, torch.tensor([[3], [1], [1], [0]]), "C4", 1)
        ObjectChanges(pixels=0.0, partnerless=0.0, count_change=0)
        >>> changed_objects(labels, torch.tensor([[1], [1], [1], [0]]), "C4", 1).pixels
        0.3333333333333333
    """
    expected = LabelMask(fill=OUTSIDE)(labels.to(torch.int64), as_group(group), element)
    if expected.shape != moved_labels.shape:
        raise wrong_shape("moved_labels", f"[H, W] = {tuple(expected.shape)}", moved_labels)
    outside = expected == OUTSIDE
    found = _overlaps(moved_labels.masked_fill(outside, 0), expected.masked_fill(outside, 0))
    after, before = len(found.first_sizes), len(found.second_sizes)
    if not after + before:
        return ObjectChanges(0.0, 0.0, 0)
    either = found.first_sizes.sum() + found.second_sizes.sum() - found.shared.sum()
    return ObjectChanges(
        pixels=float((either - _most_shared(found)) / either),
        partnerless=(after + before - 2 * _matched(found, 0.5)) / (after + before),
        count_change=after - before,
    )


def _most_shared(found: _Overlaps) -> int:
    """Return the largest number of pixels that one-to-one pairs of objects share, cluster by cluster of the pairs."""
    count = len(found.first_sizes)
    size = count + len(found.second_sizes)
    graph = coo_array((found.shared, (found.first, count + found.second)), shape=(size, size))
    cluster = connected_components(graph, directed=False)[1][found.first]
    order, total = np.argsort(cluster, kind="stable"), 0
    for pairs in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        rows, columns = (np.unique(each[pairs], return_inverse=True)[1] for each in (found.first, found.second))
        table = np.zeros((int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1), dtype=np.int64)
        table[rows, columns] = found.shared[pairs]
        total += int(table[linear_sum_assignment(table, maximize=True)].sum())
    return total
