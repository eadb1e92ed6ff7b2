"""Label and class maps for the tests of objects."""

import numpy as np
import scipy.ndimage as ndi
import torch


def blobs(size, seed, scale=2.0, classes=1):
    """A class map of blobs that touch."""
    noise = np.random.default_rng(seed).normal(size=(classes + 1, *size))
    smooth = np.stack([ndi.gaussian_filter(plane, scale) for plane in noise])
    return torch.from_numpy(smooth.argmax(axis=0))


def discs(size, *circles):
    """A mask of discs ``(row, column, radius)``."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = [(rows - row) ** 2 + (columns - column) ** 2 < radius**2 for row, column, radius in circles]
    return torch.from_numpy(np.any(inside, axis=0).astype(np.int64))
