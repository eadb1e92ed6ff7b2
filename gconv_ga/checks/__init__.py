"""Checks of equivariance: a number, a verdict, and a report on which part breaks it and why.

All of them refuse comparisons that prove nothing, never let NaN pass, and leave the module as it was.

Names: `equivariance_error` (one number per element), `interpolation_error` (the error of rotation alone at angles off
the grid), `assert_equivariant`, `equivariance_report` (which part breaks it and why: a `Report` of `ReportRow`),
`good_sizes` (sizes at which a strided layer of torch is exact), `default_tolerance`.

Example:
    >>> import torch
    >>> from gconv_ga.checks import equivariance_error
    >>> x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    >>> bool(equivariance_error(torch.nn.MaxPool2d(2), "D4", x).max() == 0)
    True
"""

from ._causes import good_sizes
from ._error import assert_equivariant, default_tolerance, equivariance_error, interpolation_error
from ._report import Report, ReportRow, equivariance_report

__all__ = [
    "Report",
    "ReportRow",
    "assert_equivariant",
    "default_tolerance",
    "equivariance_error",
    "equivariance_report",
    "good_sizes",
    "interpolation_error",
]
