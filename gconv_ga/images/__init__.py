"""Images and masks from files: readers, pairs and tables, mask encodings, normalization, augmented crops, a sample.

Images are float ``[C, H, W]``, masks are class indices ``[H, W]``. Needs the extra ``train``.

Names: `load_sample`, `write_sample`, `Sample`, `Split`, `SAMPLES` (images that come with the package); `ImageFile`,
`MaskFile`, `read_image`, `read_mask`, `FORMATS` (files of any size, whole or by window); `Reading`, `MAX_PIXELS`,
`OTHER_NUMBERS` (channels, pages, number types, sizes); `read_pixel_size`, `common_pixel_size`; `Slide`, `SlideImage`,
`is_slide` (whole slides); `find_images`, `match_masks`, `read_table`, `Table`, `PairFiles`, `draw_split`, `read_split`
(which files belong together); `MaskEncoding`, `read_colors`;
`Normalization`, `measure_files`; `scan_pairs`, `Scan`, `Problem`, `EMPTY_CLASS` (faults of a data set); `PairDataset`,
`CropStream`, `RandomSymmetry`, `rare_places`, `Changes`, `RandomChanges` (data sets and augmentation for training).

Example:
    >>> from gconv_ga.images import CropStream, load_sample
    >>> sample = load_sample("nuclei")
    >>> sample.train.images.shape, sample.test.masks.shape
    (torch.Size([16, 1, 128, 128]), torch.Size([8, 128, 128]))
    >>> stream = CropStream(sample.train, length=400, crop=64, symmetry="D4", seed=0)
    >>> image, mask = stream[399]
    >>> image.shape, mask.shape
    (torch.Size([1, 64, 64]), torch.Size([64, 64]))
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._changes import Changes
    from ._crops import CropStream
    from ._masks import MaskEncoding, read_colors
    from ._measure_files import measure_files
    from ._pair_dataset import PairDataset
    from ._pairs import FORMATS, PairFiles, Problem, Table, draw_split, find_images, match_masks, read_split, read_table
    from ._pixel_size import common_pixel_size, read_pixel_size
    from ._random_changes import RandomChanges
    from ._random_symmetry import RandomSymmetry
    from ._rare_places import rare_places
    from ._reader import ImageFile, MaskFile, Normalization, read_image, read_mask
    from ._reading import MAX_PIXELS, OTHER_NUMBERS, Reading
    from ._sample import SAMPLES, Sample, Split, load_sample, write_sample
    from ._scan import EMPTY_CLASS, Scan, scan_pairs
    from ._slides import Slide, SlideImage, is_slide

__all__ = [
    "EMPTY_CLASS",
    "FORMATS",
    "MAX_PIXELS",
    "OTHER_NUMBERS",
    "SAMPLES",
    "Changes",
    "CropStream",
    "ImageFile",
    "MaskEncoding",
    "MaskFile",
    "Normalization",
    "PairDataset",
    "PairFiles",
    "Problem",
    "RandomChanges",
    "RandomSymmetry",
    "Reading",
    "Sample",
    "Scan",
    "Slide",
    "SlideImage",
    "Split",
    "Table",
    "common_pixel_size",
    "draw_split",
    "find_images",
    "is_slide",
    "load_sample",
    "match_masks",
    "measure_files",
    "rare_places",
    "read_colors",
    "read_image",
    "read_mask",
    "read_pixel_size",
    "read_split",
    "read_table",
    "scan_pairs",
    "write_sample",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_changes": ["Changes"],
        "_crops": ["CropStream"],
        "_masks": ["MaskEncoding", "read_colors"],
        "_measure_files": ["measure_files"],
        "_pair_dataset": ["PairDataset"],
        "_pairs": [
            "FORMATS",
            "PairFiles",
            "Problem",
            "Table",
            "draw_split",
            "find_images",
            "match_masks",
            "read_split",
            "read_table",
        ],
        "_pixel_size": ["common_pixel_size", "read_pixel_size"],
        "_random_changes": ["RandomChanges"],
        "_random_symmetry": ["RandomSymmetry"],
        "_rare_places": ["rare_places"],
        "_reader": ["ImageFile", "MaskFile", "Normalization", "read_image", "read_mask"],
        "_reading": ["MAX_PIXELS", "OTHER_NUMBERS", "Reading"],
        "_sample": ["SAMPLES", "Sample", "Split", "load_sample", "write_sample"],
        "_scan": ["EMPTY_CLASS", "Scan", "scan_pairs"],
        "_slides": ["Slide", "SlideImage", "is_slide"],
    },
    extra="train",
)
