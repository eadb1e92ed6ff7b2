"""One look at every file before anything is done with them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._validate import as_int
from ._folders import PairFiles, Problem
from ._images import read_image, read_mask
from ._normalization import Normalization

EMPTY_CLASS = "masks"
"""What `Problem.file` says of a class that no mask has: it is no fault of one file."""


@dataclass(frozen=True)
class Scan:
    """What a scan found.

    Args:
        problems: What is wrong; empty if all is well.
        classes: How many classes the masks have: as many as was said, or one more than the largest index.
        channels: How many the images have.
        smallest: The smaller side of the smallest image.
        pixels: How many pixels each class has in all.

    Example:
        >>> Scan(problems=(), classes=2, channels=3, smallest=128, pixels=(900, 100)).classes
        2
    """

    problems: tuple[Problem, ...]
    classes: int
    channels: int
    smallest: int
    pixels: tuple[int, ...]


def scan_pairs(
    pairs: Sequence[PairFiles],
    *,
    classes: int | None = None,
    channels: int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Scan:
    """Reads every image and mask once and notes what is wrong.

    Files that cannot be read, sizes that differ, images of other channels than the rest, values that are no number,
    classes outside of ``0 .. classes - 1``, classes that no mask has.

    Args:
        pairs: The files.
        classes: How many classes there are; None for one more than the largest index.
        channels: How many channels the images have; None for what most of them have.
        progress: Called after each pair with the number of pairs done.

    Raises:
        ValueError: ``classes`` is no int from 2 up.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.png").write_text("no image")
        ...     scan = scan_pairs([PairFiles(Path(folder, "a.png"), Path(folder, "a.png"))], classes=2)
        >>> scan.problems[0].what[:30]
        'path must be a readable image '
    """
    if classes is not None:
        as_int("classes", classes, minimum=2)
    problems, shapes, pixels = [], {}, Counter[int]()
    for done, pair in enumerate(pairs, start=1):
        try:
            image, mask = read_image(pair.image), read_mask(pair.mask)
        except ValueError as error:
            problems.append(Problem(pair.image.name, str(error)))
        else:
            shapes[pair] = image.shape
            problems += [Problem(pair.image.name, what) for what in _faults(image, mask, classes)]
            values, counts = mask.unique(return_counts=True)
            pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if progress is not None:
            progress(done)
    common = Counter(shape[0] for shape in shapes.values()).most_common(1)
    usual = channels or (common[0][0] if common else 0)
    problems += [
        Problem(pair.image.name, f"{shape[0]} channels, where {usual} are expected")
        for pair, shape in shapes.items()
        if shape[0] != usual
    ]
    count = classes or max(2, 1 + max(pixels, default=0))
    problems += _empty(pixels, count)
    smallest = min((min(shape[1:]) for shape in shapes.values()), default=0)
    return Scan(tuple(problems), count, usual, smallest, tuple(pixels[index] for index in range(min(count, 256))))


def _faults(image: Tensor, mask: Tensor, classes: int | None) -> list[str]:
    """What is wrong with a pair that could be read."""
    faults = []
    if image.shape[1:] != mask.shape:
        sizes = ("x".join(str(side) for side in shape) for shape in (image.shape[1:], mask.shape))
        faults.append("image {}, mask {}".format(*sizes))
    if not bool(torch.isfinite(image).all()):
        faults.append("the image has values that are no number or infinite")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or (classes is not None and high >= classes):
        faults.append(f"mask values {low} .. {high}, where 0 .. {'' if classes is None else classes - 1} are expected")
    return faults


def _empty(pixels: Counter[int], classes: int) -> list[Problem]:
    empty = [index for index in range(min(classes, 10_000)) if not pixels[index]]
    if not empty or not pixels:
        return []
    some = ", ".join(str(index) for index in empty[:5]) + (f" and {len(empty) - 5} more" if empty[5:] else "")
    values = ", ".join(str(value) for value in sorted(pixels)[:5]) + (" ..." if len(pixels) > 5 else "")
    return [Problem(EMPTY_CLASS, f"no pixel of class {some}; the values there are {values}")]


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Files read when they are asked for: pairs of a normalised image and its mask.

    Args:
        pairs: The files.
        normalization: What is done to an image; None for nothing.

    Shape:
        - item: image ``[C, H, W]``, float32; mask ``[H, W]``, int64

    Example:
        >>> len(PairDataset([]))
        0
    """

    def __init__(self, pairs: Sequence[PairFiles], normalization: Normalization | None = None) -> None:
        self.pairs = tuple(pairs)
        self.normalization = normalization

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = read_image(self.pairs[index].image), read_mask(self.pairs[index].mask)
        return image if self.normalization is None else self.normalization(image), mask
