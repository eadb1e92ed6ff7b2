"""The report: every part of a module tested alone, which one breaks the whole, and why."""

import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._validate import error_about, invalid, one_of
from ..actions import Leaf, as_actions, pair_inputs, pair_leaves
from ..groups import Group, as_group
from ._causes import causes
from ._error import as_tolerance, default_tolerance, require_view
from ._measure import Measurement, restoring_state
from ._parts import FixedSizeError, Part, PartResult, UnknownFieldError, check_part, cloned, record_calls

HEADS = ("part", "class", "calls", "input", "fields", "error", "")
WIDTH = 110  # of a line of explanation, in characters

OFF_GRID = (
    "Compare with interpolation_error: the errors arise only at angles off the grid, from interpolation, the corners "
    "of the image, or filters that are not made for these angles."
)
OWN_FORWARD = (
    "Look for the fault in {place}, since its parts are fine: an operation such as a slice, roll, reshape, flatten, "
    "padding or interpolation, or a parameter that depends on the position."
)
TOO_SMALL = "Give it a group that contains {group}: it is made for {own}, and need not be equivariant under more."
UNKNOWN = "Replace it, or use GroupAverage: no rule explains why this class is not equivariant."


@dataclass(frozen=True)
class ReportRow:
    """One part of the module.

    Args:
        path: Name of the part, as in `torch.nn.Module.named_modules`; "" is the whole module.
        kind: Name of its class.
        calls: Number of its calls. The other entries are about the worst call.
        shapes: Shapes of its input tensors.
        fields: Actions of the group on its inputs and outputs.
        error: The largest relative error over the elements, NaN if it was not tested.
        status: "ok", "broken", "harmless" (broken, inside a part that is equivariant as a whole), "no evidence",
            "not tested" or "not called".
        why: Explanation: what to change and what breaks it, or why there is no verdict.

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
        """Return the cells of the row as texts, without the explanation."""
        shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)
        untested = math.isnan(self.error) and self.status in ("not tested", "not called", "no evidence")
        error = "" if untested else f"{self.error:.1e}"
        return self.path or "(whole)", self.kind, str(self.calls), shapes, self.fields, error, self.status


@dataclass(frozen=True)
class Report:
    """The result of `equivariance_report`; ``str(report)`` is a table.

    Args:
        group: The group.
        name: Name of the module's class.
        rows: One row per part, the whole module first.
        culprits: Paths of the parts that break the whole by themselves.
        made_for: Group of the module, its attribute ``group``, if it does not contain the group that was tested.

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
    made_for: Group | None = None

    @property
    def ok(self) -> bool:
        """True if the whole module is equivariant."""
        return self.rows[0].status == "ok"

    @property
    def worst(self) -> ReportRow | None:
        """The part to fix first: of those that break the whole by themselves, the one with the largest error."""
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
        if self.made_for is not None:
            return f"{self.name} is not equivariant under {self.group.name}: it is made for {self.made_for.name}."
        names = [path or "its own forward" for path in self.culprits]
        return f"{self.name} is not equivariant under {self.group.name}, because of {_first_three(names)}."


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
    """Test each part of a module alone, and report which one breaks equivariance and why.

    The module runs once while the inputs of all its parts are recorded. Then each part ``m`` is called by itself:
    ``m(L_g z)`` is compared with ``L_g m(z)`` for its own input ``z``, so a part is not blamed for the parts before it.
    The action ``L_g`` inside the module is inferred from the shape: ``[B, C, H, W]`` scalar, ``[B, C, |G|, H, W]``
    regular, up to two axes invariant; `torch.nn.Linear` and `torch.nn.LayerNorm` take ``[B, H, W, C]``. If the module
    has an attribute ``group`` that is a larger group, regular fields of that group are recognized too; if that group
    does not contain the one to test, the module is tested as a whole only. Parts with other shapes are listed as not
    tested.

    A part inside another one that is equivariant as a whole does no harm. If a part is not equivariant although its own
    parts are, the fault lies in its forward: a slice, a reshape, a padding, a parameter that depends on the position.

    The module is left as it was, as by `equivariance_error`.

    Args:
        module: The module.
        group: The group or its name.
        inputs: Inputs of the module.
        in_action: Action of the group on the inputs, as for `equivariance_error`.
        out_action: Action of the group on the output. If None, it is inferred from the shape.
        tolerance: The largest relative error that passes, as for `assert_equivariant`.
        view: As for `equivariance_error`.
        parts: "all", or "suspect" to leave out the parts inside a part that is equivariant as a whole, which do no
            harm. The verdict and the culprits are the same. With "all", a network whose parts are nested n deep takes n
            times as long.
        progress: Function called after each part with the number of parts done and their total.

    Returns:
        A table: ``str(report)``, ``report.rows``, ``report.ok``, ``report.worst``.

    Raises:
        ValueError: As for `assert_equivariant`, or ``module`` is not a module, or ``parts`` is neither option, or the
            action on the output cannot be inferred.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from gconv_ga.checks import equivariance_report
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.MaxPool2d(2), nn.ReLU())
        >>> report = equivariance_report(net, "C4", torch.randn(1, 3, 8, 7, dtype=torch.float64))
        >>> report.ok, report.worst.path
        (False, '0')
        >>> print(report.worst.why[:34])
        Give this layer 6 or 8 columns, or
    """
    if not isinstance(module, nn.Module):
        raise invalid("module", "a torch.nn.Module", module, "a function has no parts: use equivariance_error")
    group = as_group(group)
    require_view(view)
    one_of("parts", parts, ("all", "suspect"))
    leaves = pair_inputs(inputs, as_actions(in_action, "in_action"))
    tensors = [leaf.value for leaf in leaves if isinstance(leaf.value, Tensor)]
    if not tensors:
        raise invalid("inputs", "tensors, or nests with at least one", list(inputs))
    given = as_tolerance(tolerance, group, [leaf.action for leaf in leaves])
    larger, made_for = _own_group(module, group)
    with restoring_state(module, tensors):
        known = [*leaves, *_known_outputs(module, inputs, out_action)]
        recorded = record_calls(module, inputs)
        if made_for is not None:  # its feature maps are those of another group
            recorded = recorded[:1]
        results: list[PartResult] = []
        for done, part in enumerate(recorded, start=1):
            if parts == "all" or not _is_inside_fine_part(part, results):
                results.append(check_part(part, group, known, view, given or default_tolerance, larger))
            if progress is not None:
                progress(done, len(recorded))
    _require_evidence(results[0])
    return _make_report(results, group, type(module).__name__, made_for)


def _own_group(module: nn.Module, group: Group) -> tuple[Group | None, Group | None]:
    """Return the group of the module, its attribute ``group``, unless it is the group to test.

    It comes first if the group to test is a part of it, and else second; the other is None.
    """
    own = getattr(module, "group", None)
    if not isinstance(own, Group) or own == group:
        return None, None
    try:
        own.subgroup(group)
    except ValueError:
        return None, own
    return own, None


def _known_outputs(module: nn.Module, inputs: tuple[Any, ...], out_action: Any) -> list[Leaf]:
    """Return the outputs of the module with the actions that the user has given for them."""
    if out_action is None:
        return []
    return pair_leaves(cloned(module(*cloned(inputs))), as_actions(out_action, "out_action"), "output", "out_action")


def _is_inside_fine_part(part: Part, results: list[PartResult]) -> bool:
    """Return whether a part lies inside one that has been tested and is equivariant as a whole."""
    fine = {result.part.path for result in results if result.status == "ok"}
    names = part.path.split(".")
    return any(".".join(names[:count]) in fine for count in range(len(names)))


def _require_evidence(whole: PartResult) -> None:
    """Refuse a report whose verdict on the whole module would mean nothing.

    Raises:
        ValueError: The whole module could not be measured, or the measurement proves nothing.
    """
    if isinstance(whole.failure, FixedSizeError):
        text = f"inputs must rotate with the image, but the size {whole.failure.size} among them does not"
        raise error_about("inputs", f"{text}. Use a square image.")
    if isinstance(whole.failure, UnknownFieldError):
        raise invalid("out_action", "given for this module", None, str(whole.failure))
    if isinstance(whole.failure, ValueError) and not whole.ran:
        raise whole.failure  # the output holds something that cannot be compared
    if whole.measurement is not None and whole.measurement.no_evidence:
        raise error_about("module", f"{whole.measurement.no_evidence.text}.")


def _make_report(results: list[PartResult], group: Group, name: str, made_for: Group | None) -> Report:
    """Return the report on the results of all parts, the whole module first."""
    fine = {result.part.path for result in results if result.status == "ok"}
    broken = [result.part.path for result in results if result.status == "broken"]
    harmful = [path for path in broken if _outermost(path, fine) is None]
    culprits = tuple(path for path in harmful if not any(_is_inside(other, path) for other in harmful))
    rows = []
    for result in results:
        part = result.part
        why = _explain(result, group, [path for path in culprits if _is_inside(path, part.path)], results)
        status: str = result.status
        if status == "broken" and part.path == "" and made_for is not None:
            why = TOO_SMALL.format(group=group.name, own=made_for.name)
        enclosing = _outermost(part.path, fine)
        if status == "broken" and enclosing is not None:
            status, why = "harmless", f"Not equivariant by itself, but {enclosing or 'the whole'} is."
        kind, calls = type(part.module).__name__, len(part.calls)
        rows.append(ReportRow(part.path, kind, calls, result.shapes, result.fields, result.error, status, why))
    return Report(group, name, tuple(rows), culprits, made_for)


def _is_inside(path: str, outer: str) -> bool:
    """Return whether ``path`` lies inside ``outer`` and is not ``outer`` itself."""
    return path != outer and (outer == "" or path.startswith(outer + "."))


def _outermost(path: str, among: set[str]) -> str | None:
    """Return the outermost of these paths that ``path`` lies inside."""
    return min((outer for outer in among if _is_inside(path, outer)), key=len, default=None)


def _explain(result: PartResult, group: Group, blamed: list[str], results: list[PartResult]) -> str:
    """Return the explanation for a row: the cure first, then the cause."""
    measurement, failure = result.measurement, result.failure
    if result.status == "not called":
        return "Never called. If its parameters are used, then by a function outside its forward."
    if result.status == "not tested":
        return _explain_untested(failure)
    if result.status == "no evidence" and measurement is not None and measurement.no_evidence is not None:
        return f"{measurement.no_evidence.text}."
    if result.status == "ok":
        return ""
    if measurement is None:
        first = str(failure).splitlines()[:1]
        return f"It fails on its input moved by the group: {type(failure).__name__}: {' '.join(first)}"
    if blamed:
        return f"Fix {_first_three(blamed)} first: only then can its own forward be judged."
    if not measurement.errors[0] <= measurement.tolerance and not measurement.errors[0].isnan():
        return "Make it deterministic: two runs on the same input differ, so it is random in eval mode or keeps state."
    return " ".join(_explain_broken(result, measurement, group, results))


def _explain_untested(failure: Exception | None) -> str:
    if isinstance(failure, FixedSizeError):
        return f"Use a square image: the size {failure.size} among its inputs does not rotate with the image."
    if isinstance(failure, UnknownFieldError):
        text = str(failure)
        return f"{text[0].upper()}{text[1:]}."
    return f"{type(failure).__name__}: {failure}"


def _explain_broken(result: PartResult, measurement: Measurement, group: Group, results: list[PartResult]) -> list[str]:
    """Return the explanation for a part that is to blame itself: the cure, the cause, and what was observed."""
    part, errors = result.part, measurement.errors.tolist()
    observed = [f"Under element {g} it {note}." for g, note in list(measurement.notes.items())[:1]]
    if any(math.isnan(error) for error in errors):
        observed.append("Its output is not finite.")
    if all(error <= measurement.tolerance for g, error in enumerate(errors) if group.is_exact(g)):
        return [OFF_GRID, *observed]
    inside = [other for other in results if _is_inside(other.part.path, part.path)]
    if any(other.part.calls for other in inside):
        untested = [other.part.path for other in inside if other.status == "not tested"]
        place = "its own forward" + (f" or in what was not tested ({_first_three(untested)})" if untested else "")
        return [OWN_FORWARD.format(place=place), *observed]
    size = next((shape[-2:] for shape in result.shapes if len(shape) > 2), (1, 1))
    return [*causes(part.module, group, (size[0], size[1])), *observed] or [UNKNOWN]


def _first_three(names: list[str]) -> str:
    """Return the first three names and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
