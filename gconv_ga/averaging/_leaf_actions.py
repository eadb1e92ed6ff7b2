"""Which action each leaf of an input or output has."""

from collections.abc import Mapping
from typing import Any

from .._validate import invalid
from ..actions import LabelMask, as_action
from ._trees import leaves


def resolve(actions: Any, argument: str) -> Any:
    """``actions`` with every name replaced by its action: an `Action`, a dict or a tuple of such.

    Args:
        actions: An action, its name, or a mapping or sequence of them.
        argument: The argument's name, for the message.

    Raises:
        ValueError: Something in it is no action.
    """
    if isinstance(actions, Mapping):
        return {key: resolve(part, f"{argument}[{key!r}]") for key, part in actions.items()}
    if isinstance(actions, tuple | list):
        return tuple(resolve(part, f"{argument}[{index}]") for index, part in enumerate(actions))
    return as_action(actions, argument)


def refuse_labels(actions: Any, argument: str) -> None:
    """Raise if an output is declared to be class indices.

    Raises:
        ValueError: One of the actions is a `LabelMask`.
    """
    for name, action in leaves(actions, argument):
        if isinstance(action, LabelMask):
            advice = "average logits or probabilities with 'scalar' and take the argmax of the average"
            raise invalid(name, "an action on something that can be averaged; class indices cannot", action, advice)


def spread(actions: Any, nest: Any, argument: str, name: str) -> list[Any]:
    """One action for each leaf of ``nest``, in the order of `leaves`.

    One action stands for everything below it. A mapping may have keys that the nest lacks, since some models return
    more in training; it must have those that the nest has.

    Args:
        actions: What `resolve` returned.
        nest: The input or output.
        argument: What ``actions`` is called, for the message.
        name: What ``nest`` is called, for the message.

    Raises:
        ValueError: The structures do not match.
    """
    if not isinstance(actions, dict | tuple):
        return [actions] * len(leaves(nest, name))
    if isinstance(nest, Mapping) and isinstance(actions, dict):
        missing = [key for key in nest if key not in actions]
        if missing:
            text = f"a mapping with the keys of {name}, {list(nest)}"
            raise invalid(argument, text, actions, f"give {missing[0]!r} an action, or one action for all")
        parts = [(actions[key], nest[key], f"[{key!r}]") for key in nest]
    elif isinstance(nest, tuple | list) and isinstance(actions, tuple) and len(nest) == len(actions):
        parts = [(action, part, f"[{i}]") for i, (action, part) in enumerate(zip(actions, nest, strict=True))]
    else:
        length = f" of {len(nest)}" if isinstance(nest, tuple | list) else ""
        takes = f"one action, or actions nested as {name} is, a {type(nest).__name__}{length}"
        raise invalid(argument, takes, actions)
    return [action for inner, part, at in parts for action in spread(inner, part, argument + at, name + at)]
