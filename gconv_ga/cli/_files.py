"""Images and masks from folders or from a table, looked at before anything is done with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._progress import progress_bars
from ._refusals import naming, refuse, refuse_files

if TYPE_CHECKING:  # the room takes seconds to load
    from ..data import MaskCode, PairFiles, Problem, Scan, Table

KINDS = "PNG, JPEG, TIFF, NPY; 8 or 16 bits"
TableFile = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="In place of folders: columns image, mask, and if there split, patient or slide."),
]
Colors = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help='Masks are in colours: JSON {"name": \\[r, g, b], ...} or CSV name, r, g, b.'),
]
IgnoreIndex = Annotated[
    int | None, typer.Option(metavar="N", help="Pixels of this value in a mask are neither trained on nor scored.")
]


@dataclass(frozen=True)
class Source:
    """Where images and masks come from: two folders, or a table.

    Raises:
        typer.BadParameter: Neither is named as a whole, or both.
    """

    images: Path | None
    masks: Path | None
    table: Path | None

    def __post_init__(self) -> None:
        if self.table is not None and (self.images is not None or self.masks is not None):
            refuse("--table", "a table takes the place of --images and --masks: give one or the other")
        if self.table is None and self.images is None:
            refuse("--images", "give --images and --masks, or --table")
        if self.table is None and self.masks is None:
            refuse("--masks", "give --images and --masks, or --table")

    @property
    def option(self) -> str:
        """What the user typed, to be named when something is wrong."""
        return "--images" if self.table is None else "--table"

    def read(self) -> tuple[Sequence["PairFiles"], Sequence["Problem"], "Table | None"]:
        """The pairs, what is wrong with their names, and the table if it is one.

        Raises:
            typer.BadParameter: There are none.
        """
        from ..data import find_images, match_masks, read_table

        if self.table is not None:
            with naming("--table"):
                table = read_table(self.table)
            return table.pairs, table.problems, table
        assert self.images is not None
        assert self.masks is not None
        with naming("--images"):
            files = find_images(self.images)
        with naming("--masks"):
            return *match_masks(files, self.masks), None


def mask_code(colors: Path | None, ignore_index: int | None, usual: "MaskCode | None" = None) -> "MaskCode":
    """How masks say their classes.

    Args:
        colors: The file of colours; None for those of ``usual``.
        ignore_index: Which pixels count nowhere; None for those of ``usual``.
        usual: What holds where nothing is said.

    Raises:
        typer.BadParameter: The file of colours or the index is wrong.
    """
    from ..data import MaskCode, read_colors

    before = MaskCode() if usual is None else usual
    with naming("--colors"):
        found = before.colors if colors is None else read_colors(colors)
        MaskCode(found)
    with naming("--ignore-index"):
        return MaskCode(found, before.ignore_index if ignore_index is None else ignore_index)


def scanned(
    pairs: Sequence["PairFiles"],
    problems: Sequence["Problem"],
    option: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    code: "MaskCode | None" = None,
    may_be_empty: bool = False,
) -> "Scan":
    """Reads all files once, with a progress bar.

    Args:
        pairs: The files.
        problems: What is known to be wrong.
        option: Where they come from.
        classes: How many there are; None to count them.
        channels: How many the images have; None for what most have.
        code: How masks say their classes.
        may_be_empty: Whether a class may be in no mask.

    Raises:
        typer.BadParameter: Something is wrong with a file; a table says what.
    """
    from ..data import EMPTY_CLASS, scan_pairs

    with progress_bars() as bars, naming("--classes"):
        task = bars.add_task("reading the files", total=len(pairs), note="")
        scan = scan_pairs(
            pairs, classes=classes, channels=channels, code=code,
            progress=lambda done: bars.update(task, completed=done),
        )  # fmt: skip
    found = [problem for problem in scan.problems if not (may_be_empty and problem.file == EMPTY_CLASS)]
    refuse_files(option, [*problems, *found])
    return scan
