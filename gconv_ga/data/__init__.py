"""Images with masks: folders of them and a sample that comes with the package, normalisation, augmentation, crops.

Images are float ``[C, H, W]``, masks are class indices ``[H, W]``. Needs torchvision (extra ``train``).

Names: `load_sample`, `Sample`, `Split`, `SAMPLES`; `Normalization`; `RandomSymmetry`, `CropStream`; for folders
`find_images`, `match_masks`, `PairFiles`, `scan_pairs`, `Scan`, `Problem`, `draw_split`, `read_split`, `PairDataset`,
`read_image`, `EMPTY_CLASS`.

Example:
    >>> from gconv_ga.data import CropStream, load_sample
    >>> sample = load_sample("nuclei")
    >>> sample.train.images.shape, sample.test.masks.shape
    (torch.Size([16, 1, 128, 128]), torch.Size([8, 128, 128]))
    >>> stream = CropStream(sample.train, length=400, crop=64, symmetry="D4", seed=0)
    >>> image, mask = stream[399]
    >>> image.shape, mask.shape
    (torch.Size([1, 64, 64]), torch.Size([64, 64]))
"""

from .._validate import missing_extra

try:
    from ._crops import CropStream
    from ._folders import PairFiles, Problem, draw_split, find_images, match_masks, read_split
    from ._images import read_image
    from ._normalization import Normalization
    from ._sample import SAMPLES, Sample, Split, load_sample
    from ._scan import EMPTY_CLASS, PairDataset, Scan, scan_pairs
    from ._symmetry import RandomSymmetry
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "EMPTY_CLASS",
    "SAMPLES",
    "CropStream",
    "Normalization",
    "PairDataset",
    "PairFiles",
    "Problem",
    "RandomSymmetry",
    "Sample",
    "Scan",
    "Split",
    "draw_split",
    "find_images",
    "load_sample",
    "match_masks",
    "read_image",
    "read_split",
    "scan_pairs",
]
