"""Encoding of the classes in mask files: by index or by colour."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .._validate import as_int, invalid, one_of
from ._rows import read_rows

IGNORED, USUAL = "ignore", 255
"""Name of the colour of ignored pixels, and their index if none is given."""


@dataclass(frozen=True)
class MaskEncoding:
    """Encoding of the classes in a mask file.

    Without colours, a mask holds the indices 0, 1, ...; so does a PNG with a palette, whatever its colours. With
    colours, a mask is an image in these colours, and the class of a pixel is the position of its colour among them.

    Args:
        colors: Name and colour of each class in the order of the indices: red, green and blue, 0 .. 255. Pixels in the
            colour called "ignore" are excluded from loss and metrics; it is not a class. If None, masks hold indices.
        ignore_index: Index of the pixels that are excluded from loss and metrics. If None, there are none.
        instances: If True, a mask holds the numbers of objects, whose class is 1; 0 is background.
        values: Value of each class in masks without colours, in the order of the indices, such as 0 and 255. If None,
            the values are the indices.

    Raises:
        ValueError: Fewer than two classes have a colour or a value, two have the same, a colour is not three whole
            numbers, or there are two of colours, values and instances.

    Example:
        >>> import torch
        >>> from gconv_ga.images import MaskEncoding
        >>> code = MaskEncoding({"soil": (0, 0, 0), "leaf": (0, 255, 0), "ignore": (255, 255, 255)})
        >>> code.names, code.ignore_index
        (('soil', 'leaf'), 255)
        >>> code.indices(torch.tensor([[[0, 0, 255]], [[255, 0, 255]], [[0, 0, 255]]]))
        tensor([[  1,   0, 255]])
    """

    colors: Mapping[str, Sequence[int]] | None = None
    ignore_index: int | None = None
    instances: bool = False
    values: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.instances and self.colors is not None:
            raise invalid("colors", "None where masks hold the numbers of objects", dict(self.colors))
        if self.instances and self.values is not None:
            raise invalid("values", "None where masks hold the numbers of objects", self.values)
        if self.ignore_index is not None:
            as_int("ignore_index", self.ignore_index, minimum=-(2**31))
        if self.values is not None:
            values = tuple(as_int("values", value, minimum=-(2**31)) for value in self.values)
            object.__setattr__(self, "values", values)
            if len(set(values)) < max(2, len(values)) or self.ignore_index in values or self.colors is not None:
                raise invalid("values", "different values of two classes or more, without colours", values)
            if self.ignore_index in range(len(values)):
                raise invalid("ignore_index", f"none of the {len(values)} classes that have a value", self.ignore_index)
        if self.colors is None:
            return
        colors = {str(name): _color(name, value) for name, value in dict(self.colors).items()}
        object.__setattr__(self, "colors", colors)
        if len(self.names) < 2:
            raise invalid("colors", "the colours of two classes or more", colors)
        twins = [name for place, name in enumerate(colors) if colors[name] in list(colors.values())[:place]]
        if twins:
            raise invalid("colors", "different colours", colors, f"the colour of {twins[0]!r} occurs twice")
        if IGNORED in colors and self.ignore_index is None:
            object.__setattr__(self, "ignore_index", USUAL)
        if self.ignore_index in range(len(self.names)):
            raise invalid(
                "ignore_index", f"none of the {len(self.names)} classes that have a colour", self.ignore_index
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that have a colour, in the order of their indices."""
        return tuple(name for name in self.colors or () if name != IGNORED)

    def indices(self, pixels: Tensor) -> Tensor:
        """Return the classes of the pixels of a mask file.

        Args:
            pixels: Values of the file.

        Shape:
            - pixels: ``[C, H, W]``, any number type; with colours three channels, or one for grey
            - output: ``[H, W]``, int64

        Raises:
            ValueError: There are several channels but no colours, values that are not whole numbers, or another colour.
        """
        if self.colors is not None:
            return self._by_color(pixels)
        pixels = _without_colors(pixels)
        if len(pixels) != 1:
            takes = "a file of one channel that holds class indices"
            advice = f"this one has {len(pixels)} channels; for a mask in colours give the colours (--colors)"
            raise invalid("mask", takes, pixels, advice)
        if pixels.is_floating_point() and not torch.equal(pixels, pixels.round()):  # NaN is not a whole number either
            raise invalid("mask", "a file of whole numbers, the class indices", pixels)
        found = pixels[0].to(torch.int64)
        if self.values is not None:
            return self._by_value(found, self.values)
        if not self.instances:
            return found
        if bool((found < 0).any()):
            raise invalid("mask", "a file of the numbers of objects, 0 and up", pixels)
        objects = (found > 0).to(torch.int64)
        return (
            objects if self.ignore_index is None else objects.masked_fill(found == self.ignore_index, self.ignore_index)
        )

    def _by_value(self, found: Tensor, values: Sequence[int]) -> Tensor:
        classes = torch.full_like(found, -1)
        known = torch.zeros_like(found, dtype=torch.bool)
        if self.ignore_index is not None:
            known = found == self.ignore_index
            classes[known] = self.ignore_index
        for index, value in enumerate(values):
            classes[found == value] = index
            known |= found == value
        if not bool(known.all()):
            takes = f"a file of the values {', '.join(map(str, values))}, one for each class"
            raise invalid("mask", takes, found, f"it holds {int(found[~known][0])}")
        return classes

    def _by_color(self, pixels: Tensor) -> Tensor:
        if len(pixels) not in (1, 3, 4):
            raise invalid("mask", "an image in colours", pixels, f"this one has {len(pixels)} channels")
        red, green, blue = pixels[:3].to(torch.int64) if len(pixels) > 1 else pixels.to(torch.int64).expand(3, -1, -1)
        numbers = (red << 16) + (green << 8) + blue
        classes = torch.full_like(numbers, -1)
        known = torch.zeros_like(numbers, dtype=torch.bool)
        for name, (r, g, b) in (self.colors or {}).items():
            here = numbers == (r << 16) + (g << 8) + b
            classes[here] = int(self.ignore_index or 0) if name == IGNORED else self.names.index(name)
            known |= here
        if not bool(known.all()):
            values, counts = numbers[~known].unique(return_counts=True)
            number = int(values[counts.argmax()])
            color = (number >> 16, number >> 8 & 255, number & 255)
            advice = f"{color} is the colour of {int(counts.max())} pixels but of no class"
            raise invalid("mask", "an image in the colours of the classes", pixels, advice)
        return classes


def _without_colors(pixels: Tensor) -> Tensor:
    """Drop channels that say nothing: opaque everywhere, or three equal ones for grey."""
    if len(pixels) in (2, 4) and pixels.dtype == torch.uint8 and bool((pixels[-1] == 255).all()):
        pixels = pixels[:-1]
    is_grey = len(pixels) == 3 and torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[1], pixels[2])
    return pixels[:1] if is_grey else pixels


def read_colors(path: str | Path) -> dict[str, tuple[int, int, int]]:
    r"""Read the colours of classes: JSON ``{"name": [red, green, blue]}``, or a CSV with the columns name, r, g, b.

    The first is class 0. The name "ignore" stands for pixels that are excluded from loss and metrics.

    Args:
        path: The file, ``.json``, or ``.csv`` as spreadsheets write it.

    Raises:
        ValueError: The file cannot be read, or a colour is not three whole numbers from 0 to 255.

    Example:
        >>> import tempfile
        >>> from gconv_ga.images import read_colors
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "colors.csv").write_text("name,r,g,b\nsoil,0,0,0\nleaf,0,255,0\n")
        ...     read_colors(f"{folder}/colors.csv")
        {'soil': (0, 0, 0), 'leaf': (0, 255, 0)}
    """
    file, takes = Path(path), "a file of colours: JSON {name: [r, g, b]}, or CSV with the columns name, r, g, b"
    kind = one_of("the ending of path", file.suffix.lower(), (".json", ".csv"))
    rows = read_rows(path, ("name", "r", "g", "b")) if kind == ".csv" else []
    try:
        if kind == ".json":
            pairs = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
        else:
            pairs = [(row["name"], [int(row[key]) for key in "rgb"]) for _, row in rows]
    except (OSError, ValueError) as error:
        advice = f"Python says: {type(error).__name__}: {error}"
        raise invalid("path", takes, str(path), advice) from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise invalid("path", takes, str(path))
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise invalid("path", "a file that names each class once", str(path))
    return {name: _color(name, value) for name, value in pairs}


def _color(name: object, value: object) -> tuple[int, int, int]:
    parts = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(parts) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in parts):
        raise invalid(
            "colors", "three whole numbers from 0 to 255 for each class", value, f"this is the colour of {name!r}"
        )
    red, green, blue = parts
    return red, green, blue
