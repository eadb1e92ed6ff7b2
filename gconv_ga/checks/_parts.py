"""What every part of a module is called with, in one run."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..actions import (
    Action,
    Invariant,
    LabelMask,
    Leaf,
    Points,
    RegularField,
    ScalarField,
    VectorField,
    grid_move,
    nest_leaves,
    rebuild_nest,
)
from ..groups import Group, as_group
from ._measure import Limit, Measurement, Subject, measure

# Lists of modules have no forward of their own; to say that they were never called would be noise.
HOLDERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass
class Part:
    """A module inside another, and the inputs of each of its calls as ``{"args": ..., "kwargs": ...}``.

    Args:
        path: Its name in the whole; "" is the whole.
        module: The module.
        calls: The inputs, copied before the module could write into them.
    """

    path: str
    module: nn.Module
    calls: list[dict[str, Any]] = field(default_factory=list)


def record(module: nn.Module, inputs: tuple[Any, ...]) -> list[Part]:
    """Run ``module(*inputs)`` once and note what each part is called with, in the order of `named_modules`."""
    parts = [Part(path, part) for path, part in module.named_modules() if not isinstance(part, HOLDERS)]
    with ExitStack() as hooks:
        for part in parts:
            hook = _note(part.calls)
            hooks.enter_context(part.module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True))
        module(*copied(inputs))
    return parts


def _note(calls: list[dict[str, Any]]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(copied({"args": args, "kwargs": kwargs}))

    return hook


def copied(nest: Any) -> Any:
    """The same nest with copies of its tensors."""
    values = (value.clone() if isinstance(value, Tensor) else value for _, value in nest_leaves(nest, ""))
    return rebuild_nest(nest, values)


NAMES = {
    ScalarField: "scalar",
    RegularField: "regular",
    VectorField: "vector",
    Invariant: "invariant",
    LabelMask: "labels",
    Points: "points",
}


@dataclass(frozen=True)
class ChannelsLast(ScalarField):
    """The action on images ``[B, H, W, C]``."""

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        return super().__call__(x.movedim(-1, 1), as_group(group), element).movedim(1, -1).contiguous()


class UnknownFieldError(Exception):
    """No rule says how the group acts on this tensor."""


class FixedSizeError(UnknownFieldError):
    """A size among the inputs does not turn with the image."""


def infer(x: Tensor, group: Group, known: list[Leaf], last: bool) -> Action:
    """The action on ``x``: ``[B, C, H, W]`` scalar, ``[B, C, |G|, H, W]`` regular, ``[B, K]`` and fewer axes invariant.

    Args:
        x: The tensor.
        group: The group.
        known: Tensors whose action the user has told; ``x`` may be one of them.
        last: Whether four axes mean ``[B, H, W, C]``.

    Raises:
        UnknownFieldError: Three axes (tokens) or five without the group's order in third place, or more.
    """
    for leaf in known:
        if isinstance(leaf.value, Tensor) and leaf.value.shape == x.shape and torch.equal(leaf.value, x):
            return leaf.action
    if x.ndim == 4:
        return ChannelsLast() if last else ScalarField()
    if x.ndim == 5 and x.shape[2] == group.order:
        return RegularField()
    if x.ndim <= 2:
        return Invariant()
    raise UnknownFieldError(f"no rule tells how {group.name} acts on a tensor of shape {tuple(x.shape)}")


def channels_last(module: nn.Module, shape: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether four axes mean ``[B, H, W, C]`` in the module's input, and in its output.

    `torch.nn.Linear` and `torch.nn.LayerNorm` over one axis work along the last; a LayerNorm2d of torchvision or timm
    is a LayerNorm that moves the axes itself. A module called Permute with ``dims`` (torchvision has one) changes the
    layout. For what acts on each number by itself it does not matter.

    Args:
        module: The module.
        shape: The shape of its input.
    """
    dims = list(getattr(module, "dims", [])) if type(module).__name__ == "Permute" else []
    if dims:
        return dims == [0, 3, 1, 2], dims == [0, 2, 3, 1]
    along_last = isinstance(module, nn.Linear)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        along_last = shape[-1:] == tuple(module.normalized_shape) and not type(module).__name__.endswith("2d")
    return along_last, along_last


def name_of(action: Action) -> str:
    """A word for an action in a table."""
    return "scalar, channels last" if isinstance(action, ChannelsLast) else NAMES.get(type(action), repr(action))


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
        >>> from gconv_ga.checks._parts import size_arguments
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
