"""Building blocks of the layers, for authors of layers: windows, correlations, cached kernels.

Names: `Geometry` and `make_geometry` (where each orientation samples), `apply_per_orientation` (an operation in each
orientation's own frame), `correlate`, `correlate_transposed`, `least_size`, `KeepsKernels` (transformed kernels are
computed once in eval mode), `KeepsTables` (lookup tables that are no state), `nearest_elements` (the elements that a
kernel has planes for).

Example:
    >>> from gconv_ga.groups import C4
    >>> from gconv_ga.nn.authoring import make_geometry
    >>> windows = make_geometry(C4, (3, 3), stride=(2, 2), padding=1, dilation=(1, 1))
    >>> [part.elements for part in windows.plan(33, 33).parts]  # nothing left over: one convolution for all
    [(0, 1, 2, 3)]
    >>> [part.elements for part in windows.plan(32, 32).parts]
    [(0,), (1,), (2,), (3,)]
"""

from ._correlate import correlate, correlate_transposed, least_size
from ._geometry import Geometry, KeepsKernels, apply_per_orientation, make_geometry, nearest_elements
from ._tables import KeepsTables

__all__ = [
    "Geometry",
    "KeepsKernels",
    "KeepsTables",
    "apply_per_orientation",
    "correlate",
    "correlate_transposed",
    "least_size",
    "make_geometry",
    "nearest_elements",
]
