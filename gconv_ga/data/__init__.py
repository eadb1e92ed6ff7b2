"""Images with masks: files of them and a sample that comes with the package, normalisation, augmentation, crops.

Images are float ``[C, H, W]``, masks are class indices ``[H, W]``. Needs torchvision (extra ``train``).

Names: `load_sample`, `write_sample`, `Sample`, `Split`, `SAMPLES`; `Normalization`, `measure_files`; `RandomSymmetry`,
`CropStream`. For files: `find_images`, `match_masks`, `read_table`, `Table`, `PairFiles`; `MaskCode`, `read_colors`;
`scan_pairs`, `Scan`, `Problem`, `EMPTY_CLASS`; `draw_split`, `read_split`; `PairDataset`, `read_image`, `read_mask`,
and by window `ImageFile`, `MaskFile`. For what is too much to be held: `scratch`, `ScratchTensor`.

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
    from ._dataset import PairDataset, measure_files
    from ._folders import PairFiles, Problem, draw_split, find_images, match_masks, read_split
    from ._images import ImageFile, MaskFile, read_image, read_mask
    from ._mask_code import MaskCode, read_colors
    from ._normalization import Normalization
    from ._sample import SAMPLES, Sample, Split, load_sample, write_sample
    from ._scan import EMPTY_CLASS, Scan, scan_pairs
    from ._scratch import ScratchTensor, scratch
    from ._symmetry import RandomSymmetry
    from ._table import Table, read_table
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = [
    "EMPTY_CLASS",
    "SAMPLES",
    "CropStream",
    "ImageFile",
    "MaskCode",
    "MaskFile",
    "Normalization",
    "PairDataset",
    "PairFiles",
    "Problem",
    "RandomSymmetry",
    "Sample",
    "Scan",
    "ScratchTensor",
    "Split",
    "Table",
    "draw_split",
    "find_images",
    "load_sample",
    "match_masks",
    "measure_files",
    "read_colors",
    "read_image",
    "read_mask",
    "read_split",
    "read_table",
    "scan_pairs",
    "scratch",
    "write_sample",
]
