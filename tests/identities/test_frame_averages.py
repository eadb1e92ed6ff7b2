"""Statements 12 and 13: both sides, a slow loop, and what the identities must reject."""

from collections.abc import Callable

import pytest
import torch
from clouds import CH4, GENERIC
from tolerances import TOLERANCES
from torch import Tensor, nn

from gconv_ga.frames import Frame, FrameSet, HaarFrame, LandmarkFrame, MeanFrame, PCAFrame, PointFrame
from gconv_ga.identities import Sides, frame_average_is_equivariant, frame_average_keeps_equivariant

TIGHT = TOLERANCES[torch.float64]
SHIFT = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)


def motion(reflects: bool) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q if (torch.linalg.det(q) < 0) == reflects else -q


def clouds(device: torch.device) -> Tensor:
    return torch.stack((GENERIC[:5], GENERIC[1:] * 1.5)).to(device)


@pytest.fixture
def net(device: torch.device) -> Callable[[Tensor], Tensor]:
    """A network from points to points that depends on the pose and on the order of the points."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(15, 16), nn.Tanh(), nn.Linear(16, 15), nn.Unflatten(1, (5, 3)))
    return body.double().to(device).requires_grad_(False)


def slow_average(net: Callable[[Tensor], Tensor], frame: Frame, x: Tensor) -> Tensor:
    """The average for points to points, with matrices written out."""
    found, samples = frame(x), []
    for b in range(len(x)):
        total = torch.zeros_like(x[b])
        for r, t, w in zip(found.rotations[b], found.translations[b], found.weights[b], strict=True):
            total += w * (net(((x[b] - t) @ r)[None])[0] @ r.T + t)
        samples.append(total)
    return torch.stack(samples)


@pytest.mark.parametrize("reflects", [False, True])
@pytest.mark.parametrize("frame", [PointFrame("E"), PCAFrame("E")], ids=["points", "axes"])
def test_frame_average_is_equivariant(
    frame: Frame, reflects: bool, net: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    x, r = clouds(device), motion(reflects).to(device)
    sides = frame_average_is_equivariant(net, frame, x, r, SHIFT)
    assert sides.error <= TIGHT
    moved = x @ r.T + SHIFT.to(device)
    assert Sides(sides.left, slow_average(net, frame, moved)).error <= TIGHT
    assert Sides(sides.right, slow_average(net, frame, x) @ r.T + SHIFT.to(device)).error <= TIGHT


def test_outputs_of_other_kinds(net: Callable[[Tensor], Tensor], device: torch.device) -> None:
    x, r = clouds(device), motion(True).to(device)
    for out_action in ("invariant", "vector"):
        sides = frame_average_is_equivariant(net, PointFrame("E"), x, r, SHIFT, out_action=out_action)
        assert sides.error <= TIGHT
    # The frame's own action on the output is part of the statement: with another one it is false.
    points = frame_average_is_equivariant(net, PointFrame("E"), x, r, SHIFT).right
    assert Sides(points, sides.right).error > 0.1


def test_images_and_landmarks(device: torch.device) -> None:
    x = torch.rand(2, 1, 5, 7, dtype=torch.float64).to(device)
    light = torch.linspace(0, 1, 7, dtype=torch.float64).to(device)
    frame = LandmarkFrame(lambda x: x[:, 0])
    arguments = (lambda x: x * light, frame, x, torch.eye(2), torch.tensor([2.0, -1.0]), "image", "image")
    sides = frame_average_is_equivariant(*arguments)
    assert sides.error <= TIGHT
    assert torch.equal(sides.right, frame_average_is_equivariant(*arguments).right)
    assert (
        Sides(sides.left, frame_average_is_equivariant(*arguments[:4], torch.zeros(2), *arguments[5:]).left).error > 0.1
    )


def first_point(x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
    """No frame of rotations: its axes do not move with the cloud."""
    eye = torch.eye(3, dtype=x.dtype, device=x.device).expand(len(x), 1, 3, 3)
    return FrameSet(eye, x[:, :1], torch.ones(len(x), 1).to(x))


def unsigned_axes(x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
    """One of the eight elements of the principal axes: whichever sign the eigenvalue routine returns."""
    found = PCAFrame("E")(x)
    return FrameSet(found.rotations[:, :1], found.translations[:, :1], torch.ones(len(x), 1).to(x))


@pytest.mark.parametrize(
    "frame", [first_point, MeanFrame(), HaarFrame("SE", num_samples=4)], ids=["first", "mean", "random"]
)
def test_statement_12_fails_without_a_frame(
    frame: Frame, net: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    assert frame_average_is_equivariant(net, frame, clouds(device), motion(False).to(device), SHIFT).error > 0.1


def test_statement_12_fails_where_signs_are_left_out(net: Callable[[Tensor], Tensor], device: torch.device) -> None:
    x = clouds(device)
    errors = [
        frame_average_is_equivariant(net, unsigned_axes, x, motion(n % 2 == 0).to(device), SHIFT).error
        for n in range(4)
    ]
    assert max(errors) > 0.1


def test_statement_12_fails_for_principal_axes_of_methane(
    net: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    x, r = CH4[None].to(device), motion(False).to(device)
    axes = PCAFrame("E", degenerate="ignore")
    assert frame_average_is_equivariant(net, axes, x, r, SHIFT).error > 0.01
    assert frame_average_is_equivariant(net, PointFrame("E"), x, r, SHIFT).error <= TIGHT


def towards_the_mean(x: Tensor) -> Tensor:
    """Equivariant to motions: each point moves towards the mean, the farther ones by more."""
    offset = x - x.mean(1, keepdim=True)
    return x - 0.1 * offset * offset.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("frame", [PointFrame("E"), PCAFrame("SE"), MeanFrame()], ids=["points", "axes", "mean"])
def test_frame_average_keeps_equivariant(frame: Frame, device: torch.device) -> None:
    x = clouds(device)
    sides = frame_average_keeps_equivariant(towards_the_mean, frame, x)
    assert sides.error <= TIGHT
    assert Sides(sides.left, slow_average(towards_the_mean, frame, x)).error <= TIGHT


def test_statement_13_fails_for_a_module_that_is_not_equivariant(
    net: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    x = clouds(device)
    assert frame_average_keeps_equivariant(net, PointFrame("E"), x).error > 0.1
    # Equivariant to translations only: the average over translations keeps it, that over rotations does not.
    pushed = lambda x: x + torch.ones_like(x)  # noqa: E731
    assert frame_average_keeps_equivariant(pushed, MeanFrame(), x).error <= TIGHT
    assert frame_average_keeps_equivariant(pushed, PointFrame("E"), x).error > 0.1


def test_refusals(net: Callable[[Tensor], Tensor]) -> None:
    x, eye, frame = clouds(torch.device("cpu")), torch.eye(3), PointFrame("E")
    for changes, match in (
        ({"rotation": torch.eye(2)}, r"rotation must be a tensor \[d=3, d=3\]"),
        ({"rotation": 2 * eye}, "rotation must be an orthogonal matrix"),
        ({"rotation": eye * float("nan")}, "rotation must be an orthogonal matrix"),
        ({"translation": torch.zeros(2)}, r"translation must be a tensor \[d=3\]"),
        ({"in_action": ("points", "vector")}, "in_action must be one action"),
        ({"out_action": {"a": "points"}}, "out_action must be one action"),
        ({"out_action": "flow"}, "out_action must be one of"),
    ):
        arguments = {"rotation": eye, "translation": torch.zeros(3)} | changes
        with pytest.raises(ValueError, match=match):
            frame_average_is_equivariant(net, frame, x, **arguments)


def test_the_callers_tensor_is_never_written(device: torch.device) -> None:
    x = clouds(device)
    before, eye = x.clone(), torch.eye(3).to(device)
    frame_average_is_equivariant(lambda x: x.mul_(2), MeanFrame(), x, eye, SHIFT)
    frame_average_keeps_equivariant(lambda x: x.mul_(2), MeanFrame(), x)
    assert torch.equal(x, before)
