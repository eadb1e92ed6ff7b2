"""FrameAveragedGNN: equivariance on every cloud, batches with padding, and gradients."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from clouds import CH4, CHIRAL, CO2, GENERIC, H2O, LINES_OR_POINTS, THREE, padded, read_extxyz
from frame_modules import Motion, random_motion
from tolerances import TOLERANCES
from torch import Tensor, nn

from gconv_ga.frames import (
    DegenerateFrameError,
    FrameAveragedGNN,
    FrameSet,
    MeanFrame,
    PCAFrame,
    PointFrame,
    PointOutputs,
)

AVERAGES = ("whole", "updates")
MOTIONS = {"rotation": False, "reflection": True}


def network(average: str = "whole", **options: object) -> FrameAveragedGNN:
    arguments = {"out_invariants": 2, "out_vectors": 2, "width": 12, "vector_channels": 3, "depth": 2} | options
    net = FrameAveragedGNN(3, average=average, **arguments).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)  # with torch's default initialization the network is nearly linear
    return net


def species(cloud: Tensor, kinds: int = 3) -> Tensor:
    """A one-hot species for each point, by its distance from the first point, which is invariant."""
    distance = (cloud - cloud[:1]).square().sum(-1)
    return torch.eye(kinds, dtype=cloud.dtype, device=cloud.device)[(distance > 1e-6).long() + (distance > 4).long()]


def moved(outputs: PointOutputs, motion: Motion) -> PointOutputs:
    turn = motion.rotation.to(outputs.vectors)
    return PointOutputs(motion(outputs.points), outputs.vectors @ turn.mT, outputs.invariants)


def error(a: PointOutputs, b: PointOutputs) -> float:
    """The largest difference, relative to the largest output or to 1."""
    return max(
        float((x - y).detach().abs().max()) / max(1.0, float(y.detach().abs().max())) for x, y in zip(a, b, strict=True)
    )


def equivariance_error(net: nn.Module, x: Tensor, *others: Tensor, mirrored: bool = False) -> float:
    motion = random_motion(x.shape[-1], mirrored=mirrored)
    return error(net(motion(x), *others), moved(net(x, *others), motion))


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize("average", AVERAGES)
def test_equivariant_on_every_cloud(average: str, name: str, motion: str, device: torch.device) -> None:
    x = THREE[name].to(device)
    net = network(average).to(device)
    assert equivariance_error(net, x[None], species(x)[None], mirrored=MOTIONS[motion]) <= TOLERANCES[torch.float64]
    if name not in LINES_OR_POINTS:
        # Its vectors and displacements are not zero.
        outputs = net(x[None], species(x)[None])
        assert float((outputs.points - x).detach().abs().max()) > 1e-3
        assert float(outputs.vectors.detach().abs().max()) > 1e-3


@pytest.mark.parametrize("average", AVERAGES)
def test_equivariant_on_all_molecules(average: str, shared_data: Callable[..., object], device: torch.device) -> None:
    molecules = list(read_extxyz(shared_data("molecules") / "g2.extxyz").values())
    net = network(average).to(device)
    x, mask = padded([molecule.to(device) for molecule in molecules], float("nan"))
    features = torch.zeros(*mask.shape, 3, dtype=x.dtype)
    for row, molecule in enumerate(molecules):
        features[row, : len(molecule)] = species(molecule)
    x, mask, features, motion = x.to(device), mask.to(device), features.to(device), random_motion(3, mirrored=True)
    with torch.no_grad():
        upright, turned = net(x, features, None, mask), net(motion(x), features, None, mask)
    used = [PointOutputs(*(y[mask] for y in outputs)) for outputs in (turned, moved(upright, motion))]
    assert len(molecules) > 100
    assert error(*used) <= 1e-10


@pytest.mark.parametrize("frame", ["mean", "axes"])
@pytest.mark.parametrize("average", AVERAGES)
def test_other_frames_are_not_enough(average: str, frame: str, device: torch.device) -> None:
    frames = {"mean": MeanFrame(), "axes": PCAFrame("E", degenerate="ignore")}
    net = network(average, frame=frames[frame]).to(device)
    x = THREE["cube"].to(device)
    ones = torch.ones(1, 8, 3, dtype=x.dtype, device=device) * torch.arange(8, device=device)[None, :, None] / 8
    assert equivariance_error(net, x[None], ones) > 1e-3
    assert equivariance_error(network(average).to(device), x[None], ones) <= 1e-10


def test_axes_frames_refuse_methane() -> None:
    with pytest.raises(DegenerateFrameError):
        network(frame=PCAFrame("E"))(CH4[None], species(CH4)[None])


@pytest.mark.parametrize("vectors", [1, 2])
@pytest.mark.parametrize("name", ["one point", "CO2", "CH4", "generic"])
@pytest.mark.parametrize("average", AVERAGES)
def test_vectors_turn_with_the_cloud(average: str, name: str, vectors: int, device: torch.device) -> None:
    x = THREE[name].to(device)
    net = network(average, in_vectors=vectors).to(device)
    v = torch.randn(1, len(x), vectors, 3, dtype=torch.float64).to(device)
    motion = random_motion(3, mirrored=True)
    still = motion._replace(translation=torch.zeros(3, dtype=torch.float64))
    upright = net(x[None], species(x)[None], v)
    turned = net(motion(x[None]), species(x)[None], still(v))
    assert error(turned, moved(upright, motion)) <= 1e-10
    if vectors == 1:
        assert error(net(x[None], species(x)[None], v[:, :, 0]), upright) == 0
    assert error(net(x[None], species(x)[None], 2 * v), upright) > 1e-3  # the vectors have an effect


@pytest.mark.parametrize("average", AVERAGES)
def test_padding_holds_anything(average: str, device: torch.device) -> None:
    clouds = [cloud.to(device) for cloud in (CO2, H2O, CH4, GENERIC, GENERIC[:1])]
    net = network(average, in_vectors=1).to(device)
    x, mask = padded(clouds, float("nan"))
    features, v = torch.full((5, 6, 3), float("nan")).double(), torch.full((5, 6, 3), float("nan")).double()
    for row, cloud in enumerate(clouds):
        features[row, : len(cloud)], v[row, : len(cloud)] = species(cloud).cpu(), torch.randn(len(cloud), 3).double()
    x, mask, features, v = x.to(device).requires_grad_(), mask.to(device), features.to(device), v.to(device)
    together = net(x, features, v, mask)
    for row, cloud in enumerate(clouds):
        n = len(cloud)
        alone = net(cloud[None], features[row : row + 1, :n], v[row : row + 1, :n])
        for got, want in zip(together, alone, strict=True):
            torch.testing.assert_close(got[row, :n], want[0], rtol=0, atol=1e-12)
            assert not bool(got[row, n:].any())
    (gradient,) = torch.autograd.grad(together.invariants.sum(), x)
    assert bool(gradient.isfinite().all())
    assert not bool(gradient[~mask].any())


@pytest.mark.parametrize("average", AVERAGES)
def test_outputs_go_with_the_points(average: str, device: torch.device) -> None:
    x, order = THREE["benzene"].to(device), torch.randperm(12).to(device)
    net = network(average).to(device)
    upright, shuffled = net(x[None], species(x)[None]), net(x[None, order], species(x)[None, order])
    assert error(shuffled, PointOutputs(*(y[:, order] for y in upright))) <= 1e-12


def energy(net: nn.Module, x: Tensor) -> Tensor:
    features = species(GENERIC if x.shape[1] == 6 else CH4).to(x).expand(len(x), -1, -1)
    return net(x, features).invariants.sum((1, 2))


@pytest.mark.parametrize("cloud", [CH4, GENERIC], ids=["CH4", "generic"])
@pytest.mark.parametrize("average", AVERAGES)
def test_forces_are_gradients(average: str, cloud: Tensor, device: torch.device) -> None:
    net = network(average).to(device)
    x = cloud[None].to(device).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(net, x).sum(), x)
    step = 1e-5
    moves = torch.eye(x.numel(), dtype=x.dtype, device=device).unflatten(1, x.shape[1:]) * step
    with torch.no_grad():
        numbers = (energy(net, x + moves) - energy(net, x - moves)) / (2 * step)
    torch.testing.assert_close(gradient.flatten(), numbers, rtol=0, atol=1e-6 * float(numbers.abs().max()))
    # No net force and no torque.
    assert float(gradient.sum(1).abs().max()) <= 1e-11
    assert float(torch.linalg.cross(x.detach(), gradient).sum(1).abs().max()) <= 1e-11
    motion = random_motion(3, mirrored=True)
    y = motion(x.detach()).requires_grad_()
    (turned,) = torch.autograd.grad(energy(net, y).sum(), y)
    torch.testing.assert_close(turned, gradient @ motion.rotation.to(x).mT, rtol=0, atol=1e-9)


@pytest.mark.parametrize("average", AVERAGES)
def test_training_on_forces_reaches_all_weights(average: str, device: torch.device) -> None:
    net = network(average).to(device)
    x = GENERIC[None].to(device).requires_grad_()
    outputs = net(x, species(GENERIC)[None].to(device))
    (force,) = torch.autograd.grad(outputs.invariants.sum(), x, create_graph=True)
    loss = sum(y.square().sum() for y in (force, *outputs))
    loss.backward()
    lacking = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert not lacking


def test_lengths_are_told_apart(device: torch.device) -> None:
    # A pair energy with a period of about 1. With all Gaussians centred at 0, a loss of 3 % to 50 % remains.
    net = FrameAveragedGNN(1, width=16, depth=1, frame=MeanFrame()).to(device)
    distance = torch.linspace(0.5, 4, 64)
    x = torch.stack((torch.zeros(64, 3), distance[:, None] * torch.tensor([0.6, 0.8, 0.0])), 1).to(device)
    wanted = torch.cos(6 * distance).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (net(x, torch.ones(64, 2, 1).to(x)).invariants.sum((1, 2)) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01 * float(wanted.var())


@pytest.mark.parametrize("group", ["E", "SE"])
@pytest.mark.parametrize("average", AVERAGES)
def test_mirrors_only_where_asked_for(average: str, group: str) -> None:
    x, features = CHIRAL[None], torch.eye(3).double()[[0, 1, 2, 0]][None]
    net = network(average, frame=PointFrame(group))
    found = equivariance_error(net, x, features, mirrored=True)
    assert equivariance_error(net, x, features) <= 1e-10
    assert found <= 1e-10 if group == "E" else found > 1e-4


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("average", AVERAGES)
def test_other_dimensions(average: str, d: int) -> None:
    x = torch.randn(2, 5, d, dtype=torch.float64)
    assert equivariance_error(network(average, d=d), x, torch.rand(2, 5, 3).double(), mirrored=True) <= 1e-10


@pytest.mark.parametrize("average", AVERAGES)
def test_messages_written_out(average: str) -> None:
    net = network(average, in_vectors=1, depth=1)
    inner = net.net.module if average == "whole" else net.net
    layer, seen = inner.layers[0], []
    layer.update.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    x, v, mask = GENERIC[None], torch.randn(1, 6, 3).double(), torch.tensor([[True] * 5 + [False]])
    with torch.no_grad():
        inner(x, species(GENERIC)[None], v[:, :, None], mask)
        h = inner.embed(species(GENERIC))
        hidden = torch.einsum("cv,nvd->ncd", inner.embed_vectors.weight, v[0, :, None])
        for i in range(5):
            total, moves, collected = 0, 0, 0
            for j in set(range(5)) - {i}:
                apart = x[0, j] - x[0, i]
                square = apart @ apart
                shells = zip(layer.shells, layer.log_rates, strict=True)
                parts = [torch.exp(-(((square + 0.01) ** 0.5 - at) ** 2) * rate.exp()) for at, rate in shells]
                parts.append(torch.log1p(square))
                edge = torch.stack(parts + (list(apart) if average == "whole" else []))
                m = layer.message(layer.receiver(h[i]) + layer.sender(h[j]) + layer.between(edge))
                push, pull = layer.gates(m)
                total, moves, collected = total + m, moves + push * apart, collected + pull * hidden[j]
            _, vectors, _, messages, _ = seen[0]
            torch.testing.assert_close(messages[0, i], total, rtol=0, atol=1e-13)
            torch.testing.assert_close(vectors[0, i, 2], moves, rtol=0, atol=1e-13)
            torch.testing.assert_close(vectors[0, i, -3:], collected, rtol=0, atol=1e-13)


def test_updates_pass_messages_once() -> None:
    # The message network runs once for "updates", and for every element of the frame for "whole".
    sizes = {}
    for average in AVERAGES:
        net = network(average)
        inner = net.net.module if average == "whole" else net.net
        inner.layers[0].message.register_forward_hook(lambda _, x, y, a=average: sizes.update({a: len(y)}))
        net(CH4[None], species(CH4)[None])
    assert sizes == {"whole": 24, "updates": 1}


def test_draws_in_training_are_unbiased_for_the_whole() -> None:
    net = network(train_samples=1)
    x, features = GENERIC.expand(2000, 6, 3), species(GENERIC).expand(2000, 6, 3)
    with torch.no_grad():
        drawn, exact = net.train()(x, features), net.eval()(x[:1], features[:1])
    for a, b in zip(drawn, exact, strict=True):
        spread = a.std(0)
        assert float(spread.max()) > 1e-3
        assert float(((a.mean(0) - b[0]) / spread * 2000**0.5).abs().max()) < 4.5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
@pytest.mark.parametrize("average", AVERAGES)
def test_copies_and_state(average: str, copied: Callable[[nn.Module], nn.Module]) -> None:
    net = network(average).train()
    assert error(copied(net)(CH4[None], species(CH4)[None]), net(CH4[None], species(CH4)[None])) == 0
    other = network(average).eval()
    other.load_state_dict(net.state_dict())
    assert error(other(CH4[None], species(CH4)[None]), net(CH4[None], species(CH4)[None])) <= 1e-14


def test_frames_that_learn_are_saved() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...]) -> FrameSet:
            middle = x.mean(1, keepdim=True) + self.weight
            return FrameSet(torch.eye(3).to(x).expand(len(x), 1, 3, 3), middle, torch.ones(len(x), 1).to(x))

    for average in AVERAGES:
        assert any(key.endswith("frame.weight") for key in network(average, frame=Learned()).state_dict())


@pytest.mark.parametrize("average", AVERAGES)
def test_single_precision_and_autocast(average: str, device: torch.device) -> None:
    net = network(average).float().to(device)
    x, features = GENERIC[None].float().to(device), species(GENERIC)[None].float().to(device)
    with torch.no_grad():
        assert equivariance_error(net, x, features) <= TOLERANCES[torch.float32] * 10
        with torch.autocast(device.type, torch.bfloat16):
            low = net(x, features)
        assert error(low, net(x, features)) <= TOLERANCES[torch.bfloat16] * 4


@pytest.mark.parametrize("average", AVERAGES)
def test_an_empty_batch(average: str) -> None:
    outputs = network(average)(torch.zeros(0, 4, 3).double(), torch.zeros(0, 4, 3).double())
    assert [tuple(y.shape) for y in outputs] == [(0, 4, 3), (0, 4, 2, 3), (0, 4, 2)]


def test_without_vectors() -> None:
    assert network(out_vectors=0)(CH4[None], species(CH4)[None]).vectors.shape == (1, 5, 0, 3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"out_invariants": 0}, "out_invariants must be a positive int"),
        ({"width": 0}, "width must be a positive int"),
        ({"depth": 0}, "depth must be a positive int"),
        ({"d": 0}, "d must be a positive int"),
        ({"vector_channels": 0}, "vector_channels must be a positive int"),
        ({"in_vectors": -1}, "in_vectors must be an int of at least 0"),
        ({"out_vectors": -1}, "out_vectors must be an int of at least 0"),
        ({"average": "update"}, "average must be one of.*Did you mean 'updates'"),
        ({"train_samples": 0}, "train_samples must be a positive int"),
        ({"chunk_size": 0}, "chunk_size must be a positive int"),
    ],
)
def test_refusals_at_construction(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FrameAveragedGNN(3, **options)


def test_in_features_are_needed() -> None:
    with pytest.raises(ValueError, match="in_features must be a positive int"):
        FrameAveragedGNN(0)


@pytest.mark.parametrize(
    ("vectors", "inputs", "match"),
    [
        (0, (torch.zeros(1, 4, 2), torch.zeros(1, 4, 3)), r"x must be a tensor \[B, N, d=3\]"),
        (0, (torch.zeros(1, 0, 3), torch.zeros(1, 0, 3)), r"x must be a tensor \[B, N, d=3\]"),
        (0, (torch.zeros(1, 4, 3), torch.zeros(1, 4, 2)), r"features must be a tensor \[B=1, N=4, in_features=3\]"),
        (0, (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)), "vectors must be a tensor"),
        (0, (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), None, torch.ones(1, 3).bool()), "mask must be a tensor"),
        (1, (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)), "vectors must be given, since in_vectors=1"),
        (2, (torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)), "vectors must be a tensor"),
    ],
)
def test_refusals_of_inputs(vectors: int, inputs: tuple[Tensor, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        FrameAveragedGNN(3, in_vectors=vectors)(*inputs)
