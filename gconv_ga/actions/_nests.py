"""Nests of dicts, tuples, named tuples and lists: the inputs and outputs of models, and an action for each leaf."""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

from torch import Tensor

from .._validate import invalid, one_of
from ..groups import Group
from ._fields import Action, Invariant, LabelMask, RegularField, ScalarField, VectorField
from ._points import Points


def nest_leaves(nest: Any, name: str) -> list[tuple[str, Any]]:
    """Return all leaves of a nest in order, each with the expression that reaches it.

    Args:
        nest: Mappings, tuples and lists within each other. Anything else, None included, is a leaf.
        name: Name of the nest itself.

    Example:
        >>> from gconv_ga.actions import nest_leaves
        >>> nest_leaves({"masks": [1, 2], "flow": None}, "output")
        [("output['masks'][0]", 1), ("output['masks'][1]", 2), ("output['flow']", None)]
    """
    if isinstance(nest, Mapping):
        return [found for key, part in nest.items() for found in nest_leaves(part, f"{name}[{key!r}]")]
    if isinstance(nest, tuple | list):
        return [found for index, part in enumerate(nest) for found in nest_leaves(part, f"{name}[{index}]")]
    return [(name, nest)]


def rebuild_nest(nest: Any, values: Iterator[Any]) -> Any:
    """Return a nest of the same structure with new leaves. The containers are new too.

    Args:
        nest: As for `nest_leaves`.
        values: The new leaves in order, as many as the nest has.

    Example:
        >>> from gconv_ga.actions import rebuild_nest
        >>> rebuild_nest({"masks": [1, 2], "flow": None}, iter("abc"))
        {'masks': ['a', 'b'], 'flow': 'c'}
    """
    if isinstance(nest, Mapping):
        # A copy keeps the attributes of a subclass besides its items.
        filled: Any = {} if type(nest) is dict else copy(nest)
        for key, part in nest.items():
            filled[key] = rebuild_nest(part, values)
        return filled
    if isinstance(nest, tuple | list):
        parts = [rebuild_nest(part, values) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return next(values)


_PLAIN = bool | int | float | complex | str | bytes | None


def require_plain(name: str, value: Any) -> None:
    """Refuse a leaf of a model's output that is neither a tensor nor a plain value: tensors in it would go unseen.

    Args:
        name: The expression that reaches the leaf, for the error message.
        value: The leaf.

    Raises:
        ValueError: It is not a tensor, None, a number or a string.

    Example:
        >>> from gconv_ga.actions import require_plain
        >>> require_plain("output['name']", "net")
    """
    if not isinstance(value, Tensor | _PLAIN):
        raise invalid(name, "a tensor, None, a number or a string", value, "return tensors in dicts, tuples and lists")


_BY_NAME: dict[str, type[Action]] = {
    "scalar": ScalarField,
    "vector": VectorField,
    "regular": RegularField,
    "invariant": Invariant,
    "labels": LabelMask,
    "points": Points,
}


def as_action(action: Any, argument: str = "action") -> Action:
    """Return ``action`` itself, or the action of that name.

    Args:
        action: An `Action`, or "scalar", "vector", "regular", "invariant", "labels" or "points". `Keypoints` and
            `Boxes` need the size of the image and have no name.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: It is neither an action nor the name of one.

    Example:
        >>> from gconv_ga.actions import as_action
        >>> as_action("regular")
        RegularField(interpolation='bilinear', border='zeros')
    """
    if isinstance(action, Action):
        return action
    needs_size = isinstance(action, str) and action.lower() in ("keypoints", "boxes")
    if isinstance(action, str) and not needs_size:
        return _BY_NAME[one_of(argument, action, tuple(_BY_NAME))]()
    own = "for an action of your own derive a class from gconv_ga.actions.Action"
    with_size = "write Keypoints((H, W)) and Boxes((H, W)) with the size"
    hint = "call the class" if isinstance(action, type) else with_size if needs_size else own
    raise invalid(argument, "an action or its name, such as 'scalar' or ScalarField()", action, hint)


def as_actions(actions: Any, argument: str) -> Any:
    """Return ``actions`` with every name replaced by its action: an `Action`, or a dict or tuple of them.

    Args:
        actions: An action, its name, or a mapping or sequence of them.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: An entry is not an action.

    Example:
        >>> from gconv_ga.actions import as_actions
        >>> as_actions({"logits": "invariant"}, "out_action")
        {'logits': Invariant()}
    """
    if isinstance(actions, Mapping):
        return {key: as_actions(part, f"{argument}[{key!r}]") for key, part in actions.items()}
    if isinstance(actions, tuple | list):
        return tuple(as_actions(part, f"{argument}[{index}]") for index, part in enumerate(actions))
    return as_action(actions, argument)


class Leaf(NamedTuple):
    """One leaf of a model's inputs or outputs.

    Args:
        name: The expression that reaches it, such as ``output['masks']``.
        value: A tensor or any other object.
        action: The action of the group on it.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Leaf, ScalarField
        >>> Leaf("input[0]", torch.zeros(1, 2), ScalarField()).moved("C4", 1).shape
        torch.Size([2, 1])
    """

    name: str
    value: Any
    action: Action

    def moved(self, group: Group | str, element: int) -> Any:
        """Return ``L_g`` of the value; anything but a tensor is returned as it is. Errors name the leaf.

        Raises:
            ValueError: The action does not take this tensor.
        """
        if not isinstance(self.value, Tensor):
            return self.value
        try:
            return self.action(self.value, group, element)
        except ValueError as error:
            raise ValueError(f"{self.name} does not fit its action {self.action}: {error}") from error


def pair_leaves(nest: Any, actions: Any, name: str, argument: str) -> list[Leaf]:
    """Return the leaves of a nest in order, each with its action.

    One action holds for everything below it. A mapping of actions may have keys that the nest lacks, since some models
    return more in training, but it must have those of the nest. A tensor ``[B]`` or ``[B, K]`` has no pixels, so
    `ScalarField` means `Invariant` for it: class scores need no declaration.

    Args:
        nest: The input or output.
        actions: The actions, as returned by `as_actions`.
        name: Name of ``nest``.
        argument: Name of the argument ``actions``, for the error message.

    Raises:
        ValueError: The structures do not match.

    Example:
        >>> from gconv_ga.actions import as_actions, pair_leaves
        >>> [leaf.name for leaf in pair_leaves([1, {"a": 2}], as_actions("scalar", "in_action"), "input", "in_action")]
        ['input[0]', "input[1]['a']"]
    """
    if not isinstance(actions, dict | tuple):
        return [Leaf(where, value, _suited(actions, value)) for where, value in nest_leaves(nest, name)]
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


def _suited(action: Action, value: Any) -> Action:
    """Return `Invariant` instead of `ScalarField` for a tensor that has no pixels."""
    return Invariant() if type(action) is ScalarField and isinstance(value, Tensor) and value.ndim < 3 else action


def pair_inputs(inputs: tuple[Any, ...], actions: Any) -> list[Leaf]:
    """Return the leaves of a module's positional inputs, each with its action from ``in_action``.

    With several inputs, a sequence of actions has one entry for each input. With one input, the actions are nested as
    that input is.

    Args:
        inputs: Positional inputs of the module.
        actions: The actions, as returned by `as_actions`.

    Raises:
        ValueError: The structures do not match.

    Example:
        >>> from gconv_ga.actions import as_actions, pair_inputs
        >>> both = as_actions(("scalar", "points"), "in_action")
        >>> [leaf.action for leaf in pair_inputs((1, 2), both)]
        [ScalarField(interpolation='bilinear', border='zeros'), Points()]
    """
    alone = len(inputs) == 1 and (isinstance(inputs[0], tuple | list) or not isinstance(actions, tuple))
    nest, name = (inputs[0], "input") if alone else (inputs, "inputs")
    return pair_leaves(nest, actions, name, "in_action")
