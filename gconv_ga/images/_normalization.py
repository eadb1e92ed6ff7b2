"""A percentile of an image that is read piece by piece."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid, wrong_shape

HALF = 2**16  # values of half of the 32 bits


def rank_of(count: int, percentile: float) -> int:
    """The place of the percentile among so many sorted values, from 1 on."""
    return max(1, math.ceil(percentile / 100 * count))


def piecewise_percentile(pieces: Callable[[], Iterable[Tensor]], percentile: float) -> Tensor:
    """The value of the image itself that so many percent do not exceed, as float32; no more than a piece is held.

    Values are counted by the upper half of their bits, which are put in the order of the numbers, and then by the lower
    half those that agree with the wanted one in the upper. Of 8 and 16 bits there is no lower half to be read for.

    Args:
        pieces: Reads the image anew, in parts that hold each pixel once.
        percentile: Above 0, up to 100.

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
    """Whole numbers from 0 up in the order of the values as float32."""
    bits = piece.flatten().to(torch.float32).view(torch.int32).to(torch.int64)
    # As whole numbers the bits of negative values run the other way.
    return torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + 2**31


def _number(key: int) -> Tensor:
    value = key - 2**31
    bits = value if value >= 0 else -1 - value - 2**31
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32)


@dataclass(frozen=True)
class Normalization:
    """Scales an image: by a percentile of its own, if asked for, then by constants of the training images.

    ``y = (x / p(x) - mean) / std``, where ``p(x)`` is the percentile over the whole image, all channels together. It
    does not depend on the image's orientation, so it commutes with every turn, to the last bit for quarter turns.

    Args:
        mean: One number a channel.
        std: One number a channel.
        percentile: Above 0, up to 100; None leaves the image's own brightness as it is. For fluorescence, where one
            image is several times as bright as the next: 99.8.

    Raises:
        ValueError: Not as many standard deviations as means, one that is not positive, or no such percentile; the
            image has other channels.

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
            raise invalid("std", f"one number a channel, {len(self.mean)} as in mean", self.std)
        if not all(value > 0 and math.isfinite(value) for value in self.std):
            raise invalid("std", "positive", self.std, "a channel that is the same everywhere tells nothing: drop it")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise invalid("percentile", "above 0 and up to 100, or None", self.percentile)

    @classmethod
    def measure(cls, images: Iterable[Tensor] | Tensor, percentile: float | None = None) -> "Normalization":
        """The normalisation that gives these images mean zero and standard deviation one, channel by channel.

        Args:
            images: The training images, each ``[C, H, W]``; read one after the other. Bands of images do as well where
                nothing is scaled by a percentile.
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
        """The brightness that an image is scaled by, for use on its windows: ``normalization(window, level)``.

        No more than a piece is held. Values of more than 16 bits are read twice, and taken as float32.

        Args:
            pieces: Reads the image anew, in parts ``[C, h, w]`` that hold each pixel once.

        Returns:
            A scalar; None where images are not scaled.
        """
        return None if self.percentile is None else piecewise_percentile(pieces, self.percentile)


def _scale(image: Tensor, percentile: float | None) -> Tensor:
    """Each image divided by its own percentile."""
    return image if percentile is None else _divide(image, _level(image, percentile))


def _level(image: Tensor, percentile: float) -> Tensor:
    """A value of the image itself: torch.quantile takes no image of more than 16 million values."""
    pixels = image.flatten(-3)
    return pixels.kthvalue(rank_of(pixels.shape[-1], percentile), dim=-1).values[..., None, None, None]


def _divide(image: Tensor, level: Tensor) -> Tensor:
    """A black image stays black."""
    return image / torch.where(level > 0, level, 1)


def _moments(image: Tensor) -> Tensor:
    """Count, sum and sum of squares of each channel, in float64."""
    pixels = image.to(torch.float64).flatten(1)
    count = torch.full_like(pixels[:, 0], pixels.shape[1])
    return torch.stack((count, pixels.sum(dim=1), pixels.square().sum(dim=1)))
