"""Nests of dicts, tuples, named tuples and lists: what models take and return besides one tensor."""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any


def nest_leaves(nest: Any, name: str) -> list[tuple[str, Any]]:
    """Every leaf with the expression that reaches it, in order.

    Args:
        nest: Mappings, tuples and lists in each other; anything else is a leaf, None too.
        name: What the nest itself is called.

    Example:
        >>> nest_leaves({"masks": [1, 2], "flow": None}, "output")
        [("output['masks'][0]", 1), ("output['masks'][1]", 2), ("output['flow']", None)]
    """
    if isinstance(nest, Mapping):
        return [found for key, part in nest.items() for found in nest_leaves(part, f"{name}[{key!r}]")]
    if isinstance(nest, tuple | list):
        return [found for index, part in enumerate(nest) for found in nest_leaves(part, f"{name}[{index}]")]
    return [(name, nest)]


def rebuild_nest(nest: Any, values: Iterator[Any]) -> Any:
    """The same nest with the leaves taken from ``values``, one after another; the containers are new.

    Args:
        nest: As for `nest_leaves`.
        values: As many as the nest has leaves.

    Example:
        >>> rebuild_nest({"masks": [1, 2], "flow": None}, iter("abc"))
        {'masks': ['a', 'b'], 'flow': 'c'}
    """
    if isinstance(nest, Mapping):
        # A copy keeps what a class of mappings has beside its items.
        filled: Any = {} if type(nest) is dict else copy(nest)
        for key, part in nest.items():
            filled[key] = rebuild_nest(part, values)
        return filled
    if isinstance(nest, tuple | list):
        parts = [rebuild_nest(part, values) for part in nest]
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return next(values)
