"""The frame of the translations: the middle of the points."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ._frame import DegenerateFrameError, FrameSet, as_cloud, check_group_and_dimension, full_precision, named
from ._rotations import completions


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
        >>> import torch
        >>> from gconv_ga.frames import MeanFrame
        >>> MeanFrame()(torch.tensor([[[0.0, 1.0], [4.0, 3.0]]])).translations
        tensor([[[2., 2.]]])
    """

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        with full_precision(x):
            middle = as_cloud(x, mask, vectors).middle
            batch, _, d = middle.shape
            identity = torch.eye(d, dtype=middle.dtype, device=middle.device).expand(batch, 1, d, d)
            return FrameSet(identity, middle, middle.new_ones(batch, 1))


@dataclass(frozen=True)
class LandmarkFrame:
    """The frame of images under whole-pixel translations: the place where a score is largest, "the cat's eye".

    ``F(x) = argmax_y score(x)(y) - c`` with the middle pixel ``c = (W // 2, H // 2)``; pixels that tie share the
    weight. With `Canonicalize` the module sees the image with the landmark in its middle, which makes a network that
    knows positions (dense layers, position embeddings, zero padding) exactly equivariant to translations.

    Translations are cyclic: what leaves the image comes in on the other side. For an object on an empty background
    that is the same as an ordinary translation, as long as the object stays inside.

    Args:
        score: From an image to a map of the landmark's likeliness. It must commute with cyclic translations: pointwise
            operations and convolutions with ``padding_mode="circular"`` do.

    Shape:
        - x: ``[B, C, H, W]``
        - score(x): ``[B, H, W]``
        - rotations: ``[B, K, 2, 2]``, the identity
        - translations: ``[B, K, 2]``, whole pixels, ``(columns to the right, rows down)``
        - weights: ``[B, K]``

    Raises:
        ValueError: ``x`` is no image, or the score has another shape.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import LandmarkFrame
        >>> brightest = LandmarkFrame(lambda x: x.sum(1))
        >>> image = torch.zeros(1, 3, 5, 7)
        >>> image[..., 4, 6] = 1
        >>> brightest(image).translations  # from the middle three columns to the right and two rows down
        tensor([[[3., 2.]]])
    """

    score: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        if x.ndim != 4:
            raise wrong_shape("x", "[B, C, H, W]", x)
        batch, _, height, width = x.shape
        score = self.score(x)
        if score.shape != (batch, height, width):
            raise wrong_shape("score(x)", f"[B={batch}, H={height}, W={width}]", score)
        flat = score.detach().flatten(1)
        best = flat == flat.amax(1, keepdim=True)
        count = int(best.sum(1).max()) if batch else 0
        weights, place = best.to(torch.float32).topk(count, dim=1)
        offset = torch.stack((place % width - width // 2, place // width - height // 2), -1).to(torch.float32)
        identity = torch.eye(2, device=x.device).expand(batch, count, 2, 2)
        return FrameSet(identity, offset, weights / weights.sum(1, keepdim=True))


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
        >>> from gconv_ga.frames import PCAFrame
        >>> PCAFrame("E", 3)(torch.rand(2, 5, 3)).rotations.shape
        torch.Size([2, 8, 3, 3])
        >>> square = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]])
        >>> PCAFrame("E", 2)(square)
        Traceback (most recent call last):
            ...
        gconv_ga.frames._frame.DegenerateFrameError: x must be a batch of clouds whose eigenvalues differ by ...

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
