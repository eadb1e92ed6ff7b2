"""Statements 5 and 6: lifting turns and shifts, and its mean is the group average of plain correlation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..actions import ScalarField
from ..averaging import GroupAverage
from ..groups import Group, as_group
from ..nn.functional import group_pool, lifting_conv2d
from ._correlations import check_axes
from ._sides import Sides


def lifting_turns_and_shifts(
    kernel: Tensor, image: Tensor, group: Group | str, element: int, *, padding: int = 0
) -> Sides:
    r"""Statement 5, lifting a turned image turns every map in the plane and shifts the maps along the element axis.

    With the lifting correlation ``[k * f](g) = (L_g k) * f``::

        [k * L_u f](g) = (L_g k) * (L_u f)
                       = L_u ((L_(u^-1 g) k) * f)              statement 3
                       = L_u [k * f](u^-1 g)

    For rotations ``g -> u^-1 g`` is a cyclic shift of the element axis; with mirrors it is the permutation of the
    group's Cayley table. So lifting is equivariant, from images to maps on the group.

    The left side is `gconv_ga.nn.functional.lifting_conv2d` of the turned image. The right side is plain
    `torch.nn.functional.conv2d` of the upright image, element by element, then turned and put in order.

    Args:
        kernel: ``k``; square if the group has quarter turns.
        image: ``f``.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        element: The element ``u``.
        padding: Zeros on every side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, |G|, H', W']``, those of the turned image

    Raises:
        ValueError: The group turns pixels between pixels, or the axes do not fit.

    Example:
        >>> import torch
        >>> kernel, image = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
        >>> sides = lifting_turns_and_shifts(kernel, image, "C4", 1)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 4, 9, 6]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016.
    """
    group, turn = as_group(group), ScalarField()
    check_axes(kernel, image, padding)
    left = lifting_conv2d(turn(image, group, element), kernel, group, padding=padding)
    back = group.inverse(element)
    maps = []
    for g in range(group.order):
        before = turn(kernel, group, group.product(back, g))
        maps.append(turn(F.conv2d(image, before, padding=padding), group, element))
    return Sides(left, torch.stack(maps, dim=2))


def mean_of_lifting_is_group_average(
    kernel: Tensor, image: Tensor, group: Group | str, element: int = 0, *, padding: int = 0
) -> Sides:
    r"""Statement 6, the mean of the lifted maps is the group average of plain correlation, and it is equivariant.

    ``1/|G| sum_g [k * L_u f](g) = L_u <k * .>_G(f)``. For the identity ``u``::

        1/|G| sum_g [k * f](g) = 1/|G| sum_g (L_g k) * f
                               = 1/|G| sum_g L_g (k * (L_g^-1 f))              statement 3, or 4
                               = <k * .>_G(f)

    and for other ``u`` statement 1 says that the average is equivariant; or statement 5, since a shift along the
    element axis does not change the mean. The two roads meet here: a lifting layer pooled by the mean *is* test-time
    averaging of a plain convolution.

    The left side is `gconv_ga.nn.functional.lifting_conv2d` of the turned image, pooled: kernels turn. The right side
    is `gconv_ga.averaging.GroupAverage` of `torch.nn.functional.conv2d` for the upright image, turned: images turn.

    Args:
        kernel: ``k``; square if the group has quarter turns.
        image: ``f``.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        element: The element ``u``.
        padding: Zeros on every side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, H', W']``, those of the turned image

    Raises:
        ValueError: The group turns pixels between pixels, or the axes do not fit.

    Example:
        >>> import torch
        >>> kernel, image = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
        >>> sides = mean_of_lifting_is_group_average(kernel, image, "D4")
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 6, 9]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, for the lifting; Puny et al., "Frame
        averaging for invariant and equivariant network design", ICLR 2022, for the average.
    """
    group, turn = as_group(group), ScalarField()
    check_axes(kernel, image, padding)
    left = group_pool(lifting_conv2d(turn(image, group, element), kernel, group, padding=padding), group)
    average = GroupAverage(lambda x: F.conv2d(x, kernel, padding=padding), group)
    return Sides(left, turn(average(image), group, element))
