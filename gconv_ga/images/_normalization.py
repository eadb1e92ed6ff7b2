"""Normalization of images, by constants and by a percentile of their own."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid, wrong_shape

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


@dataclass(frozen=True)
class Normalization:
    """Normalization of an image by a percentile of its own, if asked for, and by constants of the training images.

    ``y = (x / p(x) - mean) / std``, where ``p(x)`` is the percentile over the whole image, all channels together. It
    does not depend on the orientation of the image, so it commutes with rotations, by multiples of 90 degrees to the
    last bit.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        percentile: Percentile to scale by, above 0 and up to 100. If None, images keep their own brightness. For
            fluorescence, where one image is several times as bright as the next: 99.8.

    Raises:
        ValueError: There are not as many standard deviations as means, one of them is not positive, or the percentile
            is out of its range; the image has other channels.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if len(self.mean) != len(self.std):
            raise invalid("std", f"one number for each channel, {len(self.mean)} as in mean", self.std)
        if not all(value > 0 and math.isfinite(value) for value in self.std):
            raise invalid("std", "positive", self.std, "a constant channel holds no information: drop it")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise invalid("percentile", "above 0 and up to 100, or None", self.percentile)

    @classmethod
    def measure(cls, images: Iterable[Tensor] | Tensor, percentile: float | None = None) -> "Normalization":
        """Return the normalization that gives these images mean zero and standard deviation one in each channel.

        Args:
            images: Training images, each ``[C, H, W]``, read one after the other; bands of images if there is no
                percentile.
            percentile: As for the class.
        """
        sums = torch.stack([_moments(_scale(image, percentile)) for image in images]).sum(dim=0)
        count, total, squares = sums
        mean = total / count
        return cls(mean.tolist(), (squares / count - mean**2).clamp_min(0).sqrt().tolist(), percentile)

    def __call__(self, image: Tensor, level: Tensor | None = None) -> Tensor:
        if image.ndim < 3 or image.shape[-3] != len(self.mean):
            raise wrong_shape("image", f"[..., C={len(self.mean)}, H, W]", image)
        mean, std = (image.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        scaled = _scale(image, self.percentile) if level is None else _divide(image, level)
        return (scaled - mean) / std

    def level(self, pieces: Callable[[], Iterable[Tensor]]) -> Tensor | None:
        """Return the brightness that an image is scaled by, for use on its windows: ``normalization(window, level)``.

        No more than one piece is held. Values of more than 16 bits are read twice, and taken as float32.

        Args:
            pieces: Function that reads the image anew and returns parts ``[C, h, w]`` that hold each pixel once.

        Returns:
            A scalar; None if images are not scaled.
        """
        return None if self.percentile is None else piecewise_percentile(pieces, self.percentile)


def _scale(image: Tensor, percentile: float | None) -> Tensor:
    """Divide each image by its own percentile."""
    return image if percentile is None else _divide(image, _level(image, percentile))


def _level(image: Tensor, percentile: float) -> Tensor:
    """Percentile of each image, one of its values; torch.quantile takes at most 16 million values."""
    pixels = image.flatten(-3)
    return pixels.kthvalue(rank_of(pixels.shape[-1], percentile), dim=-1).values[..., None, None, None]


def _divide(image: Tensor, level: Tensor) -> Tensor:
    """Divide by the brightness; a black image stays black."""
    return image / torch.where(level > 0, level, 1)


def _moments(image: Tensor) -> Tensor:
    """Count, sum and sum of squares of each channel, in float64."""
    pixels = image.to(torch.float64).flatten(1)
    count = torch.full_like(pixels[:, 0], pixels.shape[1])
    return torch.stack((count, pixels.sum(dim=1), pixels.square().sum(dim=1)))
