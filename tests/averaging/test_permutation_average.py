"""The average over all permutations of a set: exact where all are listed, an estimate with its error elsewhere."""

import copy
import math
import pickle
from collections.abc import Callable
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tolerances import TOLERANCES
from torch import Tensor, nn

from gconv_ga.averaging import PermutationAverage


class Ordered(nn.Module):
    """An MLP that depends on the order of a set, of its pairs, and on another number."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.first = nn.Linear(n * 2 + n * n + 1, 16)
        self.last = nn.Linear(16, 3 + n * 2 + n * n)

    def forward(self, x: Tensor, pairs: Tensor, one: Tensor) -> dict[str, Tensor]:
        y = self.first(torch.cat((x.flatten(1), pairs.flatten(1), one[:, None]), 1)).tanh()
        whole, each, both = self.last(y).split((3, self.n * 2, self.n * self.n), 1)
        return {"whole": whole, "each": each.unflatten(1, (-1, 2)), "both": both.unflatten(1, (self.n, self.n))}


INS = ("set", "pairs", "invariant")
OUTS = {"whole": "invariant", "each": "set", "both": "pairs"}


def example(n: int, device: torch.device) -> tuple[Ordered, tuple[Tensor, Tensor, Tensor]]:
    inputs = (torch.randn(2, n, 2), torch.randn(2, n, n), torch.randn(2))
    net = Ordered(n).double().to(device)
    x, pairs, one = (value.double().to(device) for value in inputs)
    return net, (x, pairs, one)


def slow_average(net: Ordered, x: Tensor, pairs: Tensor, one: Tensor) -> dict[str, Tensor]:
    """The sum over all permutations, with permutation matrices: ``rho(p) = P``, ``P e_j = e_p(j)``."""
    n = x.shape[1]
    total: dict[str, Tensor] = {}
    for order in permutations(range(n)):
        p = torch.eye(n, dtype=x.dtype, device=x.device)[:, list(order)]
        y = net(p.mT @ x, p.mT @ pairs @ p, one)
        turned = {"whole": y["whole"], "each": p @ y["each"], "both": p @ y["both"] @ p.mT}
        total = {key: total.get(key, 0) + value / math.factorial(n) for key, value in turned.items()}
    return total


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_agrees_with_the_slow_sum(n: int, chunk_size: int | None, device: torch.device) -> None:
    net, inputs = example(n, device)
    average = PermutationAverage(net, INS, OUTS, chunk_size=chunk_size)
    for key, want in slow_average(net, *inputs).items():
        torch.testing.assert_close(average(*inputs)[key], want, rtol=0, atol=TOLERANCES[torch.float64])


@pytest.mark.parametrize("n", [5, 6])
def test_does_not_see_the_order(n: int, device: torch.device) -> None:
    net, (x, pairs, one) = example(n, device)
    average = PermutationAverage(net, INS, OUTS, chunk_size=100)
    order = torch.randperm(n).to(device)
    with torch.no_grad():
        upright, shuffled = average(x, pairs, one), average(x[:, order], pairs[:, order][:, :, order], one)
        plain, other = net(x, pairs, one), net(x[:, order], pairs[:, order][:, :, order], one)
    assert float((plain["whole"] - other["whole"]).abs().max()) > 1e-2
    want = {
        "whole": upright["whole"],
        "each": upright["each"][:, order],
        "both": upright["both"][:, order][:, :, order],
    }
    for key, value in want.items():
        torch.testing.assert_close(shuffled[key], value, rtol=0, atol=1e-13)


def test_eight_are_listed(device: torch.device) -> None:
    linear = nn.Linear(8, 1).double().to(device)
    average = PermutationAverage(lambda x: linear(x.tanh().cumsum(1))[:, 0], chunk_size=5000)
    x = torch.randn(1, 8, dtype=torch.float64).to(device)
    with torch.no_grad():
        mean, error = average(x, return_stderr=True)
        # The mean of the i-th partial sum is i / 8 of the total.
        want = linear(x.tanh().sum(1, keepdim=True) * torch.arange(1, 9).to(x) / 8)[:, 0]
    torch.testing.assert_close(mean, want, rtol=0, atol=1e-12)
    assert error.tolist() == [0]


def test_an_equivariant_module_stays_as_it_is(device: torch.device) -> None:
    x = torch.randn(2, 12, 3, dtype=torch.float64).to(device)
    average = PermutationAverage(lambda x: x.tanh() + x.mean(1, keepdim=True), "set", "set", num_samples=3)
    mean, error = average(x, return_stderr=True)
    torch.testing.assert_close(mean, x.tanh() + x.mean(1, keepdim=True), rtol=0, atol=1e-14)
    assert float(error.max()) <= 1e-14


def mlp(n: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(n * 2, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def estimates(n: int, count: int, repeats: int) -> tuple[Tensor, Tensor, nn.Module, Tensor]:
    """Many estimates of the same average, and their standard errors."""
    net, x = mlp(n), torch.randn(1, n, 2, dtype=torch.float64)
    with torch.no_grad():
        mean, error = PermutationAverage(net, num_samples=count)(x.expand(repeats, n, 2), return_stderr=True)
    return mean, error, net, x


@pytest.mark.parametrize(("n", "count"), [(5, 8), (5, 32), (5, 100), (5, 119), (12, 32)])
def test_the_standard_error_is_true(n: int, count: int) -> None:
    mean, error, _, _ = estimates(n, count, 3000)
    ratio = error.square().mean(0).sqrt() / mean.std(0)
    assert float((ratio - 1).abs().max()) < 0.05
    if count == 100:
        # Without the finite-population correction it would be 2.4 times too large.
        assert float((ratio / (1 - 100 / 120) ** 0.5).min()) > 2


@pytest.mark.parametrize("count", [1, 8, 100])
def test_is_unbiased(count: int) -> None:
    net, x = mlp(5), torch.randn(1, 5, 2, dtype=torch.float64)
    with torch.no_grad():
        mean = PermutationAverage(net, num_samples=count)(x.expand(3000, 5, 2))
        z = (mean.mean(0) - PermutationAverage(net)(x)[0]) / mean.std(0) * 3000**0.5
        biased = (net(x)[0] - PermutationAverage(net)(x)[0]) / mean.std(0) * 3000**0.5
    assert float(z.abs().max()) < 4
    assert float(biased.abs().max()) > 10


# The figures of the docstring; the standard deviation of a share of 3000 is 0.005.
@pytest.mark.parametrize(("count", "share"), [(8, 0.91), (32, 0.94), (100, 0.95)])
def test_intervals_cover_as_documented(count: int, share: float) -> None:
    mean, error, net, x = estimates(5, count, 3000)
    with torch.no_grad():
        covered = (mean - PermutationAverage(net)(x)).abs() <= 1.96 * error
    assert abs(float(covered.double().mean()) - share) < 0.015


def test_twenty_by_draws() -> None:
    mean, error, net, x = estimates(20, 64, 1000)
    with torch.no_grad():
        order = torch.randperm(20)
        other = PermutationAverage(net, num_samples=64)(x[:, order].expand(1000, 20, 2), return_stderr=True)
    z = (mean - other[0]) / (error.square() + other[1].square()).sqrt()
    assert 0.9 < float(z.square().mean().sqrt()) < 1.1


@pytest.mark.parametrize("n", [4, 9])
def test_gradients_are_unbiased(n: int) -> None:
    net = mlp(n)
    x = torch.randn(1, n, 2, dtype=torch.float64)
    found = []
    for copies, count in ((2000, 1), (200, 300)):
        many = x.expand(copies, n, 2).clone().requires_grad_()
        y = PermutationAverage(net, num_samples=count, chunk_size=50)(many)
        found.append(torch.autograd.grad(y[:, 0].sum(), many)[0])
    z = (found[0].mean(0) - found[1].mean(0)) / found[0].std(0) * 2000**0.5
    assert float(found[0].std(0).min()) > 1e-3
    assert float(z.abs().max()) < 4


@pytest.mark.parametrize("num_samples", [24, 25, 1000])
def test_as_many_draws_as_orders_are_the_average(num_samples: int) -> None:
    net, x = mlp(4), torch.randn(3, 4, 2, dtype=torch.float64)
    mean, error = PermutationAverage(net, num_samples=num_samples)(x, return_stderr=True)
    torch.testing.assert_close(mean, PermutationAverage(net)(x), rtol=0, atol=1e-14)
    assert float(error.abs().max()) == 0


def test_draws_without_replacement_and_for_each_sample() -> None:
    # The weighted sum tells which permutation was drawn.
    seen: list[Tensor] = []
    average = PermutationAverage(lambda x: (seen.append(x), x[:, 0])[1], num_samples=5)
    average(torch.arange(3.0).expand(400, 3))
    orders = (seen[0] * torch.tensor([9.0, 3.0, 1.0])).sum(1).unflatten(0, (400, 5))
    assert bool((orders.sort(1).values.diff(dim=1) > 0).all())
    assert len(torch.unique(orders.sum(1))) == 6  # each of the six is left out somewhere


@pytest.mark.parametrize("n", [5, 10])
def test_the_generator_decides(n: int, device: torch.device) -> None:
    x = torch.randn(2, n, 2, dtype=torch.float64).to(device)
    net = mlp(n).to(device)

    def once(seed: int) -> Tensor:
        return PermutationAverage(net, num_samples=3, generator=torch.Generator().manual_seed(seed))(x)

    state = torch.get_rng_state()
    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))
    assert torch.equal(state, torch.get_rng_state())


def test_precision_comes_back(device: torch.device) -> None:
    x = torch.randn(2, 4, 2).to(device)
    net = mlp(4).to(device, torch.bfloat16)
    mean, error = PermutationAverage(net, num_samples=6)(x.bfloat16(), return_stderr=True)
    assert (mean.dtype, error.dtype) == (torch.bfloat16, torch.bfloat16)
    with torch.autocast(device.type, torch.bfloat16):
        assert PermutationAverage(mlp(4).float().to(device))(x).dtype == torch.bfloat16


def test_large_means_do_not_swallow_the_error() -> None:
    net, x = mlp(5).float(), torch.randn(1, 5, 2)
    found = [
        PermutationAverage(lambda x, far=far: net(x) + far, num_samples=20, generator=torch.Generator().manual_seed(0))(
            x, return_stderr=True
        )[1]
        for far in (0.0, 1e4)
    ]
    torch.testing.assert_close(*found, rtol=0.05, atol=0)


def test_empty_batch_and_what_is_no_tensor() -> None:
    average = PermutationAverage(lambda x, k: {"y": x.sum(1), "name": "a"}, ("set", "invariant"), "invariant")
    output = average(torch.zeros(0, 3, 2), 5)
    assert output["y"].shape == (0, 2)
    assert average(torch.zeros(2, 3, 2), torch.tensor(1))["name"] == "a"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies(copied: Callable[[nn.Module], nn.Module]) -> None:
    average, x = PermutationAverage(mlp(4)), torch.randn(2, 4, 2).double()
    assert torch.equal(copied(average)(x), average(x))
    assert list(average.state_dict()) == [f"module.{key}" for key in average.module.state_dict()]


def test_compiles() -> None:
    average, x = PermutationAverage(mlp(4)), torch.randn(2, 4, 2).double()
    torch.testing.assert_close(torch.compile(average, backend="eager")(x), average(x))


def test_repr_says_what_it_is() -> None:
    text = repr(PermutationAverage(nn.Identity(), ("set", "pairs"), "set", num_samples=4))
    assert "in_action=('set', 'pairs'), out_action='set', num_samples=4" in text


def returns(value: Any) -> Callable[..., Any]:
    return lambda *inputs: value


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: PermutationAverage(nn.Identity), "module must be a module"),
        (lambda: PermutationAverage(3), "module must be a module"),
        (lambda: PermutationAverage(nn.Identity(), "sets"), "in_action must be one of"),
        (lambda: PermutationAverage(nn.Identity(), "set", {"a": "points"}), r"out_action\['a'\] must be one of"),
        (lambda: PermutationAverage(nn.Identity(), "invariant"), "in_action must be actions of which at least one"),
        (lambda: PermutationAverage(nn.Identity(), num_samples=0), "num_samples must be a positive int"),
        (lambda: PermutationAverage(nn.Identity(), chunk_size=0), "chunk_size must be a positive int"),
        (
            lambda: PermutationAverage(nn.Identity())(torch.zeros(1, 9)),
            "num_samples must be an int for sets of more than",
        ),
        (
            lambda: PermutationAverage(nn.Identity(), num_samples=1)(torch.zeros(1, 4), return_stderr=True),
            "num_samples must be at least 2",
        ),
        (lambda: PermutationAverage(nn.Identity())(torch.zeros(4)), "input must be a tensor"),
        (lambda: PermutationAverage(nn.Identity())(3), "inputs must be tensors"),
        (
            lambda: PermutationAverage(returns(None), ("set", "pairs"))(torch.zeros(2, 3), torch.zeros(2, 3, 4)),
            r"inputs\[1\] must be a tensor \[B=2, n=3, n=3",
        ),
        (
            lambda: PermutationAverage(returns(None), ("set", "invariant"))(torch.zeros(2, 3), torch.zeros(3)),
            r"inputs\[1\] must be a tensor \[B=2",
        ),
        (
            lambda: PermutationAverage(returns(torch.zeros(2)))(torch.zeros(2, 3)),
            r"output must be a tensor \[6 permutations",
        ),
        (
            lambda: PermutationAverage(returns(torch.zeros(12).long()))(torch.zeros(2, 3)),
            "output must be floating point",
        ),
        (
            lambda: PermutationAverage(lambda x: {"a": SimpleNamespace(y=x)})(torch.zeros(2, 3)),
            r"output\['a'\] must be a tensor, None, a number or a string",
        ),
        (
            lambda: PermutationAverage(returns(torch.zeros(12, 2)), "set", "set")(torch.zeros(2, 3)),
            r"output must be a tensor \[B=12, n=3",
        ),
    ],
)
def test_refusals(call: Callable[[], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("num_samples", [None, 4])
def test_complex_numbers_have_the_mean_and_the_error_of_their_parts(num_samples: int | None) -> None:
    net, x = mlp(4), torch.randn(2, 4, 2, dtype=torch.float64)

    def averaged(module: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(0)
        return PermutationAverage(module, num_samples=num_samples, generator=draws)(x, return_stderr=True)

    with torch.no_grad():
        mean, error = averaged(lambda x: torch.complex(net(x), net(x).square()))
        (real, real_error), (imag, imag_error) = averaged(net), averaged(lambda x: net(x).square())
    torch.testing.assert_close(mean, torch.complex(real, imag))
    torch.testing.assert_close(error.real, torch.hypot(real_error, imag_error))
    assert not error.imag.any()
