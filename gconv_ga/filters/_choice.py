"""Which filters a layer has."""

from typing import Any

from .._validate import invalid, one_of
from ..groups import Group
from ._grid import GridFilters
from ._steerable import SteerableFilters

Filters = GridFilters | SteerableFilters


def as_filters(filters: Any, group: Group, kernel_size: tuple[int, int]) -> Filters:
    """The filters that ``filters`` means.

    Args:
        filters: "grid" (every tap is free; groups of quarter turns and mirrors), "steerable" (any group), "auto" for
            "grid" where it is exact and "steerable" elsewhere, or an object made with knobs of its own, such as
            ``SteerableFilters(C8, (5, 5), functions=12)``.
        group: The layer's group.
        kernel_size: The layer's kernel size.

    Raises:
        ValueError: It is none of those, or an object for another group or kernel size.

    Example:
        >>> from gconv_ga.groups import C4, C8
        >>> as_filters("auto", C4, (3, 3)), as_filters("auto", C8, (5, 5)).shape
        (GridFilters(group=CyclicGroup(4), kernel_size=(3, 3)), (15,))
    """
    if isinstance(filters, GridFilters | SteerableFilters):
        if (filters.group, filters.kernel_size) != (group, kernel_size):
            takes = f"made for {group.name} and kernels of {kernel_size[0]} x {kernel_size[1]}"
            raise invalid("filters", takes, filters)
        return filters
    one_of("filters", filters, ("auto", "grid", "steerable"))
    if filters == "auto":
        filters = "grid" if group.is_exact() else "steerable"
    return GridFilters(group, kernel_size) if filters == "grid" else SteerableFilters(group, kernel_size)
