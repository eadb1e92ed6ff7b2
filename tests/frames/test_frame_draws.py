"""One drawn element instead of the average: unbiased in value and in gradient."""

from collections.abc import Callable

import pytest
import torch
from clouds import CH4, CO2, GENERIC, THREE
from frame_modules import Flat
from torch import Tensor

from gconv_ga.frames import FrameAverage, FrameSet, PCAFrame, PointFrame

DRAWS = 2000


class Listed:
    """A frame that can only list its elements."""

    def __init__(self, frame: PointFrame) -> None:
        self.frame = frame

    def __call__(self, x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        return self.frame(x, mask, vectors)


# delta=0.5 gives many elements with different weights, which depend on the points.
FRAMES = {
    "axis by axis": PointFrame(delta=0.5),
    "from the list": Listed(PointFrame(delta=0.5)),
    "principal axes": PCAFrame(),
}


def scores(draws: Tensor, expected: Tensor) -> Tensor:
    """The z-scores of the means of ``[n, ...]``; 0 where nothing varies."""
    spread = draws.std(0)
    difference = draws.mean(0) - expected
    assert bool((difference.abs()[spread < 1e-9] < 1e-9).all())
    return torch.where(spread < 1e-9, 0, difference / (spread + 1e-30) * len(draws) ** 0.5)


def draws_and_average(net: FrameAverage, cloud: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Values and gradients: of many draws in training mode, and of the average in evaluation mode."""
    found = []
    for copies in (DRAWS, 1):
        net.train(copies > 1)
        x = cloud.expand(copies, *cloud.shape).clone().requires_grad_()
        y = net(x)
        found.append((y.detach(), torch.autograd.grad(y[:, 0].sum(), x)[0]))
    return found[0], (found[1][0][0], found[1][1][0])


@pytest.mark.parametrize("name", ["CH4", "generic", "CO2"])
@pytest.mark.parametrize("frame", FRAMES)
def test_unbiased_in_value_and_gradient(frame: str, name: str, device: torch.device) -> None:
    cloud = THREE[name].to(device)
    if frame == "principal axes" and name != "generic":
        cloud = cloud + torch.randn(cloud.shape, dtype=torch.float64).to(cloud)
    inner = Flat(len(cloud)).to(cloud)
    net = FrameAverage(lambda x: inner(x).vector, FRAMES[frame], "points", "vector", train_samples=1)
    (values, gradients), (value, gradient) = draws_and_average(net, cloud)
    assert float(values.std(0).max()) > 1e-3
    assert float(scores(values, value).abs().max()) < 4
    if name != "CO2":  # the gradient of a vector output does not exist at collinear points
        assert float(scores(gradients, gradient).abs().max()) < 4.5


def test_without_the_gradient_of_the_weights_it_would_be_biased(device: torch.device) -> None:
    cloud = GENERIC.to(device)
    inner = Flat(len(cloud)).to(cloud)

    class Cut(PointFrame):
        def sample(self, *inputs: object, **options: object) -> FrameSet:
            found = super().sample(*inputs, **options)
            return FrameSet(found.rotations, found.translations, found.weights.detach())

    net = FrameAverage(lambda x: inner(x).vector, Cut(delta=0.5), "points", "vector", train_samples=1)
    (_, gradients), (_, gradient) = draws_and_average(net, cloud)
    assert float(scores(gradients, gradient).abs().max()) > 6


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("frame", FRAMES)
def test_weights_are_shares(frame: str, count: int, device: torch.device) -> None:
    x = torch.randn(3, 6, 3, dtype=torch.float64).to(device)
    found: list[Tensor] = []
    net = FrameAverage(lambda x: found.append(x) or x, FRAMES[frame], "points", "points", train_samples=count)
    # The identity is equivariant: every draw returns the input.
    torch.testing.assert_close(net.train()(x), x, rtol=0, atol=1e-13)
    assert len(found[-1]) == 3 * count
    net.eval()(x)
    assert len(found[-1]) == int(FRAMES[frame](x).counts.sum())


def test_more_draws_vary_less(device: torch.device) -> None:
    cloud = GENERIC.to(device)
    inner = Flat(len(cloud)).to(cloud)
    spread = {}
    for count in (1, 16):
        net = FrameAverage(lambda x: inner(x).vector, PointFrame(), "points", "vector", train_samples=count)
        spread[count] = float(net.train()(cloud.expand(1000, 6, 3)).std(0).norm().detach())
    assert 3 < spread[1] / spread[16] < 5.3  # 4 in expectation


@pytest.mark.parametrize("frame", FRAMES)
def test_generators_repeat(frame: str, device: torch.device) -> None:
    x = torch.randn(50, 6, 3, dtype=torch.float64).to(device)
    inner = Flat(6).to(x)

    def once(seed: int) -> Tensor:
        generator = torch.Generator(device=device).manual_seed(seed)
        options = {"train_samples": 1, "generator": generator}
        return FrameAverage(lambda x: inner(x).vector, FRAMES[frame], "points", "vector", **options).train()(x)

    state = torch.get_rng_state()
    assert torch.equal(once(3), once(3))
    assert not torch.equal(once(3), once(4))
    if device.type == "cpu":
        assert torch.equal(torch.get_rng_state(), state)


def test_frames_that_always_draw(device: torch.device) -> None:
    x = torch.stack((CH4, CH4 + 1)).to(device)
    generator = torch.Generator(device=device).manual_seed(0)
    frame = PointFrame(num_samples=4, generator=generator)
    first, second = frame(x), frame(x)
    assert first.counts.tolist() == [4, 4]
    assert not torch.equal(first.rotations, second.rotations)
    torch.testing.assert_close(first.weights, torch.full_like(first.weights, 0.25))


def test_drawn_axes_have_the_listed_weights(device: torch.device) -> None:
    # Every draw is one of the listed elements, with a frequency equal to its weight.
    cloud = THREE["chiral"].to(device)
    frame = PointFrame("SE", delta=0.7)
    listed = frame(cloud[None])
    drawn = frame.sample(cloud.expand(DRAWS, 4, 3), count=1)
    distance = (drawn.rotations - listed.rotations).abs().amax((-2, -1))
    nearest = distance.argmin(1)
    assert float(distance.min(1).values.max()) <= 1e-12
    share = torch.bincount(nearest, minlength=listed.weights.shape[1]).to(cloud) / DRAWS
    error = (listed.weights[0] * (1 - listed.weights[0]) / DRAWS).sqrt()
    assert listed.weights.shape[1] > 2
    assert float(((share - listed.weights[0]) / error).abs().max()) < 4


def test_free_axes_are_drawn_too(device: torch.device) -> None:
    frames: list[Callable[..., FrameSet]] = [PointFrame(lmax=3)]
    drawn = frames[0].sample(CO2.expand(500, 3, 3).to(device), count=1)
    assert bool(drawn.completed.all())
    assert len(torch.unique(drawn.rotations.flatten(1).round(decimals=6), dim=0)) == 16
