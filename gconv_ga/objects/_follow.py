"""From a predicted flow to objects, in whole numbers: pixels move along the flow, and those that meet are one."""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray
from scipy.spatial import cKDTree

BITS = 16  # of a pixel in positions and of a unit in flows
ONE = 1 << BITS
STEPS, SLOW_STEPS = 60, 20  # of a pixel, and then of 0.3 pixels: around a sink the long ones overshoot
SLOW = round(0.3 * ONE)
FASTEST = 2  # longest component of a flow; those that a network learns have 1
SPACING = 5  # pixels between sinks at least
LONGEST = 32  # side of a sink in pixels: what is longer has not come together, but stands still
ENOUGH = 0.8  # pixels that must have come together at the top of a sink
REACH = 6  # pixels between the end of a pixel's way and its sink at most
BINOMIAL = (1, 4, 6, 4, 1)
SMOOTHED = 4  # times by the binomial, each of which reaches over 2 pixels
AROUND = np.ones((3, 3), dtype=np.bool_)
# Pixels around a part on which the objects whose sinks lie in it depend: their pixels end within `REACH` of the sink,
# and sinks compete that are as far from there again; each is as long as it may be, and lies where more pixels end than
# around it; these come from as far as a way is long. And 6 more, for the pixels between which flows are interpolated.
FLOW_HALO = 2 * REACH + LONGEST + SPACING + 2 * SMOOTHED + FASTEST * (STEPS + SLOW * SLOW_STEPS // ONE) + 6

Whole = NDArray[np.int64]
Pixels = NDArray[np.bool_]


def follow(region: Pixels, flow: NDArray[np.float64], core: Sequence[int] | None = None) -> Whole:
    """Return the numbered objects of a region.

    Args:
        region: Pixels that are part of objects. ``[H, W]``.
        flow: Vectors ``(x, y)`` that lead to the middle of each object. ``[2, H, W]``.
        core: First row and column of a part, and those after its last. If given, only objects whose sink lies there are
            numbered.
    """
    labels = np.zeros(region.shape, dtype=np.int64)
    if min(region.shape) < 2 or not region.any():
        return labels
    rows, columns = np.nonzero(region)
    velocity = np.rint(ONE * np.where(region, flow, 0).clip(-FASTEST, FASTEST)).astype(np.int64)
    ends = _ends(rows * ONE, columns * ONE, velocity)
    gathered = _gathered(ends, region.shape)
    tops = (gathered == ndi.maximum_filter(gathered, 2 * SPACING + 1)) & (gathered > round(ENOUGH * ONE))
    # Tops beside each other are one sink; so are those that are equally high and as near as a pixel.
    sinks = _short(ndi.label(ndi.binary_dilation(tops, AROUND), AROUND)[0])
    tops &= sinks > 0
    count = int(sinks.max())
    if not count:
        return labels
    numbers = np.arange(1, count + 1)
    amount = np.rint(ndi.sum(gathered, sinks, numbers)).astype(np.int64)
    top_rows, top_columns = np.nonzero(tops)
    owner = sinks[top_rows, top_columns] - 1
    size = np.bincount(owner, minlength=count)
    middles = np.stack([np.rint(ONE * np.bincount(owner, along, count) / size) for along in (top_rows, top_columns)], 1)
    nearest = _nearest(ends, middles, amount)
    if core is not None:
        first, last = ONE * np.array(core[:2]), ONE * np.array(core[2:])
        own = ((middles >= first) & (middles < last)).all(axis=1)
        nearest = np.concatenate(([0], np.where(own, np.cumsum(own), 0)))[nearest]
    labels[rows, columns] = nearest
    return labels


def _short(sinks: Whole) -> Whole:
    """Return the sinks that are not too long, numbered anew."""
    boxes = ndi.find_objects(sinks)
    short = [max(axis.stop - axis.start for axis in box) <= LONGEST for box in boxes]
    numbers = np.concatenate(([0], np.where(short, np.cumsum(short), 0))).astype(np.int64)
    found: Whole = numbers[sinks]
    return found


def _ends(row: Whole, column: Whole, velocity: Whole) -> Whole:
    """Return the ends of the ways of all pixels, ``[pixels, 2]``, in `ONE` parts of a pixel: Euler's method."""
    _, height, width = velocity.shape
    across, down = (component.ravel() for component in velocity)
    for step in (ONE,) * STEPS + (SLOW,) * SLOW_STEPS:
        places, weights = _corners(row, column, height, width)
        move_across, move_down = (
            _rounded(sum(weight * field[place] for place, weight in zip(places, weights, strict=True)), 2 * BITS)
            for field in (across, down)
        )
        row = np.clip(row + _rounded(step * move_down, BITS), 0, (height - 1) * ONE)
        column = np.clip(column + _rounded(step * move_across, BITS), 0, (width - 1) * ONE)
    return np.stack((row, column), axis=1)


def _corners(row: Whole, column: Whole, height: int, width: int) -> tuple[list[Whole], list[Whole]]:
    """Return the four pixels around each position, and their weights in `ONE` squared, that sum to it."""
    top, left = np.minimum(row >> BITS, height - 2), np.minimum(column >> BITS, width - 2)
    low, far = row - (top << BITS), column - (left << BITS)
    first = top * width + left
    places = [first, first + 1, first + width, first + width + 1]
    weights = [(ONE - low) * (ONE - far), (ONE - low) * far, low * (ONE - far), low * far]
    return places, weights


def _rounded(value: Whole, bits: int) -> Whole:
    """Divide by ``2 ** bits`` and round half away from zero, the same for both signs."""
    return np.sign(value) * ((np.abs(value) + (1 << (bits - 1))) >> bits)


def _gathered(ends: Whole, size: tuple[int, ...]) -> Whole:
    """Return how many pixels end at each one, in `ONE` parts, smoothed with standard deviation 2."""
    height, width = size
    counts = np.zeros(height * width, dtype=np.int64)
    for place, weight in zip(*_corners(ends[:, 0], ends[:, 1], height, width), strict=True):
        np.add.at(counts, place, _rounded(weight, BITS))
    smooth = counts.reshape(height, width)
    for _ in range(SMOOTHED):
        for axis in (0, 1):
            smooth = ndi.correlate1d(smooth, BINOMIAL, axis=axis, mode="constant")
        smooth = (smooth + 128) // 256
    return smooth


def _nearest(ends: Whole, middles: NDArray[np.float64], amount: Whole) -> Whole:
    """Return the number of the nearest sink; of those as near the one of most pixels, 0 if several have most."""
    count = min(4, len(middles))
    distance, sink = cKDTree(middles).query(ends, k=list(range(1, count + 1)))
    near = distance == distance[:, :1]
    most = np.where(near, amount[sink], -1)
    best = most == most.max(axis=1, keepdims=True)
    chosen = np.where(best, sink + 1, 0).max(axis=1)
    sure = (best.sum(axis=1) == 1) & (distance[:, 0] <= REACH * ONE)
    return np.where(sure, chosen, 0)
