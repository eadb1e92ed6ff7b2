"""Statements 10 and 11: the action on feature maps on the group, and correlations between them.

One side of each is computed from the matrices of the elements and the coordinates of the pixels alone. So an error in
the direction of a rotation or of a shift shows, although all layers may share it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._validate import as_int, invalid, wrong_shape
from ..actions import RegularField
from ..groups import Group, as_group
from ..nn.functional import group_conv2d
from ._correlations import on_grid
from ._sides import Sides


def regular_field_rotates_and_shifts(feature_map: Tensor, group: Group | str, element: int) -> Sides:
    r"""Statement 10: the group acts on feature maps on the group by rotating each plane and permuting the planes.

    ``(L_h f)(y, g) = f(h^-1 y, h^-1 g)``: the plane that arrives at position ``g`` comes from position ``h^-1 g``.

    Why this direction: ``L_h`` is a representation, ``L_h L_h' = L_(h h')``, as for images::

        (L_h (L_h' f))(y, g) = (L_h' f)(h^-1 y, h^-1 g)
                             = f(h'^-1 h^-1 y, h'^-1 h^-1 g)
                             = f((h h')^-1 y, (h h')^-1 g)

    and lifting is equivariant with it (statement 5). Rotations of ``C_n`` shift the element axis cyclically; rotation
    by one step takes plane 0 to position 1.

    Where it fails: if planes move in the other direction, ``f(h^-1 y, h g)``, or in the plane only, ``f(h^-1 y, g)``.
    At angles that are not multiples of 90 degrees the planes are interpolated; such elements are refused here.

    The left side is `gconv_ga.actions.RegularField`. The right side reads each pixel from its coordinates, x to the
    right and y up, by the matrices of the elements alone: it uses no Cayley table and no `torch.rot90`.

    Args:
        feature_map: ``f``.
        group: The group or its name.
        element: Index of the element ``h``, a multiple of 90 degrees, reflected or not.

    Shape:
        - feature_map: ``[B, C, |G|, H, W]``
        - both sides: ``[B, C, |G|, H, W]`` or ``[B, C, |G|, W, H]``

    Raises:
        ValueError: ``element`` does not map the pixel grid to itself, or the axes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import regular_field_rotates_and_shifts
        >>> feature_map = torch.randn(1, 2, 8, 5, 6)
        >>> sides = regular_field_rotates_and_shifts(feature_map, "D4", 5)
        >>> sides.left.shape, sides.error
        (torch.Size([1, 2, 8, 6, 5]), 0.0)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016.
    """
    group = _checked_group(feature_map, group, element)
    return Sides(RegularField()(feature_map, group, element), _moved_by_matrices(feature_map, group, element))


def group_correlation_is_equivariant(
    kernel: Tensor, feature_map: Tensor, group: Group | str, element: int, *, padding: int = 0
) -> Sides:
    r"""Statement 11: a group correlation commutes with the action on feature maps on the group.

    ``k * (L_h f) = L_h (k * f)``, with ``[k * f](g) = sum_h' (L_g k)(., h') * f(., h')``, where kernels are moved as
    feature maps are, ``(L_g k)(u, h') = k(g^-1 u, g^-1 h')``.

    Why it holds::

        [k * (L_h f)](g) = sum_h' (L_g k)(., h') * (L_h f)(., h')
                         = sum_h' L_h ((L_(h^-1 g) k)(., h^-1 h') * f(., h^-1 h'))      statement 3, plane by plane
                         = L_h sum_h'' (L_(h^-1 g) k)(., h'') * f(., h'')               h' = h h'': over G again
                         = (L_h [k * f])(g)                                             statement 10

    Where it fails: for kernels whose planes do not shift as those of the feature maps do, and where statement 3 does.

    The left side is `gconv_ga.nn.functional.group_conv2d` of the moved feature map. The right side is the sum written
    out for the original feature map with `torch.nn.functional.conv2d`, then moved. It moves kernels and result by the
    matrices of the elements alone, as the right side of statement 10 does.

    Args:
        kernel: ``k``, with a plane for each element; square if the group contains rotations by 90 degrees.
        feature_map: ``f``.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        element: Index of the element ``h``.
        padding: Number of zeros on each side of the planes.

    Shape:
        - kernel: ``[C_out, C_in, |G|, kh, kw]``
        - feature_map: ``[B, C_in, |G|, H, W]``
        - both sides: ``[B, C_out, |G|, H', W']``, those of the moved feature map

    Raises:
        ValueError: The group does not map the pixel grid to itself, or the axes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import group_correlation_is_equivariant
        >>> kernel = torch.randn(2, 3, 4, 3, 3, dtype=torch.float64)
        >>> feature_map = torch.randn(1, 3, 4, 8, 11, dtype=torch.float64)
        >>> sides = group_correlation_is_equivariant(kernel, feature_map, "C4", 1)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 4, 9, 6]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016.
    """
    group = _checked_group(feature_map, on_grid(group), element)
    if kernel.ndim != 5 or kernel.shape[1:3] != feature_map.shape[1:3]:
        raise wrong_shape("kernel", f"[C_out, C_in={feature_map.shape[1]}, |G|={group.order}, kh, kw]", kernel)
    as_int("padding", padding, minimum=0)
    left = group_conv2d(RegularField()(feature_map, group, element), kernel, group, padding=padding)
    maps = []
    for g in range(group.order):
        # The sum over planes is that over channels.
        moved_kernel = _moved_by_matrices(kernel, group, g)
        maps.append(F.conv2d(feature_map.flatten(1, 2), moved_kernel.flatten(1, 2), padding=padding))
    return Sides(left, _moved_by_matrices(torch.stack(maps, dim=2), group, element))


def _moved_by_matrices(planes: Tensor, group: Group, element: int) -> Tensor:
    """Return ``(y, g) -> f(h^-1 y, h^-1 g)``, from the matrices of the elements and the coordinates of the pixels.

    Shape:
        - planes: ``[..., |G|, H, W]``
    """
    matrices = group.matrices
    back = matrices[element].mT  # the inverse of an orthogonal matrix
    distances = (back @ matrices).unsqueeze(1) - matrices
    sources = distances.abs().amax((-2, -1)).argmin(1).to(planes.device)  # h^-1 g for each g
    height, width = planes.shape[-2:]
    swaps = bool(back[0, 0].abs() < 0.5)
    new_height, new_width = (width, height) if swaps else (height, width)
    right = torch.arange(new_width, dtype=torch.float64) - (new_width - 1) / 2
    up = (new_height - 1) / 2 - torch.arange(new_height, dtype=torch.float64)
    position = torch.stack(torch.meshgrid(right, up, indexing="xy"), -1) @ back.mT  # h^-1 y for each pixel y
    columns = (position[..., 0] + (width - 1) / 2).round().long().to(planes.device)
    rows = ((height - 1) / 2 - position[..., 1]).round().long().to(planes.device)
    return planes.index_select(-3, sources)[..., rows, columns]


def _checked_group(feature_map: Tensor, group: Group | str, element: int) -> Group:
    """Return the group, if the element maps the pixel grid to itself and the feature map is one on the group."""
    group = as_group(group)
    if not group.is_exact(element):
        raise invalid("element", f"a multiple of 90 degrees in {group.name}, reflected or not", element)
    if feature_map.ndim != 5 or feature_map.shape[2] != group.order:
        raise wrong_shape("feature_map", f"[B, C, |G|={group.order}, H, W]", feature_map)
    return group
