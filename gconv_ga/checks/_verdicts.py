"""From what came of testing each part to who is to blame."""

import math

from ..groups import Group
from ._causes import causes
from ._field_types import UnknownFieldError
from ._table import Report, ReportRow, some
from ._trial import Trial

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
