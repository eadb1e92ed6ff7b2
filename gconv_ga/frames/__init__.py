"""Road 2 for point clouds: networks made equivariant by averaging over a frame of the input.

A frame is a small set of rotations that rotates with the cloud; averaging over it costs one pass for each member.
`PointFrame` is the default choice, exact on symmetric clouds too; `PCAFrame`, `LandmarkFrame` and `MeanFrame`
(translations only) are the classical ones, and a `Frame` of yours returns a `FrameSet`. `Canonicalize` uses one member
in place of all. Frames raise `DegenerateFrameError` and `FrameSizeError` rather than be inexact. `QuadratureFrame` and
`HaarFrame` list or draw rotations that do not look at the input: the average over all of SO(2) or SO(3), as good as the
rule. How a tensor transforms is given by a name, or by a `FrameAction` of yours.

Names, further: `FrameAverage`; `FrameAveragedGNN` and `PointOutputs`, a message-passing network on point clouds;
`frame_equivariance_error` and `assert_frame_equivariant`, which check a frame of yours.

Example:
    >>> import torch
    >>> from gconv_ga.frames import FrameAverage, PointFrame
    >>> energy = lambda points: points.flatten(1).cumsum(1).sin().sum(1)
    >>> FrameAverage(energy, PointFrame("E"), "points", "invariant")(torch.randn(2, 5, 3)).shape
    torch.Size([2])
"""

from ._checks import assert_frame_equivariant, frame_equivariance_error
from ._constant_frames import HaarFrame, QuadratureFrame
from ._frame import DegenerateFrameError, Frame, FrameSet, FrameSizeError
from ._frame_actions import FrameAction
from ._frame_average import Canonicalize, FrameAverage
from ._gnn import FrameAveragedGNN, PointOutputs
from ._point_frame import PointFrame
from ._simple_frames import LandmarkFrame, MeanFrame, PCAFrame

__all__ = [
    "Canonicalize",
    "DegenerateFrameError",
    "Frame",
    "FrameAction",
    "FrameAverage",
    "FrameAveragedGNN",
    "FrameSet",
    "FrameSizeError",
    "HaarFrame",
    "LandmarkFrame",
    "MeanFrame",
    "PCAFrame",
    "PointFrame",
    "PointOutputs",
    "QuadratureFrame",
    "assert_frame_equivariant",
    "frame_equivariance_error",
]
