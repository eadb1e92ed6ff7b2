"""Sample images that come with the package."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._files import write_atomically
from .._validate import invalid, one_of
from ._reader import Normalization, read_image, read_mask

FOLDER = Path(__file__).parent / "sample"
# Percentile that the images of each sample are scaled by: the brightest pixel of a fluorescence image is 79 to 255.
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
        >>> from gconv_ga.images import Split
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
    """Images for training and testing, normalized by the training images, and the names of their classes.

    Args:
        name: Name of the sample.
        train: Training images, normalized.
        test: Test images, normalized by the same constants.
        classes: Names of the classes; a mask holds their indices.
        normalization: Normalization of the images, for use on others.

    Example:
        >>> from gconv_ga.images import load_sample
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
    """Load a sample of real microscope images with masks of the nuclei; it comes with the package (CC0 1.0).

    Args:
        name: "nuclei" (24 grey fluorescence images) or "histology" (8 RGB images of stained tissue), 128 x 128 each.

    Raises:
        ValueError: There is no such sample.

    Example:
        >>> from gconv_ga.images import load_sample
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


def write_sample(name: str, folder: str | Path) -> Path:
    """Write a sample as files, as a user has them: ``train`` and ``test``, each with ``images`` and ``masks``.

    Args:
        name: "nuclei" or "histology".
        folder: Folder to write to; it is made if need be, and what is in it stays.

    Returns:
        The folder.

    Raises:
        ValueError: There is no such sample, or one of its files exists already.
        OSError: A file cannot be written, as when the disk is full. None is then left.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import write_sample
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = write_sample("histology", place)
        ...     [len(list((folder / part / "images").iterdir())) for part in ("train", "test")]
        [6, 2]
    """
    source, target = FOLDER / one_of("name", name, SAMPLES), Path(folder)
    files = [
        (source / kind / file, target / split / kind / file)
        for split in ("train", "test")
        for file in _names(source, split)
        for kind in ("images", "masks")
    ]
    there = [written for _, written in files if written.exists()]
    if there:
        raise invalid("folder", "one without files of the sample", str(folder), f"{there[0]} exists")
    done: list[Path] = []
    try:
        for own, written in files:
            done.append(write_atomically(written, own.read_bytes()))
    except BaseException:  # what is there would be in the way of the next attempt
        for written in done:
            written.unlink(missing_ok=True)
        raise
    return target


def _names(folder: Path, split: str) -> list[str]:
    with (folder / "split.csv").open(newline="", encoding="utf-8") as file:
        return [row["file"] for row in csv.DictReader(file) if row["split"] == split]


def _read_split(folder: Path, split: str) -> Split:
    names = _names(folder, split)
    images = torch.stack([read_image(folder / "images" / name) for name in names])
    return Split(images, torch.stack([read_mask(folder / "masks" / name) for name in names]))
