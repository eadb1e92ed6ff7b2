"""The classical frames: the mean of the points, a landmark of an image, the principal axes of a cloud."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape
from ._cloud import (
    as_cloud,
    check_group_and_dimension,
    full_precision,
    has_reflections,
    has_translations,
    sample_numbers,
)
from ._frame import DegenerateFrameError, FrameSet
from ._rotations import signed_permutations


@dataclass(frozen=True)
class MeanFrame:
    """The frame of the translations of ``R^d``: one element, the mean of the points.

    ``F(x) = {mean(x)}``, so the average over it is ``<Phi>_F(x) = Phi(x - mean(x)) + mean(x)`` for outputs that are
    points, and ``Phi(x - mean(x))`` for all others. It is exactly equivariant to translations on every cloud and in
    every dimension, since ``mean(x + a) = mean(x) + a``. It does not cover rotations.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, 1, d, d]``, the identity
        - translations: ``[B, 1, d]``
        - weights: ``[B, 1]``, ones

    Raises:
        TypeError: Coordinates have an integer dtype.
        ValueError: A shape is wrong, a cloud has no point, or a coordinate is not finite.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import MeanFrame
        >>> MeanFrame()(torch.tensor([[[0.0, 1.0], [4.0, 3.0]]])).translations
        tensor([[[2., 2.]]])
    """

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        with full_precision(x):
            mean = as_cloud(x, mask, vectors).origin
            batch, _, d = mean.shape
            identity = torch.eye(d, dtype=mean.dtype, device=mean.device).expand(batch, 1, d, d)
            return FrameSet(identity, mean, mean.new_ones(batch, 1))


@dataclass(frozen=True)
class LandmarkFrame:
    """The frame of images under whole-pixel translations: the position where a score is largest ("the cat's eye").

    ``F(x) = argmax_y score(x)(y) - c``, with the central pixel ``c = (W // 2, H // 2)``. Tied pixels share the weight.
    With `Canonicalize` the module sees the image with the landmark at its centre, which makes a network that depends on
    positions (dense layers, position embeddings, zero padding) exactly equivariant to translations.

    Translations are cyclic: what leaves the image re-enters on the opposite side. For an object on an empty background
    this equals an ordinary translation, as long as the object stays inside the image.

    Args:
        score: Function from images to maps of scores, large where the landmark is. It must commute with cyclic
            translations, as pointwise operations and convolutions with ``padding_mode="circular"`` do.

    Shape:
        - x: ``[B, C, H, W]``
        - score(x): ``[B, H, W]``
        - rotations: ``[B, K, 2, 2]``, the identity
        - translations: ``[B, K, 2]``, whole pixels, ``(columns to the right, rows down)``
        - weights: ``[B, K]``

    Raises:
        ValueError: ``score`` is not a function, ``x`` is not a batch of images, or the score has another shape or holds
            NaN.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import LandmarkFrame
        >>> brightest = LandmarkFrame(lambda x: x.sum(1))
        >>> image = torch.zeros(1, 3, 5, 7)
        >>> image[..., 4, 6] = 1
        >>> brightest(image).translations  # three columns to the right of the centre, and two rows down
        tensor([[[3., 2.]]])
    """

    score: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.score):
            raise invalid("score", "a function from images to maps of scores", self.score)

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        if x.ndim != 4:
            raise wrong_shape("x", "[B, C, H, W]", x)
        batch, _, height, width = x.shape
        score = self.score(x)
        if score.shape != (batch, height, width):
            raise wrong_shape("score(x)", f"[B={batch}, H={height}, W={width}]", score)
        flat = score.detach().flatten(1)
        is_nan = flat.isnan().any(1)
        if is_nan.any():
            raise invalid("score(x)", "a number at every pixel", score, f"NaN in {sample_numbers(is_nan)}")
        is_best = flat == flat.amax(1, keepdim=True)
        count = int(is_best.sum(1).max()) if batch else 0
        weights, place = is_best.to(torch.float32).topk(count, dim=1)
        offset = torch.stack((place % width - width // 2, place // width - height // 2), -1).to(torch.float32)
        identity = torch.eye(2, device=x.device).expand(batch, count, 2, 2)
        return FrameSet(identity, offset, weights / weights.sum(1, keepdim=True))


@dataclass(frozen=True)
class PCAFrame:
    """The principal axes of a cloud with all their signs: ``2^d`` elements, or ``2^(d-1)`` rotations.

    With ``t = mean(x)`` and ``C = (x - t)^T (x - t)``, the axes are the eigenvectors of ``C`` in ascending order of the
    eigenvalues ``l``. Each may point either way, so ``F(x) = {([+-v_1, .., +-v_d], t)}`` with equal weights. "SE" and
    "SO" keep the elements of determinant 1. "O" and "SO" keep the origin, ``t = 0``. Vectors enter ``C`` too.

    Why ``F(g x) = g F(x)`` holds: ``C`` of the rotated cloud is ``R C R^T``, so its eigenvalues are the same and its
    eigenvectors are ``+-R v_i``. All signs are in the set, so it does not matter which ones the solver returns.

    Where it fails: where two eigenvalues are equal the axes are not defined. The average is wrong there, and nearby its
    gradient has size ``1 / gap``. This concerns every cloud with an axis of symmetry of order 3 or more: methane,
    ammonia, benzene, cubes, and collinear points in three dimensions. By default such clouds raise an error.

    **Prefer `PointFrame`**, which has no such exceptions. The advantage of this frame is its size, which does not grow
    with the number of points.

    Args:
        group: "E" (rotations, reflections, translations), "SE" (rotations, translations), "O" (rotations, reflections)
            or "SO" (rotations).
        d: Dimension.
        degenerate: Response to samples with ``min_i (l_(i+1) - l_i) <= rtol * max_i l_i``: "raise", "warn" or "ignore".
        rtol: Relative gap up to which two eigenvalues count as equal.

    Shape:
        - x: ``[B, N, d]``
        - rotations: ``[B, 2^d, d, d]`` (half for "SE" and "SO")
        - translations: ``[B, 2^d, d]``
        - weights: ``[B, 2^d]``

    Raises:
        TypeError: Coordinates have an integer dtype.
        DegenerateFrameError: Two eigenvalues are equal; the message names the samples.
        ValueError: An option is out of its range, a shape is wrong, a cloud has no point, or a coordinate is not
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
        if not isinstance(self.rtol, int | float) or not 0 <= self.rtol < 1:
            raise invalid("rtol", "a number from 0 up to 1", self.rtol)
        self._signs()  # refuses a too large d now rather than at the first call

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        with full_precision(x):
            cloud = as_cloud(x, mask, vectors, d=self.d, centered=has_translations(self.group))
            # The axes do not depend on the scale. Squares of 1e-30 and 1e30 are out of the range of float32.
            size = cloud.sizes.amax(1)[:, None, None]
            y = cloud.all_vectors / torch.where(size > 0, size, 1)
            values, axes = torch.linalg.eigh(y.mT @ y)
            self._check_degenerate(values.detach())
            if not has_reflections(self.group):
                # Detached: the gradient of a sign is 0, and that of det is wrong at singular matrices.
                sign = torch.linalg.det(axes.detach()).sign()
                factors = sign.new_ones(len(sign), 1, self.d)
                factors[:, 0, -1] = sign
                axes = axes * factors
            rotations = axes.unsqueeze(1) @ self._signs().to(axes)
            batch, size = rotations.shape[:2]
            translations = cloud.origin.expand(batch, size, self.d)
            return FrameSet(rotations, translations, axes.new_full((batch, size), 1 / size))

    def _signs(self) -> Tensor:
        """Return the diagonal matrices of signs, ``[K, d, d]``."""
        return signed_permutations(self.d, proper=not has_reflections(self.group), lmax=1)[0]

    def _check_degenerate(self, values: Tensor) -> None:
        if self.d == 1 or self.degenerate == "ignore":
            return
        is_degenerate = values.diff(dim=-1).amin(-1) <= self.rtol * values[:, -1]
        if is_degenerate.any():
            text = (
                f"x must be a batch of clouds whose eigenvalues differ by more than rtol={self.rtol} of the largest, "
                f"but got closer ones in {sample_numbers(is_degenerate)}. Use PointFrame, which needs no eigenvalues."
            )
            if self.degenerate == "raise":
                raise DegenerateFrameError(text)
            warnings.warn(text, stacklevel=3)
