"""What a frame is: a map from an input to a few group elements with weights."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._validate import as_int, wrong_shape


class DegenerateFrameError(ValueError):
    """The input has so much symmetry that the frame cannot be built exactly; the message names the samples."""


class FrameSizeError(ValueError):
    """A frame has more elements than the limit that was set for it; the message names the samples."""


class FrameElements(NamedTuple):
    """The elements of all samples in one list, without padding.

    Shape:
        - sample: ``[T]``, whose element it is
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

    Samples may have different numbers of elements: the shorter lists are filled up with elements of weight 0.

    Args:
        rotations: The orthogonal matrices ``R``; their columns are the axes of the frame.
        translations: The translations ``t``.
        weights: Non-negative; they sum to 1 in each sample.
        completed: Which samples do not fix all axes (points on one line, say), so that some were chosen freely and
            averaged out. None if the frame does not say.
        drawn: Whether the elements are independent draws, all of the same weight, of which averages have a standard
            error; not so if they are all there are.

    Shape:
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``
        - completed: ``[B]``, bool

    Raises:
        ValueError: The shapes do not fit together.

    Example:
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
        """The elements with positive weight, sample by sample."""
        sample, place = (self.weights.detach() > 0).nonzero(as_tuple=True)
        at = (sample, place)
        return FrameElements(sample, self.rotations[at], self.translations[at], self.weights[at])

    def detach(self) -> "FrameSet":
        """The same set, cut from the graph of gradients."""
        turns, shifts, weights = self.rotations.detach(), self.translations.detach(), self.weights.detach()
        return replace(self, rotations=turns, translations=shifts, weights=weights)

    def sample(self, count: int, generator: torch.Generator | None = None) -> "FrameSet":
        """``count`` elements of each sample, drawn with the weights as probabilities, each with weight ``1 / count``.

        Averages over the draw are unbiased, and so are their gradients: the weight is ``w / w.detach() / count``,
        which is ``1 / count`` in value and keeps the gradient of ``log w``.

        Args:
            count: How many; the same element may come twice.
            generator: Where the random numbers come from; None is torch's default.

        Raises:
            ValueError: ``count`` is no positive int.
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
    """What `FrameAverage` takes as a frame: any callable with this signature. Write your own in ten lines.

    The one law, for every ``g`` of the group: ``F(g x) = g F(x)`` as weighted sets, that is ``(R, t)`` with weight
    ``w`` is in ``F(x)`` exactly when ``(R_g R, R_g t + t_g)`` with weight ``w`` is in ``F(g x)``. The order does not
    matter. `gconv_ga.checks.assert_frame_equivariant` checks it.

    Raises:
        TypeError: The class itself is called: a protocol has no instances.

    Example:
        A frame of the plane's motions: the origin is the middle, the first axis points to the first point. Then check
        it, and use it.

        >>> import torch.nn.functional as F
        >>> from gconv_ga.averaging import FrameAverage
        >>> from gconv_ga.checks import assert_frame_equivariant
        >>> def first_point(x, mask=None, vectors=()):
        ...     middle = x.mean(1, keepdim=True)
        ...     first = F.normalize(x[:, :1] - middle, dim=-1)
        ...     second = torch.stack((-first[..., 1], first[..., 0]), -1)
        ...     return FrameSet(torch.stack((first, second), -1), middle, torch.ones(len(x), 1).to(x))
        >>> x = torch.rand(5, 4, 2, dtype=torch.float64)
        >>> first_point(x).rotations.shape
        torch.Size([5, 1, 2, 2])
        >>> assert_frame_equivariant(first_point, x, group="SE")
        >>> net = FrameAverage(lambda x: x.exp().cumsum(1), first_point, "points", "vector")
        >>> turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
        >>> torch.allclose(net(x @ turn.mT + 3), net(x) @ turn.mT, rtol=0, atol=1e-12)
        True
    """

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        """The weighted set ``F(x)``.

        Args:
            x: The points; an integer dtype is refused. For frames of images, the image.
            mask: True where there is a point, False where there is padding, which may hold anything, NaN too.
            vectors: The other inputs that turn with the points (velocities, dipoles). A frame that leaves them out is
                wrong on clouds that do not fix all axes by themselves.

        Shape:
            - x: ``[B, N, d]``
            - mask: ``[B, N]``, bool
            - vectors: each ``[B, M, d]``; where ``M == N`` the mask counts for them too
        """
