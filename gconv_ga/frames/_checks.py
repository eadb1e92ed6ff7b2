"""Checks that a frame is equivariant, ``F(g x) = g F(x)`` as weighted sets, for random motions ``g``."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid, one_of, wrong_shape
from ..checks import default_tolerance
from ._cloud import GROUPS
from ._rotations import random_rotations

_GROUPS = (*GROUPS, "T")
_TEST_FUNCTIONS = 64


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
    r"""Measure the distance between ``F(g x)`` and ``g F(x)``, as weighted sets, for random ``g``.

    The sets are compared by the averages of 64 fixed random functions over them: with
    ``f_m(R, t) = cos(<A_m, R> + <b_m, t> + c_m)`` the error is ``max_m |sum w f_m(g^-1 F(g x)) - sum w f_m(F(x))|``.
    The order of the elements and padding have no effect. A wrong axis, a wrong weight and a missing element do, in
    proportion.

    A frame may choose axes freely where the points do not determine them (collinear points, for example). Then the sets
    differ, although the averages of interest may be equal. With ``rank`` these are compared:
    ``sum w rho(R, t) f_m(R^T (x - t))``, the averages of 64 random modules that depend on positions.

    Args:
        frame: The frame, called as ``frame(x, mask, vectors)``. It returns an object with ``rotations``
            ``[B, K, d, d]``, ``translations`` ``[B, K, d]`` and ``weights`` ``[B, K]``.
        x: The points.
        group: Group of the motions: "E" (rotations, reflections, translations), "SE", "O", "SO", or "T" (translations).
        mask: True for points, False for padding.
        vectors: Other inputs that rotate with the points.
        rank: If None, compare the sets. Otherwise compare averages of outputs of ranks up to this one: 0 (invariants),
            1 (vectors and points) or 2 (tensors).
        trials: Number of motions. In groups with reflections, every other motion reflects.
        generator: Random number generator for the motions. If None, one with a fixed seed.

    Shape:
        - x: ``[B, N, d]``
        - mask: ``[B, N]``
        - vectors: each ``[B, M, d]``
        - output: ``[trials, B]``

    Raises:
        ValueError: An argument is out of its range, or the motions do not change ``x``, which would prove nothing.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import frame_equivariance_error
        >>> from types import SimpleNamespace
        >>> def mean_frame(x, mask, vectors):
        ...     identity = torch.eye(3).expand(len(x), 1, 3, 3)
        ...     return SimpleNamespace(rotations=identity, translations=x.mean(1, True), weights=torch.ones(len(x), 1))
        >>> x = torch.rand(2, 4, 3)
        >>> frame_equivariance_error(mean_frame, x, group="T").max() < 1e-5
        tensor(True)
        >>> frame_equivariance_error(mean_frame, x, group="SE").min() > 0.1
        tensor(True)
    """
    one_of("group", group, _GROUPS)
    as_int("trials", trials, minimum=1)
    if rank not in (None, 0, 1, 2):
        raise invalid("rank", "None, 0, 1 or 2", rank)
    cloud = _reference_cloud(x, mask, tuple(vectors))
    generator = generator or torch.Generator().manual_seed(0)
    averages = _test_averages(cloud, rank)
    expected = averages(_weighted_set(frame, x, mask, tuple(vectors)))
    errors = []
    for trial in range(trials):
        rotation, translation = _random_motion(x, group, cloud.size, reflects=trial % 2 == 0, generator=generator)
        moved = x @ rotation.mT + translation.to(x)
        _check_moved(cloud, moved, group)
        found = _weighted_set(frame, moved, mask, tuple(vector @ rotation.mT for vector in vectors))
        rotation, translation = rotation.to(found.rotations), translation.to(found.rotations)
        translations = (found.translations - translation) @ rotation
        moved_back = _WeightedSet(rotation.mT @ found.rotations, translations, found.weights)
        errors.append((averages(moved_back) - expected).abs().flatten(1).amax(1))
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
    """Raise an error unless ``frame`` is a frame of ``group`` on ``x``: group elements, weights, and equivariance.

    The function checks that the elements are in the group (orthogonal; determinant 1 for "SE" and "SO"; no translation
    for "O" and "SO"; no rotation for "T"), that weights are not negative and sum to 1, and that
    `frame_equivariance_error` is at most ``tolerance``. NaN fails.

    Args:
        frame: As for `frame_equivariance_error`.
        x: As for `frame_equivariance_error`.
        group: As for `frame_equivariance_error`.
        mask: As for `frame_equivariance_error`.
        vectors: As for `frame_equivariance_error`.
        rank: As for `frame_equivariance_error`.
        trials: As for `frame_equivariance_error`.
        generator: As for `frame_equivariance_error`.
        tolerance: Largest accepted error. If None, 1e-10 in float64, 1e-4 in float32, 5e-2 in bfloat16.

    Raises:
        AssertionError: A check fails; the message says which, in which sample and by how much.
        ValueError: As for `frame_equivariance_error`.

    Example:
        >>> import torch
        >>> from gconv_ga.frames import assert_frame_equivariant
        >>> from types import SimpleNamespace
        >>> def first_point(x, mask, vectors):
        ...     identity = torch.eye(3).expand(len(x), 1, 3, 3)
        ...     return SimpleNamespace(rotations=identity, translations=x[:, :1], weights=torch.ones(len(x), 1))
        >>> assert_frame_equivariant(first_point, torch.rand(2, 4, 3), group="T")
    """
    if tolerance is not None and not (isinstance(tolerance, int | float) and tolerance > 0):
        raise invalid("tolerance", "a positive number or None", tolerance)
    error = frame_equivariance_error(
        frame, x, group=group, mask=mask, vectors=vectors, rank=rank, trials=trials, generator=generator
    ).amax(0)
    limit = default_tolerance([x.dtype]) if tolerance is None else tolerance
    found = _weighted_set(frame, x, mask, tuple(vectors))
    identity = torch.eye(x.shape[-1]).to(found.rotations)
    used = (found.weights != 0).unsqueeze(-1)
    defects = found.rotations.mT @ found.rotations - identity
    not_orthogonal = torch.linalg.vector_norm(defects, dim=(-2, -1), keepdim=True).squeeze(-1)
    _require("rotations must be orthogonal", not_orthogonal * used, limit)
    if group.startswith("S"):
        improper = 1 - torch.linalg.det(found.rotations).unsqueeze(-1)
        _require(f"rotations must have determinant 1 in {group}", improper * used, limit)
    if group == "T":
        _require("rotations must be the identity in T", (found.rotations - identity).flatten(2) * used, limit)
    if group in ("O", "SO"):
        _require(f"translations must be 0 in {group}", found.translations * used, limit)
    _require("weights must not be negative", found.weights.clamp(max=0), 0)
    _require("weights must sum to 1", found.weights.sum(1) - 1, limit)
    text = "F(g x) must be g F(x) as a weighted set" if rank is None else f"averages up to rank {rank} must move with x"
    _require(text, error, limit)


def _require(text: str, errors: Tensor, limit: float) -> None:
    """Raise an error unless all ``errors`` ``[B, ...]`` are at most ``limit``, which NaN is not."""
    worst = errors.abs().flatten(1).amax(1) if errors.ndim > 1 else errors.abs()
    wrong = ~(worst <= limit)
    if wrong.any():
        sample = int(wrong.nonzero()[0])
        raise AssertionError(
            f"{text}, but the error is {float(worst[sample]):.2e} (limit {limit:.1e}) in sample {sample}; "
            f"{int(wrong.sum())} of {len(wrong)} samples fail."
        )


class _WeightedSet(NamedTuple):
    """A weighted set of elements.

    Shape:
        - rotations: ``[B, K, d, d]``
        - translations: ``[B, K, d]``
        - weights: ``[B, K]``
    """

    rotations: Tensor
    translations: Tensor
    weights: Tensor


def _weighted_set(
    frame: Callable[..., Any], x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...]
) -> _WeightedSet:
    """Return the frame of ``x``, with zeros in place of elements of weight 0, which may hold anything."""
    found = frame(x, mask, vectors)
    weights = found.weights.detach()
    unused = (weights == 0).unsqueeze(-1)
    translations = found.translations.detach().masked_fill(unused, 0)
    return _WeightedSet(found.rotations.detach().masked_fill(unused.unsqueeze(-1), 0), translations, weights)


class _ReferenceCloud(NamedTuple):
    """The inputs of the frame in float32 or wider, with their centroid and size.

    Shape:
        - points: ``[B, N, d]``, with 0 in the padding
        - padding: ``[B, N, 1]``
        - centroid: ``[B, 1, d]``
        - size: ``[B, 1, 1]``
    """

    points: Tensor
    padding: Tensor
    vectors: tuple[Tensor, ...]
    centroid: Tensor
    size: Tensor


def _reference_cloud(x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...]) -> _ReferenceCloud:
    if x.ndim != 3 or 0 in x.shape:
        raise wrong_shape("x", "[B, N, d] with B, N, d >= 1", x)
    padding = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
    if mask is not None:
        if mask.shape != x.shape[:2]:
            raise wrong_shape("mask", f"[B={x.shape[0]}, N={x.shape[1]}]", mask)
        if mask.dtype != torch.bool:
            raise invalid("mask", "bool, True for points", mask)
        padding = ~mask.unsqueeze(-1)
    dtype = torch.promote_types(x.dtype, torch.float32)
    vectors = tuple(vector.detach().to(dtype) for vector in vectors)
    x = x.detach().to(dtype).masked_fill(padding, 0)
    centroid = x.sum(1, keepdim=True) / (~padding).sum(1, keepdim=True)
    size = (x - centroid).masked_fill(padding, 0).abs().amax((1, 2), keepdim=True)
    # A single point has no size; any scale will do for it.
    return _ReferenceCloud(x, padding, vectors, centroid, torch.where(size > 0, size, 1))


def _test_averages(cloud: _ReferenceCloud, rank: int | None) -> Callable[[_WeightedSet], Tensor]:
    """Return a function that averages random functions over a set: ``[B, ..]`` numbers, equal for equal sets."""
    generator = torch.Generator().manual_seed(1)

    def random_phases(values: Tensor) -> Tensor:
        """Return random linear functions of ``[B, K, n]``, the same at every call with the same ``n``."""
        shape = (values.shape[-1] + 1, _TEST_FUNCTIONS)
        coefficients = torch.randn(shape, generator=generator.manual_seed(1), dtype=torch.float64)
        return values @ coefficients[1:].to(values) + coefficients[0].to(values)

    def averages(found: _WeightedSet) -> Tensor:
        place = (found.translations - cloud.centroid) / cloud.size.squeeze(-1).unsqueeze(-1)
        pose = torch.cat((found.rotations.flatten(2), place), -1)
        if rank is None:
            return torch.einsum("bk,bkm->bm", found.weights, random_phases(pose).cos())
        points = cloud.points.unsqueeze(1) - found.translations.unsqueeze(2)
        canonical = (points @ found.rotations / cloud.size.unsqueeze(1)).masked_fill(cloud.padding.unsqueeze(1), 0)
        vectors = [vector.unsqueeze(1) @ found.rotations for vector in cloud.vectors]
        values = random_phases(torch.cat([part.flatten(2) for part in (canonical, *vectors)], -1)).cos()
        ones = torch.ones_like(found.weights).unsqueeze(-1)
        pairs = torch.einsum("bkij,bklm->bkijlm", found.rotations, found.rotations).flatten(2)
        outputs = torch.cat((ones, pose, pairs)[: rank + 1], -1)
        return torch.einsum("bk,bkm,bkn->bmn", found.weights, values, outputs)

    return averages


def _random_motion(
    x: Tensor, group: str, size: Tensor, *, reflects: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw an ``R`` ``[d, d]``, uniform among those of its determinant, and a ``t`` ``[B, 1, d]`` of the size of x."""
    d = x.shape[-1]
    rotation = random_rotations((), d, torch.empty(0, dtype=torch.float64), generator)
    translation = 3 * torch.randn(1, 1, d, generator=generator, dtype=torch.float64)
    if reflects and group in ("E", "O"):
        rotation[:, 0] *= -1
    if group == "T":
        rotation = torch.eye(d, dtype=torch.float64)
    if group in ("O", "SO"):
        translation = torch.zeros_like(translation)
    return rotation.to(x), translation.to(size) * size


def _check_moved(cloud: _ReferenceCloud, moved: Tensor, group: str) -> None:
    difference = (moved - cloud.points).masked_fill(cloud.padding, 0)
    unmoved = (difference.abs() <= 1e-6 * cloud.size).flatten(1).all(1)
    if unmoved.any():
        advice = f"the check proves nothing for sample {int(unmoved.nonzero()[0])}; use other points"
        raise invalid("x", f"moved by the group {group}", cloud.points, advice)
