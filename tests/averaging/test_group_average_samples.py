"""Monte Carlo estimates of the group average."""

import pytest
import torch
from slow_average import Crooked, relative, slow_average
from tolerances import TOLERANCES
from torch import Tensor

from gconv_ga.averaging import GroupAverage


def corner(x: Tensor) -> Tensor:
    return x[..., 0, 0]


@pytest.mark.parametrize("training", [True, False])
def test_all_elements_give_the_average(training: bool, generator: torch.Generator, device: torch.device) -> None:
    net = Crooked().double().to(device)
    x = torch.randn(2, 3, 9, 12, dtype=torch.float64).to(device)
    average = GroupAverage(net, "D4", num_samples=8, generator=generator).train(training)
    assert relative(average(x), slow_average(net, "D4", x)) <= TOLERANCES[torch.float64]


@pytest.mark.parametrize("num_samples", [1, 3, 7])
@pytest.mark.parametrize("training", [True, False])
def test_is_unbiased(num_samples: int, training: bool, generator: torch.Generator, device: torch.device) -> None:
    # The corners are 0 and powers of two: the sum tells which elements were drawn.
    x = torch.zeros(1, 1, 3, 3, dtype=torch.float64, device=device)
    x[..., 0, 0], x[..., 0, 2], x[..., 2, 0], x[..., 2, 2] = 1, 2, 4, 8
    average = GroupAverage(corner, "D4", out_action="invariant", num_samples=num_samples, generator=generator)
    average.train(training)
    draws = torch.tensor([average(x).item() for _ in range(1500)])
    exact = 15 / 4
    assert draws.std() > 0.1
    assert abs(draws.mean() - exact) <= 4 * draws.std() / len(draws) ** 0.5


@pytest.mark.parametrize("num_samples", [2, 5, 7])
def test_the_standard_error_is_true(num_samples: int, device: torch.device) -> None:
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64).to(device)
    average = GroupAverage(corner, "D4", out_action="invariant", num_samples=num_samples)
    pairs = [average(x, return_stderr=True) for _ in range(3000)]
    means, errors = (torch.stack(part) for part in zip(*pairs, strict=True))
    # Without the finite-population correction, the error of 7 of 8 draws would be 2.8 times too large.
    assert abs(float(errors.square().mean().sqrt() / means.std()) - 1) < 0.06


def test_the_standard_error_by_hand(device: torch.device) -> None:
    seen: list[Tensor] = []
    x = torch.randn(2, 1, 4, 6, dtype=torch.float64).to(device)
    out = {"y": "invariant", "name": "invariant"}

    def module(x: Tensor) -> dict[str, object]:
        seen.append(corner(x).unflatten(0, (-1, 2)))
        return {"y": corner(x) + 1e6, "name": "a"}

    average = GroupAverage(module, "D4", out_action=out, num_samples=5, chunk_size=2)
    mean, error = average(x.requires_grad_(), return_stderr=True)
    draws = torch.cat(seen).detach()
    assert len(draws) == 5
    torch.testing.assert_close(mean["y"].detach(), draws.mean(0) + 1e6)
    torch.testing.assert_close(error["y"], (3 / 8) ** 0.5 * draws.std(0) / 5**0.5, rtol=1e-6, atol=0)
    assert mean["y"].requires_grad
    assert not error["y"].requires_grad
    assert error["name"] == "a"


@pytest.mark.parametrize("num_samples", [None, 8])
def test_all_elements_have_no_standard_error(num_samples: int | None, device: torch.device) -> None:
    x = torch.randn(2, 1, 4, 6).to(device)
    mean, error = GroupAverage(lambda x: x.exp(), "D4", num_samples=num_samples)(x, return_stderr=True)
    assert mean.shape == error.shape == x.shape
    assert not bool(error.any())


def test_one_draw_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="num_samples must be at least 2 for a standard error"):
        GroupAverage(corner, "D4", out_action="invariant", num_samples=1)(torch.ones(1, 1, 3, 3), return_stderr=True)


def test_draws_without_replacement(generator: torch.Generator, device: torch.device) -> None:
    x = torch.zeros(1, 1, 3, 3, device=device)
    x[..., 0, 0], x[..., 0, 2], x[..., 2, 0], x[..., 2, 2] = 1, 2, 4, 8
    average = GroupAverage(corner, "C4", out_action="invariant", num_samples=2, generator=generator)
    sums = {int(2 * average(x)) for _ in range(200)}
    assert sums == {3, 5, 6, 9, 10, 12}  # every pair of corners, none twice


def test_only_the_drawn_elements_are_computed(device: torch.device) -> None:
    sizes: list[int] = []
    average = GroupAverage(lambda x: (sizes.append(len(x)), x)[1], "D4", num_samples=3)
    average(torch.ones(2, 1, 4, 4, device=device))
    average.num_samples = None  # can be changed: exact from here on
    average(torch.ones(2, 1, 4, 4, device=device))
    assert sizes == [6, 16]


def test_the_generator_decides(device: torch.device) -> None:
    x = torch.randn(1, 1, 5, 5).to(device)

    def draw(generator: torch.Generator | None) -> list[float]:
        average = GroupAverage(corner, "D4", out_action="invariant", num_samples=1, generator=generator)
        return [average(x).item() for _ in range(20)]

    state = torch.get_rng_state()
    first, second = (draw(torch.Generator().manual_seed(5)) for _ in range(2))
    assert first == second
    assert first != draw(torch.Generator().manual_seed(6))
    assert torch.equal(state, torch.get_rng_state())  # torch's global generator is unchanged
    torch.manual_seed(7)
    third = draw(None)
    torch.manual_seed(7)
    assert third == draw(None)


def test_the_average_of_all_draws_nothing(device: torch.device) -> None:
    state = torch.get_rng_state()
    GroupAverage(corner, "D4", out_action="invariant")(torch.ones(1, 1, 3, 3, device=device))
    assert torch.equal(state, torch.get_rng_state())
