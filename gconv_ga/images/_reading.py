"""The choices in reading image files: channels, page, number type and largest size. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._validate import as_int, invalid, one_of

MAX_PIXELS = 10**9
OTHER_NUMBERS = ("refuse", "scale", "keep")
OPTION = "other_numbers (--other-numbers)"


@dataclass(frozen=True)
class Reading:
    """Choices about how image files are read; a run keeps those of its training.

    Args:
        channels: Channels to read, counted from 0, in this order. If None, all of them. In a file of several planes
            that does not say which of them are channels, these planes are.
        page: Page, plane or frame to read of a file that has several, counted from 0. If None, such files are refused.
        numbers: Number type of the training images, such as "uint8", "uint16" or "float32"; grey levels of 1, 2 and 4
            bits are "uint1", "uint2" and "uint4". If None, any type is read as it is.
        other_numbers: Treatment of files of other number types: "refuse" them; "scale" their values from their range to
            that of ``numbers``, where the range of whole numbers without a sign is all that they can hold, and that of
            floating-point numbers is 0 .. 1; or "keep" the values.
        max_pixels: Largest number of pixels; larger images are refused before any memory is allocated for them. An
            image of more than four channels may have as many values as one of four.

    Raises:
        ValueError: A channel or page is not an int of at least 0, a channel occurs twice, ``max_pixels`` is not a
            positive int, or ``other_numbers`` is another word.

    Example:
        >>> from gconv_ga.images import Reading
        >>> Reading(numbers="uint8", other_numbers="scale").factor("uint16", "a.tif") == 1 / 257
        True
    """

    channels: Sequence[int] | None = None
    page: int | None = None
    numbers: str | None = None
    other_numbers: str = "refuse"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        one_of("other_numbers", self.other_numbers, OTHER_NUMBERS)
        as_int("max_pixels", self.max_pixels, minimum=1)
        if self.page is not None:
            as_int("page", self.page, minimum=0, advice="pages are counted from 0")
        if self.channels is not None:
            if isinstance(self.channels, str) or not self.channels:
                raise invalid("channels", "numbers of channels, counted from 0, or None", self.channels)
            chosen = tuple(as_int("channels", channel, minimum=0) for channel in self.channels)
            if len(set(chosen)) < len(chosen):
                raise invalid("channels", "different numbers", self.channels)
            object.__setattr__(self, "channels", chosen)

    def check_size(self, path: object, channels: int, height: int, width: int) -> None:
        """Refuse an image that is too large.

        Args:
            path: File to name.
            channels: Number of channels.
            height: Number of rows.
            width: Number of columns.

        Raises:
            ValueError: It has more than ``max_pixels`` pixels, or more values than four channels of so many.
        """
        if height * width > self.max_pixels or channels * height * width > 4 * self.max_pixels:
            values = f"{height} x {width} pixels" + (f" of {channels} channels" if channels > 4 else "")
            needed = max(height * width, -(-channels * height * width // 4))
            advice = f"it has {values}; if you trust it, raise max_pixels (--max-pixels) to {needed}"
            raise invalid("path", f"an image of at most {self.max_pixels} pixels", str(path), advice)

    def factor(self, numbers: str, path: object) -> float:
        """Return what the values of a file are multiplied by.

        Args:
            numbers: Number type of the file.
            path: File to name.

        Raises:
            ValueError: The file has another number type than the training images, and is not to be read.
        """
        wanted = self.numbers
        if wanted is None or self.other_numbers == "keep" or _alike(numbers, wanted):
            return 1.0
        here, there = largest(numbers), largest(wanted)
        takes = f"an image of the number type of the training images, {wanted}"
        if here is None or there is None:
            advice = f"it holds {numbers}; convert it, or, if the units are the same, keep its values with {OPTION}"
            raise invalid("path", takes, str(path), advice)
        if self.other_numbers == "scale":
            return there / here
        times = f"{there / here:g}" if there > here else f"1/{here / there:g}"
        of = f"{numbers} (if their range is 0 .. 1)" if here == 1.0 else numbers
        advice = f"it holds {of}: times {times} the values fit; scale or keep them with {OPTION}"
        raise invalid("path", takes, str(path), advice)


def largest(numbers: str) -> float | None:
    """Return the upper end of the range of a number type; None for whole numbers with a sign, which have no usual one.

    Args:
        numbers: Number type.
    """
    if numbers.startswith("float"):
        return 1.0
    return 2.0 ** int(numbers.removeprefix("uint")) - 1 if numbers.startswith("uint") else None


def _alike(one: str, other: str) -> bool:
    """True for equal types, and for floating-point numbers of any precision."""
    return one == other or (one.startswith("float") and other.startswith("float"))
