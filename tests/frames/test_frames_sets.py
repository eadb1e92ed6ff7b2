"""The contents of a frame: number of elements, weights, and continuity."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clouds import GENERIC, THREE, icosahedron, on_one_line, polygon, read_extxyz
from frame_modules import Flat, Outputs
from torch import Tensor

from gconv_ga.frames import FrameAverage, FrameSet, PCAFrame, PointFrame

# Orders of point groups for which the farthest points are one orbit, and so are those farthest from their axes.
ORDERS = {"CH4": 24, "SF6": 48, "NH3": 12, "pyridine": 4, "chiral": 2}


@pytest.mark.parametrize(("name", "order"), ORDERS.items(), ids=ORDERS)
def test_number_of_elements_in_space(name: str, order: int, device: torch.device) -> None:
    x = THREE[name][None].to(device)
    frames = PointFrame("E")(x)
    assert frames.counts.tolist() == [order]
    assert PointFrame("SE")(x).counts.tolist() == [order // 2]
    # In symmetric clouds all elements have the same weight.
    torch.testing.assert_close(frames.weights, torch.full_like(frames.weights, 1 / order))


@pytest.mark.parametrize("n", [3, 4, 5, 6, 12])
def test_number_of_elements_of_polygons(n: int, device: torch.device) -> None:
    x = polygon(n)[None].to(device)
    assert PointFrame("E", 2)(x).counts.tolist() == [2 * n]
    assert PointFrame("SE", 2)(x).counts.tolist() == [n]


@pytest.mark.parametrize("lmax", [1, 3])
@pytest.mark.parametrize("group", ["E", "SE"])
def test_number_of_elements_where_axes_are_free(group: str, lmax: int, device: torch.device) -> None:
    # One point: all signs of three axes, or the octahedral group. CO2: the same for two axes, for each of its ends.
    expected = {("E", 1): (8, 8), ("SE", 1): (4, 4), ("E", 3): (48, 16), ("SE", 3): (24, 8)}[group, lmax]
    frame = PointFrame(group, lmax=lmax)
    found = tuple(int(frame(THREE[name][None].to(device)).counts) for name in ("one point", "CO2"))
    assert found == expected


def test_completed_names_the_lines(device: torch.device) -> None:
    names = ("one point", "CO2", "HCN", "H2O", "CH4", "pyridine")
    found = [bool(PointFrame()(THREE[name][None].to(device)).completed) for name in names]
    assert found == [True, True, True, False, False, False]


def test_average_number_of_elements_on_g2(device: torch.device, shared_data: Callable[[str], Path]) -> None:
    molecules = read_extxyz(shared_data("molecules") / "g2.extxyz")
    counts = [int(PointFrame()(cloud[None].to(device)).counts) for cloud in molecules.values()]
    lines = sum(on_one_line(cloud) for cloud in molecules.values())
    assert lines == 36
    assert sum(counts) / len(counts) < 10  # PCA has 8, where it is defined
    assert max(counts) == 48


@pytest.mark.parametrize("group", ["E", "SE", "O", "SO"])
@pytest.mark.parametrize("name", THREE)
def test_elements_are_in_the_group(name: str, group: str, device: torch.device) -> None:
    frames = PointFrame(group, lmax=3)(THREE[name][None].to(device))
    _, rotations, translations, weights = frames.elements()
    eye = torch.eye(3).to(rotations)
    torch.testing.assert_close(rotations.mT @ rotations, eye.expand_as(rotations), rtol=0, atol=1e-14)
    assert float(weights.min()) > 0
    torch.testing.assert_close(frames.weights.sum(1), torch.ones(1).to(weights))
    mirrors = torch.linalg.det(rotations) < 0
    if group.startswith("S"):
        assert not mirrors.any()
    else:
        torch.testing.assert_close(weights[mirrors].sum(), torch.tensor(0.5).to(weights))
    expected = THREE[name].mean(0).to(device) if "E" in group else torch.zeros(3).to(translations)
    torch.testing.assert_close(translations, expected.expand_as(translations), rtol=0, atol=1e-14)


def test_weights_of_a_near_tie_by_hand(device: torch.device) -> None:
    # d=2, two points at squared distances 1 and 0.97 from the origin: the formula of the weights, evaluated by hand.
    x = torch.tensor([[[1.0, 0.0], [0.0, 0.97**0.5]]], dtype=torch.float64, device=device)
    frames = PointFrame("SO", 2, delta=0.1, power=32)(x)
    largest = (1 + 0.97**33) / (1 + 0.97**32)
    bumps = [((q / largest - 0.9) / 0.1) ** 2 for q in (1.0, 0.97)]
    expected = torch.tensor([[b / sum(bumps) for b in bumps]], dtype=torch.float64, device=device)
    torch.testing.assert_close(frames.weights, expected)
    torch.testing.assert_close(frames.rotations[0, 1, :, 0], torch.tensor([0.0, 1.0]).to(x))


def test_chirality(device: torch.device) -> None:
    # "E" cannot tell a cloud from its mirror image, "SE" can.
    x = THREE["chiral"][None].to(device)
    mirrored = x * torch.tensor([-1.0, 1.0, 1.0]).to(x)
    inner = Flat(4).to(x)
    apart = {}
    for group in ("E", "SE"):
        net = FrameAverage(lambda x: inner(x).invariant, PointFrame(group), "points", "invariant")
        apart[group] = float((net(x) - net(mirrored)).abs().detach())
    assert apart["E"] <= 1e-13
    assert apart["SE"] > 1e-3


@pytest.mark.parametrize("frame", [PointFrame("O"), PCAFrame("O")], ids=["PointFrame", "PCAFrame"])
def test_rotations_about_the_origin_see_translations(frame: Callable[..., FrameSet], device: torch.device) -> None:
    x = GENERIC[None].to(device)
    inner = Flat(6).to(x)
    net = FrameAverage(lambda x: inner(x).invariant, frame, "points", "invariant")
    assert float((net(x) - net(x + 1)).abs().detach()) > 1e-3


def largest_jump(function: Callable[[Tensor], Tensor], path: Callable[[Tensor], Tensor], grid: int = 64) -> float:
    """The largest difference across a step of 1e-12, by bisection of the three steepest steps of a grid."""
    places = torch.linspace(-0.5, 0.5, grid + 1, dtype=torch.float64)
    values = function(path(places))
    steepest = (values[1:] - values[:-1]).abs().flatten(1).amax(1).topk(3).indices
    low, high, at_low, at_high = places[steepest], places[steepest + 1], values[steepest], values[steepest + 1]
    while float((high - low).max()) > 1e-12:
        middle = (low + high) / 2
        value = function(path(middle))
        first = (value - at_low).abs().amax(1) > (at_high - value).abs().amax(1)
        high, low = torch.where(first, middle, high), torch.where(first, low, middle)
        at_high = torch.where(first[:, None], value, at_high)
        at_low = torch.where(first[:, None], at_low, value)
    return float((at_high - at_low).abs().max())


def path_of(name: str) -> Callable[[Tensor], Tensor]:
    """A straight path of clouds, through the named one at 0 or between random ones."""
    if name.startswith("random"):
        torch.manual_seed(int(name[-1]))
        start, end = torch.randn(2, 6, 3, dtype=torch.float64)
        return lambda s: start + (s.view(-1, 1, 1) + 0.5) * (end - start)
    center = THREE[name]
    velocity = 0.3 * torch.randn(center.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lambda s: center + s.view(-1, 1, 1) * velocity


PATHS = ("random 1", "random 2", "random 3", "CH4", "benzene", "NH3", "CO2", "two coincident of four")


@pytest.mark.parametrize(
    ("name", "lmax"), [*((name, 3) for name in PATHS), ("CH4", 1), ("CO2", 1), ("two coincident of four", 1)]
)
def test_averages_are_continuous(name: str, lmax: int, device: torch.device) -> None:
    path = path_of(name)
    inner = Flat(path(torch.zeros(1)).shape[1]).double().to(device)

    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        y: Outputs = inner(x)
        return y.invariant, y.vector, y.points, y.tensor

    kinds = ("invariant", "vector", "points", "tensor" if lmax == 3 else "invariant")
    net = FrameAverage(outputs, PointFrame(lmax=lmax), "points", kinds)
    used = len(kinds) if lmax == 3 else 3

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([y.flatten(1) if y.ndim > 1 else y[:, None] for y in net(x.to(device))[:used]], 1)

    assert largest_jump(function, path) <= 1e-9


@pytest.mark.parametrize(
    ("frame", "name"),
    [(PointFrame(delta=1e-14), "random 1"), (PCAFrame(degenerate="ignore"), "CH4")],
    ids=["without near ties", "principal axes"],
)
def test_the_search_finds_jumps(frame: Callable[..., FrameSet], name: str, device: torch.device) -> None:
    path = path_of(name)
    inner = Flat(path(torch.zeros(1)).shape[1]).double().to(device)
    net = FrameAverage(lambda x: inner(x).vector, frame, "points", "vector")

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x.to(device))

    assert largest_jump(function, path) > 1e-2


def test_draws_never_list_all(device: torch.device) -> None:
    # On a sphere nearly all points are tied: tens of thousands of elements.
    points = torch.randn(1, 256, 3, dtype=torch.float64)
    sphere = (points / points.norm(dim=-1, keepdim=True)).to(device)
    frame = PointFrame("O", max_frames=512)
    with pytest.raises(ValueError, match="max_frames"):
        frame(sphere)
    assert frame.sample(sphere, count=3).counts.tolist() == [3]
    assert PointFrame("O", num_samples=3)(sphere).counts.tolist() == [3]


@pytest.mark.parametrize("name", THREE)
def test_needs_no_eigenvalues(name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*inputs: object, **options: object) -> None:
        raise AssertionError("eigenvalues or singular values were computed")

    for decomposition in ("eig", "eigh", "eigvals", "eigvalsh", "svd", "svdvals"):
        monkeypatch.setattr(torch.linalg, decomposition, never)
    x = THREE[name][None].to(device)
    assert int(PointFrame(lmax=3)(x).counts) >= 1
    with pytest.raises(AssertionError, match="eigenvalues"):
        PCAFrame(degenerate="ignore")(x)


def test_icosahedron(device: torch.device) -> None:
    assert PointFrame()(icosahedron()[None].to(device)).counts.tolist() == [120 * 2]


def test_pca_sizes(device: torch.device) -> None:
    x = torch.randn(2, 9, 4, dtype=torch.float64).to(device)
    assert PCAFrame("E", 4)(x).counts.tolist() == [16, 16]
    assert PCAFrame("SE", 4)(x).counts.tolist() == [8, 8]
    # Axes are the eigenvectors, in ascending order of the variance along them.
    frames = PCAFrame("SE", 4)(x)
    along = torch.einsum("bnd,bkde->bkne", x - x.mean(1, keepdim=True), frames.rotations)
    covariance = along.mT @ along
    torch.testing.assert_close(covariance, torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1)), rtol=0, atol=1e-12)
    assert bool((covariance.diagonal(dim1=-2, dim2=-1).diff() > 0).all())


@pytest.mark.parametrize("scale", [2.0**-110, 2.0**-60, 2.0**60, 2.0**110])
def test_principal_axes_do_not_depend_on_the_unit(scale: float, device: torch.device) -> None:
    x = torch.randn(2, 9, 3, dtype=torch.float64).to(device)
    y = (x - x.mean(1, keepdim=True)).cpu().numpy()
    wanted = torch.from_numpy(np.linalg.svd(y)[2][:, ::-1].copy()).mT  # right singular vectors, shortest first
    found = PCAFrame("E", 3)((scale * x).float()).rotations[:, 0].cpu().double()
    torch.testing.assert_close((found.mT @ wanted).abs(), torch.eye(3).double().expand(2, 3, 3), rtol=0, atol=1e-4)


def test_points_one_ulp_apart_are_one_point(device: torch.device) -> None:
    a = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    x = torch.stack((a, torch.nextafter(a, a + 1), a, a))[None].to(device)
    assert bool(PointFrame()(x).completed)
