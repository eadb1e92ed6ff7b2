"""The report as rows, and as text."""

import math
import textwrap
from dataclasses import dataclass

from ..groups import Group

HEADS = ("part", "class", "calls", "input", "fields", "error", "")
WIDTH = 110  # of a line of explanation, in characters


@dataclass(frozen=True)
class ReportRow:
    """One part of the module.

    Args:
        path: Its name in the whole, as in `torch.nn.Module.named_modules`; "" is the whole.
        kind: Its class.
        calls: How often it was called; the other entries are about the worst call.
        shapes: The shapes of the tensors that it was given.
        fields: How the group acts on its inputs and outputs.
        error: The worst relative error over the elements, NaN if it was not tested.
        status: "ok", "broken", "harmless" (broken, inside a part that is equivariant as a whole), "no evidence",
            "not tested" or "not called".
        why: What breaks it, or what else there is to say.

    Example:
        >>> row = ReportRow("head", "Linear", 1, ((2, 8),), "invariant -> invariant", 0.0, "ok", "")
        >>> row.cells()
        ('head', 'Linear', '1', '2x8', 'invariant -> invariant', '0.0e+00', 'ok')
    """

    path: str
    kind: str
    calls: int
    shapes: tuple[tuple[int, ...], ...]
    fields: str
    error: float
    status: str
    why: str

    def cells(self) -> tuple[str, ...]:
        """The row as texts, without the explanation."""
        shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)
        untested = math.isnan(self.error) and self.status in ("not tested", "not called", "no evidence")
        error = "" if untested else f"{self.error:.1e}"
        return self.path or "(whole)", self.kind, str(self.calls), shapes, self.fields, error, self.status


@dataclass(frozen=True)
class Report:
    """What `equivariance_report` found; ``str`` gives a table.

    Args:
        group: The group.
        name: The class of the module.
        rows: One for each part, the whole first.
        culprits: The paths of the parts that break the whole by themselves.

    Example:
        >>> import torch
        >>> from gconv_ga.checks import equivariance_report
        >>> print(equivariance_report(torch.nn.MaxPool2d(2), "C4", torch.randn(1, 3, 8, 8)))
        MaxPool2d is equivariant under C4.
        part     class      calls  input    fields            error
        (whole)  MaxPool2d  1      1x3x8x8  scalar -> scalar  0.0e+00  ok
    """

    group: Group
    name: str
    rows: tuple[ReportRow, ...]
    culprits: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the whole is equivariant."""
        return self.rows[0].status == "ok"

    @property
    def worst(self) -> ReportRow | None:
        """The part to mend first: of those that break the whole by themselves the one with the largest error."""
        rows = [row for row in self.rows if row.path in self.culprits]
        return max(rows, key=lambda row: math.inf if math.isnan(row.error) else row.error, default=None)

    def __str__(self) -> str:
        table = [HEADS, *(row.cells() for row in self.rows)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADS))]
        lines = [self._headline()]
        for cells, row in zip(table, (None, *self.rows), strict=True):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
            if row is not None and row.why and row.status != "harmless":
                lines += textwrap.wrap(row.why, WIDTH, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)

    def _headline(self) -> str:
        if self.ok:
            return f"{self.name} is equivariant under {self.group.name}."
        names = [path or "its own forward" for path in self.culprits]
        return f"{self.name} is not equivariant under {self.group.name}, because of {some(names)}."


def some(names: list[str]) -> str:
    """The first three names, and how many there are more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
