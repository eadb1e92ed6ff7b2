"""Results as JSON lines, one line per training run, so that an interrupted benchmark can be continued."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON lines file, and remove an incomplete last line from it."""
    if not path.exists():
        return []
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        path.write_text(complete)
    return [json.loads(line) for line in complete.splitlines()]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row immediately, so that an interruption loses only the run in progress."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def missing(path: Path, cells: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the cells that no row of the file contains at that moment."""
    for cell in cells:
        if not any(cell.items() <= row.items() for row in read_rows(path)):
            yield cell
