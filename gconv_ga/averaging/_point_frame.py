"""The frame of the farthest points: exact on every cloud, symmetric ones too, and continuous."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ._cloud import as_cloud, check_group_and_dimension, full_precision, named
from ._completions import completions
from ._frame import FrameSet, FrameSizeError
from ._gram_schmidt import farthest
from ._partial_frames import Draw, PartialFrames


@dataclass(frozen=True)
class PointFrame:
    """Axes towards the farthest points, every near tie kept with a weight that fades smoothly.

    The origin is the mean ``t`` of the points ("O" and "SO": 0). The first axis points to the farthest of ``x - t``,
    the second to the one farthest from the first axis, and so on; the last completes them to determinant 1, and for
    "E" and "O" it is taken with both signs. All points with a squared distance ``q_j`` near the largest are taken,
    with weights ``w_j ~ relu((q_j / L - (1 - delta)) / delta)^2`` where ``L`` is a smooth maximum. The weights are
    invariant and the axes turn with the cloud, so ``F(g x) = g F(x)`` holds for symmetric clouds too: the ties are then
    an orbit of the symmetry.

    Where the points leave axes free (all on one line, or all in one place) these are chosen at will and averaged over
    signs, which is exact for invariant, vector and point outputs; with ``lmax=3`` over signs and permutations, which is
    exact for tensors of rank 2 (and 3) as well. Close to a line the signs fade in.

    Exact to rounding on every cloud; continuous, with continuous gradients, except: vector outputs have a kink (no
    jump) exactly at points on one line, and jump where a cloud shrinks to one point. Gradients are finite everywhere.
    Rounding is that of the coordinates: a cloud at distance 1e6 has lost six digits before it comes here.

    The number of elements is small where few points are near ties: 2 at best, 24 for methane, 12 for a hexagon, 10 on
    average for the molecules of the G2 set, 12 with ``lmax=3``; half of it for "SE". On points spread over a sphere it
    grows with the square of their number.

    Args:
        group: "E" (rotations, mirrors, translations), "SE" (rotations, translations), "O" or "SO".
        d: The dimension.
        delta: How near a tie must be, in squared distance relative to the largest. Smaller: fewer elements, steeper
            weights.
        power: The exponent of the smooth maximum.
        collinear: From which relative squared distance from a line on a cloud counts as not on it.
        lmax: The highest rank of outputs that is exact for points on one line: 1 or 3.
        max_frames: The largest number of elements for one sample.
        num_samples: Draw this many elements instead of listing all: unbiased, and cheap where there are many. None
            lists all. (`FrameAverage` has an argument of the same name, for training only.)
        generator: Where the draws come from; None is torch's default.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``

    Raises:
        TypeError: Coordinates are integers.
        FrameSizeError: A sample has more than ``max_frames`` elements; the message names it.
        ValueError: An option is none of those listed, a shape is wrong, a cloud has no point, or a coordinate is not
            finite.

    Example:
        >>> import torch
        >>> square = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]])
        >>> PointFrame("E", d=2)(square).counts  # the eight symmetries of the square
        tensor([8])

    References:
        Weighted frames: Dym et al., "Equivariant frames and the impossibility of continuous canonicalization",
        ICML 2024.
    """

    group: str = "E"
    d: int = 3
    delta: float = 0.1
    power: int = 32
    collinear: float = 0.02
    lmax: int = 1
    max_frames: int = 512
    num_samples: int | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_group_and_dimension(self.group, self.d)
        for name in ("delta", "collinear"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise invalid(name, "a number between 0 and 1", value)
        as_int("power", self.power, minimum=1)
        if self.lmax not in (1, 3):
            raise invalid("lmax", "1 or 3", self.lmax, "3 is for tensor outputs")
        as_int("max_frames", self.max_frames, minimum=1)
        if self.num_samples is not None:
            as_int("num_samples", self.num_samples, minimum=1)
        completions(self.d, self._proper, self.lmax)  # refuses too large d now, not at the first call

    @property
    def _proper(self) -> bool:
        return self.group.startswith("S")

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        draw = None if self.num_samples is None else Draw(self.num_samples, self.generator)
        return self._frames(x, mask, vectors, draw)

    def sample(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        vectors: tuple[Tensor, ...] = (),
        *,
        count: int,
        generator: torch.Generator | None = None,
    ) -> FrameSet:
        """``count`` elements drawn with their weights, as `FrameSet.sample`, axis by axis: never lists all.

        Raises:
            ValueError: As a call, or ``count`` is no positive int.
        """
        return self._frames(x, mask, vectors, Draw(as_int("count", count, minimum=1), generator))

    def _frames(self, x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...], draw: Draw | None) -> FrameSet:
        with full_precision(x):
            cloud = as_cloud(x, mask, vectors, d=self.d, centered="E" in self.group)
            y = torch.cat((cloud.points, cloud.vectors), 1)
            # Axes and weights do not depend on the scale, so that a detached one changes no gradient.
            size = y.detach().abs().amax((1, 2), keepdim=True)
            y = y / torch.where(size > 0, size, 1)
            _, widest = farthest(y.square().sum(-1).masked_fill(size.squeeze(-1) == 0, 1), self.delta, self.power)
            frames = PartialFrames.start(y, draw)
            for _ in range(self.d - 1):
                frames = frames.grow(y, widest, self.delta, self.power, self.collinear, draw)
                self._refuse_many(frames, len(y), draw)
            frames = frames.complete(self._proper, self.lmax, draw)
            self._refuse_many(frames, len(y), draw)
            return replace(frames.packed(cloud.middle), drawn=draw is not None)

    def _refuse_many(self, frames: PartialFrames, batch: int, draw: Draw | None) -> None:
        counts = torch.bincount(frames.sample, minlength=batch)
        wrong = counts > self.max_frames
        if draw is None and wrong.any():
            raise FrameSizeError(
                f"max_frames must be at least the number of elements of each sample, but got max_frames="
                f"{self.max_frames} and {int(counts.max())} elements; too many in {named(wrong)}. "
                "Draw some with num_samples=..., or take a smaller delta."
            )
