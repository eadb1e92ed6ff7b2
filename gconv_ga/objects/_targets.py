"""Targets of networks for objects: distances to their edges, and flows towards their middles."""

import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, eye_array
from scipy.sparse.linalg import splu
from torch import Tensor

from .._validate import invalid, wrong_shape

AROUND = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
TIE = 1e-9  # squared distances closer than this are equal
STILL = 1e-6  # a gradient below this has no direction
Whole = NDArray[np.int64]


def object_targets(instances: Tensor) -> Tensor:
    """Return the maps that a network learns to predict from an image, given its true objects.

    The channels are: the class, 1 on objects and 0 elsewhere; the distance to the edge of the object, divided by the
    largest one in it; and a flow, two components of length 1 that lead from each pixel to the middle of its object,
    along the gradient of the logarithm of the heat that a source there would spread (x along the columns, y down the
    rows). The last three are 0 outside of objects. A rotated or reflected map has the rotated or reflected targets, the
    flow by `gconv_ga.actions.VectorField` (up to the rounding of float32).

    Args:
        instances: Numbers of the true objects, 0 where there is none.

    Shape:
        - instances: ``[H, W]``, integers
        - output: ``[4, H, W]``, float32

    Raises:
        ValueError: ``instances`` is not ``[H, W]``, or holds something other than numbers of objects.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import object_targets
        >>> instances = torch.zeros(7, 9, dtype=torch.int64)
        >>> instances[1:6, 2:7] = 1
        >>> (100 * object_targets(instances)[:, 3, 2:8]).round().int()  # along the row in the middle
        tensor([[ 100,  100,  100,  100,  100,    0],
                [  33,   67,  100,   67,   33,    0],
                [ 100,  100,    0, -100, -100,    0],
                [   0,    0,    0,    0,    0,    0]], dtype=torch.int32)

    References:
        Stringer et al., "Cellpose", Nature Methods 18, 2021, whose diffusion this solves for its fixed point.
    """
    if instances.ndim != 2:
        raise wrong_shape("instances", "[H, W]", instances)
    if instances.is_floating_point() or (instances.numel() and int(instances.min()) < 0):
        raise invalid("instances", "numbers of objects, 0 where there is none", instances)
    # Numbers without gaps, or a large one would make large tables.
    labels = np.unique(np.append(instances.cpu().numpy().ravel(), 0), return_inverse=True)[1][:-1]
    labels = labels.reshape(tuple(instances.shape)).astype(np.int64)
    maps = np.zeros((4, *labels.shape), dtype=np.float32)
    maps[0], maps[1], maps[2:] = labels > 0, _distances(labels), _flows(labels)
    return torch.from_numpy(maps)


def _distances(labels: Whole) -> NDArray[np.float64]:
    """Return the distance to the edge of the object over the largest one in it; the border of the image is no edge."""
    distances = np.zeros(labels.shape)
    for number, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None:
            continue
        # One pixel more on each side, where there is one: the edge is there.
        wide = tuple(slice(max(axis.start - 1, 0), axis.stop + 1) for axis in box)
        inside = labels[wide] == number
        own = ndi.distance_transform_edt(inside) if not inside.all() else np.ones(inside.shape)
        distances[wide] += own / own.max()
    return distances


def _flows(labels: Whole) -> NDArray[np.float64]:
    """Return unit vectors up the steady heat of a source in the middle of each object, ``[2, H, W]``, x first.

    Each pixel has the mean heat of its 3 x 3 neighbourhood within the object, and nothing flows in from outside. The
    source is the pixel of the object that is nearest its centroid; those as near share it.
    """
    flow = np.zeros((2, *labels.shape))
    if not labels.any():
        return flow
    padded = np.pad(labels, 1)
    rows, columns = np.nonzero(padded)
    owner = padded[rows, columns] - 1
    place = np.full(padded.shape, -1)
    place[rows, columns] = np.arange(len(rows))
    ends = [place[rows + row, columns + column] for row, column in AROUND]
    own = [(end >= 0) & (owner[end] == owner) for end in ends]
    pairs = [np.stack((np.flatnonzero(same), end[same])) for end, same in zip(ends, own, strict=True)]
    first, second = np.concatenate(pairs, axis=1)
    size = len(rows)
    beside = csc_array((np.full(len(first), -1.0), (first, second)), shape=(size, size))
    heat = splu(csc_array(beside + 8.0 * eye_array(size, format="csc"))).solve(_sources(owner, rows, columns))
    lowest = np.full(owner.max() + 1, np.inf)
    np.minimum.at(lowest, owner, heat)
    # The logarithm, or most of the gradient would be beside the source.
    height = np.zeros(padded.shape)
    height[rows, columns] = np.log1p(heat / np.maximum(lowest[owner], np.finfo(float).tiny))

    def step(row: int, column: int) -> NDArray[np.float64]:
        same = padded[rows + row, columns + column] == padded[rows, columns]
        values: NDArray[np.float64] = np.where(same, height[rows + row, columns + column], 0.0)
        return values

    across, down = step(0, 1) - step(0, -1), step(1, 0) - step(-1, 0)
    length = np.hypot(across, down)
    length[length < STILL] = np.inf
    flow[:, rows - 1, columns - 1] = across / length, down / length
    return flow


def _sources(owner: Whole, rows: Whole, columns: Whole) -> NDArray[np.float64]:
    """Return the heat that flows in at each pixel of the objects: 1 for each object, where its middle is."""
    counts = np.bincount(owner)
    middle_row, middle_column = (np.bincount(owner, along) / counts for along in (rows, columns))
    distance = (rows - middle_row[owner]) ** 2 + (columns - middle_column[owner]) ** 2
    nearest = np.full(len(counts), np.inf)
    np.minimum.at(nearest, owner, distance)
    chosen = distance <= nearest[owner] + TIE
    shared: NDArray[np.float64] = chosen / np.bincount(owner[chosen], minlength=len(counts))[owner]
    return shared
