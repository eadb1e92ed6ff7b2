"""Statements 3 and 4: how turning and plane cross-correlation pass each other."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._validate import as_int, invalid, wrong_shape
from ..actions import ScalarField
from ..averaging import GroupAverage
from ..groups import Group, as_group
from ..nn.functional import group_pool, lifting_conv2d
from ._sides import Sides


def kernel_rotation(kernel: Tensor, image: Tensor, group: Group | str, element: int, *, padding: int = 0) -> Sides:
    r"""Statement 3, a turned image meets the kernel as the image meets the kernel turned back.

    ``k * (L_g f) = L_g((L_g^-1 k) * f)``, where ``*`` is cross-correlation, ``(k * f)(y) = sum_u k(u) f(y + u)``, and
    ``(L_g f)(y) = f(g^-1 y)``::

        (k * L_g f)(y) = sum_u k(u) f(g^-1 y + g^-1 u)
                       = sum_v k(g v) f(g^-1 y + v)            v = g^-1 u: a turn maps the pixel grid to itself
                       = ((L_g^-1 k) * f)(g^-1 y)

    This is why a layer may turn its kernels and leave the image in peace. The left side turns the image, the right
    side the kernel and the result.

    Args:
        kernel: ``k``, of any size.
        image: ``f``.
        group: The group or its name.
        element: The element ``g``: a multiple of 90 degrees, mirrored or not.
        padding: Zeros on every side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, H', W']``, those of the turned image

    Raises:
        ValueError: ``element`` turns pixels between pixels, or the axes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import kernel_rotation
        >>> kernel, image = torch.randn(2, 3, 3, 5, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
        >>> sides = kernel_rotation(kernel, image, "C4", 1)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 9, 4]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016.
    """
    group, turn = _checked(kernel, image, group, element, padding), ScalarField()
    back = group.inverse(element)
    left = F.conv2d(turn(image, group, element), kernel, padding=padding)
    right = turn(F.conv2d(image, turn(kernel, group, back), padding=padding), group, element)
    return Sides(left, right)


def correlation_commutes(kernel: Tensor, image: Tensor, group: Group | str, element: int, *, padding: int = 0) -> Sides:
    r"""Statement 4, turning both turns the result: ``(L_g k) * (L_g f) = L_g (k * f)``.

    Statement 3 for the kernel ``L_g k``. Written out, with ``*`` and ``L_g`` as there::

        ((L_g k) * (L_g f))(y) = sum_u k(g^-1 u) f(g^-1 y + g^-1 u)
                               = sum_v k(v) f(g^-1 y + v)      v = g^-1 u
                               = (k * f)(g^-1 y)

    The step ``v = g^-1 u`` counts every pixel once because a turn keeps areas. Where an action does not, the equation
    is wrong by its determinant: see `scaling_counterexample`.

    Args:
        kernel: ``k``, of any size.
        image: ``f``.
        group: The group or its name.
        element: The element ``g``: a multiple of 90 degrees, mirrored or not.
        padding: Zeros on every side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, H', W']``, those of the turned image

    Raises:
        ValueError: ``element`` turns pixels between pixels, or the axes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import correlation_commutes
        >>> kernel, image = torch.randn(2, 3, 3, 5, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
        >>> sides = correlation_commutes(kernel, image, "D4", 5)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 7, 6]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016.
    """
    group, turn = _checked(kernel, image, group, element, padding), ScalarField()
    left = F.conv2d(turn(image, group, element), turn(kernel, group, element), padding=padding)
    right = turn(F.conv2d(image, kernel, padding=padding), group, element)
    return Sides(left, right)


def _checked(kernel: Tensor, image: Tensor, group: Group | str, element: int, padding: int) -> Group:
    check_axes(kernel, image, padding)
    group = as_group(group)
    if not group.is_exact(element):
        raise invalid("element", f"a multiple of 90 degrees in {group.name}, mirrored or not", element)
    return group


def check_axes(kernel: Tensor, image: Tensor, padding: int) -> None:
    """Refuse what cannot be correlated.

    Raises:
        ValueError: The axes do not fit, or the padding is negative.
    """
    if kernel.ndim != 4:
        raise wrong_shape("kernel", "[C_out, C_in, kh, kw]", kernel)
    if image.ndim != 4 or image.shape[1] != kernel.shape[1]:
        raise wrong_shape("image", f"[B, C_in={kernel.shape[1]}, H, W]", image)
    as_int("padding", padding, minimum=0)


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
        >>> from gconv_ga.identities import lifting_turns_and_shifts
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
        >>> from gconv_ga.identities import mean_of_lifting_is_group_average
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
