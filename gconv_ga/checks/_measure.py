"""How far two tensors are from each other, relative to the size of one of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..actions import Action, LabelMask, Leaf, ScalarField, nest_leaves
from ..groups import Group


def wide(x: Tensor) -> Tensor:
    """A copy on the CPU in the widest type of its kind; integers and bool keep theirs."""
    x = x.detach().cpu().clone()
    if x.is_floating_point():
        return x.to(torch.float64)
    return x.to(torch.complex128) if x.is_complex() else x


def interpolates(action: Action, group: Group, element: int) -> bool:
    """Whether the action reads between pixels for this element."""
    return isinstance(action, ScalarField | LabelMask) and not group.is_exact(element)


def in_view(height: int, width: int, view: float) -> Tensor:
    """Where the pixels are that stay in the image at every angle: a disc about the centre, bool ``[H, W]``.

    Args:
        height: Pixels.
        width: Pixels.
        view: Share of the largest radius, ``(min(H, W) - 1) / 2``; the pixels next to the centre are always in.
    """
    rows = torch.arange(height, dtype=torch.float64).unsqueeze(1) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    radius = max(view * (min(height, width) - 1) / 2, 0.75)
    return rows**2 + columns**2 <= radius**2


class Ruler:
    """How to compare tensors that an action has moved by an element.

    Where the action moves indices or coordinates, the measure is the largest absolute value. Where it reads between
    pixels, it is the root mean square inside the disc that stays in view.

    Args:
        action: The action.
        group: The group.
        element: The element.
        view: Share of the disc's radius.
    """

    def __init__(self, action: Action, group: Group, element: int, view: float) -> None:
        self.in_disc = interpolates(action, group, element)
        self.view = view

    def size(self, x: Tensor) -> Tensor:
        """The size of ``x``, a float64 tensor without axes; NaN where ``x`` holds one."""
        x = (x if x.is_complex() else x.to(torch.float64)).abs()
        if self.in_disc:
            height, width = x.shape[-2:]
            return x[..., in_view(height, width, self.view)].square().mean().sqrt()
        return x.amax() if x.numel() else x.sum()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The size of ``a - b``; infinite where the shapes differ."""
        if a.shape != b.shape:
            return torch.tensor(torch.inf, dtype=torch.float64)
        kind = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
        return self.size(a.to(kind) - b.to(kind))


@contextmanager
def undisturbed(module: Callable[..., Any], tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Inside: eval mode, no gradients. Afterwards: training flags, saved buffers and random numbers as before.

    Every submodule gets its own flag back. Buffers that the ``state_dict`` does not hold are caches; they are left as
    the module made them.

    Args:
        module: A module, or a callable, which has no modes and no buffers.
        tensors: The inputs: random numbers of their devices are put back too.
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
    """The buffers of the ``state_dict`` by name, each with a copy."""
    names = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    state = module.state_dict(keep_vars=True)
    kept = {name: value for name, value in state.items() if name in names and not nn.parameter.is_lazy(value)}
    return {name: (value, value.detach().clone()) for name, value in kept.items()}


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    # First by train(), for modules that do more there than to set the flag; parents come before their children.
    for part, mode in modes:
        if part.training != mode:
            part.train(mode)
    # Then the flags themselves: train() may be overridden to leave some as they are.
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


Limit = float | Callable[[set[torch.dtype]], float]


class Output(NamedTuple):
    """A tensor that a module returned: as a leaf with a wide copy of the value, and in the type it had."""

    leaf: Leaf
    dtype: torch.dtype


class Flaw(NamedTuple):
    """Why a comparison proves nothing."""

    of: Literal["output", "inputs", "dependence"]
    text: str


@dataclass(frozen=True)
class Subject:
    """What is measured: a call, the leaves of its input with their actions, and how to read its output.

    Args:
        call: Takes the values of the input's leaves.
        inputs: The leaves.
        read: Gives the leaves of what the call returned, with their actions, called ``output...``.
    """

    call: Callable[[Iterator[Any]], Any]
    inputs: list[Leaf]
    read: Callable[[Any], list[Leaf]]

    def run(self, values: list[Any]) -> Any:
        """The call gets copies: it may write into them, or hand them back."""
        return self.call(value.clone() if isinstance(value, Tensor) else value for value in values)

    def reference(self) -> list[Output]:
        """The tensors that come out for the inputs as they are, with their actions."""
        leaves = self.read(self.run([leaf.value for leaf in self.inputs]))
        tensors = [leaf for leaf in leaves if isinstance(leaf.value, Tensor)]
        return [Output(leaf._replace(value=wide(leaf.value)), leaf.value.dtype) for leaf in tensors]

    def tensors(self, values: list[Any]) -> dict[str, Tensor]:
        """The tensors that come out for other inputs, by name."""
        leaves = nest_leaves(self.run(values), "output")
        return {name: wide(value) for name, value in leaves if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Measurement:
    """The errors, and what else a verdict needs.

    Args:
        errors: One for each element, ``[|G|]``, float64.
        limit: The largest error that passes.
        flaw: Why the errors prove nothing; None if they do.
        notes: What an infinite error means, by element.
    """

    errors: Tensor
    limit: float
    flaw: Flaw | None = None
    notes: dict[int, str] = field(default_factory=dict)


def measure(subject: Subject, group: Group, view: float, limit: Limit) -> Measurement:
    """The relative error of every element, the worst over the output's tensors.

    Args:
        subject: What to measure.
        group: The group.
        view: Share of the disc that is compared at angles off the grid.
        limit: The largest error that passes, or how it follows from the types of the tensors that went in and came out.
            An output that changes by no more than this, relative to its size, when the input is drawn anew is no
            evidence; at least four units in the last place count.
    """
    reference = subject.reference()
    notes: dict[int, str] = {}
    errors = [_error(subject, reference, group, g, view, notes) for g in range(group.order)]
    if callable(limit):
        ins = {leaf.value.dtype for leaf in subject.inputs if isinstance(leaf.value, Tensor)}
        limit = limit(ins | {output.dtype for output in reference})
    flaw = (
        _flaw_of_outputs(reference, group, view)
        or _flaw_of_inputs(subject.inputs, group, view)
        or _flaw_of_dependence(subject, reference, group, view, limit)
    )
    return Measurement(torch.stack(errors), limit, flaw, notes)


def _error(
    subject: Subject, reference: list[Output], group: Group, g: int, view: float, notes: dict[int, str]
) -> Tensor:
    """The worst relative error of one element."""
    moved = subject.tensors([leaf.moved(group, g) for leaf in subject.inputs])
    wanted = [output.leaf.name for output in reference]
    if list(moved) != wanted:
        notes[g] = f"returns {', '.join(moved) or 'no tensor'} instead of {', '.join(wanted) or 'no tensor'}"
        return torch.tensor(torch.inf, dtype=torch.float64)
    worst = torch.zeros((), dtype=torch.float64)
    for leaf, _ in reference:
        ruler, expected, found = Ruler(leaf.action, group, g, view), leaf.moved(group, g), moved[leaf.name]
        if found.shape != expected.shape:
            notes[g] = f"{leaf.name} has shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
        # torch.maximum hands NaN on; a comparison would drop it.
        worst = torch.maximum(worst, ruler.distance(found, expected) / ruler.size(leaf.value))
    return worst


def _flaw_of_outputs(reference: list[Output], group: Group, view: float) -> Flaw | None:
    if not reference:
        return Flaw("output", "module must return at least one tensor, but got none: there is nothing to compare")
    for leaf, _ in reference:
        if any(Ruler(leaf.action, group, g, view).size(leaf.value) == 0 for g in range(group.order)):
            text = f"module must have an output that is not zero, but {leaf.name} is zero, which proves nothing"
            return Flaw("output", f"{text}. Give its parameters or its input other values")
    return None


def _flaw_of_inputs(inputs: list[Leaf], group: Group, view: float) -> Flaw | None:
    tensors = [leaf for leaf in inputs if isinstance(leaf.value, Tensor)]
    same = [g for g in range(1, group.order) if not any(_moves(leaf, group, g, view) for leaf in tensors)]
    if not same:
        return None
    which = f"element {same[0]} leaves" if len(same) == 1 else f"elements {', '.join(map(str, same))} leave"
    text = f"inputs must be changed by every element of {group.name}, but {which} them as they are"
    return Flaw("inputs", f"{text}, which proves nothing. Give random inputs")


def _moves(leaf: Leaf, group: Group, g: int, view: float) -> bool:
    """Whether an element changes a leaf by more than rounding and interpolation do."""
    ruler, x = Ruler(leaf.action, group, g, view), wide(leaf.value)
    change = ruler.distance(wide(leaf.moved(group, g)), x)
    if ruler.in_disc:
        return not change <= ruler.distance(there_and_back(leaf._replace(value=x), group, g), x)
    return not change <= units_in_last_place(leaf.value.dtype) * ruler.size(x)


def there_and_back(leaf: Leaf, group: Group, g: int) -> Tensor:
    """``L_g^-1 L_g x``: differs from ``x`` by what the interpolation loses, twice."""
    back: Tensor = leaf.action.after(group, g)(leaf.moved(group, g), group, group.inverse(g))
    return back


def _flaw_of_dependence(
    subject: Subject, reference: list[Output], group: Group, view: float, limit: float
) -> Flaw | None:
    others = subject.tensors(_drawn_anew(subject.inputs))
    for leaf, dtype in reference:
        ruler = Ruler(leaf.action, group, 0, view)
        if leaf.name not in others:
            continue
        change = ruler.distance(others[leaf.name], leaf.value) / ruler.size(leaf.value)
        if change <= max(limit, units_in_last_place(dtype)):
            text = (
                f"module must have an output that depends on its input, but {leaf.name} changes by {change:.0e} of its "
                "size when the input is drawn anew, no more than an error that would pass. Give its parameters or its "
                "input other values, or use float64"
            )
            return Flaw("dependence", text)
    return None


def _drawn_anew(inputs: list[Leaf]) -> list[Any]:
    """Other inputs of the same kind: each entry of a tensor becomes one that the tensor holds, drawn at random.

    So they stay in their range, positive or between 0 and 1, and other moments change with the arrangement. Integers
    and bool (masks, indices) are left as they are if anything else goes in.
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


def units_in_last_place(dtype: torch.dtype) -> float:
    """Four units in the last place, relative; 0 for integers."""
    return 4 * torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0
