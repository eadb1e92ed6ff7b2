"""Averages over all rotations: rules that are exact up to their degree, and uniform draws."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from clouds import CH4, GENERIC, icosahedron, padded
from frame_modules import OUTPUTS, Flat, Outputs, Pairs, equivariance_errors
from torch import Tensor, nn

from gconv_ga.frames import FrameAverage, HaarFrame, QuadratureFrame

DEGREES = {"octahedral": (24, 3), "icosahedral": (60, 5), 1: (4, 1), 4: (75, 4), 6: (196, 6), 10: (726, 10)}
DRAWS = 20_000


def elements(frame: QuadratureFrame | HaarFrame, d: int = 3) -> tuple[Tensor, Tensor]:
    """The rotations and weights of one sample."""
    frames = frame(torch.randn(1, 4, d, dtype=torch.float64))
    return frames.rotations[0], frames.weights[0]


def leftover(rotations: Tensor, weights: Tensor, degree: int) -> float:
    """``|sum_k w_k D(R_k)|^2`` of the irreducible representation of this degree, by its character."""
    traces = torch.einsum("kij,mij->km", rotations, rotations)
    if rotations.shape[-1] == 2:
        characters = torch.cos(degree * torch.acos((traces / 2).clamp(-1, 1)))
    else:
        angles = torch.acos(((traces - 1) / 2).clamp(-1, 1))
        characters = 1 + 2 * sum(torch.cos(m * angles) for m in range(1, degree + 1))
    return float(torch.einsum("k,m,km->", weights, weights, characters))


@pytest.mark.parametrize("group", ["SO", "O"])
@pytest.mark.parametrize("rule", DEGREES)
def test_rules_of_space_are_exact_up_to_their_degree(rule: int | str, group: str) -> None:
    rotations, weights = elements(QuadratureFrame(group, rule=rule))
    count, degree = DEGREES[rule]
    assert len(rotations) == count * (2 if group == "O" else 1)
    eye = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, eye, rtol=0, atol=1e-14)
    proper = torch.linalg.det(rotations) > 0
    share = weights[proper].sum()
    assert abs(float(share) - (1 if group == "SO" else 0.5)) < 1e-14
    for part in (proper, ~proper)[: 1 if group == "SO" else 2]:
        turns = rotations[part] * torch.linalg.det(rotations[part])[:, None, None]
        assert max(abs(leftover(turns, weights[part] / share, n)) for n in range(1, degree + 1)) < 1e-12
        # No rule is exact for higher degrees than stated.
        assert leftover(turns, weights[part] / share, degree + 1) > 1e-4


@pytest.mark.parametrize("count", [1, 4, 7, 32])
def test_rules_of_the_plane_are_exact_below_their_number_of_angles(count: int) -> None:
    rotations, weights = elements(QuadratureFrame("SO", 2, count), 2)
    assert len(rotations) == count
    assert all(abs(leftover(rotations, weights, n)) < 1e-12 for n in range(1, count))
    assert leftover(rotations, weights, count) > 0.99


@pytest.mark.parametrize("rule", ["octahedral", "icosahedral"])
def test_finite_groups_are_closed_and_have_no_element_twice(rule: str) -> None:
    rotations, _ = elements(QuadratureFrame("SO", rule=rule))
    flat = rotations.flatten(1)
    products = (rotations[:, None] @ rotations[None]).flatten(0, 1).flatten(1)
    nearest = (products[:, None] - flat[None]).abs().amax(-1).amin(1)
    assert float(nearest.max()) < 1e-14
    assert int((torch.cdist(flat, flat) < 0.1).sum()) == len(rotations)


def test_the_icosahedral_rotations_move_an_icosahedron_onto_itself() -> None:
    rotations, _ = elements(QuadratureFrame("SO", rule="icosahedral"))
    # Two icosahedra share the axes, a rotation by 90 degrees apart; the group is that of one of them.
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    misses = []
    for corners in (icosahedron(), icosahedron() @ quarter):
        orbit = torch.einsum("kij,nj->kni", rotations, corners).flatten(0, 1)
        misses.append(float((orbit[:, None] - corners[None]).abs().amax(-1).amin(1).max()))
    assert min(misses) < 1e-14
    assert max(misses) > 0.1


class Smooth(nn.Module):
    """A two-layer MLP on flattened coordinates."""

    def __init__(self, n: int, d: int, act: nn.Module) -> None:
        super().__init__()
        widths = (n * d, 32, 32)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), act)]
        self.net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(32, d))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def vector_error(frame: QuadratureFrame | HaarFrame, act: nn.Module) -> float:
    """``Phi(R x) - R Phi(x)`` relative to the module's largest output, the mean over four random modules."""
    found = []
    for seed in range(4):
        torch.manual_seed(seed)
        module = Smooth(5, frame.d, act).double()
        net = FrameAverage(module, frame, "points", "vector")
        x = torch.randn(4, 5, frame.d, dtype=torch.float64)
        turn = HaarFrame("SO", frame.d)(x[:1]).rotations[0, 0]
        with torch.no_grad():
            found.append(float((net(x @ turn.mT) - net(x) @ turn.mT).abs().max() / module(x).abs().max()))
    return sum(found) / len(found)


# The figures in QuadratureFrame's docstring were measured in this way; each must hold within a factor of 5.
@pytest.mark.parametrize(
    ("act", "d", "rule", "figure"),
    [
        (nn.SiLU(), 2, 8, 3e-5),
        (nn.SiLU(), 2, 16, 2e-9),
        (nn.Tanh(), 2, 8, 2e-3),
        (nn.Tanh(), 2, 16, 2e-6),
        (nn.Tanh(), 2, 32, 3e-11),
        (nn.ReLU(), 2, 8, 2e-2),
        (nn.ReLU(), 2, 32, 8e-4),
        (nn.SiLU(), 3, "octahedral", 6e-3),
        (nn.SiLU(), 3, "icosahedral", 4e-4),
        (nn.SiLU(), 3, 6, 4e-5),
        (nn.SiLU(), 3, 10, 2e-7),
        (nn.ReLU(), 3, "icosahedral", 1e-2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_errors_are_as_documented(act: nn.Module, d: int, rule: int | str, figure: float) -> None:
    error = vector_error(QuadratureFrame("SO", d, rule), act)
    assert figure / 5 < error < figure * 5


def test_32_angles_are_exact_for_a_smooth_module() -> None:
    assert vector_error(QuadratureFrame("SO", 2), nn.SiLU()) <= 1e-14


def test_quadrature_beats_many_draws() -> None:
    assert vector_error(HaarFrame("SO", num_samples=600), nn.SiLU()) > 10 * vector_error(
        QuadratureFrame("SO"), nn.SiLU()
    )


@pytest.mark.parametrize("group", ["SO", "SE", "O", "E"])
@pytest.mark.parametrize("name", ["CH4", "one point", "generic"])
def test_polynomials_are_averaged_exactly(group: str, name: str, device: torch.device) -> None:
    x = {"CH4": CH4, "one point": GENERIC[:1], "generic": GENERIC}[name][None].to(device)
    weight = torch.randn(x[0].numel(), x[0].numel(), 13 + x[0].numel(), dtype=torch.float64).to(x) / 10

    def quadratic(x: Tensor) -> Outputs:
        y = torch.einsum("bi,bj,ijo->bo", x.flatten(1), x.flatten(1), weight)
        parts = y.split((1, 3, 9, x[0].numel()), 1)
        return Outputs(parts[0][:, 0], parts[1], parts[2].unflatten(1, (3, 3)), parts[3].unflatten(1, (-1, 3)))

    # Squares have degree 2, and rotating a tensor of rank 2 back has degree 2: degree 4 in all.
    net = FrameAverage(quadratic, QuadratureFrame(group), "points", OUTPUTS)
    assert worst(net, x, group) <= 1e-12
    lower = FrameAverage(quadratic, QuadratureFrame(group, rule="octahedral"), "points", OUTPUTS)
    if name == "generic":
        assert worst(lower, x, group) > 1e-3


def worst(net: FrameAverage, x: Tensor, group: str) -> float:
    return max(float(error.max()) for error in equivariance_errors(net, x, group, trials=4).values())


@pytest.mark.parametrize("frame", [QuadratureFrame(), HaarFrame(num_samples=3)], ids=repr)
def test_translations_are_exact(frame: QuadratureFrame | HaarFrame, device: torch.device) -> None:
    x = GENERIC[None].to(device)
    module = Flat(6).to(x)
    net = FrameAverage(lambda x: module(x).points, frame, "points", "points")
    found = []
    for shift in (0.0, 5.0):
        torch.manual_seed(1)
        found.append(net(x + shift) - shift)
    torch.testing.assert_close(*found, rtol=0, atol=1e-13)


def test_padding_does_not_matter(device: torch.device) -> None:
    module = Pairs().double().to(device)
    net = FrameAverage(lambda x, mask: module(x, mask).vector, QuadratureFrame(), ("points", "mask"), "vector")
    x, mask = padded([CH4.to(device), GENERIC.to(device)], float("nan"))
    together = net(x, mask.to(device))
    torch.testing.assert_close(together[0], net(CH4[None].to(device), None)[0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("group", ["SO", "O"])
def test_draws_are_uniform(group: str, d: int) -> None:
    rotations, weights = elements(HaarFrame(group, d, DRAWS), d)
    assert torch.equal(weights, torch.full_like(weights, 1 / DRAWS))
    eye = torch.eye(d, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, eye, rtol=0, atol=1e-13)
    signs = torch.linalg.det(rotations).round()
    assert bool((signs == 1).all()) if group == "SO" else abs(float(signs.mean())) < 4 / DRAWS**0.5
    if d > 1:
        # Entries have mean 0 and mean square 1/d, and the trace has the mean square of the uniform measure.
        assert float(rotations.mean(0).abs().max()) < 4.5 / math.sqrt(d * DRAWS)
        assert float((rotations.square().mean(0) - 1 / d).abs().max()) < 4.5 / DRAWS**0.5
        traces = rotations.diagonal(dim1=-2, dim2=-1).sum(-1)
        expected = 2 if (group, d) == ("SO", 2) else 1
        assert abs(float(traces.square().mean()) - expected) < 0.1


def test_columns_of_qr_alone_are_not_uniform() -> None:
    # The check above must reject this: Householder QR returns signs that depend on the matrix.
    q = torch.linalg.qr(torch.randn(DRAWS, 3, 3, dtype=torch.float64)).Q
    assert float(q.mean(0).abs().max()) > 10 / math.sqrt(3 * DRAWS)


def test_draws_estimate_the_group_average(device: torch.device) -> None:
    x = GENERIC[None].to(device)
    module = Smooth(6, 3, nn.SiLU()).to(x)
    with torch.no_grad():
        exact = FrameAverage(module, QuadratureFrame("SO", rule=10), "points", "vector")(x)
        draws = FrameAverage(module, HaarFrame("SO"), "points", "vector")(x.expand(4000, 6, 3))
    z = (draws.mean(0) - exact[0]) / draws.std(0) * len(draws) ** 0.5
    assert float(draws.std(0).min()) > 1e-3
    assert float(z.abs().max()) < 4


def test_training_draws_any_number(device: torch.device) -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64).to(device)
    sizes: list[int] = []
    net = FrameAverage(
        lambda x: (sizes.append(len(x)), x)[1], HaarFrame(num_samples=7), "points", "points", train_samples=2
    )
    torch.testing.assert_close(net.train()(x), x, rtol=0, atol=1e-13)
    net.eval()(x)
    assert sizes == [4, 14]


@pytest.mark.parametrize("group", ["SO", "E"])
def test_the_generator_decides(group: str, device: torch.device) -> None:
    x = torch.randn(2, 5, 3).to(device)
    state = torch.get_rng_state()
    first, second, other = (
        HaarFrame(group, generator=torch.Generator().manual_seed(seed))(x).rotations for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.float32


def test_empty_batches(device: torch.device) -> None:
    x = torch.zeros(0, 5, 3, device=device)
    assert QuadratureFrame()(x).rotations.shape == (0, 60, 3, 3)
    assert HaarFrame(num_samples=2)(x).rotations.shape == (0, 2, 3, 3)


def test_equal_rules_are_equal_and_copy() -> None:
    frame = QuadratureFrame("O", 3, 4)
    assert copy.deepcopy(frame) == frame
    assert repr(frame) == "QuadratureFrame(group='O', d=3, rule=4)"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: QuadratureFrame("U"), "group must be one of"),
        (lambda: QuadratureFrame("SO", 4), "d must be 2 or 3"),
        (lambda: QuadratureFrame("SO", 2, "octahedral"), "rule must be the number of angles"),
        (lambda: QuadratureFrame("SO", 3, "octahedron"), "rule must be one of"),
        (lambda: QuadratureFrame("SO", 3, 0), "rule must be a positive int"),
        (lambda: QuadratureFrame("SO", 2, 0), "rule must be a positive int"),
        (lambda: HaarFrame("U"), "group must be one of"),
        (lambda: HaarFrame(d=0), "d must be a positive int"),
        (lambda: HaarFrame(num_samples=0), "num_samples must be a positive int"),
        (lambda: HaarFrame().sample(torch.zeros(1, 2, 3), count=0), "count must be a positive int"),
        (lambda: QuadratureFrame()(torch.zeros(1, 2, 2)), "x must be a tensor"),
        (lambda: HaarFrame(d=2)(torch.zeros(1, 2, 3)), "x must be a tensor"),
    ],
)
def test_refusals(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("frame", [QuadratureFrame(), HaarFrame()], ids=repr)
def test_integers_are_refused(frame: QuadratureFrame | HaarFrame) -> None:
    with pytest.raises(TypeError, match="x must be floating point"):
        frame(torch.zeros(1, 2, 3, dtype=torch.long))
