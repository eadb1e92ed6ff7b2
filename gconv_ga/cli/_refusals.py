"""Wrong input is answered with the option's name."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # the room takes seconds to load
    from ..data import Problem

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
    table = Table("file", "what is wrong")
    for problem in problems[:SHOWN]:
        table.add_row(problem.file, problem.what)
    if problems[SHOWN:]:
        table.add_row("...", f"and {len(problems) - SHOWN} more")
    Console(file=sys.stderr).print(table)
    refuse(option, f"{len(problems)} problem{'s' if problems[1:] else ''} in the files; {rest}")
