"""Random crops of images and masks, as training sees them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from .._validate import as_int, invalid, wrong_shape
from ..groups import Group, as_group
from ._changes import Changes
from ._pair_dataset import PairDataset, Pairs
from ._random_changes import RandomChanges
from ._random_symmetry import RandomSymmetry


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
            int (``seed``: negative); there are no pairs. When an item is read: its image and mask differ in size.

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
        if not len(pairs):
            raise invalid("pairs", "a data set of at least one pair", pairs)
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
        if pixels.ndim != 3 or classes.shape != pixels.shape[1:]:  # torchvision would fill what is lacking by zeros
            axes = f"[H, W] for its image [C, H, W] = {tuple(pixels.shape)}"
            raise wrong_shape("mask", axes, classes, f"it is pair {index} of the data set")
        return *classes.shape, lambda *window: (
            v2.functional.crop(pixels, *window),
            v2.functional.crop(classes, *window),
        )

    def _source(self, index: int) -> int:
        """Index of the image that an item is cut from: every pass goes once through all of them."""
        number, place = divmod(index, len(self.pairs))
        generator = torch.Generator().manual_seed(_mix(self.seed, number, 1))
        return int(torch.randperm(len(self.pairs), generator=generator)[place])


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
