"""The check of frames accepts valid frames and rejects broken ones, even those with the right sums."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from clouds import CH4, CO2, GENERIC, H2O, OTHER_DIMENSIONS, THREE, padded
from torch import Tensor

from gconv_ga.frames import (
    DegenerateFrameError,
    FrameSet,
    MeanFrame,
    PCAFrame,
    PointFrame,
    assert_frame_equivariant,
    frame_equivariance_error,
)

Vectors = tuple[Tensor, ...]


@pytest.mark.parametrize("group", ["E", "SE", "O", "SO"])
@pytest.mark.parametrize("name", ["H2O", "NH3", "CH4", "pyridine", "benzene", "SF6", "cube", "generic"])
def test_accepts_point_frames(name: str, group: str, device: torch.device) -> None:
    x = THREE[name][None].to(device)
    assert_frame_equivariant(PointFrame(group), x, group=group, tolerance=1e-12)
    assert_frame_equivariant(PointFrame(group), x, group=group, rank=2, tolerance=1e-12)
    assert_frame_equivariant(PointFrame(group), x.float(), group=group)


@pytest.mark.parametrize("name", ["square d=2", "generic d=2", "tesseract d=4", "points d=1"])
def test_accepts_point_frames_in_other_dimensions(name: str, device: torch.device) -> None:
    x = OTHER_DIMENSIONS[name][None].to(device)
    assert_frame_equivariant(PointFrame("E", x.shape[-1], max_frames=1000), x, group="E", tolerance=1e-12)


@pytest.mark.parametrize(("lmax", "rank"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("name", ["CO2", "HCN", "one point", "two coincident points"])
def test_lines_agree_up_to_the_rank_that_is_averaged_out(name: str, lmax: int, rank: int, device: torch.device) -> None:
    x = THREE[name][None].to(device)
    assert_frame_equivariant(PointFrame(lmax=lmax), x, group="E", rank=rank, tolerance=1e-12)
    with pytest.raises(AssertionError, match="weighted set"):
        assert_frame_equivariant(PointFrame(lmax=lmax), x, group="E")
    if lmax == 1:
        with pytest.raises(AssertionError, match="rank 2"):
            assert_frame_equivariant(PointFrame(lmax=1), x, group="E", rank=2)


def test_accepts_principal_axes_where_they_are_defined_and_mean_frames(device: torch.device) -> None:
    x = torch.stack((H2O, CO2 + torch.randn(3, 3, dtype=torch.float64))).to(device)
    for group in ("E", "SE", "O", "SO"):
        assert_frame_equivariant(PCAFrame(group), x, group=group, tolerance=1e-11)
    assert_frame_equivariant(MeanFrame(), x, group="T", tolerance=1e-13)


def test_masks_and_vectors(device: torch.device) -> None:
    x, mask = padded([CH4, H2O, GENERIC], fill=float("nan"))
    x, mask = x.to(device), mask.to(device)
    assert_frame_equivariant(PointFrame(), x, group="E", mask=mask, tolerance=1e-12)
    v = torch.randn(3, 6, 3, dtype=torch.float64).to(device)
    assert_frame_equivariant(PointFrame(), CO2.expand(3, 3, 3).to(device), group="E", vectors=[v], tolerance=1e-12)
    assert_frame_equivariant(PointFrame(), x[:, :3], group="E", vectors=[v], rank=1, tolerance=1e-12)


def test_masked_points_do_not_count(device: torch.device) -> None:
    def reads_the_padding(x: Tensor, mask: Tensor | None, vectors: Vectors) -> FrameSet:
        return PointFrame()(x.nan_to_num(3.0))

    x, mask = padded([CH4, GENERIC], fill=float("nan"))
    with pytest.raises(AssertionError, match="sample 0; 1 of 2"):
        assert_frame_equivariant(reads_the_padding, x.to(device), group="E", mask=mask.to(device))


def broken(change: Callable[[FrameSet], SimpleNamespace | FrameSet]) -> Callable[..., SimpleNamespace | FrameSet]:
    """The point frame with a fault."""

    def frame(x: Tensor, mask: Tensor | None, vectors: Vectors) -> SimpleNamespace | FrameSet:
        return change(PointFrame()(x, mask, vectors))

    return frame


def parts(found: FrameSet, **changed: Tensor) -> SimpleNamespace:
    names = ("rotations", "translations", "weights")
    return SimpleNamespace(**{name: changed.get(name, getattr(found, name)) for name in names})


def no_element(found: FrameSet) -> SimpleNamespace:
    """Drop the first element and distribute its weight over the others."""
    weights = found.weights.clone()
    weights[:, 0] = 0
    return parts(found, weights=weights / weights.sum(1, keepdim=True))


def first_element(found: FrameSet) -> SimpleNamespace:
    weights = torch.zeros_like(found.weights)
    weights[:, 0] = 1
    return parts(found, weights=weights)


def tilted_weights(found: FrameSet) -> SimpleNamespace:
    """Weights that are larger where the last axis points to the right."""
    weights = found.weights * (1 + 1e-6 * found.rotations[:, :, 0, 2])
    return parts(found, weights=weights / weights.sum(1, keepdim=True))


BROKEN = {
    "rows for columns": lambda found: parts(found, rotations=found.rotations.mT),
    "an element missing": no_element,
    "one element only": first_element,
    "weights that depend on the orientation": tilted_weights,
    "origin left behind": lambda found: parts(found, translations=torch.zeros_like(found.translations)),
    "not orthogonal": lambda found: parts(found, rotations=1.001 * found.rotations),
    "weights do not sum to 1": lambda found: parts(found, weights=1.001 * found.weights),
    "a negative weight": lambda found: parts(
        found,
        weights=torch.cat((found.weights, found.weights[:, :1], -found.weights[:, :1]), 1),
        rotations=torch.cat((found.rotations, found.rotations[:, :1], found.rotations[:, :1]), 1),
        translations=torch.cat((found.translations, found.translations[:, :1], found.translations[:, :1]), 1),
    ),
    "NaN": lambda found: parts(found, weights=found.weights * float("nan")),
}
SAYS = {
    "not orthogonal": "orthogonal",
    "weights do not sum to 1": "sum to 1",
    "a negative weight": "negative",
}


@pytest.mark.parametrize("name", ["CH4", "generic", "H2O"])
@pytest.mark.parametrize("fault", BROKEN)
def test_rejects_broken_frames(fault: str, name: str, device: torch.device) -> None:
    with pytest.raises(AssertionError, match=SAYS.get(fault, "must")):
        assert_frame_equivariant(broken(BROKEN[fault]), THREE[name][None].to(device), group="E")


def test_rejects_what_a_sum_over_signs_hides(device: torch.device) -> None:
    # With all signs, the sum of the elements is zero, whatever the axes are.
    def fixed_axes(x: Tensor, mask: Tensor | None, vectors: Vectors) -> FrameSet:
        good = PCAFrame()(x)
        signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * 3).to(x)
        return FrameSet(torch.diag_embed(signs).expand(len(x), 8, 3, 3), good.translations, good.weights)

    x = H2O[None].to(device)
    motion = x @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q.to(x)
    sums = [
        (frame.rotations * frame.weights[..., None, None]).sum(1)
        for frame in (fixed_axes(x, None, ()), PCAFrame()(motion))
    ]
    torch.testing.assert_close(sums[0], sums[1], rtol=0, atol=1e-13)
    assert_frame_equivariant(PCAFrame(), x, group="E")
    with pytest.raises(AssertionError, match="weighted set"):
        assert_frame_equivariant(fixed_axes, x, group="E")


def test_rejects_the_choice_of_one_maximum(device: torch.device) -> None:
    # Canonicalization by the first of the farthest points: a frame on a generic cloud, not on methane.
    def farthest(x: Tensor, mask: Tensor | None, vectors: Vectors) -> FrameSet:
        middle = x.mean(1, keepdim=True)
        y = x - middle
        first = y.square().sum(-1).argmax(1)
        a = F.normalize(y[torch.arange(len(x)), first], dim=-1)
        rest = y - (y @ a[..., None]) * a[:, None]
        b = F.normalize(rest[torch.arange(len(x)), rest.square().sum(-1).argmax(1)], dim=-1)
        axes = torch.stack((a, b, torch.linalg.cross(a, b)), -1)
        return FrameSet(axes[:, None], middle, torch.ones(len(x), 1).to(x))

    assert_frame_equivariant(farthest, THREE["chiral"][None].to(device), group="SE")
    with pytest.raises(AssertionError, match="weighted set"):
        assert_frame_equivariant(farthest, CH4[None].to(device), group="SE", trials=16)


@pytest.mark.parametrize(
    ("frame", "group", "text"),
    [
        (PointFrame("E"), "SE", "determinant 1"),
        (PointFrame("E"), "O", "translations must be 0"),
        (PointFrame("E"), "T", "identity"),
    ],
    ids=["mirrors in SE", "translations in O", "rotations in T"],
)
def test_rejects_elements_of_a_larger_group(frame: PointFrame, group: str, text: str, device: torch.device) -> None:
    with pytest.raises(AssertionError, match=text):
        assert_frame_equivariant(frame, GENERIC[None].to(device), group=group)


def test_principal_axes_of_symmetric_clouds(device: torch.device) -> None:
    x = torch.stack((torch.cat((H2O, H2O + 1))[:5], CH4)).to(device)
    with pytest.raises(DegenerateFrameError, match="sample 1"):
        assert_frame_equivariant(PCAFrame(), x, group="E")
    with pytest.raises(AssertionError, match="sample 1; 1 of 2"):
        assert_frame_equivariant(PCAFrame(degenerate="ignore"), x, group="E")


def test_the_error_is_in_proportion(device: torch.device) -> None:
    x = CH4[None].to(device)
    found = []
    for size in (1e-3, 1e-6):

        def frame(x: Tensor, mask: Tensor | None, vectors: Vectors, size: float = size) -> SimpleNamespace:
            good = PointFrame()(x)
            return parts(good, translations=good.translations + size)

        found.append(float(frame_equivariance_error(frame, x, group="E").max()))
    assert 300 < found[0] / found[1] < 3000
    assert frame_equivariance_error(PointFrame(), x.expand(3, 5, 3), group="E", trials=5).shape == (5, 3)


def test_refuses_what_proves_nothing(device: torch.device) -> None:
    zero = torch.zeros(2, 1, 3, dtype=torch.float64, device=device)
    with pytest.raises(ValueError, match=r"x must be moved by the group O.*sample 0"):
        assert_frame_equivariant(PointFrame("O"), zero, group="O")
    with pytest.raises(ValueError, match="x must be moved by the group SO"):
        assert_frame_equivariant(PointFrame("SO", 1), zero[..., :1] + 1, group="SO")


def test_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    assert_frame_equivariant(PointFrame(), CH4[None], group="E")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("group", {"group": "SE3"}),
        ("trials", {"trials": 0}),
        ("rank", {"rank": 3}),
        ("mask", {"mask": torch.ones(1, 4, dtype=torch.bool)}),
        ("mask", {"mask": torch.ones(1, 5)}),
        ("x", {"x": torch.zeros(5, 3)}),
        ("x", {"x": torch.zeros(1, 0, 3)}),
    ],
)
def test_refusals_name_the_argument(argument: str, options: dict[str, object]) -> None:
    call = {"x": CH4[None], "group": "E"} | options
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        frame_equivariance_error(PointFrame(), **call)
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        assert_frame_equivariant(PointFrame(), **call)


def test_a_tolerance_is_positive() -> None:
    with pytest.raises(ValueError, match=r"^tolerance must be a positive number"):
        assert_frame_equivariant(PointFrame(), CH4[None], group="E", tolerance=0)


def test_elements_of_weight_zero_may_hold_anything(device: torch.device) -> None:
    def with_rubbish(x: Tensor, mask: Tensor | None, vectors: Vectors) -> SimpleNamespace:
        good = PointFrame()(x)
        grown = (torch.cat((part, part[:, :1] * float("nan")), 1) for part in (good.rotations, good.translations))
        return SimpleNamespace(
            **dict(zip(("rotations", "translations"), grown, strict=True)), weights=F.pad(good.weights, (0, 1))
        )

    assert_frame_equivariant(with_rubbish, CH4[None].to(device), group="E")


@pytest.mark.parametrize("rank", [None, 1])
def test_half_precision(rank: int | None, device: torch.device) -> None:
    x = torch.randn(2, 5, 3).to(device, torch.bfloat16)
    v = torch.randn(2, 4, 3).to(device, torch.bfloat16)
    error = frame_equivariance_error(PointFrame(delta=0.5), x, group="O", vectors=[v], rank=rank)
    assert float(error.max()) <= 0.2  # rounding of the moved coordinates, times the slope of the weights
