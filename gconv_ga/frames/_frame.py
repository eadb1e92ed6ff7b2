"""What a frame is: a map from an input to a few group elements with weights."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._validate import as_int, invalid, message, one_of, wrong_shape


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
    matter. `gconv_ga.frames.assert_frame_equivariant` checks it.

    Raises:
        TypeError: The class itself is called: a protocol has no instances.

    Example:
        A frame of the plane's motions: the origin is the middle, the first axis points to the first point. Then check
        it, and use it.

        >>> import torch
        >>> from gconv_ga.frames import FrameSet
        >>> import torch.nn.functional as F
        >>> from gconv_ga.frames import FrameAverage
        >>> from gconv_ga.frames import assert_frame_equivariant
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


GROUPS = ("E", "SE", "O", "SO")


class Cloud(NamedTuple):
    """Points about their middle, and further vectors.

    Shape:
        - points: ``[B, N, d]``; padding lies at 0
        - middle: ``[B, 1, d]``
        - vectors: ``[B, M, d]``
        - counts: ``[B]``, the number of points that are no padding
    """

    points: Tensor
    middle: Tensor
    vectors: Tensor
    counts: Tensor


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``x``: rotations in bfloat16 are off by 3e-3."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def check_group_and_dimension(group: str, d: int) -> None:
    """What `PCAFrame` and `PointFrame` take as ``group`` and ``d``."""
    one_of("group", group, GROUPS)
    as_int("d", d, minimum=1)


def named(samples: Tensor) -> str:
    """The numbers of the samples for which ``samples`` ``[B]`` is true, in words; the first ten."""
    numbers = samples.nonzero().flatten().tolist()
    text = ", ".join(str(number) for number in numbers[:10])
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return f"{'sample' if len(numbers) == 1 else 'samples'} {text}{more}"


def as_cloud(
    x: Tensor, mask: Tensor | None, vectors: Sequence[Tensor], *, d: int | None = None, centered: bool = True
) -> Cloud:
    """The cloud of ``x`` and ``vectors``, in float32 at least.

    Args:
        x: The points.
        mask: True where there is a point.
        vectors: Further vectors.
        d: The dimension that the frame is for; None takes any.
        centered: Whether the origin is the middle of the points, or stays.

    Shape:
        - x: ``[B, N, d]``
        - mask: ``[B, N]``
        - vectors: each ``[B, M, d]``

    Raises:
        TypeError: Coordinates are integers.
        ValueError: A shape or the mask's dtype is wrong, a cloud has no point, or a coordinate is not finite.
    """
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != (x.shape[2] if d is None else d) or x.shape[2] == 0:
        raise wrong_shape("x", f"[B, N, {'d' if d is None else f'd={d}'}] with N >= 1", x)
    for argument, value in (("x", x), *(("vectors", vector) for vector in vectors)):
        if not value.is_floating_point():
            raise TypeError(message(argument, "floating point", value, "a rotation does not keep integers"))
    valid = _checked_mask(x, mask)
    dtype = torch.float32
    for value in (x, *vectors):
        dtype = torch.promote_types(dtype, value.dtype)
    points = _filled("x", x.to(dtype), valid)
    others = []
    for vector in vectors:
        if vector.ndim != 3 or vector.shape[0] != x.shape[0] or vector.shape[2] != x.shape[2]:
            raise wrong_shape("vectors", f"[B={x.shape[0]}, M, d={x.shape[2]}] each", vector)
        shares_mask = vector.shape[1] == x.shape[1]
        others.append(_filled("vectors", vector.to(dtype), valid if shares_mask else None))
    counts = valid.sum(1)
    middle = points.new_zeros(len(points), 1, points.shape[-1])
    if centered:
        points, middle = _about_middle(points, valid, counts)
    return Cloud(points, middle, torch.cat(others, 1) if others else points[:, :0], counts)


def _checked_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if mask.shape != x.shape[:2]:
        raise wrong_shape("mask", f"[B={x.shape[0]}, N={x.shape[1]}]", mask)
    if mask.dtype != torch.bool:
        raise invalid("mask", "bool, True where there is a point", mask)
    empty = ~mask.any(1)
    if empty.any():
        raise invalid("mask", "True for at least one point of each sample", mask, f"{named(empty)} has none")
    return mask


def _filled(argument: str, value: Tensor, valid: Tensor | None) -> Tensor:
    """``value`` with 0 in place of padding (never multiply: NaN times 0 is NaN), and finite elsewhere."""
    if valid is not None:
        value = value.masked_fill(~valid.unsqueeze(-1), 0)
    wrong = ~value.isfinite().flatten(1).all(1)
    if wrong.any():
        raise invalid(argument, "finite except in padding", value, f"{named(wrong)} is not; mask=... marks padding")
    return value


def _about_middle(points: Tensor, valid: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The points about their middle, and the middle.

    Twice: far from the origin the first mean is off by the rounding of a sum of large numbers, the second is not.
    Points that differ by less than rounding coincide; otherwise the axes would be made of noise.
    """
    padding = ~valid.unsqueeze(-1)
    divisor = counts.view(-1, 1, 1).to(points.dtype)
    size = points.detach().abs().amax((1, 2), keepdim=True)
    middle = points.sum(1, keepdim=True) / divisor
    rest = (points - middle).masked_fill(padding, 0)
    shift = rest.sum(1, keepdim=True) / divisor
    rest = (rest - shift).masked_fill(padding, 0)
    noise = rest.detach().abs().amax((1, 2), keepdim=True) <= 4 * torch.finfo(points.dtype).eps * size
    return rest.masked_fill(noise, 0), middle + shift
