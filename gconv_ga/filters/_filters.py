"""Filters: from the free weights of a layer to the stack of transformed kernels that it convolves with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._validate import invalid, one_of
from ..actions import grid_move
from ..groups import Group
from ._steerable_basis import SteerableBasis, steerable_basis


@runtime_checkable
class Filters(Protocol):
    """Interface between a layer and its filters: `GridFilters`, `SteerableFilters` or an object of your own.

    Raises:
        TypeError: It is instantiated. A protocol only states what an object must have.

    Example:
        >>> from gconv_ga.filters import Filters, GridFilters
        >>> from gconv_ga.groups import C4
        >>> isinstance(GridFilters(C4, (3, 3)), Filters), isinstance("grid", Filters)
        (True, False)
    """

    @property
    def group(self) -> Group:
        """The group whose elements transform the kernels."""
        ...

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Rows and columns of a kernel."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of one kernel in the weight."""
        ...

    def tables(self) -> dict[str, Tensor]:
        """Return the tensors that `rotate` and `rotate_and_shift` look up, by name, as new tensors on the CPU."""
        ...

    def variance(self, channels: float, *, rectified: bool) -> float | Tensor:
        """Return the variance of independent normal weights that preserves the variance of the activations.

        Either one number, or one for each weight of a kernel, as a tensor of the shape `shape`.
        """
        ...

    def rotate(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Transform every kernel by every element, ``[C_out, J, *shape]`` to ``[C_out, |G|, J, kh * kw]``."""
        ...

    def rotate_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Transform every kernel on the group, ``[C_out, C_in, |G|, *shape]`` to ``[C_out, |G|, J, kh * kw]``.

        J runs over the fields and, for each field, over the elements.
        """
        ...


def as_filters(filters: Any, group: Group, kernel_size: tuple[int, int]) -> Filters:
    """Return the filters that a layer's argument ``filters`` stands for.

    Args:
        filters: "grid" (every tap is free; rotations by multiples of 90 degrees and reflections only), "steerable"
            (any group), "auto" for "grid" where it is exact and "steerable" elsewhere, or an object with options of
            its own, such as ``SteerableFilters(C8, (5, 5), functions=12)``.
        group: The group of the layer.
        kernel_size: The kernel size of the layer.

    Raises:
        ValueError: ``filters`` is none of those, or an object for another group or kernel size.

    Example:
        >>> from gconv_ga.filters import as_filters
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


@dataclass(frozen=True)
class GridFilters:
    """Kernels transformed by index moves, one gather for all.

    Every weight is a tap of the kernel: the layout is that of `torch.nn.Conv2d`, with the element axis before the two
    axes of the kernel. Rotating a kernel by 90 degrees or reflecting it permutes its taps, so nothing is interpolated.

    Args:
        group: C1, C2, C4, D1, D2 or D4.
        kernel_size: Rows and columns.

    Raises:
        ValueError: The group has rotations that do not map pixels to pixels.

    Example:
        >>> import torch
        >>> from gconv_ga.filters import GridFilters
        >>> from gconv_ga.groups import C4
        >>> filters = GridFilters(C4, (3, 3))
        >>> filters.rotate(torch.randn(8, 3, 3, 3), filters.tables()).shape
        torch.Size([8, 4, 3, 9])
    """

    group: Group
    kernel_size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.group.is_exact():
            takes = "one of C1, C2, C4, D1, D2, D4 for filters='grid'"
            raise invalid("group", takes, self.group, "use filters='steerable'")

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of one kernel in the weight."""
        return self.kernel_size

    def tables(self) -> dict[str, Tensor]:
        """Return the tensors that `rotate` and `rotate_and_shift` look up, by name, as new tensors on the CPU."""
        return {
            "rotate_index": torch.tensor(_rotate_index(self.group, self.kernel_size)),
            "rotate_and_shift_index": torch.tensor(_rotate_and_shift_index(self.group, self.kernel_size)),
        }

    def variance(self, channels: float, *, rectified: bool) -> float:
        """Return the variance of independent normal weights that preserves the variance of the activations (He).

        Args:
            channels: Number of input channels (times elements) that an output sums over.
            rectified: Whether the input has passed a ReLU, which halves its second moment.

        References:
            He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equation 10.
        """
        return (2.0 if rectified else 1.0) / (channels * math.prod(self.kernel_size))

    def rotate(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Transform every kernel by every element, ``L_g k``.

        Shape:
            - weight: ``[C_out, J, kh, kw]``
            - output: ``[C_out, |G|, J, kh * kw]``
        """
        return _gather_per_element(weight.flatten(2), tables["rotate_index"])

    def rotate_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Transform every kernel on the group by every element, ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``.

        Shape:
            - weight: ``[C_out, C_in, |G|, kh, kw]``
            - output: ``[C_out, |G|, C_in * |G|, kh * kw]``
        """
        moved = _gather_per_element(weight.flatten(2), tables["rotate_and_shift_index"])
        return moved.view(*moved.shape[:2], -1, math.prod(self.kernel_size))


@cache
def _rotate_index(group: Group, kernel_size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Return for each element the flat tap of ``k`` that each tap of ``L_g k`` is read from."""
    # In plain Python: under `torch.device("meta")` or a FakeTensorMode a tensor could not be read.
    rows, columns = kernel_size
    found = []
    for transpose, flip_rows, flip_columns in (grid_move(group, g) for g in range(group.order)):
        taps = [list(range(row * columns, (row + 1) * columns)) for row in range(rows)]
        taps = [list(column) for column in zip(*taps, strict=True)] if transpose else taps
        taps = taps[::-1] if flip_rows else taps
        found.append(tuple(tap for row in taps for tap in (row[::-1] if flip_columns else row)))
    return tuple(found)


@cache
def _rotate_and_shift_index(group: Group, kernel_size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Return the same for kernels on the group, ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``, with elements and taps flat."""
    area = math.prod(kernel_size)
    return tuple(
        tuple(plane * area + tap for plane in planes for tap in taps)
        for planes, taps in zip(_left_quotients(group), _rotate_index(group, kernel_size), strict=True)
    )


@cache
def _left_quotients(group: Group) -> tuple[tuple[int, ...], ...]:
    """Return the elements ``g^-1 h`` for all ``g`` and ``h``."""
    return tuple(group.products[group.inverse(g)] for g in range(group.order))


def _gather_per_element(weight: Tensor, index: Tensor) -> Tensor:
    """Read ``[O, J, S]`` at ``index [|G|, L]`` into ``[O, |G|, J, L]``, the layout of a convolution."""
    out, channels, _ = weight.shape
    order, length = index.shape
    spread = weight.unsqueeze(1).expand(-1, order, -1, -1)
    return spread.gather(3, index.view(1, order, 1, length).expand(out, -1, channels, -1))


@dataclass(frozen=True)
class SteerableFilters:
    """Kernels combined from a steerable basis, one matrix product for all.

    Every weight is a coefficient of a function of `steerable_basis`: the layout is that of `torch.nn.Conv2d`, with one
    axis of F coefficients in place of the two axes of the kernel. A kernel is transformed by replacing each function
    by its transformed version.

    Args:
        group: Any group.
        kernel_size: Rows and columns, which must be equal.
        max_error: As in `steerable_basis`.
        functions: As in `steerable_basis`.
        smoothing: As in `steerable_basis`.

    Raises:
        ValueError: ``kernel_size`` is not square, or `steerable_basis` refuses an argument.

    Example:
        >>> import torch
        >>> from gconv_ga.filters import SteerableFilters
        >>> from gconv_ga.groups import C8
        >>> filters = SteerableFilters(C8, (5, 5))
        >>> filters.rotate(torch.randn(8, 3, *filters.shape), filters.tables()).shape
        torch.Size([8, 8, 3, 25])
    """

    group: Group
    kernel_size: tuple[int, int]
    max_error: float | None = None
    functions: int | None = None
    smoothing: float = 0.25

    def __post_init__(self) -> None:
        rows, columns = self.kernel_size
        if rows != columns:
            advice = "a kernel that rotates by any angle cannot have a longer side"
            raise invalid("kernel_size", "square for filters='steerable'", self.kernel_size, advice)
        _ = self.basis  # raises if an argument is refused

    @property
    def basis(self) -> SteerableBasis:
        """The functions, computed once for all filters with these arguments."""
        return steerable_basis(
            self.group,
            self.kernel_size[0],
            max_error=self.max_error,
            functions=self.functions,
            smoothing=self.smoothing,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes of one kernel in the weight."""
        return (len(self.basis),)

    def tables(self) -> dict[str, Tensor]:
        """Return the tensors that `rotate` and `rotate_and_shift` look up, by name, as new tensors, floats in float64.

        A table that is rounded to a coarser dtype and then converted back has lost digits: make it anew instead.
        """
        count = len(self.basis)
        functions = self.basis.kernels.flatten(2).transpose(0, 1).contiguous()
        planes = torch.tensor(_left_quotients(self.group))
        tables = {
            "rotated_functions": functions,
            "shift_index": (planes.unsqueeze(2) * count + torch.arange(count)).flatten(1),
        }
        # Matrices as small as those of 3 x 3 kernels multiply twice as fast in pairs, zeros included: measured on a CPU
        # with 2 to 9 functions. At 5 x 5 pairs gain nothing.
        if functions.shape[2] <= 9 and self.group.order % 2 == 0:
            tables["rotated_pairs"] = torch.stack([torch.block_diag(each, each) for each in functions])
        return tables

    def variance(self, channels: float, *, rectified: bool) -> Tensor:
        """Return, per function, the variance of independent normal weights that preserves that of the activations.

        This is He's rule, with the energy of the kernels' output on photographs in place of the number of taps:
        neighbouring pixels are similar, so the output of a smooth kernel is far larger than on white noise.

        Args:
            channels: Number of input channels (times elements) that an output sums over.
            rectified: Whether the input has passed a ReLU, which halves its second moment.

        Shape:
            - output: ``[F]``, float64

        References:
            He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equation 10.
        """
        energy = self.basis.rectified_energy if rectified else self.basis.energy
        spread = torch.tensor(self.basis.spread, dtype=torch.float64)
        return spread.square() * (2.0 if rectified else 1.0) / (channels * energy)

    def rotate(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Transform every kernel by every element, ``L_g k``.

        Shape:
            - weight: ``[C_out, J, F]``
            - output: ``[C_out, |G|, J, k * k]``
        """
        return weight.unsqueeze(1) @ tables["rotated_functions"].to(weight.dtype)

    def rotate_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Transform every kernel on the group by every element, ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``.

        Shape:
            - weight: ``[C_out, C_in, |G|, F]``
            - output: ``[C_out, |G|, C_in * |G|, k * k]``
        """
        # Permute the planes before the product, while they have F numbers and not k^2.
        permuted = _gather_per_element(weight.flatten(2), tables["shift_index"])
        blocks = tables.get("rotated_pairs", tables["rotated_functions"]).to(weight.dtype)
        moved = permuted.view(*permuted.shape[:2], -1, blocks.shape[1]) @ blocks
        return moved.view(*moved.shape[:2], -1, self.kernel_size[0] ** 2)
