"""Whether a frame is a frame: ``F(g x) = g F(x)`` as weighted sets, for random motions ``g``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid, one_of, wrong_shape
from ..checks import default_tolerance

_GROUPS = ("E", "SE", "O", "SO", "T")
_FUNCTIONS = 64


class _Set(NamedTuple):
    """A weighted set of elements.

    Shape:
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``
    """

    rotations: Tensor
    translations: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _Cloud:
    """What goes into the frame, and what to measure it by."""

    points: Tensor
    padding: Tensor
    vectors: tuple[Tensor, ...]
    middle: Tensor
    size: Tensor


def frame_equivariance_error(
    frame: Callable[..., Any],
    x: Tensor,
    *,
    group: str,
    mask: Tensor | None = None,
    vectors: Sequence[Tensor] = (),
    rank: int | None = None,
    trials: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""How far ``F(g x)`` is from ``g F(x)``, as weighted sets, for random ``g``.

    The sets are compared by the averages of 64 fixed random functions over them: with
    ``f_m(R, t) = cos(<A_m, R> + <b_m, t> + c_m)`` the error is ``max_m |sum w f_m(g^-1 F(g x)) - sum w f_m(F(x))|``.
    Order and padding do not matter. A wrong axis, a wrong weight and a missing element do, in proportion.

    Points that leave axes free (all on one line, say) let a frame choose these at will. Then the sets differ, though
    all averages that matter may agree. ``rank`` compares those: ``sum w rho(R, t) f_m(R^T (x - t))``, the averages of
    64 random modules that know positions.

    Args:
        frame: Called as ``frame(x, mask, vectors)``; it returns an object with ``rotations`` ``[B, K, d, d]``,
            ``translations`` ``[B, K, d]`` and ``weights`` ``[B, K]``.
        x: The points.
        group: What moves them: "E" (rotations, mirrors, translations), "SE", "O", "SO", or "T" (translations).
        mask: True where there is a point; the rest is padding.
        vectors: The other inputs, which turn with the points.
        rank: None compares the sets; 0, 1 or 2 the averages of outputs that are invariant, or vectors and points
            too, or tensors of rank 2 too.
        trials: How many motions; where the group has mirrors, every other one is one.
        generator: Where the motions come from; None is a fixed seed of its own.

    Shape:
        - x: ``[B, N, d]``
        - mask: ``[B, N]``
        - vectors: each ``[B, M, d]``
        - output: ``[trials, B]``

    Raises:
        ValueError: An argument is out of its range, or the motions do not move ``x``: that would be no evidence.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import frame_equivariance_error
        >>> from types import SimpleNamespace
        >>> def middle(x, mask, vectors):
        ...     one = torch.eye(3).expand(len(x), 1, 3, 3)
        ...     return SimpleNamespace(rotations=one, translations=x.mean(1, True), weights=torch.ones(len(x), 1))
        >>> x = torch.rand(2, 4, 3)
        >>> frame_equivariance_error(middle, x, group="T").max() < 1e-5
        tensor(True)
        >>> frame_equivariance_error(middle, x, group="SE").min() > 0.1
        tensor(True)
    """
    one_of("group", group, _GROUPS)
    as_int("trials", trials, minimum=1)
    if rank not in (None, 0, 1, 2):
        raise invalid("rank", "None, 0, 1 or 2", rank)
    cloud = _cloud(x, mask, tuple(vectors))
    generator = generator or torch.Generator().manual_seed(0)
    averages = _averages(cloud, rank)
    before = averages(_read(frame, x, mask, tuple(vectors)))
    errors = []
    for trial in range(trials):
        turn, shift = _motion(x, group, cloud.size, mirrored=trial % 2 == 0, generator=generator)
        moved = x @ turn.mT + shift.to(x)
        _refuse_still(cloud, moved, group)
        found = _read(frame, moved, mask, tuple(vector @ turn.mT for vector in vectors))
        turn, shift = turn.to(found.rotations), shift.to(found.rotations)
        back = _Set(turn.mT @ found.rotations, (found.translations - shift) @ turn, found.weights)
        errors.append((averages(back) - before).abs().flatten(1).amax(1))
    return torch.stack(errors)


def assert_frame_equivariant(
    frame: Callable[..., Any],
    x: Tensor,
    *,
    group: str,
    mask: Tensor | None = None,
    vectors: Sequence[Tensor] = (),
    rank: int | None = None,
    trials: int = 4,
    generator: torch.Generator | None = None,
    tolerance: float | None = None,
) -> None:
    """Raise unless ``frame`` is a frame of ``group`` on ``x``: elements of the group, weights, and the law.

    Checks that the elements are in the group (orthogonal; determinant 1 for "SE" and "SO"; no translation for "O" and
    "SO"; no rotation for "T"), that weights are not negative and sum to 1, and that `frame_equivariance_error` is at
    most ``tolerance``. NaN fails.

    Args:
        frame: As for `frame_equivariance_error`.
        x: As for `frame_equivariance_error`.
        group: As for `frame_equivariance_error`.
        mask: As for `frame_equivariance_error`.
        vectors: As for `frame_equivariance_error`.
        rank: As for `frame_equivariance_error`.
        trials: As for `frame_equivariance_error`.
        generator: As for `frame_equivariance_error`.
        tolerance: The largest error; None is 1e-10 in float64, 1e-4 in float32, 5e-2 in bfloat16.

    Raises:
        AssertionError: It is none; the message says what fails, in which sample and by how much.
        ValueError: As for `frame_equivariance_error`.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import assert_frame_equivariant
        >>> from types import SimpleNamespace
        >>> def first_point(x, mask, vectors):
        ...     one = torch.eye(3).expand(len(x), 1, 3, 3)
        ...     return SimpleNamespace(rotations=one, translations=x[:, :1], weights=torch.ones(len(x), 1))
        >>> assert_frame_equivariant(first_point, torch.rand(2, 4, 3), group="T")
    """
    if tolerance is not None and not tolerance > 0:
        raise invalid("tolerance", "a positive number or None", tolerance)
    error = frame_equivariance_error(
        frame, x, group=group, mask=mask, vectors=vectors, rank=rank, trials=trials, generator=generator
    ).amax(0)
    limit = default_tolerance([x.dtype]) if tolerance is None else tolerance
    found = _read(frame, x, mask, tuple(vectors))
    d = x.shape[-1]
    identity = torch.eye(d).to(found.rotations)
    used = (found.weights != 0).unsqueeze(-1)
    length = torch.linalg.vector_norm
    skew = length(found.rotations.mT @ found.rotations - identity, dim=(-2, -1), keepdim=True).squeeze(-1)
    _require("rotations must be orthogonal", skew * used, limit)
    if group.startswith("S"):
        improper = 1 - torch.linalg.det(found.rotations).unsqueeze(-1)
        _require(f"rotations must have determinant 1 in {group}", improper * used, limit)
    if group == "T":
        _require("rotations must be the identity in T", (found.rotations - identity).flatten(2) * used, limit)
    if group in ("O", "SO"):
        _require(f"translations must be 0 in {group}", found.translations * used, limit)
    _require("weights must not be negative", found.weights.clamp(max=0), 0)
    _require("weights must sum to 1", found.weights.sum(1) - 1, limit)
    text = "F(g x) must be g F(x) as a weighted set" if rank is None else f"averages of rank {rank} must move with x"
    _require(text, error, limit)


def _require(text: str, errors: Tensor, limit: float) -> None:
    """Raise unless all errors ``[B, ...]`` are at most ``limit``; NaN is not."""
    worst = errors.abs().flatten(1).amax(1) if errors.ndim > 1 else errors.abs()
    wrong = ~(worst <= limit)
    if wrong.any():
        sample = int(wrong.nonzero()[0])
        raise AssertionError(
            f"{text}, but the error is {float(worst[sample]):.2e} (limit {limit:.1e}) in sample {sample}; "
            f"{int(wrong.sum())} of {len(wrong)} samples fail."
        )


def _read(frame: Callable[..., Any], x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...]) -> _Set:
    """What the frame returns, with zeros in place of elements that do not count, which may hold anything."""
    found = frame(x, mask, vectors)
    weights = found.weights.detach()
    none = (weights == 0).unsqueeze(-1)
    translations = found.translations.detach().masked_fill(none, 0)
    return _Set(found.rotations.detach().masked_fill(none.unsqueeze(-1), 0), translations, weights)


def _cloud(x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...]) -> _Cloud:
    if x.ndim != 3 or 0 in x.shape:
        raise wrong_shape("x", "[B, N, d] with B, N, d >= 1", x)
    padding = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
    if mask is not None:
        if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
            raise wrong_shape("mask", f"[B={x.shape[0]}, N={x.shape[1]}] of bool", mask)
        padding = ~mask.unsqueeze(-1)
    dtype = torch.promote_types(x.dtype, torch.float32)
    vectors = tuple(vector.detach().to(dtype) for vector in vectors)
    x = x.detach().to(dtype).masked_fill(padding, 0)
    middle = x.sum(1, keepdim=True) / (~padding).sum(1, keepdim=True)
    size = (x - middle).masked_fill(padding, 0).abs().amax((1, 2), keepdim=True)
    # One point has no size of its own: any will do to compare by.
    return _Cloud(x, padding, vectors, middle, torch.where(size > 0, size, 1))


def _averages(cloud: _Cloud, rank: int | None) -> Callable[[_Set], Tensor]:
    """The averages of random functions over a set: ``[B, ..]`` numbers that are equal for equal sets."""
    generator = torch.Generator().manual_seed(1)

    def phases(values: Tensor) -> Tensor:
        """Random linear functions of ``[B, K, n]``, the same at every call with the same ``n``."""
        draw = torch.randn(values.shape[-1] + 1, _FUNCTIONS, generator=generator.manual_seed(1), dtype=torch.float64)
        return values @ draw[1:].to(values) + draw[0].to(values)

    def averages(found: _Set) -> Tensor:
        place = (found.translations - cloud.middle) / cloud.size.squeeze(-1).unsqueeze(-1)
        pose = torch.cat((found.rotations.flatten(2), place), -1)
        if rank is None:
            return torch.einsum("bk,bkm->bm", found.weights, phases(pose).cos())
        seen = (cloud.points.unsqueeze(1) - found.translations.unsqueeze(2)) @ found.rotations / cloud.size.unsqueeze(1)
        seen = seen.masked_fill(cloud.padding.unsqueeze(1), 0)
        others = [vector.unsqueeze(1) @ found.rotations for vector in cloud.vectors]
        values = phases(torch.cat([part.flatten(2) for part in (seen, *others)], -1)).cos()
        ones = torch.ones_like(found.weights).unsqueeze(-1)
        pairs = torch.einsum("bkij,bklm->bkijlm", found.rotations, found.rotations).flatten(2)
        outputs = torch.cat((ones, pose, pairs)[: rank + 1], -1)
        return torch.einsum("bk,bkm,bkn->bmn", found.weights, values, outputs)

    return averages


def _motion(
    x: Tensor, group: str, size: Tensor, *, mirrored: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random ``R`` ``[d, d]``, uniform among those of its determinant, and ``t`` ``[B, 1, d]`` of the size of x."""
    d = x.shape[-1]
    normal = torch.randn(d, d, generator=generator, dtype=torch.float64)
    shift = 3 * torch.randn(1, 1, d, generator=generator, dtype=torch.float64)
    turn, triangle = torch.linalg.qr(normal)
    turn = turn * triangle.diagonal().sign()
    if (torch.linalg.det(turn) < 0) != (mirrored and group in ("E", "O")):
        turn[:, 0] *= -1
    if group == "T":
        turn = torch.eye(d, dtype=torch.float64)
    if group in ("O", "SO"):
        shift = torch.zeros_like(shift)
    return turn.to(x), shift.to(size) * size


def _refuse_still(cloud: _Cloud, moved: Tensor, group: str) -> None:
    still = ((moved - cloud.points).masked_fill(cloud.padding, 0).abs() <= 1e-6 * cloud.size).flatten(1).all(1)
    if still.any():
        advice = f"the check proves nothing for sample {int(still.nonzero()[0])}; take other points"
        raise invalid("x", f"moved by the group {group}", cloud.points, advice)
