"""Options that commands share, and their checks."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as TextTable

from ..groups import as_group

if TYPE_CHECKING:  # these rooms take seconds to load
    from ..images import MaskEncoding, PairFiles, Problem, Scan, Table
    from ..segmenter import Checkpoint


def check_group(name: str) -> str:
    """The name of a group of more than the identity, or a refusal."""
    try:
        group = as_group(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if group.order == 1:
        raise typer.BadParameter(f"{group.name} turns nothing; take C4 (quarter turns) or D4 (mirrors too)")
    return group.name


def make_folder(folder: Path, option: str) -> Path:
    """Makes the folder that an option names; it may be there already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be made a folder: {error.strerror}", param_hint=option) from None
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"{folder} is a folder that may not be written to", param_hint=option)
    return folder


GroupName = Annotated[
    str, typer.Option(metavar="NAME", callback=check_group, help="Symmetry of the first network: C2, C4, D2, D4 ...")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the initial weights, crops and turns.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes the accelerator if there is one.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


SHOWN = 40  # rows of a table of problems


@contextmanager
def naming(option: str) -> Iterator[None]:
    """A `ValueError` inside is about this option."""
    try:
        yield
    except ValueError as error:
        refuse(option, str(error), error)


def refuse(option: str, text: str, cause: Exception | None = None) -> NoReturn:
    """Ends the command.

    Raises:
        typer.BadParameter: Always.
    """
    raise typer.BadParameter(text, param_hint=f"'{option}'") from cause


def refuse_files(option: str, problems: Sequence["Problem"], rest: str = "nothing was written") -> None:
    """Prints what is wrong with files as a table and ends the command, if there is anything wrong.

    Raises:
        typer.BadParameter: There are problems.
    """
    if not problems:
        return
    table = TextTable("file", "what is wrong")
    for problem in problems[:SHOWN]:
        table.add_row(problem.file, problem.what)
    if problems[SHOWN:]:
        table.add_row("...", f"and {len(problems) - SHOWN} more")
    Console(file=sys.stderr).print(table)
    refuse(option, f"{len(problems)} problem{'s' if problems[1:] else ''} in the files; {rest}")


def progress_bars() -> Progress:
    """Bars with a note at the right: the field ``note`` of each task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


Run = Annotated[Path, typer.Option(metavar="RUN", help="Folder of a run, or a checkpoint (safetensors; no pickle).")]


def checkpoint_file(run: Path) -> Path:
    """The checkpoint of a run; a file stands for itself."""
    return run / "model.safetensors" if run.is_dir() else run


def load_run(run: Path) -> "Checkpoint":
    """The network of a run.

    Raises:
        typer.BadParameter: There is none, or it is no checkpoint of ours.
    """
    from ..segmenter import load_checkpoint

    with naming("--run"):
        return load_checkpoint(checkpoint_file(run))


def run_code(run: Path) -> "MaskEncoding":
    """How the masks say their classes that a run was trained on; by indices if the run is a checkpoint alone.

    Raises:
        typer.BadParameter: The run's configuration is damaged.
    """
    from ..images import MaskEncoding
    from ..train import read_run

    if not (run / "run.json").is_file():
        return MaskEncoding()
    with naming("--run"):
        return read_run(run).mask_code


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
        from ..images import find_images, match_masks, read_table

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


def mask_code(colors: Path | None, ignore_index: int | None, usual: "MaskEncoding | None" = None) -> "MaskEncoding":
    """How masks say their classes.

    Args:
        colors: The file of colours; None for those of ``usual``.
        ignore_index: Which pixels count nowhere; None for those of ``usual``.
        usual: What holds where nothing is said.

    Raises:
        typer.BadParameter: The file of colours or the index is wrong.
    """
    from ..images import MaskEncoding, read_colors

    before = MaskEncoding() if usual is None else usual
    with naming("--colors"):
        found = before.colors if colors is None else read_colors(colors)
        MaskEncoding(found)
    with naming("--ignore-index"):
        return MaskEncoding(found, before.ignore_index if ignore_index is None else ignore_index)


def scanned(
    pairs: Sequence["PairFiles"],
    problems: Sequence["Problem"],
    option: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    code: "MaskEncoding | None" = None,
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
    from ..images import EMPTY_CLASS, scan_pairs

    with progress_bars() as bars, naming("--classes"):
        task = bars.add_task("reading the files", total=len(pairs), note="")
        scan = scan_pairs(
            pairs, classes=classes, channels=channels, code=code,
            progress=lambda done: bars.update(task, completed=done),
        )  # fmt: skip
    found = [problem for problem in scan.problems if not (may_be_empty and problem.file == EMPTY_CLASS)]
    refuse_files(option, [*problems, *found])
    return scan
