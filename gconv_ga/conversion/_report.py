"""What `convert` did to each module, as a table."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One module: its path, its class, what became of it and why."""

    path: str
    kind: str
    action: str
    why: str


@dataclass
class ConversionReport:
    """The table of a conversion; ``print(net.report)`` shows it.

    Args:
        group: The group's name.
        rows: One for each module that was decided on, in the model's order.
        defect: The largest difference from the group average on the example, relative to the average's largest
            number, or to how far the output moves when the image is another one, if that is less; None if it was not
            verified.

    Example:
        >>> print(ConversionReport("C4", [Row("head", "Linear", "keep", "commutes")], 2e-16))
        module  class   action  why
        ------  ------  ------  --------
        head    Linear  keep    commutes
        C4: 1 keep, 0 swap, 0 conjugate; differs from the group average by 2.0e-16
    """

    group: str
    rows: list[Row] = field(default_factory=list)
    defect: float | None = None

    def count(self, action: str) -> int:
        """How many modules were kept, swapped, conjugated or refused: "keep", "swap", "conjugate", "refuse"."""
        return sum(row.action == action for row in self.rows)

    def __str__(self) -> str:
        titles = ("module", "class", "action", "why")
        lines = [titles, *((row.path or "(model)", row.kind, row.action, row.why) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        table = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        table.insert(1, "  ".join("-" * width for width in widths))
        actions = ["keep", "swap", "conjugate", *(["refuse"] if self.count("refuse") else [])]
        counts = ", ".join(f"{self.count(action)} {action}" for action in actions)
        verdict = "not verified" if self.defect is None else f"differs from the group average by {self.defect:.1e}"
        return "\n".join([*table, f"{self.group}: {counts}; {verdict}"])
