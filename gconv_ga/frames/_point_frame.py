"""The weighted frame of axes towards the farthest points, built axis by axis."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ._cloud import (
    as_cloud,
    check_group_and_dimension,
    full_precision,
    has_reflections,
    has_translations,
    sample_numbers,
)
from ._frame import FrameSet, FrameSizeError
from ._rotations import signed_permutations


class _Sampling(NamedTuple):
    """Number of elements to draw for each sample, and the random number generator."""

    number: int
    generator: torch.Generator | None


@dataclass(frozen=True)
class PointFrame:
    """Axes towards the farthest points, with a smooth weight for every near tie. The default frame for point clouds.

    The origin is the mean ``t`` of the points (0 for "O" and "SO"). The first axis points to the farthest of ``x - t``,
    the second to the point farthest from the first axis, and so on. The last axis completes them to determinant 1, and
    "E" and "O" take it with both signs. All points with a squared distance ``q_j`` close to the largest are used, with
    weights ``w_j ~ relu((q_j / L - (1 - delta)) / delta)^2``, where ``L`` is a smooth maximum.

    Why ``F(g x) = g F(x)`` holds: distances, and so the weights, are invariant, and the axes move with the cloud. It
    holds for symmetric clouds too, because the tied points are then an orbit of the symmetry and all of them are used.

    Where the points leave axes undetermined (collinear or coincident points), these are chosen freely and averaged over
    their signs, which is exact for invariant, vector and point outputs. With ``lmax=3`` they are averaged over signs
    and permutations, which is exact for tensors of rank 2 (and 3) too. Close to a line these changes fade in smoothly.

    Where it fails: the frame is exact to rounding on every cloud, and averages over it are continuous with continuous
    gradients, with two exceptions. Vector outputs have a kink (no jump) exactly at collinear points, and they jump
    where a cloud shrinks to one point. Gradients are finite everywhere. The rounding is that of the coordinates: a
    cloud at distance 1e6 from the origin has already lost six digits.

    The number of elements is small if few points are nearly tied: at least 2, 24 for methane, 12 for a hexagon, 10 on
    average for the molecules of the G2 set, 12 with ``lmax=3``; half of that for "SE". For points spread over a sphere
    it grows with the square of their number.

    Args:
        group: "E" (rotations, reflections, translations), "SE" (rotations, translations), "O" (rotations, reflections)
            or "SO" (rotations).
        d: Dimension.
        delta: Width of a near tie, in squared distance relative to the largest. Smaller values give fewer elements and
            steeper weights.
        power: Exponent of the smooth maximum.
        collinear: Squared distance from a line, relative to that of the farthest point from the origin, above which a
            cloud counts as not collinear.
        lmax: Highest rank of outputs that is exact for collinear points, 1 or 3.
        max_frames: Largest number of elements for one sample.
        num_samples: Number of elements to draw instead of listing all: unbiased, and cheap where there are many. If
            None, all are listed. (`FrameAverage` has ``train_samples`` for draws in training mode only.)
        generator: Random number generator for the draws. If None, torch's global generator.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``

    Raises:
        TypeError: Coordinates have an integer dtype.
        FrameSizeError: A sample has more than ``max_frames`` elements; the message names it.
        ValueError: An option is out of its range, a shape is wrong, a cloud has no point, or a coordinate is not
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
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise invalid(name, "a number between 0 and 1", value)
        as_int("power", self.power, minimum=1)
        if self.lmax not in (1, 3):
            raise invalid("lmax", "1 or 3", self.lmax, "use 3 for tensor outputs")
        as_int("max_frames", self.max_frames, minimum=1)
        if self.num_samples is not None:
            as_int("num_samples", self.num_samples, minimum=1)
        self._changes_of_axes()  # refuses a too large d now rather than at the first call

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        sampling = None if self.num_samples is None else _Sampling(self.num_samples, self.generator)
        return self._build(x, mask, vectors, sampling)

    def sample(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        vectors: tuple[Tensor, ...] = (),
        *,
        count: int,
        generator: torch.Generator | None = None,
    ) -> FrameSet:
        """Draw ``count`` elements with their weights as probabilities, as `FrameSet.sample`, without listing all.

        Args:
            x: As for a call.
            mask: As for a call.
            vectors: As for a call.
            count: Number of draws.
            generator: Random number generator. If None, torch's global generator.

        Raises:
            ValueError: As for a call, or ``count`` is not a positive int.
        """
        return self._build(x, mask, vectors, _Sampling(as_int("count", count, minimum=1), generator))

    def _changes_of_axes(self) -> tuple[Tensor, Tensor]:
        return signed_permutations(self.d, not has_reflections(self.group), self.lmax)

    def _build(
        self, x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...], sampling: _Sampling | None
    ) -> FrameSet:
        with full_precision(x):
            cloud = as_cloud(x, mask, vectors, d=self.d, centered=has_translations(self.group))
            y = cloud.all_vectors
            # Axes and weights do not depend on the scale, so dividing by a detached one changes no gradient.
            size = cloud.sizes.amax(1)[:, None, None]
            y = y / torch.where(size > 0, size, 1)
            noise = 256 * torch.finfo(y.dtype).eps * cloud.sizes / torch.where(size > 0, size, 1).squeeze(-1)
            squares = y.square().sum(-1).masked_fill(size.squeeze(-1) == 0, 1)
            _, largest = _near_farthest(squares, self.delta, self.power)
            frames = _PartialFrames.empty(y, sampling)
            for _ in range(self.d - 1):
                frames = frames.with_next_axis(y, noise, largest, self, sampling)
                self._check_size(frames, len(y), sampling)
            frames = frames.with_last_axis(self._changes_of_axes(), sampling)
            self._check_size(frames, len(y), sampling)
            return replace(frames.as_frame_set(cloud.origin), drawn=sampling is not None)

    def _check_size(self, frames: "_PartialFrames", batch: int, sampling: _Sampling | None) -> None:
        counts = torch.bincount(frames.sample, minlength=batch)
        too_many = counts > self.max_frames
        if sampling is None and too_many.any():
            raise FrameSizeError(
                f"max_frames must be at least the number of elements of each sample, but got max_frames="
                f"{self.max_frames} and {int(counts.max())} elements; too many in {sample_numbers(too_many)}. "
                "Draw elements with num_samples=..., or use a smaller delta."
            )


class _PartialFrames(NamedTuple):
    """A list of frames of which the first ``k`` axes are known. It branches at near ties.

    Shape:
        - sample: ``[P]``, index of the sample that each belongs to, in ascending order
        - weight: ``[P]``
        - axes: ``[P, d, k]``
        - free: ``[P, k]``, the probability that the axes from this one on are free
        - bound: ``[P]``, the probability that none so far is free
        - completed: ``[P]``, bool, True if an axis was chosen freely
    """

    sample: Tensor
    weight: Tensor
    axes: Tensor
    free: Tensor
    bound: Tensor
    completed: Tensor

    @classmethod
    def empty(cls, y: Tensor, sampling: _Sampling | None) -> Self:
        """Return frames without axes: one for each sample, or one for each draw.

        Shape:
            - y: ``[B, M, d]``
        """
        copies = sampling.number if sampling else 1
        sample = torch.arange(len(y), device=y.device).repeat_interleave(copies)
        ones = y.new_ones(len(sample))
        return cls(
            sample=sample,
            weight=ones / copies,
            axes=ones.new_zeros(len(ones), y.shape[-1], 0),
            free=ones.new_zeros(len(ones), 0),
            bound=ones,
            completed=torch.zeros_like(sample, dtype=torch.bool),
        )

    def with_next_axis(
        self, y: Tensor, noise: Tensor, largest: Tensor, frame: PointFrame, sampling: _Sampling | None
    ) -> Self:
        """Add an axis to every frame, once for each point near the farthest from its axes.

        Args:
            y: The cloud relative to its origin.
            noise: Length up to which what is left of a point or vector may be rounding. It depends on the input: what
                is noise of a field of 1e6 may be a position.
            largest: Largest squared distance from the origin.
            frame: Source of ``delta``, ``power`` and ``collinear``.
            sampling: If not None, draw one of the points, with its weight, instead of using all.

        Shape:
            - y: ``[B, M, d]``
            - noise: ``[B, M]``
            - largest: ``[B]``
        """
        is_first = self.axes.shape[-1] == 0
        residual = _orthogonal_part(y[self.sample], self.axes)
        squares = residual.square().sum(-1)
        scale = largest[self.sample]
        # At first the cloud is what it is; later the residual may be the rounding of what was subtracted.
        if not is_first:
            squares = squares.masked_fill(squares.detach() <= noise[self.sample].square(), 0)
        is_flat = squares.detach().amax(-1) == 0
        extended, flat = (~is_flat).nonzero().squeeze(1), is_flat.nonzero().squeeze(1)

        shares, farthest = _near_farthest(squares[extended], frame.delta, frame.power)
        row, point, share = _branches(shares, sampling)
        axis = _normalized(residual[extended[row], point])  # gathered before the division: no 0 / 0 enters the graph
        bound = torch.ones_like(farthest) if is_first else _smoothstep(farthest / (frame.collinear * scale[extended]))

        # Where nothing is left, one axis is chosen freely, and it is free from here on.
        parent = torch.cat((extended[row], flat))
        share = torch.cat((share, share.new_ones(len(flat))))
        axis = torch.cat((axis, _any_orthogonal_axis(self.axes[flat])))
        bound = torch.cat((bound[row], bound.new_zeros(len(flat))))
        order = torch.argsort(self.sample[parent], stable=True)
        parent, share, axis, bound = parent[order], share[order], axis[order], bound[order]
        return type(self)(
            sample=self.sample[parent],
            weight=self.weight[parent] * share,
            axes=torch.cat((self.axes[parent], axis.unsqueeze(-1)), -1),
            free=torch.cat((self.free[parent], (self.bound[parent] * (1 - bound)).unsqueeze(-1)), -1),
            bound=self.bound[parent] * bound,
            completed=self.completed[parent] | is_flat[parent],
        )

    def with_last_axis(self, changes: tuple[Tensor, Tensor], sampling: _Sampling | None) -> Self:
        """Add the last axis to every frame, once for each change of axes that averages out the free ones.

        Args:
            changes: Matrices and probabilities, as returned by `signed_permutations`. Unless the matrices all have
                determinant 1, the last axis at least has both signs.
            sampling: If not None, draw one of the changes, with its probability, instead of using all.
        """
        axes = torch.cat((self.axes, _last_axis(self.axes).unsqueeze(-1)), -1)
        matrices, uniform = (table.to(axes) for table in changes)
        row, change, share = _branches(torch.cat((self.free, self.bound.unsqueeze(-1)), -1) @ uniform, sampling)
        return self._replace(
            sample=self.sample[row],
            weight=self.weight[row] * share,
            axes=axes[row] @ matrices[change],
            completed=self.completed[row],
        )

    def as_frame_set(self, origin: Tensor) -> FrameSet:
        """Return the list as a padded set.

        Shape:
            - origin: ``[B, 1, d]``
        """
        batch, _, d = origin.shape
        counts = torch.bincount(self.sample, minlength=batch)
        size = int(counts.max()) if batch else 0
        place = torch.arange(len(self.sample), device=origin.device) - (counts.cumsum(0) - counts)[self.sample]
        at = (self.sample, place)
        rotations = torch.eye(d, dtype=origin.dtype, device=origin.device).repeat(batch, size, 1, 1)
        weights = origin.new_zeros(batch, size)
        completed = torch.zeros(batch, size, dtype=torch.bool, device=origin.device)
        return FrameSet(
            rotations.index_put(at, self.axes),
            origin.expand(batch, size, d),
            weights.index_put(at, self.weight),
            completed.index_put(at, self.completed).any(-1),
        )


def _branches(shares: Tensor, sampling: _Sampling | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and value of the positive shares, or of one drawn from each row (value 1, with gradient)."""
    if sampling is None:
        row, column = shares.detach().nonzero(as_tuple=True)
        return row, column, shares[row, column]
    row = torch.arange(len(shares), device=shares.device)
    # multinomial refuses a table without rows.
    column = torch.multinomial(shares.detach(), 1, generator=sampling.generator).squeeze(1) if len(row) else row
    share = shares[row, column]
    return row, column, share / share.detach()


def _near_farthest(squares: Tensor, delta: float, power: int) -> tuple[Tensor, Tensor]:
    """Return the weight of each point as the farthest, and the smooth maximum of the squared distances.

    The maximum is the Lehmer mean ``L = sum q^(p+1) / sum q^p``. It is smooth and at most ``max q``, so the bump
    ``a_j = relu((q_j / L - (1 - delta)) / delta)^2`` is at least 1 for the farthest point. (``max`` itself has a kink
    at ties, where the gradient would not be equivariant.) The weights are the bumps divided by their sum.

    Args:
        squares: Squared distances ``q``; each row has a positive one.
        delta: Width of the bump.
        power: Exponent ``p``.

    Shape:
        - squares: ``[P, M]``
        - output: weights ``[P, M]``, whose rows sum to 1, and ``L`` ``[P]``
    """
    # Both L / top and q / L are homogeneous of degree 0 in q, so dividing by a detached number is exact.
    top = squares.detach().amax(-1, keepdim=True)
    ratio = squares / top
    powers = ratio**power
    lehmer = (powers * ratio).sum(-1, keepdim=True) / powers.sum(-1, keepdim=True)
    bump = ((ratio / lehmer - (1 - delta)) / delta).relu().square()
    return bump / bump.sum(-1, keepdim=True), (lehmer * top).squeeze(-1)


def _smoothstep(u: Tensor) -> Tensor:
    """Return 0 below 0, 1 above 1, and ``u^2 (3 - 2 u)`` between."""
    u = u.clamp(0, 1)
    return u.square() * (3 - 2 * u)


def _normalized(v: Tensor) -> Tensor:
    """Return ``v / |v|`` along the last axis."""
    length: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v / length


def _orthogonal_part(y: Tensor, axes: Tensor) -> Tensor:
    """Return ``y - E E^T y``, the part of ``y`` orthogonal to the axes ``E``; projected twice, against rounding.

    Shape:
        - y: ``[P, M, d]``
        - axes: ``[P, d, k]``, orthonormal columns
        - output: ``[P, M, d]``
    """
    if axes.shape[-1]:
        for _ in range(2):
            y = y - (y @ axes) @ axes.mT
    return y


def _any_orthogonal_axis(axes: Tensor) -> Tensor:
    """Return a unit vector orthogonal to the axes, made from the basis vector that is farthest from them.

    Shape:
        - axes: ``[P, d, k]``, k < d
        - output: ``[P, d]``
    """
    basis = torch.eye(axes.shape[1], dtype=axes.dtype, device=axes.device).expand(len(axes), -1, -1)
    residual = _orthogonal_part(basis, axes)
    best = residual.detach().square().sum(-1).argmax(-1)
    axis = residual[torch.arange(len(axes), device=axes.device), best]
    return _normalized(axis)


def _last_axis(axes: Tensor) -> Tensor:
    """Return the unit vector that completes ``d - 1`` axes to determinant 1.

    It is not computed from minors: the backward pass of `torch.linalg.det` returns zeros at exactly singular matrices
    (torch 2.14).

    Shape:
        - axes: ``[P, d, d - 1]``
        - output: ``[P, d]``
    """
    d = axes.shape[1]
    if d == 1:
        return axes.new_ones(len(axes), 1)
    if d == 2:
        return torch.stack((-axes[:, 1, 0], axes[:, 0, 0]), -1)
    if d == 3:
        return torch.linalg.cross(axes[..., 0], axes[..., 1])
    axis = _any_orthogonal_axis(axes)
    square = torch.cat((axes, axis.unsqueeze(-1)), -1)
    sign: Tensor = torch.linalg.det(square.detach()).sign()
    return axis * sign.unsqueeze(-1)
