"""Road 2 for point clouds: make any network equivariant by averaging over a frame of the input.

A frame is a small set of rotations and translations that moves with the cloud. Averaging over it costs one pass for
each of its elements.

- `FrameAverage` averages a module over a frame; `Canonicalize` uses one element in place of all. `FrameAction`
  describes how a tensor transforms, where a name ("points", "vector" ...) does not suffice.
- `PointFrame` is the default choice, exact on symmetric clouds too. `PCAFrame`, `LandmarkFrame` (images) and
  `MeanFrame` (translations only) are the classical frames. Your own `Frame` returns a `FrameSet`.
- `QuadratureFrame` and `HaarFrame` list or draw rotations that do not depend on the input: the average over all of
  SO(2) or SO(3), up to the error of the rule or of the draws.
- `frame_equivariance_error` and `assert_frame_equivariant` check a frame. Frames raise `DegenerateFrameError` and
  `FrameSizeError` where they would otherwise be inexact.
- `FrameAveragedGNN` is a message-passing network on point clouds; it returns `PointOutputs`.

Example:
    >>> import torch
    >>> from gconv_ga.frames import FrameAverage, PointFrame
    >>> energy = lambda points: points.flatten(1).cumsum(1).sin().sum(1)
    >>> FrameAverage(energy, PointFrame("E"), "points", "invariant")(torch.randn(2, 5, 3)).shape
    torch.Size([2])
"""

from ._checks import assert_frame_equivariant, frame_equivariance_error
from ._classical_frames import LandmarkFrame, MeanFrame, PCAFrame
from ._constant_frames import HaarFrame, QuadratureFrame
from ._frame import DegenerateFrameError, Frame, FrameSet, FrameSizeError
from ._frame_actions import FrameAction
from ._frame_average import Canonicalize, FrameAverage
from ._gnn import FrameAveragedGNN, PointOutputs
from ._point_frame import PointFrame

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
