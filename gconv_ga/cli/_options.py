"""Options that several commands share, and the one way in which commands refuse input.

Nothing here loads torch: rooms are imported inside functions, so that ``--help`` and refusals answer at once.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ..groups import as_group

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..images import MaskEncoding, Problem
    from ..segmenter import Checkpoint

LISTED = 40  # rows of a table of problems


def refuse(option: str, text: str, cause: Exception | None = None) -> NoReturn:
    """End the command with exit code 2 and a message that names the option.

    Raises:
        typer.BadParameter: Always.
    """
    raise typer.BadParameter(text, param_hint=f"'{option}'") from cause


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Refuse the option if a `ValueError` is raised inside."""
    try:
        yield
    except ValueError as error:
        refuse(option, str(error), error)


def refuse_files(option: str, problems: Sequence["Problem"], outcome: str = "nothing was written") -> None:
    """Print the problems with files as a table and end the command. If there are none, do nothing.

    Raises:
        typer.BadParameter: There are problems.
    """
    if not problems:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "problem")
    for problem in problems[:LISTED]:
        table.add_row(problem.file, problem.what)
    if problems[LISTED:]:
        table.add_row("...", f"and {len(problems) - LISTED} more")
    Console(file=sys.stderr).print(table)
    refuse(option, f"{len(problems)} problem{'s' if problems[1:] else ''} in the files; {outcome}")


def make_folder(folder: Path, option: str) -> Path:
    """Make the folder that an option names, unless it exists.

    Raises:
        typer.BadParameter: It cannot be made, or not written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(option, f"{folder} cannot be made a folder: {error.strerror}")
    if not os.access(folder, os.W_OK):
        refuse(option, f"{folder} is a folder that you may not write to")
    return folder


def check_group(name: str | None) -> str | None:
    """Return the name of a group in its usual form.

    Raises:
        typer.BadParameter: There is no such group, or it contains the identity alone.
    """
    if name is None:
        return None
    try:
        group = as_group(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if group.order == 1:
        raise typer.BadParameter(
            f"{group.name} contains no rotation; use C4 (rotations by 90 degrees) or D4 (reflections too)"
        )
    return group.name


GroupName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=check_group,
        help="Symmetry of the network: C4 (rotations by 90 degrees), D4 (reflections too), C8 (by 45 degrees) ...",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the initial weights, the crops and the augmentation.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps; auto takes the accelerator if there is one.")]
Tile = Annotated[
    int, typer.Option(min=8, help="Side in pixels of the tiles into which larger images are cut for prediction.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
RUN = typer.Option(metavar="RUN", help="Folder of a trained run, or a checkpoint file (.safetensors).")
Run = Annotated[Path, RUN]


def checkpoint_file(run: Path) -> Path:
    """Return the last checkpoint of a run. A path that is not a folder is taken as the checkpoint itself."""
    return run / "model.safetensors" if run.is_dir() else run


def load_run(run: Path) -> "Checkpoint":
    """Load the network of a run.

    Raises:
        typer.BadParameter: There is no checkpoint of ours.
    """
    from ..segmenter import load_checkpoint

    with naming("--run"):
        return load_checkpoint(checkpoint_file(run))


def run_encoding(run: Path) -> "MaskEncoding | None":
    """Return the encoding of the masks that a run was trained on, or None if the run is a checkpoint alone.

    Raises:
        typer.BadParameter: The configuration of the run is damaged.
    """
    file = run / "run.json"
    if not file.is_file():
        return None
    from ..train import RunConfig

    with naming("--run"):
        return RunConfig.from_json(file.read_text(encoding="utf-8", errors="replace")).mask_encoding


def progress_bars() -> "Progress":
    """Return progress bars on the standard error. Each task has a field ``note`` that is shown at the right."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
