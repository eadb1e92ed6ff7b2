"""Which elements a group kernel has taps for: the dial between averaging and convolution."""

from functools import lru_cache

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ..groups import DihedralGroup, Group


@lru_cache(maxsize=256)
def nearest_elements(group: Group, count: int | None) -> tuple[int, ...]:
    """The ``count`` elements nearest the identity: by angle, counter-clockwise first, rotations before mirrors.

    Args:
        group: The group.
        count: How many, ``1 .. |G|``; None for all, in the group's order.

    Raises:
        ValueError: ``count`` is out of range.

    Example:
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
    mirrors = [group.n + i for i in by_angle] if isinstance(group, DihedralGroup) else []
    return tuple((by_angle + mirrors)[:number])


def worth_gathering(taps: int, order: int, fields: int) -> bool:
    """Whether few taps are faster as a small convolution for each orientation than as one large one with zeros.

    The small ones do ``taps / order`` of the work, but reach their speed only with many output channels, in eights:
    measured on a CPU (benchmarks/layers.py, "taps") with 4 to 32 fields, they are that much slower for each multiply.

    Args:
        taps: The elements that a kernel has planes for.
        order: The elements of the group.
        fields: Output fields of a block of channels.

    Example:
        >>> [worth_gathering(2, 4, fields) for fields in (8, 11, 32)]
        [False, False, True]
    """
    slowness = (1 + 16 / fields) * (1.8 if fields % 8 else 1.0)
    return taps * slowness < order


def with_all_planes(weight: Tensor, taps: tuple[int, ...], group: Group) -> Tensor:
    """The kernel with a plane for each element: zeros where it has none.

    Args:
        weight: The free kernels.
        taps: The elements that they have planes for.
        group: The group.

    Shape:
        - weight: ``[C_out, C_in, m, ...]``
        - output: ``[C_out, C_in, |G|, ...]``
    """
    if len(taps) == group.order:
        return weight
    planes = dict(zip(taps, weight.unbind(2), strict=True))
    nothing = torch.zeros_like(weight[:, :, 0])
    return torch.stack([planes.get(u, nothing) for u in range(group.order)], dim=2)
