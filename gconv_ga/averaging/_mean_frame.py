"""The frame of the translations: the middle of the points."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._cloud import as_cloud, full_precision
from ._frame import FrameSet


@dataclass(frozen=True)
class MeanFrame:
    """The frame of the translations of ``R^d``: one element, the middle of the points.

    ``F(x) = {mean(x)}``, so the average over it is ``Phi(x) = phi(x - mean(x)) + mean(x)`` for outputs that are points
    and ``phi(x - mean(x))`` for all others. It is exact on every cloud and in every dimension.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, 1, d, d]``, the identity
        - translations: ``[B, 1, d]``
        - weights: ``[B, 1]``, ones

    Raises:
        TypeError: Coordinates are integers.
        ValueError: A shape is wrong, a cloud has no point, or a coordinate is not finite.

    Example:
        >>> MeanFrame()(torch.tensor([[[0.0, 1.0], [4.0, 3.0]]])).translations
        tensor([[[2., 2.]]])
    """

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        with full_precision(x):
            middle = as_cloud(x, mask, vectors).middle
            batch, _, d = middle.shape
            identity = torch.eye(d, dtype=middle.dtype, device=middle.device).expand(batch, 1, d, d)
            return FrameSet(identity, middle, middle.new_ones(batch, 1))
