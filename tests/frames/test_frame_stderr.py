"""The standard error of averages over draws: its size, its coverage, and 0 where nothing is drawn."""

import pytest
import torch
from clouds import CH4, CO2, GENERIC
from frame_modules import OUTPUTS, Flat
from torch import Tensor, nn

from gconv_ga.frames import Canonicalize, Frame, FrameAverage, FrameSet, HaarFrame, MeanFrame, PCAFrame, PointFrame
from gconv_ga.frames import QuadratureFrame as Quadrature

REPEATS = 3000


class Listed:
    """A frame that can only list its elements, so that draws are taken from the list."""

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        return PointFrame(delta=0.5)(x, mask, vectors)


DRAWING: dict[str, tuple[Frame, int | None]] = {
    "rotations": (HaarFrame("SO", num_samples=16), None),
    "motions": (HaarFrame("E", num_samples=16), None),
    "point frame": (PointFrame(delta=0.5, num_samples=16), None),
    "point frame in training": (PointFrame(delta=0.5), 16),
    "list in training": (Listed(), 16),
}
EXHAUSTIVE = {"points": PointFrame(lmax=3), "mean": MeanFrame(), "quadrature": Quadrature("SO", rule=1)}


def averaged(name: str, module: nn.Module, kinds: object = OUTPUTS) -> FrameAverage:
    frame, train_samples = DRAWING[name]
    return FrameAverage(module, frame, "points", kinds, train_samples=train_samples)


@pytest.mark.parametrize("name", DRAWING)
def test_the_standard_error_is_true(name: str, device: torch.device) -> None:
    x = GENERIC.to(device)
    module = Flat(6).to(x)
    net = averaged(name, lambda x: module(x).vector, "vector")
    with torch.no_grad():
        mean, error = net(x.expand(REPEATS, 6, 3), return_stderr=True)
    assert mean.shape == error.shape == (REPEATS, 3)
    spread = mean.std(0)
    assert float(spread.min()) > 1e-4
    assert float((error.square().mean(0).sqrt() / spread - 1).abs().max()) < 0.06


@pytest.mark.parametrize(("count", "share"), [(8, 0.90), (32, 0.94), (100, 0.95)])
def test_intervals_cover_as_documented(count: int, share: float, device: torch.device) -> None:
    x = GENERIC.to(device)
    module = Flat(6).to(x)
    with torch.no_grad():
        exact = FrameAverage(lambda x: module(x).vector, Quadrature("SO", rule=14), "points", "vector")(x[None])
        net = FrameAverage(lambda x: module(x).vector, HaarFrame("SO", num_samples=count), "points", "vector")
        mean, error = net(x.expand(REPEATS, 6, 3), return_stderr=True)
    covered = ((mean - exact).abs() <= 1.96 * error).double().mean()
    assert abs(float(covered) - share) < 0.02


def test_each_number_of_every_output_by_hand(device: torch.device) -> None:
    x = torch.stack((CH4, CH4 + 1)).to(device)
    module = Flat(5).to(x)
    seen: list[Tensor] = []

    def watched(x: Tensor) -> tuple[Tensor, ...]:
        y = module(x)
        seen.append(y.invariant)
        return y.invariant, y.vector

    net = FrameAverage(watched, HaarFrame(num_samples=5), "points", ("invariant", "vector"), chunk_size=3)
    mean, error = net(x, return_stderr=True)
    draws = torch.cat(seen).unflatten(0, (2, 5))
    torch.testing.assert_close(mean[0], draws.mean(1))
    torch.testing.assert_close(error[0], (draws.std(1) / 5**0.5).detach())
    assert mean[0].requires_grad
    assert not error[0].requires_grad


def test_the_mean_is_that_of_a_call_without(device: torch.device) -> None:
    x = GENERIC[None].to(device)
    net = FrameAverage(Flat(6).to(x), HaarFrame(num_samples=4), "points", OUTPUTS)
    found = []
    for ask in (False, True):
        torch.manual_seed(3)
        found.append(net(x, return_stderr=True)[0] if ask else net(x))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", EXHAUSTIVE)
def test_nothing_drawn_has_no_error(name: str, device: torch.device) -> None:
    x = torch.stack((CO2, CO2 + 1)).to(device)
    mean, error = FrameAverage(Flat(3).to(x), EXHAUSTIVE[name], "points", OUTPUTS)(x, return_stderr=True)
    assert type(error) is type(mean)
    for a, b in zip(mean, error, strict=True):
        assert a.shape == b.shape
        assert not bool(b.any())


def test_an_equivariant_module_has_none(device: torch.device) -> None:
    x = GENERIC[None].to(device)
    net = FrameAverage(lambda x: x - x.mean(1, keepdim=True), HaarFrame(num_samples=3), "points", "vector")
    mean, error = net(x, return_stderr=True)
    torch.testing.assert_close(mean, x - x.mean(1, keepdim=True), rtol=0, atol=1e-14)
    assert float(error.max()) <= 1e-14


def test_draws_are_marked() -> None:
    x = GENERIC[None]
    drawn = (HaarFrame(), PointFrame(num_samples=2), DRAWING["list in training"][0])
    assert [frame(x).drawn for frame in drawn] == [True, True, False]
    assert PointFrame().sample(x, count=2).drawn
    assert PCAFrame()(x).sample(2).drawn
    assert PCAFrame()(x).sample(2).detach().drawn
    assert not PCAFrame()(x).detach().drawn


def test_precision_and_what_is_no_tensor(device: torch.device) -> None:
    x = GENERIC[None].to(device, torch.bfloat16)
    module = Flat(6).to(x)
    outs = {"y": "vector", "name": "invariant"}
    net = FrameAverage(lambda x: {"y": module(x).vector, "name": "a"}, HaarFrame(num_samples=4), "points", outs)
    mean, error = net(x, return_stderr=True)
    assert mean["y"].dtype == error["y"].dtype == torch.bfloat16
    assert mean["name"] == error["name"] == "a"
    empty = FrameAverage(Flat(6).double().to(device), HaarFrame(), "points", OUTPUTS)
    _, error = empty(torch.zeros(0, 6, 3, dtype=torch.float64, device=device), return_stderr=True)
    assert [tuple(part.shape) for part in error] == [(0,), (0, 3), (0, 3, 3), (0, 6, 3)]


@pytest.mark.parametrize("wrapper", [FrameAverage, Canonicalize])
def test_one_draw_has_no_standard_error(wrapper: type[FrameAverage]) -> None:
    net = wrapper(lambda x: x, HaarFrame(), "points", "points")
    with pytest.raises(ValueError, match="frame must be one that draws at least 2 elements"):
        net(GENERIC[None], return_stderr=True)
