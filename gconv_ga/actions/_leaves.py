"""Which action each leaf of a nest of inputs or outputs has."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .._validate import invalid
from ..groups import Group
from ._action import Action, Invariant
from ._fields import ScalarField
from ._names import as_action
from ._nests import nest_leaves


class Leaf(NamedTuple):
    """One leaf of a model's inputs or outputs.

    Args:
        name: The expression that reaches it, such as ``output['masks']``.
        value: The tensor, or whatever else it is.
        action: How the group moves it.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import ScalarField
        >>> Leaf("input[0]", torch.zeros(1, 2), ScalarField()).moved("C4", 1).shape
        torch.Size([2, 1])
    """

    name: str
    value: Any
    action: Action

    def moved(self, group: Group | str, element: int) -> Any:
        """``L_g`` of the value; what is no tensor stays. A refusal says which leaf it is about.

        Raises:
            ValueError: The action does not take this tensor.
        """
        if not isinstance(self.value, Tensor):
            return self.value
        try:
            return self.action(self.value, group, element)
        except ValueError as error:
            raise ValueError(f"{self.name} does not fit its action {self.action}: {error}") from error


def as_actions(actions: Any, argument: str) -> Any:
    """``actions`` with every name replaced by its action: an `Action`, a dict or a tuple of such.

    Args:
        actions: An action, its name, or a mapping or sequence of them.
        argument: The argument's name, for the message.

    Raises:
        ValueError: Something in it is no action.

    Example:
        >>> as_actions({"logits": "invariant"}, "out_action")
        {'logits': Invariant()}
    """
    if isinstance(actions, Mapping):
        return {key: as_actions(part, f"{argument}[{key!r}]") for key, part in actions.items()}
    if isinstance(actions, tuple | list):
        return tuple(as_actions(part, f"{argument}[{index}]") for index, part in enumerate(actions))
    return as_action(actions, argument)


def pair_leaves(nest: Any, actions: Any, name: str, argument: str) -> list[Leaf]:
    """The leaves of a nest with their actions, in order.

    One action stands for everything below it. A mapping of actions may have keys that the nest lacks, since some
    models return more in training; it must have those that the nest has. A tensor ``[B]`` or ``[B, K]`` has no pixels
    beside its batch: there a `ScalarField` means `Invariant`, so that class scores need not be declared.

    Args:
        nest: The input or output.
        actions: What `as_actions` returned.
        name: What ``nest`` is called.
        argument: What ``actions`` is called, for the message.

    Raises:
        ValueError: The structures do not match.

    Example:
        >>> [leaf.name for leaf in pair_leaves([1, {"a": 2}], as_actions("scalar", "in_action"), "input", "in_action")]
        ['input[0]', "input[1]['a']"]
    """
    if not isinstance(actions, dict | tuple):
        return [Leaf(where, value, _fitting(actions, value)) for where, value in nest_leaves(nest, name)]
    if isinstance(nest, Mapping) and isinstance(actions, dict):
        missing = [key for key in nest if key not in actions]
        if missing:
            text = f"a mapping with the keys of {name}, {list(nest)}"
            raise invalid(argument, text, actions, f"give {missing[0]!r} an action, or one action for all")
        parts = [(nest[key], actions[key], f"[{key!r}]") for key in nest]
    elif isinstance(nest, tuple | list) and isinstance(actions, tuple) and len(nest) == len(actions):
        parts = [(part, action, f"[{i}]") for i, (part, action) in enumerate(zip(nest, actions, strict=True))]
    else:
        length = f" of {len(nest)}" if isinstance(nest, tuple | list) else ""
        raise invalid(argument, f"one action, or actions nested as {name} is, a {type(nest).__name__}{length}", actions)
    return [leaf for part, action, at in parts for leaf in pair_leaves(part, action, name + at, argument + at)]


def _fitting(action: Action, value: Any) -> Action:
    return Invariant() if type(action) is ScalarField and isinstance(value, Tensor) and value.ndim < 3 else action


def pair_inputs(inputs: tuple[Any, ...], actions: Any) -> list[Leaf]:
    """The leaves of a module's positional inputs with their actions ``in_action``.

    With several inputs a sequence of actions has one entry for each. With one input the actions are nested as it is.

    Args:
        inputs: What the module is called with.
        actions: What `as_actions` returned.

    Raises:
        ValueError: The structures do not match.

    Example:
        >>> both = as_actions(("scalar", "points"), "in_action")
        >>> [leaf.action for leaf in pair_inputs((1, 2), both)]
        [ScalarField(interpolation='bilinear', border='zeros'), Points()]
    """
    alone = len(inputs) == 1 and (isinstance(inputs[0], tuple | list) or not isinstance(actions, tuple))
    nest, name = (inputs[0], "input") if alone else (inputs, "inputs")
    return pair_leaves(nest, actions, name, "in_action")
