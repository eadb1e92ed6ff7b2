"""Free kernels turned by index moves: exact, for the groups of quarter turns and mirrors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .._validate import invalid
from ..actions import grid_move
from ..groups import Group


@lru_cache(maxsize=256)
def _turn_index(group: Group, kernel_size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """For each element the flat tap that each tap of ``L_g k`` is read from."""
    # In plain Python: under `torch.device("meta")` or a FakeTensorMode a tensor could not be read.
    rows, columns = kernel_size
    found = []
    for transpose, flip_rows, flip_columns in (grid_move(group, g) for g in range(group.order)):
        taps = [list(range(row * columns, (row + 1) * columns)) for row in range(rows)]
        taps = [list(column) for column in zip(*taps, strict=True)] if transpose else taps
        taps = taps[::-1] if flip_rows else taps
        found.append(tuple(tap for row in taps for tap in (row[::-1] if flip_columns else row)))
    return tuple(found)


@lru_cache(maxsize=256)
def _turn_and_shift_index(group: Group, kernel_size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """The same for kernels on the group: ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``, taps and elements flat."""
    area = math.prod(kernel_size)
    turned = _turn_index(group, kernel_size)
    return tuple(
        tuple(group.product(group.inverse(g), h) * area + tap for h in range(group.order) for tap in turned[g])
        for g in range(group.order)
    )


@dataclass(frozen=True)
class GridFilters:
    """Free weights to turned kernels by index moves, one gather each.

    Every weight is a tap of the kernel: the layout is `torch.nn.Conv2d`'s, with the element axis before the two of the
    kernel. A quarter turn or mirror of a kernel is a permutation of the same numbers, so nothing is interpolated.

    Args:
        group: C1, C2, C4, D1, D2 or D4.
        kernel_size: Rows and columns.

    Raises:
        ValueError: The group turns pixels between pixels.

    Example:
        >>> import torch
        >>> from gconv_ga.groups import C4
        >>> filters = GridFilters(C4, (3, 3))
        >>> filters.turn(torch.randn(8, 3, 3, 3), filters.tables()).shape
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
        """What `turn` and `turn_and_shift` need on the weight's device, by name; new tensors on the CPU."""
        return {
            "turn_index": torch.tensor(_turn_index(self.group, self.kernel_size)),
            "turn_and_shift_index": torch.tensor(_turn_and_shift_index(self.group, self.kernel_size)),
        }

    def variance(self, channels: float, *, rectified: bool) -> float:
        """The variance of independent normal weights that keeps the variance of what passes through (He).

        Args:
            channels: How many input channels (times elements) one output sums over.
            rectified: Whether the input has passed a ReLU, which halves its second moment.

        References:
            He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015, equation 10.
        """
        return (2.0 if rectified else 1.0) / (channels * math.prod(self.kernel_size))

    def turn(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Every kernel turned by every element, ``L_g k``.

        Shape:
            - weight: ``[C_out, J, kh, kw]``
            - output: ``[C_out, |G|, J, kh * kw]``
        """
        return gather_turned(weight.flatten(2), tables["turn_index"])

    def turn_and_shift(self, weight: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Every kernel on the group moved by every element, ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``.

        Shape:
            - weight: ``[C_out, C_in, |G|, kh, kw]``
            - output: ``[C_out, |G|, C_in * |G|, kh * kw]``
        """
        turned = gather_turned(weight.flatten(2), tables["turn_and_shift_index"])
        return turned.view(*turned.shape[:2], -1, math.prod(self.kernel_size))


def gather_turned(weight: Tensor, index: Tensor) -> Tensor:
    """``[O, J, S]`` read at ``index [|G|, L]`` into ``[O, |G|, J, L]``, already in a convolution's layout."""
    out, channels, _ = weight.shape
    order, length = index.shape
    spread = weight.unsqueeze(1).expand(-1, order, -1, -1)
    return spread.gather(3, index.view(1, order, 1, length).expand(out, -1, channels, -1))
