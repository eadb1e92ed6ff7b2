"""A scan of all files of a data set for faults, before training."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .._validate import as_int, invalid
from ._mask_values import understand
from ._masks import MaskEncoding
from ._pairs import PairFiles, Problem, lost_link
from ._reader import ImageFile, MaskFile
from ._reading import Reading

EMPTY_CLASS = "masks"
"""`Problem.file` of a class that no mask contains, which is not a fault of one file."""

ALL_MASKS = "all masks"  # where their values cannot be class indices


@dataclass(frozen=True)
class Scan:
    """Result of a scan.

    Args:
        problems: Faults; empty if there are none.
        classes: Number of classes: as given, or one more than the largest index.
        channels: Number of channels of the images.
        smallest: Shortest side of any image, in pixels.
        pixels: Number of pixels of each class in all masks.
        numbers: Number type of the images, as for `Reading`; None if there are none.
        smallest_file: Name of an image with the shortest side.
        by_pair: Number of pixels of each class in each mask, by the name of the pair.
        encoding: Encoding of the masks: as given, or with the two values that were found in place of 0 and 1.
        note: Sentence about the encoding, if it is not as given; else empty.

    Example:
        >>> from gconv_ga.images import Scan
        >>> Scan(problems=(), classes=2, channels=3, smallest=128, pixels=(900, 100)).classes
        2
    """

    problems: tuple[Problem, ...]
    classes: int
    channels: int
    smallest: int
    pixels: tuple[int, ...]
    numbers: str | None = None
    smallest_file: str = ""
    by_pair: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    encoding: MaskEncoding = field(default_factory=MaskEncoding)
    note: str = ""


def scan_pairs(
    pairs: Sequence[PairFiles],
    *,
    classes: int | None = None,
    channels: int | None = None,
    code: MaskEncoding | None = None,
    reading: Reading | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Scan:
    """Read every image and mask once, band by band, and report faults.

    Faults are files that cannot be read, an image and a mask of different sizes, images with other channels than the
    rest or another number type, values that are not finite, classes outside ``0 .. classes - 1``, classes that no mask
    contains, and values that cannot be classes: those of ignored pixels without ``ignore_index``, of smoothed edges, or
    the numbers of instances. Two values, such as 0 and 255, are taken for two classes.

    Args:
        pairs: The files.
        classes: Number of classes. If None, the number of colours, or one more than the largest index.
        channels: Number of channels of the images. If None, the most frequent one.
        code: Encoding of the masks. If None, they hold indices.
        reading: How the files are read. If it has no number type, that of most images.
        progress: Called after each pair with the number of pairs done.

    Raises:
        ValueError: ``classes`` is not an int of at least 2, or not the number of colours.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import PairFiles, scan_pairs
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.png").write_text("no image")
        ...     scan = scan_pairs([PairFiles(Path(folder, "a.png"), Path(folder, "a.png"))], classes=2)
        >>> scan.problems[0].what[:30]
        'path must be a readable image '
    """
    given, encoding = _given_classes(classes, code), MaskEncoding() if code is None else code
    how = Reading() if reading is None else reading
    problems: list[Problem] = []
    shapes: dict[PairFiles, tuple[int, int, int]] = {}
    types: dict[PairFiles, str] = {}
    counters: dict[PairFiles, Counter[int]] = {}
    raw = replace(encoding, values=None)
    for done, pair in enumerate(pairs, start=1):
        try:
            shape, types[pair], faults, counters[pair] = _inspect(pair, raw, how)
        except ValueError as error:
            problems.append(Problem(pair.image.name, str(error)))
        else:
            shapes[pair] = shape
            problems += [Problem(pair.image.name, what) for what in faults]
        if progress is not None:
            progress(done)
    common = Counter(shape[0] for shape in shapes.values()).most_common(1)
    usual = channels or (common[0][0] if common else 0)
    problems += [
        Problem(pair.image.name, f"{shape[0]} channels, where {usual} are expected")
        for pair, shape in shapes.items()
        if shape[0] != usual
    ]
    numbers = how.numbers or max(types.values(), key=Counter(types.values()).__getitem__, default=None)
    problems += _other_types(types, replace(how, numbers=numbers))
    note = fault = ""
    if encoding.colors is None and not encoding.instances:
        encoding, note, fault = understand(list(counters.values()), encoding, given)
    by_pair, outside = _classes_of(counters, encoding, given)
    pixels = sum(by_pair.values(), Counter[int]())
    count = given or (max(2, 1 + max(pixels, default=0)) if encoding.values is None else len(encoding.values))
    problems += [Problem(ALL_MASKS, fault)] if fault else [*outside, *_empty(pixels, count, encoding.ignore_index)]
    smallest, file = min(((min(shape[1:]), pair.image.name) for pair, shape in shapes.items()), default=(0, ""))
    shares = tuple(pixels[index] for index in range(min(count, 256)))
    return Scan(tuple(problems), count, usual, smallest, shares, numbers, file, by_pair, encoding, note)


def _given_classes(classes: int | None, code: MaskEncoding | None) -> int | None:
    """Number of classes that the user has given, by number or by colours; None if by neither."""
    named = None if code is None or code.colors is None else len(code.names)
    if classes is None:
        return named
    count = as_int("classes", classes, minimum=2)
    if named not in (None, count):
        raise invalid("classes", f"{named}, the number of colours", classes, "leave it out")
    return count


def _inspect(
    pair: PairFiles, code: MaskEncoding, reading: Reading
) -> tuple[tuple[int, int, int], str, list[str], Counter[int]]:
    """Shape and number type of the image, faults of a pair that can be read, and pixels of each mask value."""
    if lost := lost_link(pair.image) or lost_link(pair.mask):
        raise ValueError(lost)
    image, mask = ImageFile(pair.image, None, replace(reading, numbers=None)), MaskFile(pair.mask, code, reading)
    faults, counts = [], Counter[int]()
    if image.shape[1:] != mask.shape:
        sizes = ("x".join(str(side) for side in shape) for shape in (image.shape[1:], mask.shape))
        faults.append("image {}, mask {}".format(*sizes))
    for _ in image.raw_pieces():  # which refuse damage, and values that are not finite
        pass
    for band in mask.bands():
        values, found = band.unique(return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    if code.ignore_index is not None:
        counts.pop(code.ignore_index, None)
    return image.shape, image.numbers, faults, counts


def _classes_of(
    counters: Mapping[PairFiles, Counter[int]], code: MaskEncoding, classes: int | None
) -> tuple[dict[str, Counter[int]], list[Problem]]:
    """Number of pixels of each class in each mask, by the name of the pair, and faults: values that are no class."""
    by_pair, problems = dict[str, Counter[int]](), []
    for pair, counts in counters.items():
        known: Sequence[int] = range(classes or 1 + max(counts, default=0)) if code.values is None else code.values
        if not all(value in known for value in counts):
            expected = ", ".join(map(str, code.values or ())) or f"0 .. {'' if classes is None else classes - 1}"
            what = f"mask values {min(counts)} .. {max(counts)}, where {expected} are expected"
            problems.append(Problem(pair.image.name, what))
        by_pair[pair.name] = Counter({known.index(value): count for value, count in counts.items() if value in known})
    return by_pair, problems


def _other_types(types: Mapping[PairFiles, str], reading: Reading) -> list[Problem]:
    """Faults: images of other number types than is asked for."""
    problems = []
    for pair, numbers in types.items():
        try:
            reading.factor(numbers, pair.image)
        except ValueError as error:
            problems.append(Problem(pair.image.name, str(error)))
    return problems


def _empty(pixels: Counter[int], classes: int, ignored: int | None) -> list[Problem]:
    empty = [index for index in range(min(classes, 10_000)) if not pixels[index] and index != ignored]
    if not empty or not pixels:
        return []
    some = ", ".join(str(index) for index in empty[:5]) + (f" and {len(empty) - 5} more" if empty[5:] else "")
    values = ", ".join(str(value) for value in sorted(pixels)[:5]) + (" ..." if len(pixels) > 5 else "")
    advice = "a mask of few values in grey can be read with colors (--colors)" if classes > len(pixels) + 1 else ""
    return [
        Problem(EMPTY_CLASS, f"no pixel of class {some}; the values found are {values}" + (advice and f"; {advice}"))
    ]
