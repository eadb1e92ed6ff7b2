"""Which filters a layer has."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from .._validate import invalid, one_of
from ..groups import Group
from ._grid import GridFilters
from ._steerable import SteerableFilters


@runtime_checkable
class Filters(Protocol):
    """What a layer asks of its filters; `GridFilters` and `SteerableFilters` offer it, and so may an object of yours.

    Raises:
        TypeError: It is called: there is nothing to make, it says what an object must have.

    Example:
        >>> from gconv_ga.groups import C4
        >>> isinstance(GridFilters(C4, (3, 3)), Filters), isinstance("grid", Filters)
        (True, False)
    """

    @property
    def group(self) -> Group:
        """The group that turns the kernels."""
        ...

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of one kernel in the weight."""
        ...

    def tables(self) -> dict[str, Tensor]:
        """What `turn` and `turn_and_shift` need on the weight's device, by name; new tensors on the CPU."""
        ...

    def variance(self, channels: float, *, rectified: bool) -> float | Tensor:
        """The variance of independent normal weights that keeps the variance of what passes through.

        One number, or those of the numbers of one kernel, a tensor of the shape `shape`.
        """
        ...

    def turn(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """``[C_out, J, *shape]`` to every kernel turned by every element, ``[C_out, |G|, J, kh * kw]``."""
        ...

    def turn_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """``[C_out, C_in, |G|, *shape]`` to kernels on the group moved by each element, ``[C_out, |G|, J, kh * kw]``.

        J runs over the fields and, for each, the elements.
        """
        ...


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
    if isinstance(filters, Filters):
        if (filters.group, filters.kernel_size) != (group, kernel_size):
            takes = f"made for {group.name} and kernels of {kernel_size[0]} x {kernel_size[1]}"
            raise invalid("filters", takes, filters)
        return filters
    one_of("filters", filters, ("auto", "grid", "steerable"))
    if filters == "auto":
        filters = "grid" if group.is_exact() else "steerable"
    return GridFilters(group, kernel_size) if filters == "grid" else SteerableFilters(group, kernel_size)
