"""The layers as functions of their weights, for derivations and for weights made elsewhere.

Example:
    >>> import torch
    >>> from gconv_ga.groups import C4
    >>> from gconv_ga.nn.functional import group_pool, lifting_conv2d
    >>> maps = lifting_conv2d(torch.randn(1, 3, 9, 9), torch.randn(8, 3, 3, 3), C4, padding=1)
    >>> maps.shape, group_pool(maps, C4).shape
    (torch.Size([1, 8, 4, 9, 9]), torch.Size([1, 8, 9, 9]))
"""

import torch
from torch import Tensor

from .._validate import as_pair, invalid, one_of, wrong_shape
from ..filters import GridFilters
from ..groups import Group, as_group
from ._correlate import correlate
from ._geometry import make_geometry, take
from ._kernels import nearest_elements, with_all_planes, worth_gathering

__all__ = ["group_conv2d", "group_pool", "lifting_conv2d"]


def lifting_conv2d(
    x: Tensor,
    weight: Tensor,
    group: Group | str,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Lifting correlation, ``[k * f](g) = (L_g k) * f``: the function behind `LiftingConv2d`.

    Args:
        x: The image.
        weight: The free kernels.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        bias: One number for each field.
        stride: As in `torch.nn.functional.conv2d`.
        padding: As in `torch.nn.functional.conv2d`.
        dilation: As in `torch.nn.functional.conv2d`.
        groups: As in `torch.nn.functional.conv2d`.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shape:
        - x: ``[B, C_in, H, W]``
        - weight: ``[C_out, C_in / groups, kh, kw]``
        - output: ``[B, C_out, |G|, H', W']``

    Raises:
        ValueError: The axes do not fit, or the group turns pixels between pixels.

    Example:
        >>> import torch
        >>> from gconv_ga.nn.functional import lifting_conv2d
        >>> lifting_conv2d(torch.randn(1, 3, 9, 12), torch.randn(8, 3, 3, 3), "C4").shape
        torch.Size([1, 8, 4, 7, 10])
    """
    symmetry = as_group(group)
    if weight.ndim != 4:
        raise wrong_shape("weight", "[C_out, C_in / groups, kh, kw]", weight)
    if x.ndim != 4 or x.shape[1] != weight.shape[1] * groups:
        raise wrong_shape("x", f"[B, C={weight.shape[1] * groups}, H, W]", x)
    filters = GridFilters(symmetry, (weight.shape[2], weight.shape[3]))
    kernels = filters.turn(weight, _tables(filters, weight))
    windows = as_pair("stride", stride, minimum=1), padding, as_pair("dilation", dilation, minimum=1)
    geometry = make_geometry(symmetry, filters.kernel_size, *windows)
    return correlate(x, kernels, bias, geometry, groups, padding_mode)


def group_conv2d(
    f: Tensor,
    weight: Tensor,
    group: Group | str,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Group correlation, ``[k * f](g) = sum_h (L_g k)(., h) * f(., h)``: the function behind `GroupConv2d`.

    Args:
        f: The map on the group.
        weight: The free kernels; with fewer than ``|G|`` planes they belong to the elements nearest the identity.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        bias: One number for each field.
        stride: As in `torch.nn.functional.conv2d`.
        padding: As in `torch.nn.functional.conv2d`.
        dilation: As in `torch.nn.functional.conv2d`.
        groups: As in `torch.nn.functional.conv2d`.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shape:
        - f: ``[B, C_in, |G|, H, W]``
        - weight: ``[C_out, C_in / groups, m, kh, kw]``, m from 1 to ``|G|``
        - output: ``[B, C_out, |G|, H', W']``

    Raises:
        ValueError: The axes do not fit, or the group turns pixels between pixels.

    Example:
        >>> import torch
        >>> from gconv_ga.nn.functional import group_conv2d
        >>> group_conv2d(torch.randn(1, 3, 8, 9, 9), torch.randn(5, 3, 8, 3, 3), "D4").shape
        torch.Size([1, 5, 8, 7, 7])
    """
    symmetry = as_group(group)
    if weight.ndim != 5:
        raise wrong_shape("weight", "[C_out, C_in / groups, m, kh, kw]", weight)
    taps = nearest_elements(symmetry, weight.shape[2])
    if f.ndim != 5 or f.shape[1] != weight.shape[1] * groups or f.shape[2] != symmetry.order:
        raise wrong_shape("f", f"[B, C={weight.shape[1] * groups}, |G|={symmetry.order}, H, W]", f)
    filters = GridFilters(symmetry, (weight.shape[3], weight.shape[4]))
    tables = _tables(filters, weight)
    windows = as_pair("stride", stride, minimum=1), padding, as_pair("dilation", dilation, minimum=1)
    geometry = make_geometry(symmetry, filters.kernel_size, *windows)
    if worth_gathering(len(taps), symmetry.order, weight.shape[0] // groups):
        index = torch.tensor([[symmetry.product(g, u) for u in taps] for g in range(symmetry.order)], device=f.device)
        x, kernels = neighbours(f, index), filters.turn(weight.flatten(1, 2), tables)
    else:
        x, kernels = f.flatten(1, 2), filters.turn_and_shift(with_all_planes(weight, taps, symmetry), tables)
    return correlate(x, kernels, bias, geometry, groups, padding_mode)


def neighbours(f: Tensor, index: Tensor) -> Tensor:
    """For each ``g`` the maps ``f(., g u)`` at the taps ``u``, one block of channels for each orientation.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - index: ``[|G|, m]``, the elements ``g u``
        - output: ``[B, |G|, C m, H, W]``
    """
    return f[:, :, index].transpose(1, 2).flatten(2, 3)


def group_pool(f: Tensor, group: Group | str, reduction: str = "mean", *, to: Group | str | None = None) -> Tensor:
    """Mean or maximum over elements: the function behind `GroupPool`.

    Args:
        f: The map on the group.
        group: The group or its name.
        reduction: "mean" or "max".
        to: A subgroup; None pools over all elements.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - output: ``[B, C, H, W]``, or ``[B, C, |H|, H, W]`` with ``to``

    Raises:
        ValueError: The axes do not fit, or an option is none of those listed.

    Example:
        >>> import torch
        >>> from gconv_ga.nn.functional import group_pool
        >>> maps = torch.arange(8.0).view(1, 1, 8, 1, 1)
        >>> group_pool(maps, "D4", "max", to="C4").flatten()  # each rotation with its mirror image
        tensor([4., 5., 6., 7.])
    """
    symmetry = as_group(group)
    one_of("reduction", reduction, ("mean", "max"))
    if f.ndim != 5 or f.shape[2] != symmetry.order:
        raise wrong_shape("input", f"[B, C, |G|={symmetry.order}, H, W]", f)
    if to is not None:
        # [B, C, coset, |H|, H, W]: the coset axis is the one to pool.
        f = torch.stack([take(f, members, 2) for members in _cosets(symmetry, subgroup_elements(symmetry, to))], dim=2)
    return f.mean(2) if reduction == "mean" else f.amax(2)


def subgroup_elements(group: Group, to: Group | str) -> tuple[int, ...]:
    """Where the elements of a subgroup are in the group.

    Raises:
        ValueError: ``to`` is no group, or none of the subgroups.
    """
    subgroup = as_group(to, "to")
    try:
        return group.subgroup(subgroup)
    except ValueError:
        raise invalid("to", f"a subgroup of {group.name}", to) from None


def _cosets(group: Group, subgroup: tuple[int, ...]) -> list[list[int]]:
    """The cosets ``H t``, each in the order of the subgroup, ``t`` the first element of each."""
    representatives: list[int] = []
    seen: set[int] = set()
    for t in range(group.order):
        if t not in seen:
            representatives.append(t)
            seen.update(group.product(h, t) for h in subgroup)
    return [[group.product(h, t) for h in subgroup] for t in representatives]


def _tables(filters: GridFilters, weight: Tensor) -> dict[str, Tensor]:
    return {name: table.to(weight.device) for name, table in filters.tables().items()}
