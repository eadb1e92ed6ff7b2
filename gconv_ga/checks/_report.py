"""The report as rows, and as text."""

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._validate import invalid, one_of
from ..actions import Leaf, as_actions, pair_inputs, pair_leaves
from ..groups import Group, as_group
from ._causes import causes
from ._error import check_view, checked_tolerance, default_tolerance
from ._measure import undisturbed
from ._parts import FixedSizeError, Part, Trial, UnknownFieldError, copied, record, try_part

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
        >>> from gconv_ga.checks import ReportRow
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


OWN_FORWARD = (
    "its parts are fine, so the fault is in its own forward: an operation such as a slice, roll, reshape, flatten, "
    "padding or interpolation, or a parameter with places"
)
UNKNOWN = "no rule knows what breaks this class: replace it, or use GroupAverage"


def make_report(trials: list[Trial], group: Group, name: str) -> Report:
    """The report on the trials of all parts, the whole first."""
    fine = {trial.part.path for trial in trials if trial.status == "ok"}
    broken = [trial.part.path for trial in trials if trial.status == "broken"]
    harmful = [path for path in broken if _ancestor(path, fine) is None]
    culprits = tuple(path for path in harmful if not any(_inside(other, path) for other in harmful))
    rows = []
    for trial in trials:
        part = trial.part
        why = _why(trial, group, [path for path in culprits if _inside(path, part.path)], trials)
        status: str = trial.status
        ancestor = _ancestor(part.path, fine)
        if status == "broken" and ancestor is not None:
            status, why = "harmless", f"broken by itself; {ancestor or 'the whole'} is equivariant with it"
        kind, calls = type(part.module).__name__, len(part.calls)
        rows.append(ReportRow(part.path, kind, calls, trial.shapes, trial.fields, trial.error, status, why))
    return Report(group, name, tuple(rows), culprits)


def _inside(path: str, outer: str) -> bool:
    """Whether ``path`` lies in ``outer``, and is not ``outer``."""
    return path != outer and (outer == "" or path.startswith(outer + "."))


def _ancestor(path: str, among: set[str]) -> str | None:
    """The outermost of these paths that ``path`` lies in."""
    return min((outer for outer in among if _inside(path, outer)), key=len, default=None)


def _why(trial: Trial, group: Group, blamed: list[str], trials: list[Trial]) -> str:
    part, measurement = trial.part, trial.measurement
    if trial.status == "not called":
        return "never called; if its parameters are used all the same, then by a function outside its forward"
    if trial.status == "not tested":
        known = isinstance(trial.failure, UnknownFieldError)
        return str(trial.failure) if known else f"{type(trial.failure).__name__}: {trial.failure}"
    if trial.status == "no evidence" and measurement is not None and measurement.flaw is not None:
        return measurement.flaw.text
    if trial.status == "ok":
        return ""
    if measurement is None:
        first = str(trial.failure).splitlines()[:1]
        return f"it fails on its input moved by the group: {type(trial.failure).__name__}: {' '.join(first)}"
    if blamed:
        return f"because of {some(blamed)}; its own forward can be judged once that is mended"
    errors = measurement.errors.tolist()
    if not errors[0] <= measurement.limit and not math.isnan(errors[0]):
        return "two runs on the same input differ: it is random in eval mode, or keeps state"
    texts = [f"{note} under element {g}" for g, note in list(measurement.notes.items())[:1]]
    if any(math.isnan(error) for error in errors):
        texts.append("its output is not finite")
    exact = [error <= measurement.limit for g, error in enumerate(errors) if group.is_exact(g)]
    if all(exact):
        texts.append("only at angles off the grid: interpolation, filters that do not turn that far, and corners")
        return "; ".join(texts)
    has_parts = any(_inside(other.part.path, part.path) and other.part.calls for other in trials)
    if has_parts:
        untested = [t.part.path for t in trials if _inside(t.part.path, part.path) and t.status == "not tested"]
        texts.append(OWN_FORWARD + (f"; or in what was not tested: {some(untested)}" if untested else ""))
    else:
        size = next((shape[-2:] for shape in trial.shapes if len(shape) > 2), (1, 1))
        texts += causes(part.module, group, (size[0], size[1])) or ([] if texts else [UNKNOWN])
    return "; ".join(texts)


def equivariance_report(
    module: nn.Module,
    group: Group | str,
    *inputs: Any,
    in_action: Any = "scalar",
    out_action: Any = None,
    tolerance: float | None = None,
    view: float = 1.0,
    parts: str = "all",
    progress: Callable[[int, int], Any] | None = None,
) -> Report:
    """Each part of a module tested alone: which one breaks equivariance, and why.

    The module runs once, and the inputs of all its parts are noted. Then each part ``m`` is called by itself:
    ``m(L_g z)`` against ``L_g m(z)`` for its own input ``z``, so that a part is not blamed for those before it. How
    ``L_g`` acts inside is told by the shape: ``[B, C, H, W]`` scalar, ``[B, C, |G|, H, W]`` regular, up to two axes
    invariant; `torch.nn.Linear` and `torch.nn.LayerNorm` take ``[B, H, W, C]``. Parts with other shapes are listed as
    not tested.

    A part inside another one that is equivariant as a whole does no harm. A part whose own parts are fine and which is
    not has the fault in its forward: a slice, a reshape, a padding, a parameter with places.

    The module is left as it was, as by `equivariance_error`.

    Args:
        module: The module.
        group: The group or its name.
        inputs: What it is called with.
        in_action: How the group acts on the inputs, as for `equivariance_error`.
        out_action: The same for the output; None tells it by its shape.
        tolerance: The largest relative error that passes, as for `assert_equivariant`.
        view: As for `equivariance_error`.
        parts: "all"; or "suspect": not those inside a part that is equivariant as a whole, which do no harm. The
            verdict and the culprits are the same. With "all" a network whose parts lie n deep takes n times as long.
        progress: Called after each part with the number of parts done and their total.

    Returns:
        A table: ``str(report)``, ``report.rows``, ``report.ok``, ``report.worst``.

    Raises:
        ValueError: As for `assert_equivariant`; ``module`` is no module, ``parts`` is neither, or nothing tells how the
            group acts on its output.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gconv_ga.checks import equivariance_report
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
        >>> report = equivariance_report(net, "C4", torch.randn(1, 3, 8, 7, dtype=torch.float64))
        >>> report.ok, report.worst.path
        (False, '0')
        >>> print(report.worst.why[:72])
        kernel 2, stride 2, padding 0 leaves 1 of 7 columns over at the far end;
    """
    if not isinstance(module, nn.Module):
        raise invalid("module", "a torch.nn.Module", module, "a function has no parts: use equivariance_error")
    group = as_group(group)
    check_view(view)
    one_of("parts", parts, ("all", "suspect"))
    leaves = pair_inputs(inputs, as_actions(in_action, "in_action"))
    tensors = [leaf.value for leaf in leaves if isinstance(leaf.value, Tensor)]
    if not tensors:
        raise invalid("inputs", "tensors, or nests with at least one", list(inputs))
    given = checked_tolerance(tolerance, group, [leaf.action for leaf in leaves])
    with undisturbed(module, tensors):
        known = [*leaves, *_known_outputs(module, inputs, out_action)]
        recorded = record(module, inputs)
        trials: list[Trial] = []
        for done, part in enumerate(recorded, start=1):
            if parts == "all" or not _inside_fine(part, trials):
                trials.append(try_part(part, group, known, view, given or default_tolerance))
            if progress is not None:
                progress(done, len(recorded))
    _refuse(trials[0])
    return make_report(trials, group, type(module).__name__)


def _inside_fine(part: Part, trials: list[Trial]) -> bool:
    """Whether a part lies inside one that has been tested, and is equivariant as a whole."""
    outer = {trial.part.path for trial in trials if trial.status == "ok"}
    names = part.path.split(".")
    return any(".".join(names[:count]) in outer for count in range(len(names)))


def _known_outputs(module: nn.Module, inputs: tuple[Any, ...], out_action: Any) -> list[Leaf]:
    if out_action is None:
        return []
    return pair_leaves(copied(module(*copied(inputs))), as_actions(out_action, "out_action"), "output", "out_action")


def _refuse(whole: Trial) -> None:
    """Refuse a report whose verdict on the whole would mean nothing.

    Raises:
        ValueError: It could not be measured, or the measurement proves nothing.
    """
    if isinstance(whole.failure, FixedSizeError):
        raise ValueError(f"inputs must turn with the image, but {whole.failure}.")
    if isinstance(whole.failure, UnknownFieldError):
        raise invalid("out_action", "given for this module", None, str(whole.failure))
    if whole.measurement is not None and whole.measurement.flaw:
        raise ValueError(f"{whole.measurement.flaw.text}.")
