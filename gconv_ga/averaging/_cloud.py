"""The points that a frame is made of: checked, in full precision, without padding, about their middle."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid, message, one_of, wrong_shape

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
