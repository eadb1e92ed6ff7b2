"""Rows of a CSV, as spreadsheets and scripts write it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .._validate import invalid

DELIMITERS = ",;\t"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks: "Unicode text" of spreadsheets


class Row(NamedTuple):
    """Cells of a row by column, without the spaces around them, and the number of its line."""

    line: int
    cells: dict[str, str]


def read_rows(path: str | Path, columns: Sequence[str], also: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a CSV whose first line names the columns; other columns and empty rows are left out.

    Cells are separated by commas, semicolons or tabs, whichever makes columns of the first line. There may be a byte
    order mark, spaces and quotes around cells, any line ends, capitals in the names of columns.

    Args:
        path: The file: UTF-8, or UTF-16 with a byte order mark.
        columns: Columns that must be there.
        also: Columns that may be there.

    Raises:
        ValueError: The file cannot be read, lacks a column or has it twice, has no rows, or a row has an empty cell in
            one of these columns or cells beyond the last column.
    """
    takes = f"a CSV with the columns {' and '.join([', '.join(columns[:-1]), columns[-1]])}"
    text = _text(path, takes)
    mark, _, rest = text.partition("\n")
    if mark.lower().startswith("sep=") and len(mark) == 5:  # which spreadsheets write and read
        text = "\n" + rest
    tables = [_table(text, delimiter) for delimiter in DELIMITERS]
    head, rows = max(tables, key=lambda table: (set(columns) <= set(table[0]), len(table[0])))
    if not set(columns) <= set(head) or not rows:
        has = ", ".join(head) if head and not set(columns) <= set(head) else "no rows"
        raise invalid("path", takes, str(path), f"this one has {has}")
    used = [column for column in (*columns, *also) if column in head]
    for column in used:
        if head.count(column) > 1:
            raise invalid("path", takes, str(path), f"it has the column {column} twice")
    for line, cells in rows:
        if any(cells[len(head) :]):
            advice = f"line {line} has {len(cells)} cells; put a cell that has the delimiter in it in quotes"
            raise invalid("path", f"a CSV of {len(head)} columns", str(path), advice)
        if any("\n" in cell for cell in cells):
            raise invalid("path", takes, str(path), f"a quote that begins before line {line} is not closed")
        lacking = [column for column in used if not "".join(cells[head.index(column) : head.index(column) + 1])]
        if lacking:
            raise invalid("path", "a CSV without empty cells", str(path), f"line {line} has no {lacking[0]}")
    return [Row(line, {column: cells[head.index(column)] for column in used}) for line, cells in rows]


def _text(path: str | Path, takes: str) -> str:
    """Content of a file, with line ends of one kind."""
    try:
        content = Path(path).read_bytes()
        return io.TextIOWrapper(io.BytesIO(content), "utf-16" if content.startswith(UTF_16) else "utf-8-sig").read()
    except OSError as error:
        raise invalid("path", takes, str(path), f"it cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise invalid("path", takes, str(path), "it is not UTF-8: save it as CSV UTF-8") from None


def _table(text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and the other rows that are not empty, each with the number of its line."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error:  # a cell of more than 131072 characters: with another delimiter, or no CSV
        return [], []
    return ([name.casefold() for name in rows[0][1]], rows[1:]) if rows else ([], [])
