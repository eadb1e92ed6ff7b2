"""Filters: from free weights to stacks of transformed kernels.

`GridFilters` permutes the taps of a kernel: exact, for C1, C2, C4, D1, D2 and D4. `SteerableFilters` combines the
functions of a `SteerableBasis`, which rotate by any angle: for every C_n and D_n, with an error at inexact angles that
`describe` prints. `as_filters` interprets the argument ``filters=`` of a layer.

Example:
    >>> import torch
    >>> from gconv_ga.filters import GridFilters
    >>> from gconv_ga.groups import C4
    >>> weight = torch.arange(9.0).view(1, 1, 3, 3)
    >>> filters = GridFilters(C4, (3, 3))
    >>> kernels = filters.rotate(weight, filters.tables())  # [C_out, |G|, C_in, taps]
    >>> torch.equal(kernels[0, 1, 0].view(3, 3), torch.rot90(weight[0, 0]))
    True
"""

from ._describe import describe
from ._filters import Filters, GridFilters, SteerableFilters, as_filters
from ._steerable_basis import SteerableBasis, steerable_basis

__all__ = ["Filters", "GridFilters", "SteerableBasis", "SteerableFilters", "as_filters", "describe", "steerable_basis"]
