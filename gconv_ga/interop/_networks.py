"""A user's module with a forward of its own: its copy, with converted parts in place of escnn's."""

import copy
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from .._validate import invalid
from ._field_layers import to_channels, to_maps
from ._fields import Fields
from ._geometric import FieldType, GeometricTensor, stand_in


class Part(nn.Module):
    """A converted module of escnn inside a user's forward, which hands geometric tensors to it.

    Args:
        module: The converted module, on plain tensors.
        into: Its fields.
        outof: The fields that it returns.
        in_type: The stand-in for its input type.
        out_type: The stand-in for its output type.
        pointwise: Whether it treats every number for itself, so that escnn's channels do.

    Shape:
        - input: a geometric tensor, or the plain tensor that ``module`` takes
        - output: a geometric tensor for one, a plain tensor for the other

    Raises:
        ValueError: The geometric tensor is of another type.
    """

    def __init__(
        self, module: nn.Module, into: Fields, outof: Fields, in_type: FieldType, out_type: FieldType, pointwise: bool
    ) -> None:
        super().__init__()
        self.module, self.in_type, self.out_type = module, in_type, out_type
        self.before, self.after = (None, None) if pointwise else (to_maps(into), to_channels(outof))

    def forward(self, input: Any) -> Any:
        if isinstance(input, Tensor):
            return self.module(input)
        if not self.in_type == input.type:
            raise invalid("input", f"a geometric tensor of the type {self.in_type}", input.type)
        output = self.module(input.tensor if self.before is None else self.before(input.tensor))
        return GeometricTensor(output if self.after is None else self.after(output), self.out_type)


class OwnForward(nn.Module):
    """A user's equivariant module among plain tensors.

    Args:
        module: The copy of the user's module, which takes and returns geometric tensors.
        into: Its fields.
        outof: The fields that it returns.
        in_type: The stand-in for its input type.

    Shape:
        - input: a geometric tensor, or a plain one
        - output: a geometric tensor for one, a plain tensor for the other
    """

    def __init__(self, module: nn.Module, into: Fields, outof: Fields, in_type: FieldType) -> None:
        super().__init__()
        self.module, self.in_type = module, in_type
        self.before, self.after = to_channels(into), to_maps(outof)

    def forward(self, input: Any) -> Any:
        if not isinstance(input, Tensor):
            return self.module(input)
        tensor = input if self.before is None else self.before(input)
        output: Tensor = self.module(GeometricTensor(tensor, self.in_type)).tensor
        return output if self.after is None else self.after(output)


def copy_network(
    module: nn.Module, escnn: ModuleType, convert: Callable[[Any, str], nn.Module], path: str, memo: dict[int, Any]
) -> nn.Module:
    """Return a copy of a user's module in which converted parts and stand-ins replace what is of escnn.

    Args:
        module: The module.
        escnn: The package.
        convert: Returns the replacement for a module of escnn and its path.
        path: Path of the module, for messages.
        memo: What `copy.deepcopy` has copied, by its id, for all modules of one conversion.

    Raises:
        ValueError: A part has no counterpart, or the module cannot be copied.
    """
    for place, thing in _of_escnn(module, escnn, path, set()):
        if id(thing) not in memo:
            memo[id(thing)] = convert(thing, place) if isinstance(thing, nn.Module) else stand_in(thing, escnn)
    try:
        return copy.deepcopy(module, memo)
    except (TypeError, RuntimeError) as error:
        advice = f"remove the attribute that cannot be copied: {error}"
        raise invalid(path, "a module that copy.deepcopy copies", type(module).__name__, advice) from error


def _of_escnn(thing: Any, escnn: ModuleType, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield path and object of all modules and types of escnn that a user's module holds, in containers too."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    values: list[tuple[str, Any]] = []
    if isinstance(thing, nn.Module):
        own = {
            name: value for name, value in vars(thing).items() if name not in ("_modules", "_parameters", "_buffers")
        }
        values = [*thing._modules.items(), *own.items()]  # noqa: SLF001  named_children() leaves out second names
    elif isinstance(thing, dict):
        values = [(str(name), value) for name, value in thing.items()]
    elif isinstance(thing, list | tuple | set):
        values = [(str(i), value) for i, value in enumerate(thing)]
    for name, value in values:
        place = f"{path}.{name}"
        kinds = escnn.nn.FieldType, escnn.gspaces.GSpace, escnn.group.Representation, escnn.group.Group
        if isinstance(value, (*kinds, escnn.nn.EquivariantModule)):
            yield place, value
        else:
            yield from _of_escnn(value, escnn, place, seen)
