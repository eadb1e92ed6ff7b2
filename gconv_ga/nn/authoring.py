"""What the layers are made of, for authors of layers: windows, correlations, kept kernels.

Names: `Geometry` and `make_geometry` (where each orientation samples), `correlate`, `correlate_transposed`,
`least_size`, `KeepsKernels` (turned kernels made once in eval mode), `nearest_elements` (which taps a kernel has).

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
from ._geometry import Geometry, make_geometry
from ._kernels import KeepsKernels, nearest_elements

__all__ = [
    "Geometry",
    "KeepsKernels",
    "correlate",
    "correlate_transposed",
    "least_size",
    "make_geometry",
    "nearest_elements",
]
