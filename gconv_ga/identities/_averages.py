"""Statements 1, 2 and 7: properties of the group average of any module."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..actions import Action, Invariant, as_action
from ..averaging import GroupAverage
from ..groups import Group, as_group
from ._sides import Sides


def average_is_equivariant(
    module: Callable[[Tensor], Tensor],
    group: Group | str,
    x: Tensor,
    element: int,
    in_action: Action | str = "scalar",
    out_action: Action | str = "scalar",
) -> Sides:
    r"""Statement 1: the group average of any module is equivariant.

    ``<Phi>_G(rho_1(g) x) = rho_2(g) <Phi>_G(x)``, where ``<Phi>_G(x) = 1/|G| sum_h rho_2(h) Phi(rho_1(h)^-1 x)``.

    Why it holds, for any function ``Phi``::

        <Phi>_G(rho_1(g) x) = 1/|G| sum_h rho_2(h) Phi(rho_1(g^-1 h)^-1 x)      rho_1 is a representation
                            = 1/|G| sum_h' rho_2(g h') Phi(rho_1(h')^-1 x)      h = g h': the sum is over G again
                            = rho_2(g) <Phi>_G(x)                               rho_2 is a linear representation

    Where it fails: for a sum over a set of elements that is not a group, and for a module that draws random numbers. At
    angles that are not multiples of 90 degrees images are interpolated, so ``rho_1`` and ``rho_2`` are representations
    only up to interpolation, and so is the equation.

    The left side is `gconv_ga.averaging.GroupAverage` of the transformed input. The right side is the sum written out
    for the original input, with one call of the module for each element, and then transformed.

    Args:
        module: ``Phi``, from one tensor to one tensor. Put it in eval mode if it depends on the rest of the batch
            (BatchNorm) or draws random numbers (dropout).
        group: The group ``G`` or its name.
        x: The input.
        element: Index of the element ``g``.
        in_action: ``rho_1``.
        out_action: ``rho_2``. If it has a size, such as `Keypoints`, give that of ``x``.

    Shape:
        - x: ``[B, ...]`` with the axes that ``in_action`` takes
        - both sides: as the module's output

    Raises:
        ValueError: ``element`` is not an element of the group, or an argument does not fit the actions.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import average_is_equivariant
        >>> net = torch.nn.Conv2d(1, 2, 3, stride=2, dtype=torch.float64)
        >>> sides = average_is_equivariant(net, "D4", torch.randn(1, 1, 8, 11, dtype=torch.float64), element=5)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 5, 3]), True)

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022. For permutations:
        Murphy, Srinivasan, Rao, Ribeiro, "Janossy pooling", ICLR 2019.
    """
    group, rho_1, rho_2 = as_group(group), as_action(in_action, "in_action"), as_action(out_action, "out_action")
    transformed = rho_1(x, group, element)
    average = GroupAverage(module, group, rho_1.after(group, element), rho_2.after(group, element))
    return Sides(average(transformed), rho_2(_average_by_definition(module, group, x, rho_1, rho_2), group, element))


def average_keeps_equivariant(
    module: Callable[[Tensor], Tensor],
    group: Group | str,
    x: Tensor,
    in_action: Action | str = "scalar",
    out_action: Action | str = "scalar",
) -> Sides:
    r"""Statement 2: averaging does not change a module that is already equivariant.

    ``<Phi>_G = Phi`` if ``Phi(rho_1(h) x) = rho_2(h) Phi(x)`` for every ``h``.

    Why it holds: every term of the average is the same::

        rho_2(h) Phi(rho_1(h)^-1 x) = rho_2(h) rho_2(h)^-1 Phi(x) = Phi(x)

    So averaging is a projection onto the equivariant maps, and it loses no equivariant map that the module can
    represent.

    Where it fails: for a module that is not equivariant under all of ``G``. Then the left side is equivariant by
    statement 1, and the right side is not.

    The left side is `gconv_ga.averaging.GroupAverage`, the right side the module alone.

    Args:
        module: ``Phi``, from one tensor to one tensor.
        group: The group ``G`` or its name.
        x: The input.
        in_action: ``rho_1``.
        out_action: ``rho_2``.

    Shape:
        - x: ``[B, ...]`` with the axes that ``in_action`` takes
        - both sides: as the module's output

    Raises:
        ValueError: An argument does not fit the actions.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import average_keeps_equivariant
        >>> x = torch.randn(1, 1, 8, 11, dtype=torch.float64)
        >>> average_keeps_equivariant(torch.nn.AvgPool2d(3, stride=1, padding=1), "D4", x).error < 1e-10
        True
        >>> average_keeps_equivariant(lambda x: x.cumsum(-1), "C2", x).error > 0.1  # not equivariant
        True

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022.
    """
    return Sides(GroupAverage(module, group, in_action, out_action)(x), module(x.clone()))


def invariant_average(
    module: Callable[[Tensor], Tensor],
    group: Group | str,
    x: Tensor,
    element: int,
    in_action: Action | str = "scalar",
) -> Sides:
    r"""Statement 7: with the trivial action on the output, the average is invariant.

    ``<Phi>_G(rho_1(g) x) = <Phi>_G(x)``, where ``<Phi>_G(x) = 1/|G| sum_h Phi(rho_1(h)^-1 x)``.

    Why it holds: it is statement 1 with ``rho_2(g) = 1``. In words, ``x`` and ``rho_1(g) x`` have the same orbit, so
    the mean over the orbit is the same.

    Where it fails: where statement 1 does. The shape of the module's output must not depend on the orientation of its
    input.

    The left side is `gconv_ga.averaging.GroupAverage` of the transformed input. The right side is the sum written out
    for the original input, with one call of the module for each element.

    Args:
        module: ``Phi``, from one tensor to one tensor.
        group: The group ``G`` or its name.
        x: The input.
        element: Index of the element ``g``.
        in_action: ``rho_1``.

    Shape:
        - x: ``[B, ...]`` with the axes that ``in_action`` takes
        - both sides: as the module's output, such as ``[B, classes]``

    Raises:
        ValueError: ``element`` is not an element of the group, ``x`` does not fit the action, or the outputs differ in
            shape.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import invariant_average
        >>> corner = lambda x: x[..., 0, 0].exp()
        >>> x = torch.randn(2, 3, 8, 11, dtype=torch.float64)
        >>> sides = invariant_average(corner, "C4", x, element=1)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([2, 3]), True)

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022. For permutations:
        Murphy, Srinivasan, Rao, Ribeiro, "Janossy pooling", ICLR 2019.
    """
    group, rho_1 = as_group(group), as_action(in_action, "in_action")
    average = GroupAverage(module, group, rho_1.after(group, element), Invariant())
    return Sides(average(rho_1(x, group, element)), _average_by_definition(module, group, x, rho_1, Invariant()))


def _average_by_definition(
    module: Callable[[Tensor], Tensor], group: Group, x: Tensor, rho_1: Action, rho_2: Action
) -> Tensor:
    """Return ``1/|G| sum_h rho_2(h) Phi(rho_1(h)^-1 x)`` term by term."""
    terms = []
    for h in range(group.order):
        inverse = group.inverse(h)
        # Clone: the identity may return the caller's tensor itself, and the module may write to its input.
        y = module(rho_1(x.clone(), group, inverse))
        terms.append(rho_2.after(group, inverse)(y, group, h))
    return torch.stack(terms).mean(0)
