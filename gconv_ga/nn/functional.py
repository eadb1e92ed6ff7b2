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

from .._validate import as_pair, one_of, wrong_shape
from ..filters import GridFilters
from ..groups import Group, as_group
from ._correlate import correlate
from ._geometry import (
    fill_absent_planes,
    gather_neighbours,
    gathering_is_faster,
    make_geometry,
    nearest_elements,
    neighbour_table,
)
from ._layers import cosets, pool_cosets

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
    """Apply a lifting correlation, ``[k * f](g) = (L_g k) * f``; the functional form of `LiftingConv2d`.

    Args:
        x: The image.
        weight: The free kernels.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        bias: One number per field.
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
        ValueError: The shapes do not match, or the group has rotations that do not map pixels to pixels.

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
    kernels = filters.rotate(weight, _tables_on(weight.device, filters))
    strides, dilations = as_pair("stride", stride, minimum=1), as_pair("dilation", dilation, minimum=1)
    geometry = make_geometry(symmetry, filters.kernel_size, strides, padding, dilations)
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
    """Apply a group correlation, ``[k * f](g) = sum_h (L_g k)(., h) * f(., h)``; the functional form of `GroupConv2d`.

    Args:
        f: The feature map on the group.
        weight: The free kernels. If they have fewer than ``|G|`` planes, these belong to the elements nearest the
            identity.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        bias: One number per field.
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
        ValueError: The shapes do not match, or the group has rotations that do not map pixels to pixels.

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
    tables = _tables_on(weight.device, filters)
    strides, dilations = as_pair("stride", stride, minimum=1), as_pair("dilation", dilation, minimum=1)
    geometry = make_geometry(symmetry, filters.kernel_size, strides, padding, dilations)
    if gathering_is_faster(len(taps), symmetry.order, weight.shape[0] // groups):
        neighbours = torch.tensor(neighbour_table(symmetry, taps), device=f.device)
        x, kernels = gather_neighbours(f, neighbours), filters.rotate(weight.flatten(1, 2), tables)
    else:
        x, kernels = f.flatten(1, 2), filters.rotate_and_shift(fill_absent_planes(weight, taps, symmetry), tables)
    return correlate(x, kernels, bias, geometry, groups, padding_mode)


def _tables_on(device: torch.device, filters: GridFilters) -> dict[str, Tensor]:
    return {name: table.to(device) for name, table in filters.tables().items()}


def group_pool(f: Tensor, group: Group | str, reduction: str = "mean", *, to: Group | str | None = None) -> Tensor:
    """Pool over group elements by the mean or the maximum; the functional form of `GroupPool`.

    Args:
        f: The feature map on the group.
        group: The group or its name.
        reduction: "mean" or "max".
        to: A subgroup or its name. If None, pool over all elements.

    Shape:
        - f: ``[B, C, |G|, H, W]``
        - output: ``[B, C, H, W]``, or ``[B, C, |H|, H, W]`` with ``to``

    Raises:
        ValueError: The shape does not match, ``to`` is not a subgroup, or ``reduction`` is not one of those listed.

    Example:
        >>> import torch
        >>> from gconv_ga.nn.functional import group_pool
        >>> maps = torch.arange(8.0).view(1, 1, 8, 1, 1)
        >>> group_pool(maps, "D4", "max", to="C4").flatten()  # each rotation with its reflection
        tensor([4., 5., 6., 7.])
    """
    symmetry = as_group(group)
    one_of("reduction", reduction, ("mean", "max"))
    return pool_cosets(f, symmetry, None if to is None else cosets(symmetry, to), reduction)
