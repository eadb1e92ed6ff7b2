"""Averages over frames are equivariant to rounding, on symmetric clouds too, whatever the module."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clouds import LINES_OR_POINTS, OTHER_DIMENSIONS, THREE, padded, read_extxyz
from frame_modules import OUTPUTS, Flat, Pairs, equivariance_errors
from torch import Tensor, nn

from gconv_ga.frames import DegenerateFrameError, FrameAverage, MeanFrame, PCAFrame, PointFrame

LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5}
GROUPS = ("E", "SE", "O", "SO")
BOTH = ("flat", "pairs")


def module(kind: str, cloud: Tensor) -> nn.Module:
    n, d = cloud.shape
    return (Flat(n, d) if kind == "flat" else Pairs(d)).to(cloud)


def worst(found: dict[str, Tensor], *names: str) -> float:
    return max(float(found[name].max()) for name in names or found)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", THREE)
def test_point_frame(name: str, kind: str, dtype: torch.dtype, device: torch.device) -> None:
    cloud = THREE[name].to(device, dtype)
    net = FrameAverage(module(kind, cloud), PointFrame(lmax=3), "points", OUTPUTS)
    assert worst(equivariance_errors(net, cloud[None])) <= LIMITS[dtype]


@pytest.mark.parametrize("group", ["SE", "O", "SO"])
@pytest.mark.parametrize("name", THREE)
def test_point_frame_of_other_groups(name: str, group: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    net = FrameAverage(module("flat", cloud), PointFrame(group, lmax=3), "points", OUTPUTS)
    assert worst(equivariance_errors(net, cloud[None], group)) <= LIMITS[torch.float64]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", OTHER_DIMENSIONS)
def test_point_frame_in_other_dimensions(name: str, group: str, device: torch.device) -> None:
    cloud = OTHER_DIMENSIONS[name].to(device)
    d = cloud.shape[-1]
    net = FrameAverage(module("flat", cloud), PointFrame(group, d, lmax=3, max_frames=1000), "points", OUTPUTS)
    assert worst(equivariance_errors(net, cloud[None], group)) <= LIMITS[torch.float64]


@pytest.mark.parametrize("name", LINES_OR_POINTS)
def test_without_permutations_only_tensors_are_wrong_on_lines(name: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    net = FrameAverage(module("flat", cloud), PointFrame("E", lmax=3), "points", OUTPUTS)
    net.frame = PointFrame("E", lmax=1)  # refused by the constructor; see test_frames_refusals.py
    found = equivariance_errors(net, cloud[None])
    assert worst(found, "invariant", "vector", "points") <= LIMITS[torch.float64]
    assert worst(found, "tensor") > 1e-3


@pytest.mark.parametrize("name", ["CH4", "NH3", "benzene", "SF6", "cube", "CO2", "one point"])
def test_pca_refuses_what_it_gets_wrong(name: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    with pytest.raises(DegenerateFrameError, match="sample 0"):
        PCAFrame()(cloud[None])
    net = FrameAverage(module("flat", cloud), PCAFrame(degenerate="ignore"), "points", OUTPUTS)
    assert worst(equivariance_errors(net, cloud[None])) > 1e-3


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", ["H2O", "pyridine", "chiral", "generic"])
def test_pca_frame(name: str, group: str, kind: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    net = FrameAverage(module(kind, cloud), PCAFrame(group), "points", OUTPUTS)
    assert worst(equivariance_errors(net, cloud[None], group)) <= LIMITS[torch.float64]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", ["points d=1", "pair d=1", "point d=1", "line d=2", "generic d=2", "generic d=4"])
def test_pca_frame_in_other_dimensions(name: str, group: str, device: torch.device) -> None:
    cloud = OTHER_DIMENSIONS[name].to(device)
    net = FrameAverage(module("flat", cloud), PCAFrame(group, cloud.shape[-1]), "points", OUTPUTS)
    assert worst(equivariance_errors(net, cloud[None], group)) <= LIMITS[torch.float64]


@pytest.mark.parametrize("name", ["one point", "CH4", "generic", "point d=1", "tesseract d=4"])
def test_mean_frame_is_exact_for_translations_and_for_nothing_else(name: str, device: torch.device) -> None:
    cloud = (THREE | OTHER_DIMENSIONS)[name].to(device)
    x, d = cloud[None], cloud.shape[-1]
    inner = module("flat", cloud)
    net = FrameAverage(inner, MeanFrame(), "points", OUTPUTS)
    # The closed form: <Phi>_F(x) = Phi(x - mean) + mean.
    mean = cloud.mean(0)
    expected = inner(x - mean)
    shifted = net(x + 5)
    for got, want in zip(net(x), expected._replace(points=expected.points + mean), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
    torch.testing.assert_close(shifted.vector, expected.vector, rtol=0, atol=1e-13)
    torch.testing.assert_close(shifted.points, expected.points + mean + 5, rtol=0, atol=1e-13)
    if len(cloud) > 1:
        turned = net(x @ -torch.eye(d).to(x))
        assert float((turned.invariant - expected.invariant).abs().max().detach()) > 1e-3


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("kind", BOTH)
def test_all_molecules_of_g2(
    kind: str, dtype: torch.dtype, device: torch.device, shared_data: Callable[[str], Path]
) -> None:
    molecules = read_extxyz(shared_data("molecules") / "g2.extxyz")
    assert len(molecules) == 148
    # Padding is NaN, so that any read of it shows.
    x, mask = padded(list(molecules.values()), fill=float("nan"))
    x, mask = x.to(device, dtype), mask.to(device)
    inner = Flat(x.shape[1], extra=x.shape[1]) if kind == "flat" else Pairs()
    net = FrameAverage(inner.to(x), PointFrame(lmax=3), ("points", "mask"), OUTPUTS)
    for name, error in equivariance_errors(net, x, "E", mask).items():
        wrong = [molecule for molecule, e in zip(molecules, error.tolist(), strict=True) if not e <= LIMITS[dtype]]
        assert not wrong, name


def test_pca_fails_on_a_third_of_g2(device: torch.device, shared_data: Callable[[str], Path]) -> None:
    molecules = read_extxyz(shared_data("molecules") / "g2.extxyz")
    x, mask = padded(list(molecules.values()))
    with pytest.raises(DegenerateFrameError, match="and 61 more"):
        PCAFrame()(x.to(device), mask.to(device))


@pytest.mark.parametrize("name", [*THREE, "cube and more"])
def test_far_from_the_origin_only_the_digits_of_the_coordinates_are_lost(name: str, device: torch.device) -> None:
    # Coordinates are multiples of 2^-20, so adding 2^20 is exact: any loss of digits is the frame's.
    cloud = (THREE | {"cube and more": torch.cat((THREE["cube"], THREE["generic"]))})[name]
    cloud = ((cloud * 2**20).round() / 2**20).to(device)
    net = FrameAverage(module("flat", cloud), PointFrame(lmax=3), "points", OUTPUTS)
    near, far = net(cloud[None]), net(cloud[None] + 2.0**20)
    for output in ("invariant", "vector", "tensor"):
        torch.testing.assert_close(getattr(far, output), getattr(near, output), rtol=0, atol=1e-9)
    torch.testing.assert_close(far.points - 2.0**20, near.points, rtol=0, atol=1e-9)
