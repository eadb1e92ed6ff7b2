"""Frames: maps from an input to a few weighted group elements that move with it."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._validate import as_int, wrong_shape


class DegenerateFrameError(ValueError):
    """The input is so symmetric that the frame cannot be built exactly. The message names the samples."""


class FrameSizeError(ValueError):
    """A frame has more elements than the limit set for it. The message names the samples."""


class FrameElements(NamedTuple):
    """The elements of all samples in one list, without padding.

    Shape:
        - sample: ``[T]``, index of the sample that each element belongs to
        - rotations: ``[T, d, d]``
        - translations: ``[T, d]``
        - weights: ``[T]``, all positive
    """

    sample: Tensor
    rotations: Tensor
    translations: Tensor
    weights: Tensor


@dataclass(frozen=True)
class FrameSet:
    """A weighted set of group elements ``g = (R, t): x -> R x + t`` for each sample.

    Samples may have different numbers of elements: shorter lists are padded with elements of weight 0.

    Args:
        rotations: Orthogonal matrices ``R``. Their columns are the axes of the frame.
        translations: Translations ``t``.
        weights: Non-negative weights, which sum to 1 in each sample.
        completed: Mask of the samples that do not determine all axes (collinear points, for example), so that some were
            chosen freely and averaged out. If None, the frame does not tell.
        drawn: True if the elements are independent draws of equal weight, whose averages have a standard error; False
            if they are a complete list.

    Shape:
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``
        - completed: ``[B]``, bool

    Raises:
        ValueError: The shapes do not fit together.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import FrameSet
        >>> frames = FrameSet(torch.eye(3).expand(2, 1, 3, 3), torch.zeros(2, 1, 3), torch.ones(2, 1))
        >>> frames.counts
        tensor([1, 1])
    """

    rotations: Tensor
    translations: Tensor
    weights: Tensor
    completed: Tensor | None = None
    drawn: bool = False

    def __post_init__(self) -> None:
        if self.rotations.ndim != 4 or self.rotations.shape[-1] != self.rotations.shape[-2]:
            raise wrong_shape("rotations", "[B, K, d, d]", self.rotations)
        b, k, d, _ = self.rotations.shape
        if self.translations.shape != (b, k, d):
            raise wrong_shape("translations", f"[B={b}, K={k}, d={d}]", self.translations)
        if self.weights.shape != (b, k):
            raise wrong_shape("weights", f"[B={b}, K={k}]", self.weights)
        if self.completed is not None and self.completed.shape != (b,):
            raise wrong_shape("completed", f"[B={b}]", self.completed)

    @property
    def counts(self) -> Tensor:
        """The number of elements of each sample, ``[B]``."""
        return (self.weights > 0).sum(-1)

    def elements(self) -> FrameElements:
        """Return the elements with positive weight, sample by sample."""
        sample, place = (self.weights.detach() > 0).nonzero(as_tuple=True)
        at = (sample, place)
        return FrameElements(sample, self.rotations[at], self.translations[at], self.weights[at])

    def detach(self) -> "FrameSet":
        """Return the same set, detached from the autograd graph."""
        rotations, translations = self.rotations.detach(), self.translations.detach()
        return replace(self, rotations=rotations, translations=translations, weights=self.weights.detach())

    def sample(self, count: int, generator: torch.Generator | None = None) -> "FrameSet":
        """Draw ``count`` elements of each sample with the weights as probabilities, each with weight ``1 / count``.

        Averages over the draws are unbiased, and so are their gradients: the weight is ``w / w.detach() / count``,
        which has the value ``1 / count`` and the gradient of ``log w``.

        Args:
            count: Number of draws, with replacement.
            generator: Random number generator. If None, torch's global generator.

        Raises:
            ValueError: ``count`` is not a positive int.
        """
        count = as_int("count", count, minimum=1)
        if not len(self.weights):  # multinomial refuses an empty batch
            return self
        chosen = torch.multinomial(self.weights.detach(), count, replacement=True, generator=generator)
        rows = torch.arange(len(chosen), device=chosen.device).unsqueeze(-1)
        weights = self.weights[rows, chosen]
        shares = weights / weights.detach() / count
        return FrameSet(self.rotations[rows, chosen], self.translations[rows, chosen], shares, self.completed, True)


class Frame(Protocol):
    """Signature of the frames that `FrameAverage` takes. Any callable with it will do; ten lines are enough for one.

    A frame must satisfy one law for every ``g`` of the group: ``F(g x) = g F(x)`` as weighted sets. That is, ``(R, t)``
    with weight ``w`` is in ``F(x)`` exactly if ``(R_g R, R_g t + t_g)`` with weight ``w`` is in ``F(g x)``. The order
    of the elements does not matter. `gconv_ga.frames.assert_frame_equivariant` checks the law.

    Raises:
        TypeError: The class itself is called. Protocols have no instances.

    Example:
        A frame of rotations and translations of the plane: the origin is the centroid, and the first axis points to the
        first point. It is checked, and then used.

        >>> import torch
        >>> from gconv_ga.frames import FrameSet
        >>> import torch.nn.functional as F
        >>> from gconv_ga.frames import FrameAverage
        >>> from gconv_ga.frames import assert_frame_equivariant
        >>> def first_point(x, mask=None, vectors=()):
        ...     centroid = x.mean(1, keepdim=True)
        ...     first = F.normalize(x[:, :1] - centroid, dim=-1)
        ...     second = torch.stack((-first[..., 1], first[..., 0]), -1)
        ...     return FrameSet(torch.stack((first, second), -1), centroid, torch.ones(len(x), 1).to(x))
        >>> x = torch.rand(5, 4, 2, dtype=torch.float64)
        >>> first_point(x).rotations.shape
        torch.Size([5, 1, 2, 2])
        >>> assert_frame_equivariant(first_point, x, group="SE")
        >>> net = FrameAverage(lambda x: x.exp().cumsum(1), first_point, "points", "vector")
        >>> rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
        >>> torch.allclose(net(x @ rotation.mT + 3), net(x) @ rotation.mT, rtol=0, atol=1e-12)
        True
    """

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        """Return the weighted set ``F(x)``.

        Args:
            x: The points, of a floating-point dtype; for frames of images, the image.
            mask: True for points, False for padding, which may hold anything, including NaN.
            vectors: Other inputs that rotate with the points (velocities, dipoles). A frame that ignores them is wrong
                for clouds that do not determine all axes by themselves.

        Shape:
            - x: ``[B, N, d]``
            - mask: ``[B, N]``, bool
            - vectors: each ``[B, M, d]``; if ``M == N``, the mask applies to them too
        """
