"""Options that several commands share, and the one way in which commands refuse input.

Nothing here loads torch: rooms are imported inside functions, so that ``--help`` and refusals answer at once.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from .._files import alone_in, printable, remove_unfinished
from ..groups import as_group
from ..pretrained import NAMES, find_checkpoint

if TYPE_CHECKING:
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
    if problems:
        list_problems(problems)
        refuse(option, f"{len(problems)} problem{'s' if problems[1:] else ''} in the files; {outcome}")


def list_problems(problems: Sequence["Problem"]) -> None:
    """Print problems with files as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("file", "problem")
    for problem in problems[:LISTED]:  # as Text: brackets in a name are no markup
        table.add_row(Text(printable(problem.file)), Text(printable(problem.what)))
    if problems[LISTED:]:
        table.add_row("...", f"and {len(problems) - LISTED} more")
    Console(file=sys.stderr).print(table)


def note(text: str) -> None:
    """Print one line on the standard error."""
    print(f"gconv-ga: {printable(text)}", file=sys.stderr, flush=True)


def silent(text: str) -> None:
    """Print nothing, in a process beside the main one, which prints it."""


def make_folder(folder: Path, option: str) -> Path:
    """Make the folder that an option names, unless it exists; what a killed command left half written is removed.

    Raises:
        typer.BadParameter: It cannot be made, or not written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(option, f"{folder} cannot be made a folder: {error.strerror}")
    if not os.access(folder, os.W_OK):
        refuse(option, f"{folder} is a folder that you may not write to")
    remove_unfinished(folder)
    return folder


@contextmanager
def alone(out: Path, work: str) -> Iterator[None]:
    """Lock the folder of the option ``--out``; refuse it if another program does such work there.

    Args:
        out: The folder; it must exist.
        work: Name of the work, such as "training".

    Raises:
        typer.BadParameter: Another program is at work.
    """
    with ExitStack() as held:
        try:
            held.enter_context(alone_in(out))
        except BlockingIOError as error:
            refuse("--out", f"another {work} is at work in {out}; wait until it has ended, or take another", error)
        yield


def group_name(name: str | None) -> str | None:
    """Return the name of a group in its usual form.

    Raises:
        typer.BadParameter: There is no such group.
    """
    if name is None:
        return None
    try:
        return as_group(name).name
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def check_group(name: str | None) -> str | None:
    """Return the name of a group in its usual form.

    Raises:
        typer.BadParameter: There is no such group, or it contains the identity alone.
    """
    usual = group_name(name)
    if usual is not None and as_group(usual).order == 1:
        raise typer.BadParameter(
            f"{usual} contains no rotation; use C4 (rotations by 90 degrees) or D4 (reflections too)"
        )
    return usual


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
RUN = typer.Option(
    metavar="RUN",
    help="Folder of a trained run, whose best checkpoint is taken; a checkpoint (.safetensors); or a network of the "
    f"package: {' or '.join(NAMES)}.",
)
Run = Annotated[Path, RUN]


def checkpoint_file(run: Path) -> Path:
    """Return the checkpoint of a run with the best validation score, or the last one if there is no score.

    A path that is not a folder is taken as the checkpoint itself. The name of a network of the package stands for it,
    unless there is a file of that name, or a folder with a run in it.
    """
    best, last = run / "best.safetensors", run / "model.safetensors"
    if best.exists() or last.exists():
        return best if best.exists() else last
    if str(run) in NAMES and not run.is_file():
        return find_checkpoint(str(run))
    return last if run.is_dir() else run


def load_run(run: Path, option: str = "--run", *, say: Callable[[str], None] = note) -> "Checkpoint":
    """Load the network of a run, and say which checkpoint of a folder, or that it is a network of the package.

    Args:
        run: Folder of the run, or a checkpoint.
        option: Option that names it.
        say: Function that prints a line.

    Raises:
        typer.BadParameter: There is no checkpoint of ours.
    """
    from ..segmenter import load_checkpoint

    file = checkpoint_file(run)
    with naming(option):
        checkpoint = load_checkpoint(file)
    if file.parent == run:
        kind = "best validation score" if file.name == "best.safetensors" else "last"
        say(f"{file} ({kind}, step {checkpoint.step})")
    elif file != run:
        folder = f"; the folder {run} holds no run" if run.is_dir() else ""
        say(f"the network {run} of the package (gconv-ga models {run}){folder}")
    return checkpoint


def run_encoding(run: Path) -> "MaskEncoding | None":
    """Return the encoding of the masks that a run was trained on, or None if the run is a checkpoint alone.

    Raises:
        typer.BadParameter: The configuration of the run is damaged.
    """
    file = run / "run.json"
    if checkpoint_file(run).parent != run or not file.is_file():
        return None
    from ..train import RunConfig

    with naming("--run"):
        return RunConfig.from_json(file.read_text(encoding="utf-8", errors="replace")).mask_encoding
