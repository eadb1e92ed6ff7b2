"""The bridge: each statement about averaging and convolution as a function that returns both sides of it.

The two sides are computed independently, so that their agreement is evidence. Each docstring gives the statement, its
formula, why it holds and where it fails. For the derivation read them in this order.

1. `average_is_equivariant`: the group average of any module is equivariant.
2. `average_keeps_equivariant`: averaging does not change a module that is already equivariant.
3. `kernel_rotation`: ``k * (L_g f) = L_g ((L_g^-1 k) * f)``.
4. `correlation_commutes`: ``(L_g k) * (L_g f) = L_g (k * f)``, for linear ``g`` with ``|det g| = 1``.
5. `lifting_rotates_and_shifts`: lifting a rotated image rotates the lifted maps and shifts them along the element axis.
6. `mean_of_lifting_is_group_average`: the mean of the lifted maps is the group average of the plain correlation.
7. `invariant_average`: with the trivial action on the output, the average is invariant.
8. `scaling_counterexample`: a scaling, for which statement 4 fails, and the factor by which it does.
9. `translation_counterexample`: a translation, which preserves areas, and for which statement 4 fails too.
10. `regular_field_rotates_and_shifts`: ``(L_h f)(y, g) = f(h^-1 y, h^-1 g)`` for feature maps on the group.
11. `group_correlation_is_equivariant`: a group correlation commutes with this action.
12. `frame_average_is_equivariant`: the average of any module over a frame is equivariant.
13. `frame_average_keeps_equivariant`: averaging over a frame does not change a module that is already equivariant.

They return `Sides`; the two counter-examples return `ScaledSides` and `TranslatedSides`, for the functions
`asymmetric_kernel` and `asymmetric_signal` by default. ``notebooks/slides.md`` has a table of the statements, with the
notebook that shows each and the slips of the lecture slides that they come from.

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
from ._counterexamples import (
    ScaledSides,
    TranslatedSides,
    asymmetric_kernel,
    asymmetric_signal,
    scaling_counterexample,
    translation_counterexample,
)
from ._frame_averages import frame_average_is_equivariant, frame_average_keeps_equivariant
from ._group_correlations import group_correlation_is_equivariant, regular_field_rotates_and_shifts
from ._sides import Sides

__all__ = [
    "ScaledSides",
    "Sides",
    "TranslatedSides",
    "asymmetric_kernel",
    "asymmetric_signal",
    "average_is_equivariant",
    "average_keeps_equivariant",
    "correlation_commutes",
    "frame_average_is_equivariant",
    "frame_average_keeps_equivariant",
    "group_correlation_is_equivariant",
    "invariant_average",
    "kernel_rotation",
    "lifting_rotates_and_shifts",
    "mean_of_lifting_is_group_average",
    "regular_field_rotates_and_shifts",
    "scaling_counterexample",
    "translation_counterexample",
]
