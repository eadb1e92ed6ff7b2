"""The taps of a group kernel along the element axis: the dial between averaging and convolution.

A kernel with few taps can be applied in two ways. Either all orientations of the input are convolved at once, with
zeros for the absent planes, or each orientation of the output gathers the few orientations that it depends on.
"""

from functools import cache, lru_cache

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ..groups import DihedralGroup, Group


@lru_cache(maxsize=256)
def nearest_elements(group: Group, count: int | None) -> tuple[int, ...]:
    """Return the ``count`` elements nearest the identity.

    They are sorted by angle, counter-clockwise first, and rotations come before reflections.

    Args:
        group: The group.
        count: Number of elements, ``1 .. |G|``. If None, all elements in the group's order.

    Raises:
        ValueError: ``count`` is out of range.

    Example:
        >>> from gconv_ga.nn.authoring import nearest_elements
        >>> from gconv_ga.groups import C8, D4
        >>> nearest_elements(C8, 3), nearest_elements(D4, 5)
        ((0, 1, 7), (0, 1, 3, 2, 4))
    """
    if count is None:
        return tuple(range(group.order))
    number = as_int("group_kernel_size", count, minimum=1)
    if number > group.order:
        raise invalid("group_kernel_size", f"an int from 1 to |G|={group.order}, or None for all", count)
    if number == group.order:
        return tuple(range(group.order))
    by_angle = sorted(range(group.n), key=lambda i: (min(i, group.n - i), i))
    reflections = [group.n + i for i in by_angle] if isinstance(group, DihedralGroup) else []
    return tuple((by_angle + reflections)[:number])


def gathering_is_faster(taps: int, order: int, fields: int) -> bool:
    """Return whether few taps are faster as a small convolution per orientation than as a large one with zeros.

    The small convolutions do ``taps / order`` of the work, but they reach their full speed only with many output
    channels, in multiples of eight. The slowdown per multiplication was measured on a CPU with 4 to 32 fields
    (benchmarks/layers.py, "taps").

    Args:
        taps: Number of elements that the kernel has planes for.
        order: Number of elements of the group.
        fields: Number of output fields in a block of channels.

    Example:
        >>> from gconv_ga.nn._taps import gathering_is_faster
        >>> [gathering_is_faster(2, 4, fields) for fields in (8, 11, 32)]
        [False, False, True]
    """
    slowdown = (1 + 16 / fields) * (1.8 if fields % 8 else 1.0)
    return taps * slowdown < order


def fill_absent_planes(weight: Tensor, taps: tuple[int, ...], group: Group) -> Tensor:
    """Extend a kernel to one plane per element of the group, with zeros where it has none.

    Args:
        weight: The free weights.
        taps: The elements that they have planes for.
        group: The group.

    Shape:
        - weight: ``[C_out, C_in, m, ...]``
        - output: ``[C_out, C_in, |G|, ...]``
    """
    if len(taps) == group.order:
        return weight
    planes = dict(zip(taps, weight.unbind(2), strict=True))
    zeros = torch.zeros_like(weight[:, :, 0])
    return torch.stack([planes.get(u, zeros) for u in range(group.order)], dim=2)


@cache
def neighbour_table(group: Group, taps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the elements ``g u`` for all ``g`` and taps ``u``: what the output at ``g`` depends on."""
    return tuple(tuple(row[u] for u in taps) for row in group.products)


@cache
def source_table(group: Group, taps: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the elements ``h u^-1`` for all ``h`` and taps ``u``: what a transposed convolution adds up at ``h``."""
    return neighbour_table(group, tuple(group.inverse(u) for u in taps))


def gather_neighbours(f: Tensor, neighbours: Tensor) -> Tensor:
    """Gather the maps ``f(., g u)`` at the taps ``u``, one block of channels for each orientation ``g``.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - neighbours: ``[|G|, m]``, the `neighbour_table`
        - output: ``[B, |G|, C m, H, W]``
    """
    return f[:, :, neighbours].transpose(1, 2).flatten(2, 3)
