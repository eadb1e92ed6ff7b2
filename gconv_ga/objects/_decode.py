"""From a map of classes to objects, by rules that commute with rotations by 90 degrees and reflections.

Everything is computed with whole numbers, which have no rounding that depends on the order of the terms, and nothing
depends on the order of the pixels. The watershed of scikit-image assigns ties in the order in which pixels are read.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage as ndi
import torch
from numpy.typing import NDArray
from skimage.morphology import local_maxima, reconstruction
from torch import Tensor

from .._validate import invalid, wrong_shape
from ._decoder import Decoder, Objects
from ._follow import follow

LEVELS = 16  # of height in a pixel of distance
FINE_LEVELS = 64  # of height in the largest distance of an object
BINOMIAL = (1, 4, 6, 4, 1)  # a Gaussian of standard deviation 1, in whole numbers that sum to 16
AROUND = np.ones((3, 3), dtype=np.bool_)  # a pixel and its eight neighbours
BELOW = -(2**31)  # height of what is no part of the region
LEFT_OUT = -1

Whole = NDArray[np.int64]
Pixels = NDArray[np.bool_]


def decode(
    classes: Tensor, decoder: Decoder | None = None, maps: Tensor | None = None, *, core: Sequence[int] | None = None
) -> Objects:
    """Cut the region of each class into objects.

    The height of a pixel is its distance to the nearest pixel outside the region, smoothed by a binomial of standard
    deviation 1 and rounded to a sixteenth of a pixel. Summits that rise by ``rise`` above the pass to a higher one are
    seeds (h-maxima). Then the level sinks: at each level, pixels next to an object join it, in rounds, all pixels of
    a round at once. A pixel beside several objects joins that of the highest neighbour; where those are equal, the one
    that has most pixels so far; where those are equal too, none. Pixels are neighbours by side or by corner.

    With "distance" the height is the predicted distance, smoothed and rounded to 1/64. With "flow" every pixel moves
    along the predicted flow, of whose components no more than 2 counts, in steps of whole 2^-16 of a pixel; where
    pixels gather are sinks, at least 5 pixels apart and at most 32 long; a pixel joins the nearest sink within 6 pixels
    of its end, of two as near the larger, and none if they are equal.

    Exact for the rotations by 90 degrees and the reflections: ``decode(L_g c)`` has the labels ``L_g decode(c)``, up to
    the numbers of the objects. Time (about 1.3 s a million pixels) and memory (100 bytes a pixel) grow with the image.

    Args:
        classes: Class of each pixel; 0 is background.
        decoder: Rules. If None, ``Decoder()``.
        maps: Predicted distance and flow, for rules that need them.
        core: For "flow", a part of the image: its first row and column, and those after its last. If given, only the
            objects whose sink lies in it are returned. They are those of a larger image of which ``classes`` shows no
            more than what lies within `FLOW_HALO` pixels of the part.

    Shape:
        - classes: ``[H, W]``, integers
        - maps: ``[3, H, W]``, the distance and the components of the flow, x along the columns, y down the rows

    Raises:
        ValueError: ``classes`` is not ``[H, W]``, not of integers, or has negative ones; the rules need maps and
            there are none, or they are not ``[3, H, W]``, or not finite; a core is given for rules without sinks.

    Example:
        >>> import torch
        >>> from gconv_ga.objects import decode
        >>> y, x = torch.meshgrid(torch.arange(30), torch.arange(50), indexing="ij")
        >>> touching = ((y - 15) ** 2 + (x - 15) ** 2 < 100) | ((y - 15) ** 2 + (x - 32) ** 2 < 100)
        >>> objects = decode(touching.long())
        >>> objects.classes, torch.equal(objects.labels > 0, touching)
        (tensor([1, 1]), True)

    References:
        Soille, "Morphological Image Analysis", 2nd edition, 2003, chapters 6 (h-maxima) and 9 (watershed).
    """
    if classes.ndim != 2:
        raise wrong_shape("classes", "[H, W]", classes)
    if classes.is_floating_point() or (classes.numel() and int(classes.min()) < 0):
        raise invalid("classes", "class indices of at least 0", classes)
    rules, pixels = Decoder() if decoder is None else decoder, classes.cpu().numpy()
    if rules.needs_maps and (maps is None or maps.shape != (3, *classes.shape)):
        if maps is None:
            raise invalid("maps", f"a distance and a flow for the method {rules.method!r}", maps)
        raise wrong_shape("maps", f"[3, H, W] = {(3, *classes.shape)}", maps)
    if rules.needs_maps and maps is not None and not bool(torch.isfinite(maps).all()):
        raise invalid("maps", "finite distances and flows", maps, "a network that computes NaN has to be trained anew")
    if core is not None and rules.method != "flow":
        raise invalid("core", f"None for the method {rules.method!r}, whose objects have no sinks", tuple(core))
    fields = None if maps is None else maps.to(torch.float64).cpu().numpy()
    labels, found = np.zeros(pixels.shape, dtype=np.int64), list[int]()
    for index in np.unique(pixels[pixels > 0]).tolist():
        own = drop_small(_cut(pixels == index, rules, fields, core), rules.smallest)
        labels = np.where(own > 0, own + len(found), labels)
        found += [index] * int(own.max(initial=0))
    return Objects(torch.from_numpy(labels), torch.tensor(found, dtype=torch.int64))


def _cut(region: Pixels, rules: Decoder, fields: NDArray[np.float64] | None, core: Sequence[int] | None) -> Whole:
    """Return the numbered objects of a region, small ones included."""
    if rules.method == "components":
        return regions(region)
    if fields is None or rules.method == "watershed":
        return flood(*_seeded(_heights(region), LEVELS * rules.height))
    if rules.method == "flow":
        return follow(region, fields[1:], core)
    height = smooth(np.rint(FINE_LEVELS * np.where(region, fields[0].clip(0, 2), 0)).astype(np.int64))
    return flood(*_seeded(np.where(region, np.maximum(height, 1), BELOW), FINE_LEVELS * rules.height))


def regions(region: Pixels) -> Whole:
    """Return the connected regions, numbered from 1; pixels are neighbours by side or by corner."""
    found: Whole = ndi.label(region, AROUND)[0].astype(np.int64)
    return found


def drop_small(labels: Whole, smallest: int) -> Whole:
    """Drop objects of fewer pixels, and number the others without gaps."""
    kept = np.bincount(labels.ravel()) >= smallest
    kept[0] = False
    numbers: Whole = np.where(kept, np.cumsum(kept), 0)[labels]
    return numbers


def _heights(region: Pixels) -> Whole:
    """Return the smoothed distance to the edge in `LEVELS` of a pixel, at least 1 inside of the region and `BELOW` out.

    The border of the image is no edge: an object that it cuts has its summit where it would be without.
    """
    if region.all():
        return np.ones(region.shape, dtype=np.int64)
    distance = np.rint(LEVELS * ndi.distance_transform_edt(region)).astype(np.int64)  # of whole numbers, the root
    return np.where(region, np.maximum(smooth(distance), 1), BELOW)


def smooth(height: Whole) -> Whole:
    """Smooth whole numbers by a binomial of standard deviation 1, exactly, and round to whole numbers."""
    for axis in (0, 1):
        height = ndi.correlate1d(height, BINOMIAL, axis=axis, mode="nearest")
    return (height + 128) // 256


def _seeded(height: Whole, rise: float) -> tuple[Whole, Whole]:
    """Return the heights, and the numbered seeds: the summits that are left when all sink by ``rise`` and fill up."""
    sunk = np.where(height > BELOW, height - max(1, round(rise)), BELOW)
    # Padded, or the region of an image that it fills would be flat, and have no summit.
    filled = np.pad(reconstruction(sunk, height, footprint=AROUND), 1, constant_values=BELOW)
    return height, regions(local_maxima(filled, footprint=AROUND)[1:-1, 1:-1] & (height > BELOW))


def flood(height: Whole, seeds: Whole) -> Whole:
    """Grow the seeds over the region from the highest level down, without regard to the order of pixels.

    Args:
        height: Height of each pixel; `BELOW` outside the region.
        seeds: Numbered seeds; 0 elsewhere.
    """
    columns = height.shape[1] + 2
    beside = np.array([row * columns + column for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column])
    heights, labels = (np.pad(each, 1, constant_values=fill).ravel() for each, fill in ((height, BELOW), (seeds, 0)))
    sizes = np.bincount(labels)
    free = np.flatnonzero((heights > BELOW) & (labels == 0))
    free = free[np.argsort(-heights[free], kind="stable")]
    waiting = free[:0]
    for level in np.split(free, np.flatnonzero(np.diff(heights[free])) + 1):
        waiting = np.concatenate((waiting, level))
        while waiting.size:
            near = labels[waiting[:, None] + beside]
            reached = (near > 0).any(axis=1)
            if not reached.any():
                break
            here = waiting[reached]
            chosen = _owners(near[reached], heights[here[:, None] + beside], sizes)
            labels[here] = chosen
            sizes += np.bincount(chosen[chosen > 0], minlength=len(sizes))
            waiting = waiting[~reached]
    whole = labels.reshape(height.shape[0] + 2, columns)[1:-1, 1:-1]
    return np.maximum(whole, 0)


def _owners(near: Whole, heights: Whole, sizes: NDArray[Any]) -> Whole:
    """Return the object that each pixel joins: of the highest neighbour, then the largest; `LEFT_OUT` if none is.

    Shape:
        - near, heights: ``[pixels, 8]``, the objects and heights of the neighbours
        - sizes: ``[objects + 1]``
    """
    for value in (heights, sizes[np.maximum(near, 0)]):
        ranked = np.where(near > 0, value, BELOW)
        near = np.where((near > 0) & (ranked == ranked.max(axis=1, keepdims=True)), near, 0)
    highest = near.max(axis=1)
    alone = ((near == 0) | (near == highest[:, None])).all(axis=1)
    return np.where(alone, highest, LEFT_OUT)
