"""Statements 3 to 6: how rotations of the plane act on cross-correlation, lifting and the mean of the lifted maps."""

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
    r"""Statement 3: correlating a rotated image equals correlating the image with the kernel rotated back.

    ``k * (L_g f) = L_g ((L_g^-1 k) * f)``, where ``*`` is cross-correlation, ``(k * f)(y) = sum_u k(u) f(y + u)``, and
    ``(L_g f)(y) = f(g^-1 y)``.

    Why it holds::

        (k * (L_g f))(y) = sum_u k(u) f(g^-1 y + g^-1 u)      g^-1 is linear
                         = sum_v k(g v) f(g^-1 y + v)         v = g^-1 u: g maps the pixel grid to itself
                         = ((L_g^-1 k) * f)(g^-1 y)

    This is why a layer can rotate its kernels in place of the image. With ``L_g^-1 f`` for ``f`` it reads
    ``L_g (k * (L_g^-1 f)) = (L_g k) * f``. The outer ``L_g`` on the left is the correction term ``rho_2(g)`` of the
    group average. On the right it is absorbed: a layer that rotates the kernel needs no correction term.

    Where it fails: at angles that are not multiples of 90 degrees, which do not map the pixel grid to itself (they are
    refused), and for strides greater than 1, unless every orientation samples its own grid.

    The left side rotates the image, the right side the kernel and the result.

    Args:
        kernel: ``k``, of any size.
        image: ``f``.
        group: The group or its name.
        element: Index of the element ``g``, a multiple of 90 degrees, reflected or not.
        padding: Number of zeros on each side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, H', W']``, those of the rotated image

    Raises:
        ValueError: ``element`` does not map the pixel grid to itself, or the axes do not fit.

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
    group, act = _checked_group(kernel, image, group, element, padding), ScalarField()
    left = F.conv2d(act(image, group, element), kernel, padding=padding)
    rotated_kernel = act(kernel, group, group.inverse(element))
    right = act(F.conv2d(image, rotated_kernel, padding=padding), group, element)
    return Sides(left, right)


def correlation_commutes(kernel: Tensor, image: Tensor, group: Group | str, element: int, *, padding: int = 0) -> Sides:
    r"""Statement 4: rotating both the kernel and the image rotates their correlation.

    ``(L_g k) * (L_g f) = L_g (k * f)``, with ``*`` and ``L_g`` as in statement 3.

    Why it holds: it is statement 3 for the kernel ``L_g k``. Written out::

        ((L_g k) * (L_g f))(y) = sum_u k(g^-1 u) f(g^-1 y + g^-1 u)      g^-1 is linear
                               = sum_v k(v) f(g^-1 y + v)                v = g^-1 u: every pixel once
                               = (k * f)(g^-1 y)

    Where it fails: the proof uses that ``g`` is linear and that it preserves areas, ``|det g| = 1``, so that the
    substitution ``v = g^-1 u`` has no factor. A scaling is linear and changes areas: both sides differ by its
    determinant, see `scaling_counterexample`. A translation ``t`` preserves areas and is not linear:
    ``(L_t k) * (L_t f) = k * f``, which does not move at all, see `translation_counterexample`. Since translations are
    unitary, a unitary action is not the reason.

    Args:
        kernel: ``k``, of any size.
        image: ``f``.
        group: The group or its name.
        element: Index of the element ``g``, a multiple of 90 degrees, reflected or not.
        padding: Number of zeros on each side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, H', W']``, those of the rotated image

    Raises:
        ValueError: ``element`` does not map the pixel grid to itself, or the axes do not fit.

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
    group, act = _checked_group(kernel, image, group, element, padding), ScalarField()
    left = F.conv2d(act(image, group, element), act(kernel, group, element), padding=padding)
    right = act(F.conv2d(image, kernel, padding=padding), group, element)
    return Sides(left, right)


def lifting_rotates_and_shifts(
    kernel: Tensor, image: Tensor, group: Group | str, element: int, *, padding: int = 0
) -> Sides:
    r"""Statement 5: lifting a rotated image rotates each lifted map and shifts the maps along the element axis.

    ``[k * (L_h f)](g) = L_h [k * f](h^-1 g)``, with the lifting correlation ``[k * f](g) = (L_g k) * f``. So lifting is
    equivariant, from images to feature maps on the group. Written as an integral, ``[k * f](g) = int f(y) k(g^-1 y)
    dy``, the ``g`` is a point and a rotation, ``(x, R)`` in SE(2). Here ``g`` is the rotation alone (or a reflection),
    and ``x`` is the place in the map.

    Why it holds::

        [k * (L_h f)](g) = (L_g k) * (L_h f)
                         = L_h ((L_(h^-1 g) k) * f)      statement 3, for the kernel L_g k
                         = L_h [k * f](h^-1 g)

    For rotations ``g -> h^-1 g`` is a cyclic shift of the element axis. With reflections it is a permutation, a row of
    the group's Cayley table.

    Where it fails: where statement 3 does. Groups with other angles than multiples of 90 degrees are refused.

    The left side is `gconv_ga.nn.functional.lifting_conv2d` of the rotated image. The right side is
    `torch.nn.functional.conv2d` of the original image, element by element, then rotated and permuted.

    Args:
        kernel: ``k``, square if the group contains rotations by 90 degrees.
        image: ``f``.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        element: Index of the element ``h``.
        padding: Number of zeros on each side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, |G|, H', W']``, those of the rotated image

    Raises:
        ValueError: The group does not map the pixel grid to itself, or the axes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import lifting_rotates_and_shifts
        >>> kernel, image = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
        >>> sides = lifting_rotates_and_shifts(kernel, image, "C4", 1)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 4, 9, 6]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016.
    """
    group, act = on_grid(group), ScalarField()
    _check_axes(kernel, image, padding)
    left = lifting_conv2d(act(image, group, element), kernel, group, padding=padding)
    shifted = group.products[group.inverse(element)]  # h^-1 g for each g
    maps = [F.conv2d(image, act(kernel, group, g), padding=padding) for g in shifted]
    return Sides(left, torch.stack([act(plane, group, element) for plane in maps], dim=2))


def mean_of_lifting_is_group_average(
    kernel: Tensor, image: Tensor, group: Group | str, element: int = 0, *, padding: int = 0
) -> Sides:
    r"""Statement 6: the mean of the lifted maps is the group average of the plain correlation, and it is equivariant.

    ``1/|G| sum_g [k * (L_h f)](g) = L_h <k * .>_G(f)``. For the identity ``h``: a lifting layer followed by a mean over
    the element axis *is* test-time averaging of a plain convolution. Here the two roads meet.

    Why it holds, for the identity ``h``::

        1/|G| sum_g [k * f](g) = 1/|G| sum_g (L_g k) * f
                               = 1/|G| sum_g L_g (k * (L_g^-1 f))      statement 3, or 4
                               = <k * .>_G(f)

    For other ``h``, the average is equivariant by statement 1. Statement 5 gives the same: a permutation of the element
    axis does not change the mean over it.

    Where it fails: for another reduction. The maximum over the element axis is equivariant too, but it is not the group
    average. In a deeper network, the layers between lifting and mean must not mix orientations
    (``group_kernel_size=1``).

    The left side is `gconv_ga.nn.functional.lifting_conv2d` of the rotated image, pooled: it rotates the kernels. The
    right side is `gconv_ga.averaging.GroupAverage` of `torch.nn.functional.conv2d` for the original image, rotated: it
    rotates the images.

    Args:
        kernel: ``k``, square if the group contains rotations by 90 degrees.
        image: ``f``.
        group: C1, C2, C4, D1, D2 or D4, or its name.
        element: Index of the element ``h``.
        padding: Number of zeros on each side of the image.

    Shape:
        - kernel: ``[C_out, C_in, kh, kw]``
        - image: ``[B, C_in, H, W]``
        - both sides: ``[B, C_out, H', W']``, those of the rotated image

    Raises:
        ValueError: The group does not map the pixel grid to itself, or the axes do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import mean_of_lifting_is_group_average
        >>> kernel, image = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
        >>> sides = mean_of_lifting_is_group_average(kernel, image, "D4")
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 6, 9]), True)

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, for lifting. Puny et al., "Frame
        averaging for invariant and equivariant network design", ICLR 2022, for the average.
    """
    group, act = on_grid(group), ScalarField()
    _check_axes(kernel, image, padding)
    left = group_pool(lifting_conv2d(act(image, group, element), kernel, group, padding=padding), group)
    average = GroupAverage(lambda x: F.conv2d(x, kernel, padding=padding), group)
    return Sides(left, act(average(image), group, element))


def _checked_group(kernel: Tensor, image: Tensor, group: Group | str, element: int, padding: int) -> Group:
    """Return the group, if the element maps the pixel grid to itself and the tensors can be correlated."""
    _check_axes(kernel, image, padding)
    group = as_group(group)
    if not group.is_exact(element):
        raise invalid("element", f"a multiple of 90 degrees in {group.name}, reflected or not", element)
    return group


def on_grid(group: Group | str) -> Group:
    """Return the group, if all of its elements map the pixel grid to itself.

    Raises:
        ValueError: One does not.
    """
    group = as_group(group)
    if not group.is_exact():
        advice = "elements at other angles do not map the pixel grid to itself, and the equation holds only nearly"
        raise invalid("group", "C1, C2, C4, D1, D2 or D4", group, advice)
    return group


def _check_axes(kernel: Tensor, image: Tensor, padding: int) -> None:
    if kernel.ndim != 4:
        raise wrong_shape("kernel", "[C_out, C_in, kh, kw]", kernel)
    if image.ndim != 4 or image.shape[1] != kernel.shape[1]:
        raise wrong_shape("image", f"[B, C_in={kernel.shape[1]}, H, W]", image)
    as_int("padding", padding, minimum=0)
