"""Point clouds as frames take them: checked, without padding, centred, and in float32 or wider."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid, message, one_of, wrong_shape

GROUPS = ("E", "SE", "O", "SO")
"""Groups of motions: "E" has rotations, reflections and translations; "S" drops reflections, "O" drops translations."""


def check_group_and_dimension(group: str, d: int) -> None:
    """Check the arguments ``group`` and ``d`` of a frame.

    Raises:
        ValueError: ``group`` is not one of `GROUPS`, or ``d`` is not a positive int.
    """
    one_of("group", group, GROUPS)
    as_int("d", d, minimum=1)


def has_reflections(group: str) -> bool:
    """Return True for "E" and "O"."""
    return not group.startswith("S")


def has_translations(group: str) -> bool:
    """Return True for "E" and "SE"."""
    return "E" in group


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast on the device of ``x``: rotations in bfloat16 are off by 3e-3."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def sample_numbers(where: Tensor) -> str:
    """Return "sample 3" or "samples 1, 2" for the mask ``where`` ``[B]``; it lists the first ten."""
    numbers = where.nonzero().flatten().tolist()
    text = ", ".join(str(number) for number in numbers[:10])
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return f"{'sample' if len(numbers) == 1 else 'samples'} {text}{more}"


class Cloud(NamedTuple):
    """Points relative to an origin, and further vectors.

    Shape:
        - points: ``[B, N, d]``, with 0 in the padding
        - origin: ``[B, 1, d]``, the centroid or 0
        - vectors: ``[B, M, d]``
        - sizes: ``[B, N + M]``, without gradient: the largest coordinate among the points and among each of the inputs
          that the vectors come from, which may have other units
    """

    points: Tensor
    origin: Tensor
    vectors: Tensor
    sizes: Tensor

    @property
    def all_vectors(self) -> Tensor:
        """The points and the vectors, ``[B, N + M, d]``: all that determines the axes."""
        return torch.cat((self.points, self.vectors), 1)


def as_cloud(
    x: Tensor, mask: Tensor | None, vectors: Sequence[Tensor], *, d: int | None = None, centered: bool = True
) -> Cloud:
    """Return the cloud of ``x`` and ``vectors``, in float32 or wider.

    Args:
        x: The points.
        mask: True for points, False for padding.
        vectors: Further vectors.
        d: Dimension that the frame is for. If None, any.
        centered: If True, the origin is the centroid of the points; otherwise it is 0.

    Shape:
        - x: ``[B, N, d]``
        - mask: ``[B, N]``
        - vectors: each ``[B, M, d]``

    Raises:
        TypeError: Coordinates have an integer dtype.
        ValueError: A shape or the mask's dtype is wrong, a cloud has no point, or a coordinate is not finite.
    """
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != (x.shape[2] if d is None else d) or x.shape[2] == 0:
        raise wrong_shape("x", f"[B, N, {'d' if d is None else f'd={d}'}] with N >= 1", x)
    for argument, value in (("x", x), *(("vectors", vector) for vector in vectors)):
        if not value.is_floating_point():
            raise TypeError(message(argument, "floating point", value, "integers are not closed under rotation"))
    valid = _checked_mask(x, mask)
    dtype = torch.float32
    for value in (x, *vectors):
        dtype = torch.promote_types(dtype, value.dtype)
    points = _without_padding("x", x.to(dtype), valid)
    others = []
    for vector in vectors:
        if vector.ndim != 3 or vector.shape[0] != x.shape[0] or vector.shape[2] != x.shape[2]:
            raise wrong_shape("vectors", f"[B={x.shape[0]}, M, d={x.shape[2]}] each", vector)
        shares_mask = vector.shape[1] == x.shape[1]
        others.append(_without_padding("vectors", vector.to(dtype), valid if shares_mask else None))
    origin = points.new_zeros(len(points), 1, points.shape[-1])
    if centered:
        points, origin = _centered(points, valid)
    parts = [part.detach() for part in (points, *others) if part.shape[1]]
    sizes = [part.abs().amax((1, 2)).unsqueeze(1).expand(part.shape[:2]) for part in parts]
    return Cloud(points, origin, torch.cat(others, 1) if others else points[:, :0], torch.cat(sizes, 1))


def _checked_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if mask.shape != x.shape[:2]:
        raise wrong_shape("mask", f"[B={x.shape[0]}, N={x.shape[1]}]", mask)
    if mask.dtype != torch.bool:
        raise invalid("mask", "bool, True for points", mask)
    empty = ~mask.any(1)
    if empty.any():
        advice = f"no point in {sample_numbers(empty)}"
        raise invalid("mask", "True for at least one point of each sample", mask, advice)
    return mask


def _without_padding(argument: str, value: Tensor, valid: Tensor | None) -> Tensor:
    """Return ``value`` with 0 in the padding (overwritten, since NaN times 0 is NaN); the rest must be finite."""
    if valid is not None:
        value = value.masked_fill(~valid.unsqueeze(-1), 0)
    wrong = ~value.isfinite().flatten(1).all(1)
    if wrong.any():
        advice = f"not finite in {sample_numbers(wrong)}; mark padding with mask"
        raise invalid(argument, "finite except in padding", value, advice)
    return value


def _centered(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points relative to their centroid, and the centroid.

    The mean is taken twice: far from the origin the first mean has the rounding error of a sum of large numbers, and
    the second removes it. Points that differ by less than rounding are made to coincide; otherwise the axes would be
    made of noise.
    """
    padding = ~valid.unsqueeze(-1)
    count = valid.sum(1).view(-1, 1, 1).to(points.dtype)
    size = points.detach().abs().amax((1, 2), keepdim=True)
    centroid = points.sum(1, keepdim=True) / count
    residual = (points - centroid).masked_fill(padding, 0)
    correction = residual.sum(1, keepdim=True) / count
    residual = (residual - correction).masked_fill(padding, 0)
    is_noise = residual.detach().abs().amax((1, 2), keepdim=True) <= 4 * torch.finfo(points.dtype).eps * size
    return residual.masked_fill(is_noise, 0), centroid + correction
