"""Tissue on a slide: which of its pixels are stained, found on a small view of it by a rule without orientation."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..images import SlideImage

SIDE = 2048  # longest side of the small view in pixels
STEP = 8  # pixels of the slide along the side of one of the view, at least
LOWEST, HIGHEST = 8.0, 32.0  # thresholds: noise of white glass lies below, stained tissue above
BINS = 1024  # of the histogram, over 0 .. 256


class Tissue(NamedTuple):
    """Tissue on a small view of a slide.

    Args:
        view: Small view in the units of the file, ``[C, h, w]``.
        mask: Pixels of the view with tissue, ``[h, w]``.
        threshold: Saturation above which a pixel is tissue; None if everything is taken for tissue.
    """

    view: Tensor
    mask: Tensor
    threshold: float | None


def find_tissue(image: SlideImage, *, everything: bool = False) -> Tissue:
    """Find the tissue of a slide in red, green and blue of 8 bits, as stained sections in a bright field are.

    The saturation of a pixel is the difference of its largest and its smallest colour, 0 .. 255; glass, ink and shadows
    have little. Otsu's threshold, no lower than 8 and no higher than 32, parts its histogram, and the mask grows by a
    pixel on each side. Neither depends on the order of the pixels: of a rotated slide the mask is the rotated one.

    A slide of other channels or numbers, such as fluorescence, has no saturation, and neither has a grey one: all of it
    is taken for tissue.

    Args:
        image: Slide at the resolution of the prediction.
        everything: Whether all of it is taken for tissue in any case.
    """
    channels, height, width = image.shape
    factor = max(STEP, max(height, width) / SIDE)
    shape = max(1, round(height / factor)), max(1, round(width / factor))
    view = image.slide.overview(*shape)
    if not everything and image.slide.numbers == "uint8" and channels in (3, 4):
        saturation = view[:3].amax(dim=0) - view[:3].amin(dim=0)
        threshold = min(max(_otsu(saturation), LOWEST), HIGHEST)
        stained = saturation > threshold
        if bool(stained.any()):
            grown = F.max_pool2d(stained[None].to(torch.float32), 3, stride=1, padding=1)[0] > 0
            return Tissue(view, grown, threshold)
    return Tissue(view, torch.ones(shape, dtype=torch.bool), None)


def _otsu(values: Tensor) -> float:
    """Return the threshold that parts the values 0 .. 255 into two classes of the largest variance between them.

    References:
        Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Trans. SMC 9 (1979) 62-66.
    """
    places = (values * (BINS / 256)).floor().to(torch.int64).flatten()
    counts = places.bincount(minlength=BINS).to(torch.float64)
    below, moment = counts.cumsum(0), (counts * torch.arange(BINS)).cumsum(0)
    above = below[-1] - below
    between = (moment[-1] * below - moment * below[-1]) ** 2 / (below * above).clamp_min(1)
    return float(between.argmax() + 1) * 256 / BINS


def tiles_with_tissue(
    mask: Tensor, size: tuple[int, int], rows: list[tuple[int, int]], columns: list[tuple[int, int]]
) -> NDArray[np.bool_]:
    """Return which of the tiles of an image touch a pixel of a mask on a small view of it.

    Args:
        mask: Mask on the small view.
        size: Height and width of the image.
        rows: First row of each row of tiles, and the one after its last.
        columns: The same for columns.

    Shape:
        - mask: ``[h, w]``
        - output: ``[rows, columns]``
    """
    spans = [
        [(begin * small // large, -(-end * small // large)) for begin, end in parts]
        for parts, small, large in zip((rows, columns), mask.shape, size, strict=True)
    ]
    counts = F.pad(mask.to(torch.int64).cumsum(0).cumsum(1), (1, 0, 1, 0)).numpy()
    tops, ends, lefts, rights = (np.array([span[end] for span in axis]) for axis in spans for end in (0, 1))
    inside = counts[np.ix_(ends, rights)] - counts[np.ix_(tops, rights)]
    return np.asarray(inside - counts[np.ix_(ends, lefts)] + counts[np.ix_(tops, lefts)] > 0)


def shown(view: Tensor) -> NDArray[np.uint8]:
    """Return a small view in colours that can be looked at: 8 bits as they are, others spread over 0 .. 255.

    Shape:
        - view: ``[C, h, w]``
        - output: ``[h, w, 3]``
    """
    pixels = (view[:3] if len(view) >= 3 else view[:1]).expand(3, -1, -1).numpy()
    high = float(pixels.max())
    if not 1 < high <= 255:
        low, high = (float(value) for value in np.percentile(pixels, (0.5, 99.5)))
        pixels = (pixels - low) * (255 / max(high - low, 1e-12))
    return np.asarray(np.rint(pixels.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0))


def darkened(picture: NDArray[np.uint8], mask: Tensor) -> NDArray[np.uint8]:
    """Return a picture in which what is not in the mask is grey.

    Shape:
        - picture: ``[h, w, 3]``
        - mask: ``[h, w]``
    """
    dark = picture.mean(axis=2, keepdims=True) * 0.4
    return np.where(mask.numpy()[..., None], picture, dark.astype(np.uint8))
