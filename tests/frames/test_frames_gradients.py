"""Gradients through frames: finite, equivariant, equal to finite differences, and wrong when detached."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clouds import CH4, H2O, LINES_OR_POINTS, THREE, padded, read_extxyz
from frame_modules import Flat, Pairs, random_motion
from torch import Tensor

from gconv_ga.frames import FrameAverage, PCAFrame, PointFrame

Energy = Callable[[Tensor], Tensor]


def energy_of(x: Tensor, frame: object = None, **options: object) -> FrameAverage:
    """An averaged energy, of a module that depends on positions and on the order of the points."""
    inner = Flat(x.shape[-2], x.shape[-1]).to(x)
    return FrameAverage(lambda x: inner(x).invariant, frame or PointFrame(), "points", "invariant", **options)


def gradient(energy: Energy, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x).sum(), x)[0]


def finite_differences(energy: Energy, cloud: Tensor, step: float = 1e-4) -> Tensor:
    """Central differences of fourth order, all in one batch."""
    moves = step * torch.eye(cloud.numel()).to(cloud).view(-1, *cloud.shape)
    with torch.no_grad():
        near, far = ((energy(cloud + k * moves) - energy(cloud - k * moves)) / (2 * k * step) for k in (1, 2))
    return ((4 * near - far) / 3).view(cloud.shape)


@pytest.mark.parametrize("name", THREE)
def test_agrees_with_finite_differences(name: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    energy = energy_of(cloud)
    if name in ("one point", "two coincident points", "five coincident points"):
        # The energy is a function of differences between points, so its gradient sums to zero.
        assert float(gradient(energy, cloud[None])[0].sum(0).abs().max()) <= 1e-14
        return
    torch.testing.assert_close(gradient(energy, cloud[None])[0], finite_differences(energy, cloud), rtol=0, atol=1e-8)


def test_gradcheck_on_exact_methane(device: torch.device) -> None:
    # Methane is exactly degenerate. With the last axis from minors its gradient was wrong by 1.5 %, since torch's
    # gradient of det is zero at singular matrices. Vectors, points and a generic cloud are checked too.
    inner = Flat(5).double().to(device)
    kinds = ("invariant", "vector", "points")

    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        y = inner(x)
        return y.invariant, y.vector, y.points

    net = FrameAverage(outputs, PointFrame(), "points", kinds)
    exact = CH4[None].to(device).requires_grad_()
    generic = torch.randn(1, 5, 3, dtype=torch.float64).to(device).requires_grad_()
    for x in (exact, generic):
        assert torch.autograd.gradcheck(net, (x,), atol=1e-7, rtol=1e-6)


def test_gradgradcheck_for_training_on_forces(device: torch.device) -> None:
    x = H2O[None].to(device).requires_grad_()
    assert torch.autograd.gradgradcheck(energy_of(x.detach()), (x,), atol=1e-6, rtol=1e-5)


def test_four_dimensions(device: torch.device) -> None:
    # In four dimensions the last axis is an orthogonalized basis vector.
    x = torch.randn(1, 5, 4, dtype=torch.float64).to(device)
    energy = energy_of(x, PointFrame("E", 4))
    torch.testing.assert_close(gradient(energy, x)[0], finite_differences(energy, x[0]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in THREE if name not in LINES_OR_POINTS])
def test_gradients_of_energies_are_equivariant(name: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    energy, motion = energy_of(cloud), random_motion(3, mirrored=True)
    moved = gradient(energy, motion(cloud)[None])[0]
    torch.testing.assert_close(
        moved, gradient(energy, cloud[None])[0] @ motion.rotation.to(cloud).mT, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_finite_on_g2_and_twice(dtype: torch.dtype, device: torch.device, shared_data: Callable[[str], Path]) -> None:
    clouds = [*read_extxyz(shared_data("molecules") / "g2.extxyz").values(), THREE["one point"]]
    batch, mask = padded(clouds, fill=float("nan"))
    x, mask = batch.to(device, dtype).requires_grad_(), mask.to(device)
    inner = Pairs().to(x)

    def outputs(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = inner(x, mask)
        return y.invariant, y.vector

    net = FrameAverage(outputs, PointFrame(), ("points", "mask"), ("invariant", "vector"))
    energy, vector = net(x, mask)
    forces = torch.autograd.grad(energy.sum(), x, create_graph=True)[0]
    assert bool(forces.isfinite().all())
    assert float(forces.detach()[~mask].abs().max()) == 0
    second = torch.autograd.grad(forces.square().sum(), [x, *inner.parameters()], retain_graph=True, allow_unused=True)
    assert all(bool(part.isfinite().all()) for part in second if part is not None)
    assert bool(torch.autograd.grad(vector.sum(), x)[0].isfinite().all())


def test_principal_axes_have_no_finite_gradient_where_they_are_degenerate(device: torch.device) -> None:
    energy = energy_of(THREE["cube"].to(device), PCAFrame(degenerate="ignore"))
    assert not bool(gradient(energy, THREE["cube"][None].to(device)).isfinite().all())


def loop_work(energy: Energy, center: Tensor, size: float, points: int = 64) -> float:
    """The work of the forces around a closed loop by the trapezoidal rule, relative to the sum of absolute values."""
    angles = (torch.arange(points, dtype=torch.float64) * 2 * math.pi / points).view(-1, 1, 1).to(center)
    a, b = (size * torch.randn(2, *center.shape, dtype=torch.float64)).to(center)
    place, tangent = center + angles.cos() * a + angles.sin() * b, angles.cos() * b - angles.sin() * a
    work = (gradient(energy, place) * tangent).sum((1, 2))
    return float(work.sum().abs() / work.abs().sum())


@pytest.mark.parametrize("name", ["H2O", "chiral", "generic"])
def test_forces_do_no_net_work_and_turn_nothing(name: str, device: torch.device) -> None:
    # The loop is so small that no weight becomes zero on it, and the quadrature converges to the last digit.
    cloud = THREE[name].to(device)
    whole, cut = energy_of(cloud), quiet(energy_of(cloud, detach=True))
    assert loop_work(whole, cloud, 1e-3) <= 1e-12
    torque = {}
    for energy in (whole, cut):
        forces = gradient(energy, cloud[None])[0]
        turn = torch.linalg.cross(cloud - cloud.mean(0), forces).sum(0).norm() / forces.norm()
        torque[energy] = float(turn)
        assert float(forces.sum(0).norm() / forces.norm()) <= 1e-13 or energy is cut
    assert torque[whole] <= 1e-13
    assert torque[cut] > 1e-2  # detaching the frame breaks this


def test_detached_forces_do_net_work(device: torch.device) -> None:
    # Through methane, where the frame changes fast: a loop on which detached forces gain energy.
    cloud = CH4.to(device)
    assert loop_work(quiet(energy_of(cloud, detach=True)), cloud, 0.1) > 1e-2
    assert loop_work(energy_of(cloud), cloud, 0.1, points=1024) <= 1e-5


def quiet(energy: Energy) -> Energy:
    """An energy that asserts, and thereby silences, the warning about the detached frame."""

    def call(x: Tensor) -> Tensor:
        with pytest.warns(UserWarning, match="detach=True"):
            return energy(x)

    return call


def test_detached_frames_keep_the_gradients_of_weights(device: torch.device) -> None:
    x = torch.randn(3, 6, 3, dtype=torch.float64).to(device)
    inner = Flat(6).to(x)
    found = []
    for detach in (False, True):
        net = FrameAverage(lambda x: inner(x).invariant, PointFrame(), "points", "invariant", detach=detach)
        found.append(torch.autograd.grad(net(x).sum(), list(inner.parameters()), allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert a is None or torch.equal(a, b)
