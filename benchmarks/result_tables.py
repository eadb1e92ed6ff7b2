"""Markdown tables of results, with one number per cell."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Format a table in Markdown.

    Args:
        titles: Titles of the columns.
        lines: Cells of each line.
    """
    rows = [f"| {' | '.join(map(str, cells))} |" for cells in lines]
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows])


def mean_of(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    """Return the mean of a quantity over rows."""
    return statistics.mean(row[key] for row in rows)


def range_cells(rows: Sequence[Mapping[str, Any]], key: str, digits: int) -> list[str]:
    """Return the lowest and the highest value of a quantity as two cells; dashes if there are no rows."""
    if not rows:
        return ["-", "-"]
    values = [row[key] for row in rows]
    return [f"{value:.{digits}f}" for value in (min(values), max(values))]
