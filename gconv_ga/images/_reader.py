"""Image and mask files as tensors, whole or by window, and the normalization of their values."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from .._validate import argument_of, error_about, invalid, wrong_shape
from ._masks import MaskEncoding
from ._pictures import is_lossy, open_picture
from ._rasters import Raster, chosen, open_array, readable, refused
from ._reading import Reading, largest
from ._tiff import LOSSLESS, open_tiff


@dataclass(frozen=True)
class Normalization:
    """Normalization of an image by percentiles of its own, if asked for, and by constants of the training images.

    ``y = (x / p(x) - mean) / std``, where ``p(x)`` is the percentile over the whole image, all channels together; with
    a black level ``y = ((x - b(x)) / (p(x) - b(x)) - mean) / std``, where ``b(x)`` is a low percentile. They do not
    depend on the orientation of the image, so it commutes with rotations, by multiples of 90 degrees to the last bit.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel. A channel for which it is 0, which was constant in the training images,
            becomes 0 everywhere, whatever it holds.
        percentile: Percentile to scale by, above 0 and up to 100. If None, images keep their own brightness. For
            fluorescence, where one image is several times as bright as the next: 99.8.
        black: Percentile to subtract first, such as 1: the brightness of the background, which differs between
            cameras. It needs a higher ``percentile``. If None, nothing is subtracted.

    Raises:
        ValueError: There are not as many standard deviations as means, one of them is negative, all of them are zero,
            or a percentile is out of its range; the image has other channels.

    Example:
        >>> import torch
        >>> from gconv_ga.images import Normalization
        >>> images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> normalize = Normalization.measure(images)
        >>> y = normalize(images)
        >>> y.shape, bool(y.mean().abs() < 1e-5)
        (torch.Size([4, 3, 16, 16]), True)
    """

    mean: Sequence[float]
    std: Sequence[float]
    percentile: float | None = None
    black: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if len(self.mean) != len(self.std):
            raise invalid("std", f"one number for each channel, {len(self.mean)} as in mean", self.std)
        if not all(value >= 0 and math.isfinite(value) for value in self.std) or not any(self.std):
            takes = "positive, or for some channels 0"
            raise invalid("std", takes, self.std, "images in which no channel changes hold no information")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise invalid("percentile", "above 0 and up to 100, or None", self.percentile)
        if self.black is not None and not 0 < self.black < (self.percentile or 0):
            takes = "None" if self.percentile is None else f"above 0 and below the percentile, {self.percentile}"
            raise invalid("black", takes, self.black, "a black level needs a percentile that becomes white")

    @classmethod
    def measure(
        cls, images: Iterable[Tensor] | Tensor, percentile: float | None = None, black: float | None = None
    ) -> "Normalization":
        """Return the normalization that gives these images mean zero and standard deviation one in each channel.

        Args:
            images: Training images, each ``[C, H, W]``, read one after the other; bands of images if there is no
                percentile.
            percentile: As for the class.
            black: As for the class.
        """
        parts = torch.stack([_moments(_scale(image, percentile, black)) for image in images])
        count, total, squares = parts[:, :3].sum(dim=0)
        mean = total / count
        std = (squares / count - mean**2).clamp_min(0).sqrt()
        is_constant = parts[:, 3].amin(dim=0) == parts[:, 4].amax(dim=0)
        return cls(mean.tolist(), std.masked_fill(is_constant, 0).tolist(), percentile, black)

    def __call__(self, image: Tensor, level: Tensor | None = None) -> Tensor:
        if image.ndim < 3 or image.shape[-3] != len(self.mean):
            raise wrong_shape("image", f"[..., C={len(self.mean)}, H, W]", image)
        divisors = [value or math.inf for value in self.std]
        mean, std = (image.new_tensor(values).view(-1, 1, 1) for values in (self.mean, divisors))
        if level is None:
            scaled = _scale(image, self.percentile, self.black)
        else:
            scaled = _stretch(image, level) if self.black is None else _stretch(image, level[1], level[0])
        return (scaled - mean) / std

    def level(self, pieces: Callable[[], Iterable[Tensor]]) -> Tensor | None:
        """Return the brightness that an image is scaled by, for use on its windows: ``normalization(window, level)``.

        No more than one piece is held. Values of more than 16 bits are read twice, and taken as float32.

        Args:
            pieces: Function that reads the image anew and returns parts ``[C, h, w]`` that hold each pixel once.

        Returns:
            A scalar, or with a black level ``[2]``, the brightness of black and of white; None if images are not
            scaled.
        """
        if self.percentile is None:
            return None
        white = piecewise_percentile(pieces, self.percentile)
        return white if self.black is None else torch.stack((piecewise_percentile(pieces, self.black), white))


def _scale(image: Tensor, percentile: float | None, black: float | None) -> Tensor:
    """Scale each image by its own percentiles."""
    if percentile is None:
        return image
    return _stretch(image, _level(image, percentile), None if black is None else _level(image, black))


def _level(image: Tensor, percentile: float) -> Tensor:
    """Percentile of each image, one of its values; torch.quantile takes at most 16 million values."""
    pixels = image.flatten(-3)
    return pixels.kthvalue(rank_of(pixels.shape[-1], percentile), dim=-1).values[..., None, None, None]


def _stretch(image: Tensor, white: Tensor, black: Tensor | None = None) -> Tensor:
    """Divide by the brightness of white, after subtracting that of black from both; a flat image becomes black."""
    if black is not None:
        image, white = image - black, white - black
    return image / torch.where(white > 0, white, 1)


def _moments(image: Tensor) -> Tensor:
    """Count, sum, sum of squares, smallest and largest value of each channel, in float64."""
    pixels = image.to(torch.float64).flatten(1)
    count, low, high = torch.full_like(pixels[:, 0], pixels.shape[1]), pixels.amin(dim=1), pixels.amax(dim=1)
    return torch.stack((count, pixels.sum(dim=1), pixels.square().sum(dim=1), low, high))


HALF = 2**16  # values of half of the 32 bits


def rank_of(count: int, percentile: float) -> int:
    """Rank of a percentile among sorted values, counted from 1."""
    return max(1, math.ceil(percentile / 100 * count))


def piecewise_percentile(pieces: Callable[[], Iterable[Tensor]], percentile: float) -> Tensor:
    """Return a percentile of an image that is read piece by piece: one of its values, exactly, as float32.

    A radix selection: values are counted by the upper half of their bits, mapped so that they sort as the numbers do;
    then those that share the upper half with the percentile are counted by the lower half. Values of 8 and 16 bits have
    no lower half and are read once.

    Args:
        pieces: Function that reads the image anew and returns parts that hold each pixel once.
        percentile: Percentile above 0, up to 100.

    Shape:
        - output: a scalar
    """
    counts, small = torch.zeros(HALF, dtype=torch.int64), True
    for piece in pieces():
        small = piece.dtype in (torch.uint8, torch.uint16)
        keys = piece.flatten().to(torch.int64) if small else _keys(piece) // HALF
        counts += keys.bincount(minlength=HALF)
    rank = rank_of(int(counts.sum()), percentile)
    upper = int(torch.searchsorted(counts.cumsum(0), rank))
    if small:
        return torch.tensor(float(upper))
    rank -= int(counts[:upper].sum())
    counts.zero_()
    for piece in pieces():
        keys = _keys(piece)
        counts += (keys[keys // HALF == upper] % HALF).bincount(minlength=HALF)
    return _number(upper * HALF + int(torch.searchsorted(counts.cumsum(0), rank)))


def _keys(piece: Tensor) -> Tensor:
    """Map values to whole numbers from 0 up that sort as the values do as float32."""
    bits = piece.flatten().to(torch.float32).view(torch.int32).to(torch.int64)
    # The bits of negative floats, read as whole numbers, sort in reverse.
    return torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + 2**31


def _number(key: int) -> Tensor:
    """Invert `_keys`."""
    value = key - 2**31
    bits = value if value >= 0 else -1 - value - 2**31
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32)


SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II": "TIFF",
    b"MM": "TIFF",
    b"\x93NUMPY": "NPY",
}


def open_raster(path: Path, reading: Reading, *, mask: bool = False, palette: bool = False) -> Raster:
    """Open an image file; its first bytes say of which format. Arrays saved by numpy are ``[H, W]`` or ``[C, H, W]``.

    Args:
        path: The file.
        reading: Channels, page and largest size.
        mask: Whether it is a mask, which lossy compressions spoil.
        palette: Whether a file with a palette gives indices into it, or colours.

    Raises:
        ValueError: The file is missing, damaged or not an image, is too large, or has several pages; a mask is lossy.
    """
    with readable(path):
        with path.open("rb") as file:
            start = file.read(max(map(len, SIGNATURES)))
        kind = next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), "")
        if not start:
            raise ValueError("it is empty")
        if not kind:
            raise ValueError(f"it is none of {', '.join(dict.fromkeys(SIGNATURES.values()))}")
        if mask and is_lossy(path, kind):
            raise refused(
                path, LOSSLESS, f"{kind} changes values; save masks as PNG, and make those that there are anew"
            )
        raster: Raster | None = None
        if kind == "NPY":
            raster = open_array(path)
            reading.check_size(path, *raster.shape)
        elif kind == "TIFF":
            raster = open_tiff(path, reading, palette=palette, mask=mask)
        if raster is None:
            raster = open_picture(path, kind, reading, palette=palette, mask=mask)
        return chosen(raster, reading.channels, path)


BAND = 512  # rows at a time, where a whole image is read


class ImageFile:
    """An open image file that is read by window; the whole image is never held as float32.

    Pixels are those that a viewer shows: the orientation of EXIF and TIFF is applied, black is zero, inks (CMYK,
    without colour profile), YCbCr and palettes become red, green and blue, and grey levels of 1, 2, 4 and 12 bits are
    not spread over a larger range. Opacity is a channel like others. Colour profiles are not applied; L*a*b* is
    refused.

    A file is one image: of a pyramid the full level, of a slide the slide, of a JPEG with previews the first picture.
    Planes that a TIFF says are channels are channels. Files of several pages are refused unless one is chosen.

    Of arrays saved by numpy and of TIFF a window reads no more than it needs. A PNG or JPEG of more than 4 million
    pixels is decoded by libvips, as far down as windows need it, into a temporary file (``TMPDIR``) of the size of the
    decoded image; windows are then read in any order. Meanwhile about 512 rows are held in memory; of a progressive
    JPEG also two bytes a value, of an interlaced PNG the whole image. Smaller PNG and JPEG, and WebP, BMP, GIF, and
    TIFF in YCbCr without JPEG, are decoded and held as a whole in their own number type.

    Args:
        path: The file.
        normalization: Normalization of the pixels. If None, windows are in the units of the file.
        reading: Channels, page, number type and largest size. If None, those of `Reading`.
        raster: The pixels, if they are open already; for `SlideImage`.

    Shape:
        - a window: ``[C, height, width]``, float32

    Raises:
        ValueError: The file is missing, damaged or not an image; it has several pages, other channels than the
            normalization, another number type or too many pixels; or a value is NaN or infinite.
        OSError: The disk is full.

    Example:
        >>> from gconv_ga.images import ImageFile
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> image = ImageFile(Path(__file__).parent / "sample" / "nuclei" / "images" / "00.png")
        >>> image.shape, image.window(100, 20, 8, 12).shape
        ((1, 128, 128), torch.Size([1, 8, 12]))
    """

    def __init__(
        self,
        path: str | Path,
        normalization: Normalization | None = None,
        reading: Reading | None = None,
        *,
        raster: Raster | None = None,
    ) -> None:
        self.path = Path(path)
        how = Reading() if reading is None else reading
        self.raster: Raster = open_raster(self.path, how) if raster is None else raster
        self.normalization = normalization
        self.factor = how.factor(self.numbers, self.path)
        self._level: Tensor | None = None
        if normalization is not None and len(normalization.mean) != self.shape[0]:
            channels, height, width = self.shape
            takes = f"an image of {len(normalization.mean)} channels, as the training images are"
            advice = f"it has {channels} channels of {height} x {width} pixels; choose some with channels (--channels)"
            raise invalid("path", takes, str(path), advice)

    def unnormalized(self) -> "ImageFile":
        """Return the same open file with windows in the units of the file."""
        raw = copy(self)
        raw.normalization, raw.factor = None, 1.0
        return raw

    @property
    def numbers(self) -> str:
        """Number type of the file, as for `Reading`."""
        return self.raster.numbers

    @property
    def shape(self) -> tuple[int, int, int]:
        """``C, H, W``."""
        return self.raster.shape

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the normalized pixels of a window that lies inside the image.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.

        Raises:
            ValueError: The file is damaged there, or the normalization is for other channels.
            OSError: The disk is full.
        """
        raw = read_window(self.raster, self.path, top, left, height, width)
        pixels = raw.to(torch.float32)
        if raw.is_floating_point() and not bool(pixels.isfinite().all()):
            self._refuse_values()
        if self.factor != 1:
            if self.numbers.startswith("float") and (pixels.min() < 0 or pixels.max() > 1):
                takes = "an image of values from 0 to 1, which are scaled to those of the training images"
                raise invalid("path", takes, str(self.path), f"it holds {float(pixels.min())} .. {float(pixels.max())}")
            pixels = pixels * self.factor
        if self.normalization is None:
            return pixels
        return self.normalization(pixels, self.level())

    def level(self) -> Tensor | None:
        """Return the brightness that the image is scaled by, computed once; None if images are not scaled."""
        if self._level is None and self.normalization is not None:
            level = self.normalization.level(self.raw_pieces)
            self._level = None if level is None else level * self.factor
        return self._level

    def scale_by(self, level: Tensor | None) -> None:
        """Take over the `level` of another object of the same file, for which the whole file had to be read.

        Args:
            level: Brightness to scale by.
        """
        self._level = level

    def bands(self, rows: int = BAND) -> Iterator[Tensor]:
        """Yield the normalized pixels from top to bottom.

        Args:
            rows: Largest number of rows at a time.

        Shape:
            - a band: ``[C, rows, W]``, float32
        """
        _, height, width = self.shape
        for top in range(0, height, rows):
            yield self.window(top, 0, min(rows, height - top), width)

    def raw_pieces(self) -> Iterator[Tensor]:
        """Yield small windows that hold each pixel once, in the number type of the file, cut as it is read fastest.

        Shape:
            - a piece: ``[C, h, w]``

        Raises:
            ValueError: The file is damaged, or a value is NaN or infinite.
        """
        with readable(self.path):
            for piece in self.raster.pieces():
                if _count_wrong(piece):
                    self._refuse_values()
                yield piece

    def _refuse_values(self) -> NoReturn:
        """Count the values of the file that are NaN or infinite.

        Raises:
            ValueError: Always.
        """
        with readable(self.path):
            wrong = sum(map(_count_wrong, self.raster.pieces()))
        takes, values = "an image of finite values", math.prod(self.shape)
        advice = f"{wrong} of its {values} values are NaN, infinite or beyond float32; give them a value of the image"
        raise invalid("path", takes, str(self.path), advice)


def _count_wrong(piece: Tensor) -> int:
    """Number of values that are not finite as float32."""
    return int((~piece.to(torch.float32).isfinite()).sum()) if piece.is_floating_point() else 0


class MaskFile:
    """An open mask file that is read by window, as class indices.

    A large PNG with a palette is held as a whole, one byte a pixel; other files as for `ImageFile`.

    Args:
        path: The file.
        code: Encoding of the classes. If None, the file holds indices.
        reading: Page, if the file has several, and largest size; a mask of one page is that of every page of its image.
            If None, those of `Reading`.

    Shape:
        - a window: ``[height, width]``, int64

    Raises:
        ValueError: As for `ImageFile`.

    Example:
        >>> from gconv_ga.images import MaskFile
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> mask = MaskFile(Path(__file__).parent / "sample" / "nuclei" / "masks" / "00.png")
        >>> mask.shape, mask.window(100, 20, 8, 12).shape
        ((128, 128), torch.Size([8, 12]))
    """

    def __init__(self, path: str | Path, code: MaskEncoding | None = None, reading: Reading | None = None) -> None:
        self.path = Path(path)
        self.code = MaskEncoding() if code is None else code
        how = Reading() if reading is None else reading
        self.raster: Raster = open_raster(
            self.path, replace(how, channels=None), mask=True, palette=self.code.colors is None
        )

    @property
    def shape(self) -> tuple[int, int]:
        """``H, W``."""
        _, height, width = self.raster.shape
        return height, width

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return the classes of a window that lies inside the mask.

        Args:
            top: First row.
            left: First column.
            height: Number of rows.
            width: Number of columns.

        Raises:
            ValueError: The file is damaged there, or its values are not classes.
        """
        values = read_window(self.raster, self.path, top, left, height, width)
        if self.code.colors is not None and (bright := largest(self.raster.numbers)) in (1, 3, 15):
            values = values * int(255 // bright)  # grey levels of few bits as colours
        try:
            return self.code.indices(values)
        except ValueError as error:
            raise error_about(argument_of(error) or "mask", f"{error} The file is {self.path}.") from None

    def bands(self, rows: int = BAND) -> Iterator[Tensor]:
        """Yield the classes from top to bottom.

        Args:
            rows: Largest number of rows at a time.

        Shape:
            - a band: ``[rows, W]``
        """
        height, width = self.shape
        for top in range(0, height, rows):
            yield self.window(top, 0, min(rows, height - top), width)


def read_window(raster: Raster, path: Path, top: int, left: int, height: int, width: int) -> Tensor:
    """Return a window in the number type of the file.

    Raises:
        ValueError: The file is damaged there.
    """
    with readable(path):
        return raster.window(top, left, height, width)


def read_image(path: Path) -> Tensor:
    """Read the grey levels, colours or channels of an image file of one of `FORMATS`.

    Args:
        path: The file.

    Shape:
        - output: ``[C, H, W]``, float32, in the units of the file (0 .. 255 for 8 bits)

    Raises:
        ValueError: The file is missing, damaged or not an image, or it has several pages.

    Example:
        >>> from gconv_ga.images import read_image
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> read_image(Path(__file__).parent / "sample" / "nuclei" / "images" / "00.png").shape
        torch.Size([1, 128, 128])
    """
    image = ImageFile(path)
    return image.window(0, 0, *image.shape[1:]).contiguous()


def read_mask(path: Path, code: MaskEncoding | None = None) -> Tensor:
    """Read the class indices of a mask file.

    Args:
        path: The file.
        code: Encoding of the classes. If None, the file holds indices.

    Shape:
        - output: ``[H, W]``, int64

    Raises:
        ValueError: As for `read_image`, or the values of the file are not classes.

    Example:
        >>> from gconv_ga.images import read_mask
        >>> from gconv_ga.images._reader import __file__
        >>> from pathlib import Path
        >>> read_mask(Path(__file__).parent / "sample" / "nuclei" / "masks" / "00.png").unique()
        tensor([0, 1])
    """
    mask = MaskFile(path, code)
    return mask.window(0, 0, *mask.shape)
