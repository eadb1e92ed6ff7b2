"""The normalization of images, measured on their files."""

from collections.abc import Sequence

from .._validate import invalid
from ._pairs import PairFiles
from ._reader import ImageFile, Normalization
from ._reading import Reading


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
        >>> from pathlib import Path
        >>> import gconv_ga.images
        >>> from gconv_ga.images import ImageFile, PairFiles, measure_files
        >>> image = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei" / "images" / "00.png"
        >>> measure_files([PairFiles(image, image)]).mean[0] == ImageFile(image).window(0, 0, 128, 128).mean().item()
        True
    """
    if not pairs:
        raise invalid("pairs", "the files of at least one image", pairs)
    channels = ImageFile(pairs[0].image, None, reading).shape[0]
    scale = Normalization([0.0] * channels, [1.0] * channels, percentile, black)
    measured = Normalization.measure(band for pair in pairs for band in ImageFile(pair.image, scale, reading).bands())
    return Normalization(measured.mean, measured.std, percentile, black)
