"""The bridge: each statement about averaging and convolution as a function that returns both sides.

The two sides are computed by different roads, so that their agreement says something. Read the docstrings in this
order for the derivation.

1. `average_is_equivariant`: the group average of any module is equivariant.
2. `average_keeps_equivariant`: averaging leaves an equivariant module as it is.
3. `kernel_rotation`: ``k * (L_g f) = L_g((L_g^-1 k) * f)``.
4. `correlation_commutes`: ``(L_g k) * (L_g f) = L_g (k * f)``.
5. `lifting_turns_and_shifts`: lifting a turned image turns the maps and shifts them along the element axis.
6. `mean_of_lifting_is_group_average`: the mean of the lifted maps is the group average of plain correlation.
7. `invariant_average`: with the trivial action on the output the average is invariant.
8. `scaling_counterexample`: where statement 4 fails, and by which factor.

They return `Sides`, the last one `ScaledSides`; its default functions are `crooked_kernel` and `crooked_signal`.

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
    lifting_turns_and_shifts,
    mean_of_lifting_is_group_average,
)
from ._scaling import ScaledSides, crooked_kernel, crooked_signal, scaling_counterexample
from ._sides import Sides

__all__ = [
    "ScaledSides",
    "Sides",
    "average_is_equivariant",
    "average_keeps_equivariant",
    "correlation_commutes",
    "crooked_kernel",
    "crooked_signal",
    "invariant_average",
    "kernel_rotation",
    "lifting_turns_and_shifts",
    "mean_of_lifting_is_group_average",
    "scaling_counterexample",
]
