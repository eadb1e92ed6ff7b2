"""How a point frame grows: axis by axis, a list of partial frames that branches at near ties."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ._frame import FrameSet, FrameSizeError, as_cloud, check_group_and_dimension, full_precision, named
from ._rotations import any_axis, completions, farthest, last_axis, normalized, reject, smoothstep


class Draw(NamedTuple):
    """How many elements to draw for each sample, and where the random numbers come from."""

    number: int
    generator: torch.Generator | None


class PartialFrames(NamedTuple):
    """A list of frames of which the first ``k`` axes are found.

    Shape:
        - sample: ``[P]``, whose they are, in ascending order
        - weight: ``[P]``
        - axes: ``[P, d, k]``
        - free: ``[P, k]``, the probability that the axes from this one on are free
        - bound: ``[P]``, the probability that none so far is free
        - chosen: ``[P]``, whether an axis was chosen at will
    """

    sample: Tensor
    weight: Tensor
    axes: Tensor
    free: Tensor
    bound: Tensor
    chosen: Tensor

    @classmethod
    def start(cls, y: Tensor, draw: Draw | None) -> Self:
        """Empty frames: one for each sample, or one for each draw.

        Shape:
            - y: ``[B, M, d]``
        """
        copies = draw.number if draw else 1
        sample = torch.arange(len(y), device=y.device).repeat_interleave(copies)
        ones = y.new_ones(len(sample))
        none = torch.zeros_like(sample, dtype=torch.bool)
        return cls(
            sample, ones / copies, ones.new_zeros(len(ones), y.shape[-1], 0), ones.new_zeros(len(ones), 0), ones, none
        )

    def grow(self, y: Tensor, widest: Tensor, delta: float, power: int, collinear: float, draw: Draw | None) -> Self:
        """Every frame with one axis more, once for each point near the farthest from the axes so far.

        Args:
            y: The cloud about its middle.
            widest: The square of its largest distance from there.
            delta: As in `PointFrame`.
            power: As in `PointFrame`.
            collinear: As in `PointFrame`.
            draw: Take one of the points, drawn with its weight, instead of all.

        Shape:
            - y: ``[B, M, d]``
            - widest: ``[B]``
        """
        first = self.axes.shape[-1] == 0
        rest = reject(y[self.sample], self.axes)
        squares = rest.square().sum(-1)
        scale = widest[self.sample]
        # The first time the cloud is what it is; later what is left may be rounding of what was taken away.
        floor = torch.zeros_like(scale) if first else (256 * torch.finfo(y.dtype).eps) ** 2 * scale
        flat = squares.detach().amax(-1) <= floor
        live, still = (~flat).nonzero().squeeze(1), flat.nonzero().squeeze(1)

        shares, largest = farthest(squares[live], delta, power)
        row, point, share = _branches(shares, draw)
        axis = normalized(rest[live[row], point])  # gathered before it is divided: no 0 / 0 enters the graph
        bound = torch.ones_like(largest) if first else smoothstep(largest / (collinear * scale[live]))

        # Where nothing is left: one axis chosen at will, free from here on.
        parent = torch.cat((live[row], still))
        share = torch.cat((share, share.new_ones(len(still))))
        axis = torch.cat((axis, any_axis(self.axes[still])))
        bound = torch.cat((bound[row], bound.new_zeros(len(still))))
        order = torch.argsort(self.sample[parent], stable=True)
        parent, share, axis, bound = parent[order], share[order], axis[order], bound[order]
        return type(self)(
            self.sample[parent],
            self.weight[parent] * share,
            torch.cat((self.axes[parent], axis.unsqueeze(-1)), -1),
            torch.cat((self.free[parent], (self.bound[parent] * (1 - bound)).unsqueeze(-1)), -1),
            self.bound[parent] * bound,
            self.chosen[parent] | flat[parent],
        )

    def complete(self, proper: bool, lmax: int, draw: Draw | None) -> Self:
        """Every frame with its last axis, once for each change of axes that averages out what is free.

        Args:
            proper: Determinant 1 only; otherwise the last axis at least has both signs.
            lmax: As in `PointFrame`.
            draw: Take one of the changes, drawn with its probability, instead of all.
        """
        axes = torch.cat((self.axes, last_axis(self.axes).unsqueeze(-1)), -1)
        changes, uniform = (table.to(axes) for table in completions(axes.shape[1], proper, lmax))
        row, change, share = _branches(torch.cat((self.free, self.bound.unsqueeze(-1)), -1) @ uniform, draw)
        return self._replace(
            sample=self.sample[row],
            weight=self.weight[row] * share,
            axes=axes[row] @ changes[change],
            chosen=self.chosen[row],
        )

    def packed(self, middle: Tensor) -> FrameSet:
        """The list as a padded set.

        Shape:
            - middle: ``[B, 1, d]``
        """
        batch, _, d = middle.shape
        counts = torch.bincount(self.sample, minlength=batch)
        size = int(counts.max()) if batch else 0
        place = torch.arange(len(self.sample), device=middle.device) - (counts.cumsum(0) - counts)[self.sample]
        at = (self.sample, place)
        rotations = torch.eye(d, dtype=middle.dtype, device=middle.device).repeat(batch, size, 1, 1)
        weights = middle.new_zeros(batch, size)
        chosen = torch.zeros(batch, size, dtype=torch.bool, device=middle.device)
        return FrameSet(
            rotations.index_put(at, self.axes),
            middle.expand(batch, size, d),
            weights.index_put(at, self.weight),
            chosen.index_put(at, self.chosen).any(-1),
        )


def _branches(shares: Tensor, draw: Draw | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of the positive shares; or one drawn from each row, of value 1 with its gradient."""
    if draw is None:
        row, column = shares.detach().nonzero(as_tuple=True)
        return row, column, shares[row, column]
    row = torch.arange(len(shares), device=shares.device)
    # A table without rows has nothing to draw, which multinomial refuses.
    column = torch.multinomial(shares.detach(), 1, generator=draw.generator).squeeze(1) if len(row) else row
    share = shares[row, column]
    return row, column, share / share.detach()


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
        >>> from gconv_ga.frames import PointFrame
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
