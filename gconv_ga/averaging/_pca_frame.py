"""The frame of principal axes: what everybody uses, with an error where it is not defined."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid, one_of
from ._cloud import as_cloud, check_group_and_dimension, full_precision, named
from ._completions import completions
from ._frame import DegenerateFrameError, FrameSet


@dataclass(frozen=True)
class PCAFrame:
    """The principal axes of a cloud with all their signs: ``2^d`` elements, or ``2^(d-1)`` rotations.

    ``t = mean(x)``, ``C = (x - t)^T (x - t)``, and the axes are the eigenvectors of ``C`` in ascending order of the
    eigenvalues ``l``; each may point either way, so ``F(x) = {([+-v_1, .., +-v_d], t)}`` with equal weights. "SE" and
    "SO" keep those of determinant 1; "O" and "SO" leave the origin where it is, ``t = 0``. Vectors enter ``C`` too.

    **Use `PointFrame` unless you have reasons.** Where two eigenvalues agree the axes are not defined: the average is
    wrong there, and close by its gradient has size ``1 / gap``. That is every cloud with an axis of symmetry of order 3
    or more: methane, ammonia, benzene, cubes, and every straight line in three dimensions. A frame of these says so.
    The reason to have it is its size, which does not grow with the number of points.

    Args:
        group: "E" (rotations, mirrors, translations), "SE" (rotations, translations), "O" or "SO".
        d: The dimension.
        degenerate: What to do about samples with ``min_i (l_(i+1) - l_i) < rtol * max_i l_i``: "raise",
            "warn" or "ignore".
        rtol: The smallest relative gap between eigenvalues that counts as one.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, 2^d, d, d]`` (half for "SE" and "SO")
        - translations: ``[B, 2^d, d]``
        - weights: ``[B, 2^d]``

    Raises:
        TypeError: Coordinates are integers.
        DegenerateFrameError: Two eigenvalues agree; the message names the samples.
        ValueError: An option is none of those listed, a shape is wrong, a cloud has no point, or a coordinate is not
            finite.

    Example:
        >>> import torch
        >>> PCAFrame("E", 3)(torch.rand(2, 5, 3)).rotations.shape
        torch.Size([2, 8, 3, 3])
        >>> square = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]])
        >>> PCAFrame("E", 2)(square)
        Traceback (most recent call last):
            ...
        gconv_ga.averaging._frame.DegenerateFrameError: x must be a batch of clouds whose eigenvalues differ by ...

    References:
        Puny et al., "Frame averaging for invariant and equivariant network design", ICLR 2022, section 3.1.
    """

    group: str = "E"
    d: int = 3
    degenerate: str = "raise"
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        check_group_and_dimension(self.group, self.d)
        one_of("degenerate", self.degenerate, ("raise", "warn", "ignore"))
        if not 0 <= self.rtol < 1:
            raise invalid("rtol", "a number from 0 up to 1", self.rtol)
        completions(self.d, self.group.startswith("S"), 1)  # refuses too large d now, not at the first call

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        with full_precision(x):
            cloud = as_cloud(x, mask, vectors, d=self.d, centered="E" in self.group)
            y = torch.cat((cloud.points, cloud.vectors), 1)
            values, axes = torch.linalg.eigh(y.mT @ y)
            self._refuse_degenerate(values.detach())
            proper = self.group.startswith("S")
            if proper:
                # No gradient flows through a sign, and none through det, whose gradient is wrong where it is singular.
                axes = axes * _last(torch.linalg.det(axes.detach()).sign(), self.d)
            signs = completions(self.d, proper, 1)[0].to(axes)
            rotations = axes.unsqueeze(1) @ signs
            batch, size = rotations.shape[:2]
            translations = cloud.middle.expand(batch, size, self.d)
            return FrameSet(rotations, translations, axes.new_full((batch, size), 1 / size))

    def _refuse_degenerate(self, values: Tensor) -> None:
        if self.d == 1 or self.degenerate == "ignore":
            return
        wrong = values.diff(dim=-1).amin(-1) <= self.rtol * values[:, -1]
        if wrong.any():
            text = (
                f"x must be a batch of clouds whose eigenvalues differ by more than rtol={self.rtol} of the largest, "
                f"but got two that agree in {named(wrong)}. Use PointFrame, which needs no eigenvalues."
            )
            if self.degenerate == "raise":
                raise DegenerateFrameError(text)
            warnings.warn(text, stacklevel=3)


def _last(sign: Tensor, d: int) -> Tensor:
    """Factors ``[B, 1, d]`` for the columns: ones, and ``sign`` for the last."""
    factors = sign.new_ones(len(sign), 1, d)
    factors[:, 0, -1] = sign
    return factors
