"""Actions by name."""

from typing import Any

from .._validate import invalid, one_of
from ._action import Action, Invariant
from ._fields import LabelMask, RegularField, ScalarField, VectorField
from ._points import Points

_BY_NAME: dict[str, type[Action]] = {
    "scalar": ScalarField,
    "vector": VectorField,
    "regular": RegularField,
    "invariant": Invariant,
    "labels": LabelMask,
    "points": Points,
}


def as_action(action: Any, argument: str = "action") -> Action:
    """The action that ``action`` means: itself, or the one with that name.

    Args:
        action: An `Action`, or "scalar", "vector", "regular", "invariant", "labels" or "points". `Keypoints` and
            `Boxes` need the image's size and have no name.
        argument: The argument's name, for the message.

    Raises:
        ValueError: It is neither.

    Example:
        >>> as_action("regular")
        RegularField(interpolation='bilinear', border='zeros')
    """
    if isinstance(action, Action):
        return action
    needs_size = isinstance(action, str) and action.lower() in ("keypoints", "boxes")
    if isinstance(action, str) and not needs_size:
        return _BY_NAME[one_of(argument, action, tuple(_BY_NAME))]()
    hint = "call the class" if isinstance(action, type) else "write Keypoints((H, W)) and Boxes((H, W)) with the size"
    raise invalid(argument, "an action or its name, such as 'scalar' or ScalarField()", action, hint)
