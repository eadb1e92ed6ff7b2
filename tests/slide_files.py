"""Synthetic slides for the tests: stained blobs on white glass, as tiled TIFFs in levels; networks that see them."""

import numpy as np
import scipy.ndimage as ndi
import tifffile
import torch

from gconv_ga.averaging import GroupAverage
from gconv_ga.images import Normalization
from gconv_ga.models import EquivariantUNet, UNet


def stained(size, seed=0, scale=3.0, share=0.4):
    """Nuclei-like blobs in tissue-like blobs on white glass. ``[H, W, 3]``, uint8."""
    rng = np.random.default_rng(seed)
    tissue = ndi.gaussian_filter(rng.normal(size=size), 8 * scale)
    nuclei = ndi.gaussian_filter(rng.normal(size=size), scale)
    inside = tissue > np.quantile(tissue, 1 - share)
    dark = inside & (nuclei > np.quantile(nuclei, 0.7))
    pixels = np.where(inside[..., None], (226, 150, 190), (244, 244, 243))
    pixels = np.where(dark[..., None], (110, 60, 140), pixels)
    return np.clip(pixels + rng.integers(-6, 7, (*size, 3)), 0, 255).astype(np.uint8)


def halved(pixels):
    """Means of 2 x 2 pixels; the last row and column of odd ones are left out."""
    high, wide = (side // 2 * 2 for side in pixels.shape[:2])
    parts = pixels[:high, :wide].astype(np.float64)
    return ((parts[::2] + parts[1::2])[:, ::2] / 4 + (parts[::2] + parts[1::2])[:, 1::2] / 4).astype(pixels.dtype)


def write_levels(path, levels, *, pixel_size=0.5, **options):
    """A TIFF whose coarser levels are the SubIFDs of the first page."""
    per_centimeter = 1e4 / pixel_size
    with tifffile.TiffWriter(path) as file:
        file.write(
            levels[0], subifds=len(levels) - 1, tile=(64, 64), resolution=(per_centimeter, per_centimeter),
            resolutionunit="CENTIMETER", metadata=None, **options,
        )  # fmt: skip
        for level in levels[1:]:
            file.write(level, subfiletype=1, tile=(64, 64), metadata=None, **options)
    return path


# By name: how an image ``[H, W, ...]`` is moved.
MOVES = {
    "upright": lambda pixels: pixels,
    "rotated": lambda pixels: np.rot90(pixels),
    "upside down": lambda pixels: np.rot90(pixels, 2),
    "reflected": lambda pixels: pixels[:, ::-1],
    "transposed": lambda pixels: pixels.swapaxes(0, 1),
}


def moved_slides(folder, pixels, moves, *, count=3):
    """The same slide in several orientations, each level moved: files by the name of the move."""
    levels = [pixels]
    while len(levels) < count:
        levels.append(halved(levels[-1]))
    options = {"photometric": "rgb", "compression": "deflate"}
    return {
        name: write_levels(
            folder / f"{name}.tif", [np.ascontiguousarray(MOVES[name](level)) for level in levels], **options
        )
        for name in moves
    }


NORMALIZATION = Normalization([200.0, 170.0, 200.0], [40.0, 50.0, 40.0])
PIXELS = stained((151, 108), scale=2.0)


def make(name):
    """A network with random weights that finds all of three classes."""
    torch.manual_seed(0)
    net = (
        UNet(3, 3, width=2, depth=2)
        if name in ("UNet", "average")
        else EquivariantUNet(3, 3, group=name, width=1, depth=2)
    )
    net.eval()
    with torch.no_grad():
        logits = net(NORMALIZATION(torch.from_numpy(PIXELS).permute(2, 0, 1).float())[None])[0]
        net.segmentation_head.bias -= logits.mean(dim=(1, 2))
    return GroupAverage(net, "D4").eval() if name == "average" else net
