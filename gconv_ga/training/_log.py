"""The log of a run: a CSV with a row for each step."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ._checkpoint import write_atomically

HEAD = ("step", "loss", "dice")


class LogRow(NamedTuple):
    """One step: its loss, and the Dice score on the validation images if it was taken then."""

    step: int
    loss: float
    dice: float | None


def read_log(path: Path) -> list[LogRow]:
    """The rows of a log, none if there is no file; a row cut short by the end of a program is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for cells in list(csv.reader(file))[1:]:
            try:
                step, loss, dice = cells
                rows.append(LogRow(int(step), float(loss), float(dice) if dice else None))
            except ValueError:
                break
    return rows


def best_row(rows: Sequence[LogRow]) -> LogRow | None:
    """The first of the rows with the highest score; None if no row has a score."""
    scored = [row for row in rows if row.dice is not None]
    return max(scored, key=lambda row: row.dice or 0.0, default=None)


class Log:
    """Appends rows; what an interrupted run wrote after its last saved step is taken away first.

    Args:
        path: The file.
        step: The last step that counts.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [row for row in read_log(path) if row.step <= step]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([HEAD, *(_cells(row) for row in kept)])
        write_atomically(path, text.getvalue().encode())

    def add(self, row: LogRow) -> None:
        """Writes a row at once."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(_cells(row))


def _cells(row: LogRow) -> tuple[object, ...]:
    return row.step, row.loss, "" if row.dice is None else row.dice
