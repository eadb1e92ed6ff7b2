"""One part of a network, tested alone on what it was called with."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..actions import Action, Invariant, Leaf, grid_move, nest_leaves, rebuild_nest
from ..groups import Group
from ._field_types import FixedSizeError, channels_last, infer, name_of
from ._measure import Limit, Measurement, Subject, measure
from ._recording import Part

Status = Literal["ok", "broken", "no evidence", "not tested", "not called"]


@dataclass(frozen=True)
class Trial:
    """What came of testing a part.

    Args:
        part: The part.
        shapes: The shapes of its input tensors.
        fields: How the group acts on its inputs and outputs, in words.
        measurement: The errors; None if it could not be measured.
        failure: Why not.
        ran: Whether it ran on its input before the group moved it.
    """

    part: Part
    shapes: tuple[tuple[int, ...], ...] = ()
    fields: str = ""
    measurement: Measurement | None = None
    failure: Exception | None = None
    ran: bool = False

    @property
    def error(self) -> float:
        """The worst relative error; infinite if the part fails on a moved input, NaN if it was not tested."""
        if self.measurement is None:
            return math.inf if self.ran else math.nan
        return float(self.measurement.errors.max())

    @property
    def status(self) -> Status:
        """The verdict on this part alone."""
        if not self.part.calls:
            return "not called"
        if self.measurement is None:
            return "broken" if self.ran else "not tested"
        flaw = self.measurement.flaw
        if flaw and flaw.of == "output":
            return "no evidence"
        if not self.error <= self.measurement.limit:
            return "broken"
        # An input that no element changes: nothing can break here, as in the layers behind a global pool.
        return "ok" if flaw is None or flaw.of == "inputs" else "no evidence"


def try_part(part: Part, group: Group, known: list[Leaf], view: float, limit: Limit) -> Trial:
    """Test a part on each of its calls; the worst call counts."""
    trials = [_try_call(part, call, group, known, view, limit) for call in part.calls]
    order = ("not called", "ok", "no evidence", "not tested", "broken")
    badness = [(order.index(trial.status), math.inf if math.isnan(trial.error) else trial.error) for trial in trials]
    return trials[badness.index(max(badness))] if trials else Trial(part)


def _try_call(part: Part, call: dict[str, Any], group: Group, known: list[Leaf], view: float, limit: Limit) -> Trial:
    values = nest_leaves(call, "")
    shapes = tuple(tuple(value.shape) for _, value in values if isinstance(value, Tensor))
    told = next((value for value in size_arguments(call) if value[0] != value[1]), None)
    if told is not None and any(group.is_exact(g) and grid_move(group, g).transpose for g in range(group.order)):
        text = f"it is told a size, {told}, which does not turn with the image: use a square image"
        return Trial(part, shapes, failure=FixedSizeError(text))
    last_before, last_after = channels_last(part.module, shapes[0] if shapes else ())
    read: list[Leaf] = []
    ran = False

    def run(moved: Iterator[Any]) -> Any:
        nonlocal ran
        nest = rebuild_nest(call, moved)
        output = part.module(*nest["args"], **nest["kwargs"])
        ran = True
        return output

    def read_output(output: Any) -> list[Leaf]:
        read.extend(_with_actions(nest_leaves(output, "output"), group, known, last_after))
        return read

    inputs: list[Leaf] = []
    try:
        inputs = _with_actions(values, group, known, last_before)
        measurement = measure(Subject(run, inputs, read_output), group, view, limit)
    except Exception as error:  # noqa: BLE001 - whatever somebody's module raises belongs in its row
        return Trial(part, shapes, _in_words(inputs, read), failure=error, ran=ran and bool(read))
    return Trial(part, shapes, _in_words(inputs, read), measurement, ran=True)


def size_arguments(nest: Any) -> list[tuple[int, int]]:
    """Every pair of ints in a nest: the size that an up-sampling is told, say.

    Example:
        >>> import torch
        >>> size_arguments({"args": (3, torch.Size([17, 22])), "kwargs": {"size": [8, 8]}})
        [(17, 22), (8, 8)]
    """
    if isinstance(nest, tuple | list):
        if len(nest) == 2 and all(type(value) is int for value in nest):
            return [(nest[0], nest[1])]
        return [pair for part in nest for pair in size_arguments(part)]
    if isinstance(nest, Mapping):
        return [pair for part in nest.values() for pair in size_arguments(part)]
    return []


def _with_actions(leaves: list[tuple[str, Any]], group: Group, known: list[Leaf], last: bool) -> list[Leaf]:
    """The leaves with their actions; what is no tensor does not move."""

    def action(value: Any) -> Action:
        return infer(value, group, known, last) if isinstance(value, Tensor) else Invariant()

    return [Leaf(name, value, action(value)) for name, value in leaves]


def _in_words(inputs: list[Leaf], outputs: list[Leaf]) -> str:
    sides = [[name_of(leaf.action) for leaf in side if isinstance(leaf.value, Tensor)] for side in (inputs, outputs)]
    return " -> ".join(", ".join(side) or "?" for side in sides)
