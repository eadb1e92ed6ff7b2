"""The measurement behind all checks: run a module on moved inputs, compare, and see whether that is evidence."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..actions import Action, LabelMask, Leaf, ScalarField, nest_leaves
from ..groups import Group

# The largest error that passes, or a function that derives it from the types of the tensors that go in and come out.
Tolerance = float | Callable[[set[torch.dtype]], float]


class OutputTensor(NamedTuple):
    """A tensor that a module returned: a leaf with a widened copy of the value, and the original type."""

    leaf: Leaf
    dtype: torch.dtype


@dataclass(frozen=True)
class ModuleCall:
    """A call of a module, the leaves of its input with their actions, and how to read its output.

    Args:
        call: Function that takes the values of the input's leaves and returns the output.
        inputs: The leaves of the input.
        read: Function that takes an output and returns its leaves with their actions, named ``output...``.
    """

    call: Callable[[Iterator[Any]], Any]
    inputs: list[Leaf]
    read: Callable[[Any], list[Leaf]]

    def run(self, values: list[Any]) -> Any:
        """Call with copies of the values, since the module may write into them or return them."""
        return self.call(value.clone() if isinstance(value, Tensor) else value for value in values)

    def reference(self) -> list[OutputTensor]:
        """Return the output tensors for the inputs as they are, with their actions."""
        leaves = self.read(self.run([leaf.value for leaf in self.inputs]))
        tensors = [leaf for leaf in leaves if isinstance(leaf.value, Tensor)]
        return [OutputTensor(leaf._replace(value=widened(leaf.value)), leaf.value.dtype) for leaf in tensors]

    def outputs(self, values: list[Any]) -> dict[str, Tensor]:
        """Return the output tensors for other inputs, by name."""
        leaves = nest_leaves(self.run(values), "output")
        return {name: widened(value) for name, value in leaves if isinstance(value, Tensor)}


class NoEvidence(NamedTuple):
    """The reason why a comparison proves nothing: a fact about the output, the inputs, or their dependence."""

    about: Literal["output", "inputs", "dependence"]
    text: str


@dataclass(frozen=True)
class Measurement:
    """The errors of all elements, and what else a verdict needs.

    Args:
        errors: Relative error of each element, ``[|G|]``, float64.
        tolerance: The largest error that passes.
        no_evidence: The reason why the errors prove nothing. If None, they are evidence.
        notes: Explanations of infinite errors by element, such as "returns output of shape (2, 3) instead of (3, 2)".
    """

    errors: Tensor
    tolerance: float
    no_evidence: NoEvidence | None = None
    notes: dict[int, str] = field(default_factory=dict)


def measure(call: ModuleCall, group: Group, view: float, tolerance: Tolerance) -> Measurement:
    """Return the relative error of every element, the largest over the output tensors.

    Args:
        call: The call to measure.
        group: The group.
        view: Share of the disc's radius that is compared at angles off the grid.
        tolerance: The largest error that passes. An output that changes by no more than this, relative to its size,
            when the input is resampled is no evidence (nor is one that changes by less than four units in the last
            place).
    """
    reference = call.reference()
    notes: dict[int, str] = {}
    errors = [_error(call, reference, group, g, view, notes) for g in range(group.order)]
    if callable(tolerance):
        dtypes = {leaf.value.dtype for leaf in call.inputs if isinstance(leaf.value, Tensor)}
        tolerance = tolerance(dtypes | {output.dtype for output in reference})
    no_evidence = (
        _zero_output(reference, group, view)
        or _unchanged_inputs(call.inputs, group, view)
        or _independent_output(call, reference, group, view, tolerance)
    )
    return Measurement(torch.stack(errors), tolerance, no_evidence, notes)


def _error(
    call: ModuleCall, reference: list[OutputTensor], group: Group, g: int, view: float, notes: dict[int, str]
) -> Tensor:
    """Return the largest relative error of one element; explain an infinite one in ``notes``."""
    moved = [leaf.moved(group, g) for leaf in call.inputs]
    try:
        outputs = call.outputs(moved)
    except Exception as error:
        tensors = [(leaf.name, x) for leaf, x in zip(call.inputs, moved, strict=True) if isinstance(x, Tensor)]
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors)
        error.add_note(
            f"The module ran on its input and failed on that moved by element {g} of {group.name}: {shapes}."
        )
        raise
    expected_names = [output.leaf.name for output in reference]
    if list(outputs) != expected_names:
        returned = ", ".join(outputs) or "no tensor"
        notes[g] = f"returns {returned} instead of {', '.join(expected_names) or 'no tensor'}"
        return torch.tensor(torch.inf, dtype=torch.float64)
    largest = torch.zeros((), dtype=torch.float64)
    for leaf, _ in reference:
        metric, expected, found = Metric(leaf.action, group, g, view), leaf.moved(group, g), outputs[leaf.name]
        if found.shape != expected.shape:
            notes[g] = f"returns {leaf.name} of shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
        # torch.maximum propagates NaN; a comparison would drop it.
        largest = torch.maximum(largest, metric.distance(found, expected) / metric.norm(leaf.value))
    return largest


def _zero_output(reference: list[OutputTensor], group: Group, view: float) -> NoEvidence | None:
    if not reference:
        return NoEvidence("output", "module must return at least one tensor, but got none: there is nothing to compare")
    for leaf, _ in reference:
        if any(Metric(leaf.action, group, g, view).norm(leaf.value) == 0 for g in range(group.order)):
            text = f"module must have an output that is not zero, but {leaf.name} is zero, which proves nothing"
            return NoEvidence("output", f"{text}. Use other parameters or another input")
    return None


def _unchanged_inputs(inputs: list[Leaf], group: Group, view: float) -> NoEvidence | None:
    tensors = [leaf for leaf in inputs if isinstance(leaf.value, Tensor)]
    same = [g for g in range(1, group.order) if not any(_moves(leaf, group, g, view) for leaf in tensors)]
    if not same:
        return None
    which = f"element {same[0]} leaves" if len(same) == 1 else f"elements {', '.join(map(str, same))} leave"
    text = f"inputs must be changed by every element of {group.name}, but {which} them as they are"
    return NoEvidence("inputs", f"{text}, which proves nothing. Use random inputs")


def _moves(leaf: Leaf, group: Group, g: int, view: float) -> bool:
    """Return whether an element changes a leaf by more than rounding and interpolation do."""
    metric, x = Metric(leaf.action, group, g, view), widened(leaf.value)
    change = metric.distance(widened(leaf.moved(group, g)), x)
    if metric.in_disc:
        return not change <= metric.distance(forth_and_back(leaf._replace(value=x), group, g), x)
    return not change <= _rounding(leaf.value.dtype) * metric.norm(x)


def forth_and_back(leaf: Leaf, group: Group, g: int) -> Tensor:
    """Return ``L_g^-1 L_g x``, which differs from ``x`` by the loss of two interpolations."""
    back: Tensor = leaf.action.after(group, g)(leaf.moved(group, g), group, group.inverse(g))
    return back


def _independent_output(
    call: ModuleCall, reference: list[OutputTensor], group: Group, view: float, tolerance: float
) -> NoEvidence | None:
    outputs = call.outputs(_resampled(call.inputs))
    for leaf, dtype in reference:
        metric = Metric(leaf.action, group, 0, view)
        if leaf.name not in outputs:
            continue
        change = metric.distance(outputs[leaf.name], leaf.value) / metric.norm(leaf.value)
        if change <= max(tolerance, _rounding(dtype)):
            text = (
                f"module must have an output that depends on its input, but {leaf.name} changes by {change:.0e} of its "
                "size when the input is resampled, no more than an error that would pass. Use other parameters, "
                "another input, a smaller tolerance, or use float64"
            )
            return NoEvidence("dependence", text)
    return None


def _resampled(inputs: list[Leaf]) -> list[Any]:
    """Return inputs of the same kind: each tensor is filled with entries drawn at random from its own.

    The entries stay in their range, such as positive or between 0 and 1, while moments and arrangement change.
    Integers and bool (masks, indices) stay as they are if there are inputs of other types.
    """
    tensors = [leaf.value for leaf in inputs if isinstance(leaf.value, Tensor)]
    any_floating = any(x.is_floating_point() or x.is_complex() for x in tensors)
    generator = torch.Generator().manual_seed(0)

    def draw(value: Any) -> Any:
        whole = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
        if not isinstance(value, Tensor) or value.numel() == 0 or (any_floating and whole):
            return value
        chosen = torch.randint(value.numel(), value.shape, generator=generator)
        return value.flatten()[chosen.to(value.device)]

    return [draw(leaf.value) for leaf in inputs]


def _rounding(dtype: torch.dtype) -> float:
    """Return four units in the last place, relative; 0 for integers."""
    return 4 * torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0


class Metric:
    """The norm and distance for tensors that an action moves by an element.

    Where the action permutes indices or moves coordinates, the norm is the largest absolute value. Where it
    interpolates, the norm is the root mean square within the disc that stays in view at every angle.

    Args:
        action: The action.
        group: The group.
        element: Index of the element.
        view: Share of the disc's radius.
    """

    def __init__(self, action: Action, group: Group, element: int, view: float) -> None:
        self.in_disc = isinstance(action, ScalarField | LabelMask) and not group.is_exact(element)
        self.view = view

    def norm(self, x: Tensor) -> Tensor:
        """Return the norm of ``x``, a float64 tensor without axes; NaN if ``x`` holds one."""
        x = (x if x.is_complex() else x.to(torch.float64)).abs()
        if self.in_disc:
            height, width = x.shape[-2:]
            return x[..., disc_in_view(height, width, self.view)].square().mean().sqrt()
        return x.amax() if x.numel() else x.sum()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the norm of ``a - b``; infinite if the shapes differ."""
        if a.shape != b.shape:
            return torch.tensor(torch.inf, dtype=torch.float64)
        dtype = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
        return self.norm(a.to(dtype) - b.to(dtype))


def disc_in_view(height: int, width: int, view: float) -> Tensor:
    """Return the mask of the pixels that stay in the image at every angle: a disc about the centre, bool ``[H, W]``.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        view: Share of the largest radius, ``(min(H, W) - 1) / 2``. The pixels next to the centre are always included.
    """
    rows = torch.arange(height, dtype=torch.float64).unsqueeze(1) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    radius = max(view * (min(height, width) - 1) / 2, 0.75)
    return rows**2 + columns**2 <= radius**2


def widened(x: Tensor) -> Tensor:
    """Return a copy on the CPU in float64 or complex128; integers and bool keep their type."""
    x = x.detach().cpu().clone()
    if x.is_floating_point():
        return x.to(torch.float64)
    return x.to(torch.complex128) if x.is_complex() else x


@contextmanager
def restoring_state(module: Callable[..., Any], tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Run a block in eval mode without gradients, then restore training flags, saved buffers and random numbers.

    Every submodule gets its own flag back. Buffers that are not in the ``state_dict`` are caches and stay as the module
    left them.

    Args:
        module: A module, or another callable, which has neither modes nor buffers.
        tensors: The inputs. The random number generators of their devices are restored too.
    """
    if not isinstance(module, nn.Module):
        module = nn.Module()
    modes = [(part, part.training) for part in module.modules()]
    buffers = _saved_buffers(module)
    devices = {tensor.device for tensor in (*tensors, *module.parameters(), *module.buffers())}
    cuda = [device for device in devices if device.type == "cuda"]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=cuda, device_type="cuda"))
        stack.enter_context(torch.no_grad())
        try:
            module.eval()
            yield
        finally:
            _restore_modes(modes)
            _restore_buffers(module, buffers)


def _saved_buffers(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the buffers of the ``state_dict`` by name, each with a copy."""
    names = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    state = module.state_dict(keep_vars=True)
    saved = {name: value for name, value in state.items() if name in names and not nn.parameter.is_lazy(value)}
    return {name: (value, value.detach().clone()) for name, value in saved.items()}


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    # First by train(), for modules in which it does more than set the flag. Parents come before their children.
    for part, mode in modes:
        if part.training != mode:
            part.train(mode)
    # Then the flags themselves: an overridden train() may leave some unchanged.
    for part, mode in modes:
        part.training = mode


def _restore_buffers(module: nn.Module, buffers: dict[str, tuple[Tensor, Tensor]]) -> None:
    for name, (buffer, copy) in buffers.items():
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        if getattr(owner, last) is not buffer:
            setattr(owner, last, buffer)
        if not torch.equal(buffer, copy):
            buffer.copy_(copy)
