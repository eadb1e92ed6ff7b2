"""A data set of pairs of an image and its mask, read from their files."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.utils.data import Dataset

from .._validate import invalid
from ._masks import MaskEncoding
from ._pairs import PairFiles
from ._reader import ImageFile, MaskFile, Normalization
from ._reading import Reading


class Pairs(Protocol):
    """Pairs ``(image [C, H, W], mask [H, W])`` by index."""

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pair of an index."""


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
