"""Pairs of an image and its mask, read from their files when they are asked for."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset

from .._validate import invalid
from ._images import ImageFile, MaskFile
from ._masks import MaskEncoding
from ._normalization import Normalization
from ._pairs import PairFiles


class PairDataset(Dataset[tuple[Tensor, Tensor]]):
    """Files read when they are asked for: pairs of a normalised image and its mask, whole or by window.

    Args:
        pairs: The files.
        normalization: What is done to an image; None for nothing.
        code: How masks say their classes; None for indices.

    Shape:
        - item: image ``[C, H, W]``, float32; mask ``[H, W]``, int64

    Raises:
        ValueError: An image and its mask differ in size, or a file is damaged; said of an item when it is read.

    Example:
        >>> from gconv_ga.images import PairDataset
        >>> len(PairDataset([]))
        0
    """

    def __init__(
        self, pairs: Sequence[PairFiles], normalization: Normalization | None = None, code: MaskEncoding | None = None
    ) -> None:
        self.pairs = tuple(pairs)
        self.normalization = normalization
        self.code = code
        self._levels: dict[int, Tensor | None] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.files(index)
        size = (0, 0, *mask.shape)
        return image.window(*size), mask.window(*size)

    def files(self, index: int) -> tuple[ImageFile, MaskFile]:
        """The open files of a pair, of which windows can be read.

        Args:
            index: Which.

        Raises:
            ValueError: The image and its mask differ in size, or a file is damaged.
        """
        pair = self.pairs[index]
        image, mask = ImageFile(pair.image, self.normalization), MaskFile(pair.mask, self.code)
        if image.shape[1:] != mask.shape:
            raise invalid("mask", f"of the image's size {image.shape[1:]}", mask.shape, f"it is {pair.mask}")
        if index not in self._levels:
            self._levels[index] = image.level()
        image.scale_by(self._levels[index])
        return image, mask


def measure_files(pairs: Sequence[PairFiles], percentile: float | None = None) -> Normalization:
    """The normalisation that gives the images of these files mean zero and standard deviation one, channel by channel.

    No more than a band of an image is held as float32.

    Args:
        pairs: The files, those of the training.
        percentile: As for `Normalization`.

    Raises:
        ValueError: There are none, a file is damaged, or a channel is the same everywhere.

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
    channels = ImageFile(pairs[0].image).shape[0]
    scale = Normalization([0.0] * channels, [1.0] * channels, percentile)
    measured = Normalization.measure(band for pair in pairs for band in ImageFile(pair.image, scale).bands())
    return Normalization(measured.mean, measured.std, percentile)
