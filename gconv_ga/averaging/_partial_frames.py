"""How a point frame grows: axis by axis, a list of partial frames that branches at near ties."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from ._completions import completions
from ._frame import FrameSet
from ._gram_schmidt import any_axis, farthest, last_axis, normalized, reject, smoothstep


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
