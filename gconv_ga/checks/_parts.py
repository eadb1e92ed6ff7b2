"""The parts of a module: record what each is called with, then test each alone."""

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
    Leaf,
    RegularField,
    ScalarField,
    as_action,
    grid_move,
    nest_leaves,
    rebuild_nest,
    require_plain,
)
from ..groups import Group, as_group
from ._measure import Measurement, ModuleCall, Tolerance, measure

# Lists and dicts of modules have no forward: "never called" would say nothing about them.
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass
class Part:
    """A module inside another, and the inputs of each of its calls as ``{"args": ..., "kwargs": ...}``.

    Args:
        path: Name of the part within the whole; "" is the whole itself.
        module: The module.
        calls: Inputs of its calls, copied before the module could write into them.
    """

    path: str
    module: nn.Module
    calls: list[dict[str, Any]] = field(default_factory=list)


def record_calls(module: nn.Module, inputs: tuple[Any, ...]) -> list[Part]:
    """Run ``module(*inputs)`` once and record the inputs of each part, in the order of `named_modules`."""
    parts = [Part(path, part) for path, part in module.named_modules() if not isinstance(part, CONTAINERS)]
    with ExitStack() as hooks:
        for part in parts:
            hook = _recording_hook(part.calls)
            hooks.enter_context(part.module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True))
        module(*cloned(inputs))
    return parts


def _recording_hook(calls: list[dict[str, Any]]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(cloned({"args": args, "kwargs": kwargs}))

    return hook


def cloned(nest: Any) -> Any:
    """Return a nest of the same structure with copies of its tensors."""
    values = (value.clone() if isinstance(value, Tensor) else value for _, value in nest_leaves(nest, ""))
    return rebuild_nest(nest, values)


Status = Literal["ok", "broken", "no evidence", "not tested", "not called"]


@dataclass(frozen=True)
class PartResult:
    """The result of testing one part alone.

    Args:
        part: The part.
        shapes: Shapes of its input tensors.
        fields: Actions of the group on its inputs and outputs, in words.
        measurement: The errors. If None, they could not be measured.
        failure: The exception that prevented the measurement.
        ran: Whether the part ran on its original input.
    """

    part: Part
    shapes: tuple[tuple[int, ...], ...] = ()
    fields: str = ""
    measurement: Measurement | None = None
    failure: Exception | None = None
    ran: bool = False

    @property
    def error(self) -> float:
        """The largest relative error: infinite if the part fails on a moved input, NaN if it was not tested."""
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
        missing = self.measurement.no_evidence
        if missing and missing.about == "output":
            return "no evidence"
        if not self.error <= self.measurement.tolerance:
            return "broken"
        # No element changes the input, as in the layers after a global pool: nothing can break here.
        return "ok" if missing is None or missing.about == "inputs" else "no evidence"


def check_part(
    part: Part, group: Group, known: list[Leaf], view: float, tolerance: Tolerance, whole: Group | None
) -> PartResult:
    """Test a part on each of its calls and return the worst result.

    Args:
        part: The part.
        group: The group.
        known: Tensors with the actions that the user has given.
        view: Share of the disc's radius that is compared at angles off the grid.
        tolerance: The largest error that passes.
        whole: Larger group whose regular fields there may be in the network. None if there is none.
    """
    results = [_check_call(part, call, group, known, view, tolerance, whole) for call in part.calls]
    order = ("not called", "ok", "no evidence", "not tested", "broken")
    badness = [
        (order.index(result.status), math.inf if math.isnan(result.error) else result.error) for result in results
    ]
    return results[badness.index(max(badness))] if results else PartResult(part)


def _check_call(
    part: Part,
    call: dict[str, Any],
    group: Group,
    known: list[Leaf],
    view: float,
    tolerance: Tolerance,
    whole: Group | None,
) -> PartResult:
    values = nest_leaves(call, "")
    shapes = tuple(tuple(value.shape) for _, value in values if isinstance(value, Tensor))
    fixed = next((size for size in _sizes_in(call) if size[0] != size[1]), None)
    if fixed is not None and any(group.is_exact(g) and grid_move(group, g).transpose for g in range(group.order)):
        return PartResult(part, shapes, failure=FixedSizeError(fixed))
    last_before, last_after = _channels_last(part.module, shapes[0] if shapes else ())
    outputs: list[Leaf] = []
    ran = False

    def run(moved: Iterator[Any]) -> Any:
        nonlocal ran
        nest = rebuild_nest(call, moved)
        output = part.module(*nest["args"], **nest["kwargs"])
        ran = True
        return output

    def read_output(output: Any) -> list[Leaf]:
        leaves = nest_leaves(output, "output")
        if part.path == "":
            for name, value in leaves:
                require_plain(name, value)
        outputs.extend(_with_actions(leaves, group, whole, known, last_after))
        return outputs

    inputs: list[Leaf] = []
    try:
        inputs = _with_actions(values, group, whole, known, last_before)
        measurement = measure(ModuleCall(run, inputs, read_output), group, view, tolerance)
    except Exception as error:  # noqa: BLE001 - whatever the user's module raises belongs in its row
        return PartResult(part, shapes, _in_words(inputs, outputs), failure=error, ran=ran and bool(outputs))
    return PartResult(part, shapes, _in_words(inputs, outputs), measurement, ran=True)


class UnknownFieldError(Exception):
    """No rule tells how the group acts on a tensor."""


class FixedSizeError(Exception):
    """A size among the inputs does not rotate with the image.

    Args:
        size: Rows and columns.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(f"the size {size} among the inputs does not rotate with the image")
        self.size = size


@dataclass(frozen=True)
class ChannelsLast(ScalarField):
    """The action on images ``[B, H, W, C]``."""

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        return super().__call__(x.movedim(-1, 1), as_group(group), element).movedim(1, -1).contiguous()


@dataclass(frozen=True, kw_only=True)
class RestrictedField(RegularField):
    """The action of a subgroup on regular fields of a larger group, ``[B, C, |G|, H, W]``.

    Args:
        whole: The larger group.
    """

    whole: Group

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        return super().__call__(x, self.whole, self.whole.subgroup(as_group(group))[element])


_WORDS: dict[type[Action], str] = {
    type(as_action(name)): name for name in ("scalar", "regular", "vector", "invariant", "labels", "points")
}
_WORDS[ChannelsLast] = "scalar, channels last"
_WORDS[RestrictedField] = "regular"


def _with_actions(
    leaves: list[tuple[str, Any]], group: Group, whole: Group | None, known: list[Leaf], channels_last: bool
) -> list[Leaf]:
    """Return leaves with inferred actions. Anything but a tensor is invariant."""

    def action(value: Any) -> Action:
        return _infer(value, group, whole, known, channels_last) if isinstance(value, Tensor) else Invariant()

    return [Leaf(name, value, action(value)) for name, value in leaves]


def _infer(x: Tensor, group: Group, whole: Group | None, known: list[Leaf], channels_last: bool) -> Action:
    """Infer an action: ``[B, C, H, W]`` scalar, ``[B, C, |G|, H, W]`` regular, ``[B, K]`` and fewer axes invariant.

    Args:
        x: The tensor.
        group: The group.
        whole: Larger group whose regular fields there may be.
        known: Tensors whose action the user has given; ``x`` may be one of them.
        channels_last: Whether four axes mean ``[B, H, W, C]``.

    Raises:
        UnknownFieldError: The tensor has three axes (tokens), five without the group's order in third place, or more.
    """
    for leaf in known:
        if isinstance(leaf.value, Tensor) and leaf.value.shape == x.shape and torch.equal(leaf.value, x):
            return leaf.action
    if x.ndim == 4:
        return ChannelsLast() if channels_last else ScalarField()
    if x.ndim == 5 and x.shape[2] == group.order:
        return RegularField()
    if x.ndim == 5 and whole is not None and x.shape[2] == whole.order:
        return RestrictedField(whole=whole)
    if x.ndim <= 2:
        return Invariant()
    raise UnknownFieldError(f"no rule tells how {group.name} acts on a tensor of shape {tuple(x.shape)}")


def _channels_last(module: nn.Module, shape: tuple[int, ...]) -> tuple[bool, bool]:
    """Return whether four axes mean ``[B, H, W, C]`` in the module's input, and in its output.

    `torch.nn.Linear` and `torch.nn.LayerNorm` over one axis work along the last; the LayerNorm2d of torchvision and
    timm is a LayerNorm that moves the axes itself. A module called Permute with ``dims`` (torchvision has one) changes
    the layout. For pointwise modules it makes no difference.

    Args:
        module: The module.
        shape: Shape of its input.
    """
    dims = list(getattr(module, "dims", [])) if type(module).__name__ == "Permute" else []
    if dims:
        return dims == [0, 3, 1, 2], dims == [0, 2, 3, 1]
    along_last = isinstance(module, nn.Linear)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        along_last = shape[-1:] == tuple(module.normalized_shape) and not type(module).__name__.endswith("2d")
    return along_last, along_last


def _sizes_in(nest: Any) -> list[tuple[int, int]]:
    """Return every pair of ints in a nest, such as the output size given to an upsampling."""
    if isinstance(nest, tuple | list):
        if len(nest) == 2 and all(type(value) is int for value in nest):
            return [(nest[0], nest[1])]
        return [pair for part in nest for pair in _sizes_in(part)]
    if isinstance(nest, Mapping):
        return [pair for part in nest.values() for pair in _sizes_in(part)]
    return []


def _in_words(inputs: list[Leaf], outputs: list[Leaf]) -> str:
    """Return the actions on inputs and outputs for the table, such as "scalar -> regular"."""
    sides = [
        [_WORDS.get(type(leaf.action), repr(leaf.action)) for leaf in side if isinstance(leaf.value, Tensor)]
        for side in (inputs, outputs)
    ]
    return " -> ".join(", ".join(side) or "?" for side in sides)
