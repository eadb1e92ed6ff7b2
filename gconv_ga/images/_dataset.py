"""Data sets for training: pairs of an image and its mask, random crops of them, and augmentation by a group."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from .._validate import as_int, invalid
from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group
from ._changes import Changes
from ._masks import MaskEncoding
from ._pairs import PairFiles
from ._random_changes import RandomChanges
from ._reader import ImageFile, MaskFile, Normalization
from ._reading import Reading


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Data set of pairs of a normalized image and its mask, read from their files on access, whole or by window.

    Args:
        pairs: The files.
        normalization: Normalization of the images. If None, they are in the units of the files.
        code: Encoding of the masks. If None, they hold indices.
        reading: How the files are read. If None, as by default.

    Shape:
        - item: image ``[C, H, W]``, float32; mask ``[H, W]``, int64

    Raises:
        ValueError: An image and its mask differ in size, or a file is damaged; raised when an item is read.

    Example:
        >>> from gconv_ga.images import PairDataset
        >>> len(PairDataset([]))
        0
    """

    def __init__(
        self,
        pairs: Sequence[PairFiles],
        normalization: Normalization | None = None,
        code: MaskEncoding | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.pairs = tuple(pairs)
        self.normalization = normalization
        self.code = code
        self.reading = reading
        self._levels: dict[int, Tensor | None] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.files(index)
        size = (0, 0, *mask.shape)
        return image.window(*size), mask.window(*size)

    def files(self, index: int) -> tuple[ImageFile, MaskFile]:
        """Return the open files of a pair, to be read by window.

        Args:
            index: Index of the pair.

        Raises:
            ValueError: The image and its mask differ in size, or a file is damaged.
        """
        pair = self.pairs[index]
        image = ImageFile(pair.image, self.normalization, self.reading)
        mask = MaskFile(pair.mask, self.code, self.reading)
        if image.shape[1:] != mask.shape:
            raise invalid(
                "mask", f"of the size of the image, {image.shape[1:]}", mask.shape, f"the file is {pair.mask}"
            )
        if index not in self._levels:
            self._levels[index] = image.level()
        image.scale_by(self._levels[index])
        return image, mask


def measure_files(
    pairs: Sequence[PairFiles],
    percentile: float | None = None,
    reading: Reading | None = None,
    black: float | None = None,
) -> Normalization:
    """Return the normalization that gives the images of these files mean zero and standard deviation one per channel.

    No more than a band of an image is held as float32.

    Args:
        pairs: Files of the training images.
        percentile: As for `Normalization`.
        reading: How the files are read. If None, as by default.
        black: As for `Normalization`.

    Raises:
        ValueError: There are no files, a file is damaged, or every channel is constant.

    Example:
        >>> from gconv_ga.images import ImageFile, PairFiles, measure_files
        >>> from gconv_ga.images._dataset import __file__
        >>> from pathlib import Path
        >>> image = Path(__file__).parent / "sample" / "nuclei" / "images" / "00.png"
        >>> measure_files([PairFiles(image, image)]).mean[0] == ImageFile(image).window(0, 0, 128, 128).mean().item()
        True
    """
    if not pairs:
        raise invalid("pairs", "the files of at least one image", pairs)
    channels = ImageFile(pairs[0].image, None, reading).shape[0]
    scale = Normalization([0.0] * channels, [1.0] * channels, percentile, black)
    measured = Normalization.measure(band for pair in pairs for band in ImageFile(pair.image, scale, reading).bands())
    return Normalization(measured.mean, measured.std, percentile, black)


class RandomSymmetry(v2.Transform):  # type: ignore[misc]  # torchvision has no type hints
    """Transform (torchvision v2) that moves an image and its mask by the same random element of a group.

    All elements are equally likely. For C4 and D4, pixels are moved and never interpolated, on images of any height and
    width (``H x W`` rotated by 90 degrees is ``W x H``); torchvision's own rotations keep the canvas and fill its
    corners. Draws from torch's global generator, as torchvision's transforms do.

    Args:
        group: The group or its name; "D4" for rotations by multiples of 90 degrees and reflections.
        fill: Class of pixels that come from outside the image, at angles off the grid.

    Shape:
        - image: ``[..., C, H, W]``, a `torchvision.tv_tensors.Image`
        - mask: ``[..., H, W]``, a `torchvision.tv_tensors.Mask`

    Raises:
        ValueError: ``group`` is not a group.

    Example:
        >>> import torch
        >>> from gconv_ga.images import RandomSymmetry
        >>> from torchvision import tv_tensors
        >>> image, mask = tv_tensors.Image(torch.rand(3, 24, 32)), tv_tensors.Mask(torch.zeros(24, 32))
        >>> moved, moved_mask = RandomSymmetry("D4")(image, mask)
        >>> sorted(moved.shape[-2:]), moved.shape[-2:] == moved_mask.shape
        ([24, 32], True)
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask)

    def __init__(self, group: Group | str, fill: int = 0) -> None:
        super().__init__()
        self.group = as_group(group)
        self.fill = fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the element to move by."""
        return {"element": int(torch.randint(self.group.order, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Move the image or mask."""
        action = LabelMask(self.fill) if isinstance(inpt, tv_tensors.Mask) else ScalarField()
        moved = action(inpt.as_subclass(torch.Tensor), self.group, params["element"])
        wrapped: Tensor = tv_tensors.wrap(moved, like=inpt)
        return wrapped


class Pairs(Protocol):
    """Pairs ``(image [C, H, W], mask [H, W])`` by index."""

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pair of an index."""


class CropStream(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of a data set, in an order and with draws that depend on ``(seed, index)`` alone.

    Each pass over the images has a new order. Since item ``i`` is the same in every process and at any time, training
    that is resumed at step ``s`` sees what it would have seen, and the number of workers has no effect. Read it in
    order (``shuffle=False``). Torch's global generator is left unchanged.

    For a random scale a smaller or larger window of the image is resized to a crop: the image is interpolated, after
    smoothing if it shrinks, and each pixel of the mask has the class of the nearest one.

    Args:
        pairs: Data set of pairs ``(image, mask)``, such as a `Split`.
        length: Number of items: steps times batch size.
        crop: Height and width of the crops in pixels.
        symmetry: Group of the augmentation: each crop is moved by a random element; "D4" for rotations by multiples of
            90 degrees and reflections. If None, crops are not moved.
        seed: Random seed of the order and of all draws.
        ignore_index: Class of padded pixels: images smaller than a crop are padded by reflection, as much on either
            side, and are not refused. If None, they are.
        augment: Random changes of colour, contrast, scale and so on, or their name as for `Changes.named`: "none",
            "light", "strong", "color,noise" ... They are made for normalized images.
        places: Pixels of rare classes, as `rare_places` returns them. Half of the crops then hold one of these pixels:
            class, image and pixel are drawn one after the other, each choice as likely as the others. If None, crops
            lie anywhere, in each image in turn.

    Shape:
        - item: image ``[C, crop, crop]``, mask ``[crop, crop]``

    Raises:
        ValueError: ``crop`` is larger than an image and there is no ``ignore_index``, or an argument is not a positive
            int (``seed``: negative).

    Example:
        >>> import torch
        >>> from gconv_ga.images import CropStream
        >>> from gconv_ga.images import Split
        >>> split = Split(torch.rand(3, 1, 32, 40), torch.zeros(3, 32, 40, dtype=torch.int64))
        >>> stream = CropStream(split, length=100, crop=16, symmetry="D4", seed=1)
        >>> stream[57][0].shape, torch.equal(stream[57][0], stream[57][0])
        (torch.Size([1, 16, 16]), True)
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        length: int,
        crop: int,
        symmetry: Group | str | None = "D4",
        seed: int = 0,
        ignore_index: int | None = None,
        augment: Changes | str = "none",
        places: Mapping[int, Tensor] | None = None,
    ) -> None:
        self.pairs = pairs
        self.length = as_int("length", length, minimum=1)
        self.crop = as_int("crop", crop, minimum=1)
        self.seed = as_int("seed", seed, minimum=0)
        self.symmetry = None if symmetry is None else as_group(symmetry, "symmetry")
        self.ignore_index = ignore_index
        self.augment = RandomChanges(augment)
        self.places = list((places or {}).values())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        source, *place = self._place(index) or (self._source(index), None, None)
        height, width, window = self._open(source)
        if min(height, width) < self.crop and self.ignore_index is None:
            advice = "with an ignore_index smaller images are padded"
            raise invalid("crop", f"at most {min(height, width)}, the shorter side of an image", self.crop, advice)
        with _seeded(_mix(self.seed, index)):
            crop = max(1, round(self.crop / self.augment.zoom()))
            if self.ignore_index is None:
                crop = min(crop, height, width)
            top, left = (_draw_start(side, crop, at) for side, at in zip((height, width), place, strict=True))
            image, mask = self._padded(*window(top, left, min(crop, height), min(crop, width)), crop)
            image, mask = _resized(image, mask, self.crop)
            if self.symmetry is not None:
                image, mask = RandomSymmetry(self.symmetry)(tv_tensors.Image(image), tv_tensors.Mask(mask))
            return self.augment(image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor))

    def _place(self, index: int) -> tuple[int, int, int] | None:
        """Draw whether an item holds a pixel of a rare class, and which: its image, row and column."""
        generator = torch.Generator().manual_seed(_mix(self.seed, index, 2))
        if not self.places or torch.rand((), generator=generator) < 0.5:
            return None

        def draw(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        chosen = self.places[draw(len(self.places))]
        images = chosen[:, 0].unique()
        chosen = chosen[chosen[:, 0] == images[draw(len(images))]]
        image, row, column = chosen[draw(len(chosen))].tolist()
        return image, row, column

    def _padded(self, image: Tensor, mask: Tensor, crop: int) -> tuple[Tensor, Tensor]:
        """Pad a pair to the size of a crop: the image by reflection at its outer pixels, the mask by ignored ones."""
        if mask.shape == (crop, crop):
            return image, mask
        lacking = [crop - side for side in mask.shape]
        before = [count // 2 for count in lacking]
        rows, columns = (
            torch.from_numpy(np.pad(np.arange(side), (first, count - first), mode="reflect"))
            for side, first, count in zip(mask.shape, before, lacking, strict=True)
        )
        wide = mask.new_full((crop, crop), int(self.ignore_index or 0))
        wide[before[0] : before[0] + mask.shape[0], before[1] : before[1] + mask.shape[1]] = mask
        return image[..., rows, :][..., columns], wide

    def _open(self, index: int) -> tuple[int, int, Callable[[int, int, int, int], tuple[Tensor, Tensor]]]:
        """Height, width, and a function that returns a window of the pair; of files only the window is read."""
        if isinstance(self.pairs, PairDataset):
            image, mask = self.pairs.files(index)
            return *mask.shape, lambda *window: (image.window(*window), mask.window(*window))
        pixels, classes = self.pairs[index]
        return *classes.shape, lambda *window: (
            v2.functional.crop(pixels, *window),
            v2.functional.crop(classes, *window),
        )

    def _source(self, index: int) -> int:
        """Index of the image that an item is cut from: every pass goes once through all of them."""
        number, place = divmod(index, len(self.pairs))
        generator = torch.Generator().manual_seed(_mix(self.seed, number, 1))
        return int(torch.randperm(len(self.pairs), generator=generator)[place])


def rare_places(pairs: Pairs, *, ignore_index: int | None = None, most: int = 1000) -> dict[int, Tensor]:
    """Return where the classes are in the masks of a data set, for crops that hold rare ones.

    Args:
        pairs: The data set; of files no more than a band of a mask is held.
        ignore_index: Class that is left out. If None, none is.
        most: Number of pixels of a class that are kept in each band of a mask, evenly spread over its pixels there.

    Returns:
        For each class but the most frequent one: index of the image, row and column of pixels, ``[N, 3]``.

    Raises:
        ValueError: ``most`` is not a positive int.

    Example:
        >>> import torch
        >>> from gconv_ga.images import Split, rare_places
        >>> masks = torch.zeros(2, 4, 5, dtype=torch.int64)
        >>> masks[1, 2, 3] = 1
        >>> rare_places(Split(torch.rand(2, 1, 4, 5), masks))
        {1: tensor([[1, 2, 3]])}
    """
    as_int("most", most, minimum=1)
    found: dict[int, list[Tensor]] = {}
    counts: dict[int, int] = {}
    for index in range(len(pairs)):
        top = 0
        for band in pairs.files(index)[1].bands() if isinstance(pairs, PairDataset) else [pairs[index][1]]:
            for value in band.unique().tolist():
                rows, columns = torch.nonzero(band == value, as_tuple=True)
                spread = torch.linspace(0, len(rows) - 1, min(most, len(rows))).round().to(torch.int64)
                kept = torch.stack((torch.full_like(spread, index), rows[spread] + top, columns[spread]), dim=1)
                found.setdefault(value, []).append(kept)
                counts[value] = counts.get(value, 0) + len(rows)
            top += len(band)
    counts = {value: count for value, count in counts.items() if value != ignore_index}
    frequent = max(counts, key=lambda value: counts[value], default=None)
    return {value: torch.cat(found[value]) for value in sorted(counts) if value != frequent}


def _draw_start(side: int, crop: int, at: int | None) -> int:
    """Draw where a crop starts on one axis, so that it holds a pixel if one is given.

    Where there is only one position, nothing is drawn, as in torchvision's RandomCrop.
    """
    first, last = (0, side - crop) if at is None else (max(0, at - crop + 1), min(at, side - crop))
    return first + int(torch.randint(last - first + 1, ())) if last > first else max(0, min(first, side - crop))


def _resized(image: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Resize a square pair: the image by interpolation, the mask by the nearest pixel."""
    if len(mask) == side:
        return image, mask
    nearest = ((torch.arange(side) + 0.5) * (len(mask) / side)).to(torch.int64)
    return v2.functional.resize(image, [side, side], antialias=True), mask[nearest][:, nearest]


def _mix(*numbers: int) -> int:
    """Hash numbers to 32 bits, all that torch's CPU generator reads of a seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, which torchvision draws from, for a while; others, such as CUDA's, are left alone."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
