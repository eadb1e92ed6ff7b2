"""Road 2: any network made equivariant by averaging, over a finite group or over a frame.

Nothing is asked of the network: it may have strides, position embeddings or a fixed input size. The price is one pass
through it for every element.

For images and other things that a finite group moves: `GroupAverage`. For point clouds and infinite groups:
`FrameAverage` with one of the frames `PointFrame` (the default choice, exact on symmetric clouds too), `PCAFrame`,
`LandmarkFrame`, `MeanFrame` (translations only), or a `Frame` of yours that returns a `FrameSet`; `Canonicalize` takes
one element of the frame instead of all. Frames raise `DegenerateFrameError` and `FrameSizeError` rather than be
inexact. `QuadratureFrame` and `HaarFrame` list or draw rotations that do not look at the input: the average over all of
SO(2) or SO(3), as good as the rule. How tensors move is said by names, or by a `FrameAction` of yours.

For sets, whose order should not matter: `PermutationAverage`.

Example:
    >>> import torch
    >>> from gconv_ga.averaging import FrameAverage, GroupAverage, PointFrame
    >>> segmenter = torch.nn.Conv2d(3, 1, 3, padding=1)
    >>> net = GroupAverage(segmenter, "D4")
    >>> net(torch.randn(2, 3, 31, 45)).shape
    torch.Size([2, 1, 31, 45])
    >>> energy = lambda points: points.flatten(1).cumsum(1).sin().sum(1)
    >>> FrameAverage(energy, PointFrame("E"), "points", "invariant")(torch.randn(2, 5, 3)).shape
    torch.Size([2])
"""

from ._canonicalize import Canonicalize
from ._constant_frames import HaarFrame, QuadratureFrame
from ._frame import DegenerateFrameError, Frame, FrameSet, FrameSizeError
from ._frame_actions import FrameAction
from ._frame_average import FrameAverage
from ._group_average import GroupAverage
from ._landmark_frame import LandmarkFrame
from ._mean_frame import MeanFrame
from ._pca_frame import PCAFrame
from ._permutation_average import PermutationAverage
from ._point_frame import PointFrame

__all__ = [
    "Canonicalize",
    "DegenerateFrameError",
    "Frame",
    "FrameAction",
    "FrameAverage",
    "FrameSet",
    "FrameSizeError",
    "GroupAverage",
    "HaarFrame",
    "LandmarkFrame",
    "MeanFrame",
    "PCAFrame",
    "PermutationAverage",
    "PointFrame",
    "QuadratureFrame",
]
