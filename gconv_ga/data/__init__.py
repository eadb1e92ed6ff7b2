"""Images with masks: the sample that comes with the package, normalisation, augmentation, the stream of crops.

Images are float ``[C, H, W]``, masks are class indices ``[H, W]``. Needs torchvision (extra ``train``).

Names: `load_sample`, `Sample`, `Split`, `SAMPLES`; `Normalization`; `RandomSymmetry`, `CropStream`.

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
    from ._normalization import Normalization
    from ._sample import SAMPLES, Sample, Split, load_sample
    from ._symmetry import RandomSymmetry
except ModuleNotFoundError as error:
    raise missing_extra(__name__, "train", error) from error

__all__ = ["SAMPLES", "CropStream", "Normalization", "RandomSymmetry", "Sample", "Split", "load_sample"]
