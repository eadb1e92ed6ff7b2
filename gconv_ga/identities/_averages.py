"""Statements 1, 2 and 7: what the average of any module does."""

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
    r"""Statement 1, the group average is equivariant: ``<Phi>_G(rho_1(g) x) = rho_2(g) <Phi>_G(x)``.

    With ``<Phi>_G(x) = 1/|G| sum_h rho_2(h) Phi(rho_1(h)^-1 x)`` for any ``Phi``::

        <Phi>_G(rho_1(g) x) = 1/|G| sum_h rho_2(h) Phi(rho_1(g^-1 h)^-1 x)         rho_1 is a representation
                            = 1/|G| sum_h' rho_2(g h') Phi(rho_1(h')^-1 x)         h = g h': again a sum over all of G
                            = rho_2(g) <Phi>_G(x)                                  rho_2 is linear and a representation

    The left side is what `gconv_ga.averaging.GroupAverage` returns for the turned input. The right side is the sum
    written out, one pass through the module for each element, for the upright input, and then turned.

    Args:
        module: ``Phi``: one tensor in, one out. If it depends on the rest of the batch (BatchNorm) or draws random
            numbers (dropout), put it in eval mode.
        group: The group or its name.
        x: The input.
        element: The element ``g``.
        in_action: ``rho_1``.
        out_action: ``rho_2``, with its size, if it has one, for the upright ``x``.

    Shape:
        - x: ``[B, ...]`` with the axes that ``in_action`` takes
        - both sides: as the module's output

    Raises:
        ValueError: ``element`` is no element, or an argument does not fit the actions.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import average_is_equivariant
        >>> net = torch.nn.Conv2d(1, 2, 3, stride=2, dtype=torch.float64)
        >>> sides = average_is_equivariant(net, "D4", torch.randn(1, 1, 8, 11, dtype=torch.float64), element=5)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([1, 2, 5, 3]), True)

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022. Murphy, Srinivasan,
        Rao, Ribeiro, "Janossy pooling", ICLR 2019, for permutations.
    """
    group, rho_1, rho_2 = as_group(group), as_action(in_action, "in_action"), as_action(out_action, "out_action")
    turned = rho_1(x, group, element)
    average = GroupAverage(module, group, rho_1.after(group, element), rho_2.after(group, element))
    return Sides(average(turned), rho_2(_written_out(module, group, x, rho_1, rho_2), group, element))


def average_keeps_equivariant(
    module: Callable[[Tensor], Tensor],
    group: Group | str,
    x: Tensor,
    in_action: Action | str = "scalar",
    out_action: Action | str = "scalar",
) -> Sides:
    r"""Statement 2, averaging changes nothing about a module that is equivariant already: ``<Phi>_G = Phi``.

    If ``Phi(rho_1(h) x) = rho_2(h) Phi(x)``, every term of the sum is the same::

        rho_2(h) Phi(rho_1(h)^-1 x) = rho_2(h) rho_2(h)^-1 Phi(x) = Phi(x)

    So averaging is a projection onto the equivariant maps. The left side is `gconv_ga.averaging.GroupAverage`, the
    right side the module alone.

    Args:
        module: ``Phi``: one tensor in, one out, equivariant.
        group: The group or its name.
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
    r"""Statement 7, with the trivial action on the output the average is invariant.

    ``<Phi>_G(rho_1(g) x) = <Phi>_G(x)``: this is statement 1 with ``rho_2(g) = 1``. A mean over the orbit of ``x``
    does not know where on the orbit it began.

    The left side is `gconv_ga.averaging.GroupAverage` for the turned input, the right side the sum written out, one
    pass through the module for each element, for the upright one.

    Args:
        module: ``Phi``: one tensor in, one out, whose shape does not depend on how the input lies.
        group: The group or its name.
        x: The input.
        element: The element ``g``.
        in_action: ``rho_1``.

    Shape:
        - x: ``[B, ...]`` with the axes that ``in_action`` takes
        - both sides: as the module's output, such as ``[B, classes]``

    Raises:
        ValueError: ``element`` is no element, ``x`` does not fit the action, or the outputs differ in shape.

    Example:
        >>> import torch
        >>> from gconv_ga.identities import invariant_average
        >>> corner = lambda x: x[..., 0, 0].exp()
        >>> x = torch.randn(2, 3, 8, 11, dtype=torch.float64)
        >>> sides = invariant_average(corner, "C4", x, element=1)
        >>> sides.left.shape, sides.error < 1e-10
        (torch.Size([2, 3]), True)

    References:
        Murphy, Srinivasan, Rao, Ribeiro, "Janossy pooling", ICLR 2019, for permutations. Puny et al., "Frame averaging
        for invariant and equivariant network design", ICLR 2022.
    """
    group, rho_1 = as_group(group), as_action(in_action, "in_action")
    average = GroupAverage(module, group, rho_1.after(group, element), Invariant())
    return Sides(average(rho_1(x, group, element)), _written_out(module, group, x, rho_1, Invariant()))


def _written_out(module: Callable[[Tensor], Tensor], group: Group, x: Tensor, rho_1: Action, rho_2: Action) -> Tensor:
    """The average term by term, as its formula says."""
    terms = []
    for h in range(group.order):
        back = group.inverse(h)
        # A copy: the identity may hand on the caller's tensor, and the module may write into it.
        y = module(rho_1(x.clone(), group, back))
        terms.append(rho_2.after(group, back)(y, group, h))
    return torch.stack(terms).mean(0)
