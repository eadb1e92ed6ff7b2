"""The bridge: each statement about averaging and convolution as a function that returns both sides of it.

The two sides are computed independently, so that their agreement is evidence. Each docstring gives the statement, its
formula, why it holds and where it fails. For the derivation read them in this order.

1. `average_is_equivariant`: the group average of any module is equivariant.
2. `average_keeps_equivariant`: averaging does not change a module that is already equivariant.
3. `kernel_rotation`: ``k * (L_g f) = L_g ((L_g^-1 k) * f)``.
4. `correlation_commutes`: ``(L_g k) * (L_g f) = L_g (k * f)``.
5. `lifting_rotates_and_shifts`: lifting a rotated image rotates the lifted maps and shifts them along the element axis.
6. `mean_of_lifting_is_group_average`: the mean of the lifted maps is the group average of the plain correlation.
7. `invariant_average`: with the trivial action on the output, the average is invariant.
8. `scaling_counterexample`: a scaling, for which statement 4 fails, and the factor by which it does.

They return `Sides`, the last one `ScaledSides`. Its default functions are `asymmetric_kernel` and `asymmetric_signal`.

Example:
    >>> import torch
    >>> from gconv_ga import identities
    >>> kernel, image = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(1, 3, 8, 11, dtype=torch.float64)
    >>> identities.mean_of_lifting_is_group_average(kernel, image, "D4", element=5).error < 1e-10
    True
"""

from ._averages import average_is_equivariant, average_keeps_equivariant, invariant_average
from ._correlations import (
    correlation_commutes,
    kernel_rotation,
    lifting_rotates_and_shifts,
    mean_of_lifting_is_group_average,
)
from ._scaling import ScaledSides, asymmetric_kernel, asymmetric_signal, scaling_counterexample
from ._sides import Sides

__all__ = [
    "ScaledSides",
    "Sides",
    "asymmetric_kernel",
    "asymmetric_signal",
    "average_is_equivariant",
    "average_keeps_equivariant",
    "correlation_commutes",
    "invariant_average",
    "kernel_rotation",
    "lifting_rotates_and_shifts",
    "mean_of_lifting_is_group_average",
    "scaling_counterexample",
]
