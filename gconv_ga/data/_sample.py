"""The images that come with the package."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._validate import one_of
from ._images import read_image, read_mask
from ._normalization import Normalization

FOLDER = Path(__file__).parent / "sample"
# Each sample and the percentile its images are scaled by: the brightest pixel of a fluorescence image is 79 to 255.
PERCENTILES = {"nuclei": 99.8, "histology": None}
SAMPLES = tuple(PERCENTILES)


@dataclass(frozen=True)
class Split(Dataset[tuple[Tensor, Tensor]]):
    """Images of one size with their masks; as a dataset, pairs ``(image, mask)``.

    Args:
        images: ``[N, C, H, W]``, float.
        masks: ``[N, H, W]``, class indices.

    Example:
        >>> import torch
        >>> split = Split(torch.zeros(5, 3, 8, 8), torch.zeros(5, 8, 8, dtype=torch.int64))
        >>> len(split), split[0][0].shape
        (5, torch.Size([3, 8, 8]))
    """

    images: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.masks[index]


@dataclass(frozen=True)
class Sample:
    """Images for training and for testing, normalised by the training images, and what their classes are called.

    Args:
        name: The sample's name.
        train: The training images, normalised.
        test: The test images, normalised by the same constants.
        classes: The names of the classes; a mask holds their indices.
        normalization: What was done to the images, to be done to others.

    Example:
        >>> sample = load_sample("histology")
        >>> len(sample.train), len(sample.test), sample.classes
        (6, 2, ('background', 'nucleus'))
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    normalization: Normalization


def load_sample(name: str) -> Sample:
    """A sample of real microscope images with masks of the nuclei; it comes with the package (CC0 1.0).

    Args:
        name: "nuclei" (24 grey fluorescence images) or "histology" (8 RGB images of stained tissue), 128 x 128 each.

    Raises:
        ValueError: There is no such sample.

    Example:
        >>> load_sample("histology").test.images.shape
        torch.Size([2, 3, 128, 128])

    References:
        Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods
        16, 2019; masks of the corrected set by K. Lopuhin and others. See ``sample/LICENCE.md``.
    """
    folder = FOLDER / one_of("name", name, SAMPLES)
    raw = {split: _read_split(folder, split) for split in ("train", "test")}
    normalization = Normalization.measure(raw["train"].images, PERCENTILES[name])
    train, test = (Split(normalization(split.images), split.masks) for split in raw.values())
    return Sample(name, train, test, ("background", "nucleus"), normalization)


def _read_split(folder: Path, split: str) -> Split:
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == split]
    images = torch.stack([read_image(folder / "images" / name) for name in names])
    return Split(images, torch.stack([read_mask(folder / "masks" / name) for name in names]))
