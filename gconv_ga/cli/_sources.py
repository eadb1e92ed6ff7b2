"""Images with masks as a user names them: two folders or a table, and how the masks encode classes."""

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .._files import printable
from ..images import FORMATS, MAX_PIXELS, Reading
from ._options import LISTED, naming, note, refuse, refuse_files

if TYPE_CHECKING:
    from ..images import MaskEncoding, PairFiles, Problem, Scan, Table

KINDS = ", ".join(FORMATS)
TableFile = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="Table in place of the two folders: columns image, mask, and optionally split, patient or slide.",
    ),
]
Colors = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help='Colours of the classes in colour masks: JSON {"name": [r, g, b], ...} or CSV name, r, g, b.',
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(metavar="N", help="Mask value of ignored pixels, which are excluded from training and scores."),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Columns file, split (train, val, test). If omitted: 1 of 5 validates."),
]
MaskSuffix = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What the names of masks have beyond those of their images, such as _mask."),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", help="Go through the folders in the folder too; names are then paths in it.")
]
Channels = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Channels to read, counted from 0, such as 0,1,2 or 0-2. If omitted: all."),
]
Page = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Page, plane or frame to read of files with several, counted from 0."),
]
OtherNumbers = Annotated[
    Literal["refuse", "scale", "keep"] | None,
    typer.Option(
        help="What to do with images of another number type than those of the training (8 and 16 bits, say): refuse "
        "them, scale their values, or keep the values. If omitted: refuse."
    ),
]
MaxPixels = Annotated[
    int, typer.Option(metavar="N", min=1, help=f"Refuse images of more pixels than this; default: {MAX_PIXELS:,}.")
]


def choose_reading(
    base: Reading, channels: str | None, page: int | None, other_numbers: str | None, max_pixels: int
) -> Reading:
    """Return how files are read: as the options say, and where one is None as ``base`` says.

    Args:
        base: What to start from.
        channels: Value of ``--channels``.
        page: Value of ``--page``.
        other_numbers: Value of ``--other-numbers``.
        max_pixels: Value of ``--max-pixels``.

    Raises:
        typer.BadParameter: The channels are not a list of numbers and ranges.
    """
    with naming("--channels"):
        chosen = base.channels if channels is None else _numbers_of(channels)
        base = replace(base, channels=chosen, max_pixels=max_pixels)
    base = base if page is None else replace(base, page=page)
    return base if other_numbers is None else replace(base, other_numbers=other_numbers)


def _numbers_of(text: str) -> list[int]:
    """Return the numbers that a list such as "0,2" or "0-2" names."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 8:
            refuse("--channels", f"{text!r} is not a list such as 0,1,2 or 0-2")
        found += range(int(first), int(last or first) + 1)
    return found


@dataclass(frozen=True)
class Source:
    """Images with masks: two folders, or a table.

    Args:
        images: Value of ``--images``.
        masks: Value of ``--masks``.
        table: Value of ``--table``.
        suffix: Value of ``--mask-suffix``.
        recursive: Value of ``--recursive``.
        mask_option: Option that names ``masks``.

    Raises:
        typer.BadParameter: The options name neither or both.
    """

    images: Path | None
    masks: Path | None
    table: Path | None
    suffix: str | None = None
    recursive: bool = False
    mask_option: str = "--masks"

    def __post_init__(self) -> None:
        if self.table is not None and (self.images is not None or self.masks is not None):
            refuse("--table", "a table replaces --images and --masks; give one or the other")
        if self.table is not None and (self.suffix is not None or self.recursive):
            option = "--recursive" if self.suffix is None else "--mask-suffix"
            refuse(option, "it is for --images and --masks; a table names the files")
        if self.table is None:
            for option, folder in (("--images", self.images), ("--masks", self.masks)):
                if folder is None:
                    refuse(option, "give --images and --masks, or --table")

    @property
    def option(self) -> str:
        """Options to name when something is wrong with a file."""
        return f"--images and {self.mask_option}" if self.table is None else "--table"

    def read(
        self, say: Callable[[str], None] = note
    ) -> tuple[Sequence["PairFiles"], Sequence["Problem"], "Table | None"]:
        """Return the pairs, the problems with their names, and the table if there is one.

        Args:
            say: Function that prints a line.

        Raises:
            typer.BadParameter: There are no images, or the table cannot be read.
        """
        from ..images import find_images, match_masks, read_table

        if self.table is not None:
            with naming("--table"):
                table = read_table(self.table)
            return table.pairs, table.problems, table
        assert self.images is not None
        assert self.masks is not None
        with naming("--images"):
            files = find_images(self.images, recursive=self.recursive, note=say)
        root = self.images if self.recursive and self.images.is_dir() else None
        with naming(self.mask_option):
            return *match_masks(files, self.masks, suffix=self.suffix or "", root=root, note=say), None


def name_in(file: Path, root: Path | None) -> str:
    """Return the name of a file without its ending, as a path in ``root`` if there is one, with composed letters."""
    return unicodedata.normalize("NFC", str(file.relative_to(root).with_suffix("")) if root else file.stem)


def mask_encoding(
    colors: Path | None, ignore_index: int | None, default: "MaskEncoding | None" = None
) -> "MaskEncoding":
    """Return the encoding that options ask for.

    Args:
        colors: Value of ``--colors``. If None, the colours of ``default``.
        ignore_index: Value of ``--ignore-index``. If None, that of ``default``.
        default: Encoding to start from. If None, masks hold class indices and no pixel is ignored.

    Raises:
        typer.BadParameter: The file of colours or the index is wrong.
    """
    from ..images import MaskEncoding, read_colors

    base = MaskEncoding() if default is None else default
    with naming("--colors"):
        found = base.colors if colors is None else read_colors(colors)
        MaskEncoding(found)
    with naming("--ignore-index"):
        index = base.ignore_index if ignore_index is None else ignore_index
        return MaskEncoding(found, index, base.instances and colors is None, base.values if found is None else None)


def scan_files(
    pairs: Sequence["PairFiles"],
    problems: Sequence["Problem"],
    option: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    encoding: "MaskEncoding | None" = None,
    reading: Reading | None = None,
    absent_classes: bool = False,
) -> "Scan":
    """Read all files once, with a progress bar, and refuse them if anything is wrong.

    Args:
        pairs: Files to read.
        problems: Problems that are known already.
        option: Option that names the files.
        classes: Number of classes. If None, they are counted.
        channels: Number of channels of the images. If None, that of most images.
        encoding: Encoding of the masks. If None, they hold class indices.
        reading: How the files are read. If None, as by default.
        absent_classes: Whether a class may be absent from all masks.

    Raises:
        typer.BadParameter: Something is wrong with a file; a table lists the problems.
    """
    from ..images import EMPTY_CLASS, scan_pairs
    from ._progress import progress_bars

    with progress_bars() as bars, naming("--classes"):
        task = bars.add_task("reading the files", total=len(pairs), note="")
        scan = scan_pairs(
            pairs, classes=classes, channels=channels, code=encoding, reading=reading,
            progress=lambda done: bars.update(task, completed=done),
        )  # fmt: skip
    found = [problem for problem in scan.problems if not (absent_classes and problem.file == EMPTY_CLASS)]
    refuse_files(option, [*problems, *found])
    if scan.note:
        print(scan.note, file=sys.stderr)
    return scan


def list_classes(classes: Sequence[str], split: Mapping[str, str], pixels: Mapping[str, Mapping[int, int]]) -> None:
    """Print the share of each class in the pixels of each part of the split; warn of classes that training lacks.

    Args:
        classes: Names of the classes.
        split: Part of the split by the name of each image.
        pixels: Number of pixels of each class by the name of each image.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    parts = [part for part in ("train", "val", "test") if part in split.values()]
    counts = {part: Counter[int]() for part in parts}
    for name, part in split.items():
        counts[part].update(pixels[name])
    table = Table("class", *parts, title="share of pixels")
    for index, name in list(enumerate(classes))[:LISTED]:
        shares = (counts[part][index] / (counts[part].total() or 1) for part in parts)
        cells = (f"{100 * share:.2f} %" if share else "none" for share in shares)
        table.add_row(Text(printable(f"{index} {name}")), *cells)
    if classes[LISTED:]:
        table.add_row(f"... and {len(classes) - LISTED} more")
    Console(file=sys.stderr).print(table)
    for index, name in enumerate(classes):
        if not counts["train"][index]:
            where = " and ".join(part for part in parts if counts[part][index])
            note(f"warning: class {index}, {name}, has no pixel in the training images (in {where} only)")
