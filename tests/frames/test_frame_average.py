"""FrameAverage: inputs and outputs of every kind, padding, precision, chunks, and torch's tools."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from clouds import CH4, CO2, H2O, THREE, padded
from frame_modules import OUTPUTS, Flat, Outputs, Pairs, errors, moved_outputs, random_motion
from torch import Tensor, nn

from gconv_ga.frames import DegenerateFrameError, FrameAction, FrameAverage, FrameSet, MeanFrame, PCAFrame, PointFrame

CLOUDS = [THREE[name] for name in ("one point", "CO2", "H2O", "CH4", "benzene", "generic")]


def slow_average(module: Callable[..., Outputs], frames: FrameSet, x: Tensor) -> Outputs:
    """The sum over the frame, one element of one sample at a time."""
    samples = []
    for b in range(len(x)):
        total = None
        for k in range(frames.weights.shape[1]):
            turn, shift, weight = frames.rotations[b, k], frames.translations[b, k], frames.weights[b, k]
            y = module(((x[b] - shift) @ turn)[None])
            terms = (y.invariant, y.vector @ turn.mT, turn @ y.tensor @ turn.mT, y.points @ turn.mT + shift)
            weighted = [weight * term for term in terms]
            total = weighted if total is None else [a + b for a, b in zip(total, weighted, strict=True)]
        samples.append(total)
    return Outputs(*(torch.cat(parts) for parts in zip(*samples, strict=True)))


FRAMES = {"points": PointFrame(lmax=3), "axes": PCAFrame(), "mean": MeanFrame()}


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1000])
@pytest.mark.parametrize("frame", FRAMES)
def test_agrees_with_the_slow_sum(frame: str, chunk_size: int | None, device: torch.device) -> None:
    x = torch.randn(3, 5, 3, dtype=torch.float64).to(device)
    inner = Flat(5).to(x)
    net = FrameAverage(inner, FRAMES[frame], "points", OUTPUTS, chunk_size=chunk_size)
    for got, want in zip(net(x), slow_average(inner, FRAMES[frame](x), x), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("fill", [0.0, 1e6, float("nan")])
def test_padded_batch_agrees_with_single_clouds(fill: float, device: torch.device) -> None:
    inner = Pairs().double().to(device)
    net = FrameAverage(inner, PointFrame(lmax=3), ("points", "mask"), OUTPUTS)
    x, mask = padded([cloud.to(device) for cloud in CLOUDS], fill)
    together = net(x, mask.to(device))
    for row, cloud in enumerate(CLOUDS):
        alone = net(cloud[None].to(device), None)
        for name, got, want in zip(OUTPUTS, together, alone, strict=True):
            used = got[row, : len(cloud)] if name == "points" else got[row]
            torch.testing.assert_close(used, want[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("line", [False, True], ids=["a cloud", "a line"])
@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e6, 1e9])
def test_units_of_vectors_do_not_matter(unit: float, line: bool, device: torch.device) -> None:
    x = (CO2[None] + 1 if line else THREE["generic"][None]).to(device)
    field = torch.tensor([[[0.7, -0.2, 0.4]]], dtype=torch.float64).to(device)
    weights = torch.randn(3 * x.shape[1] + 3, generator=torch.Generator().manual_seed(0)).double().to(device)

    def module(x: Tensor, field: Tensor) -> Tensor:
        return (torch.cat((x.flatten(1), field.flatten(1) / unit), 1) @ weights.to(x)).cos()

    net = FrameAverage(module, PointFrame(), ("points", "vector"), "invariant")
    for mirrored in (False, True, False, True):
        turn, shift = (part.to(x) for part in random_motion(3, mirrored=mirrored))
        moved = ((x @ turn.mT + shift).float(), (unit * field @ turn.mT).float())
        torch.testing.assert_close(net(*moved), net(x.float(), (unit * field).float()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vector", "tensor"])
def test_padding_does_not_reach_what_a_sample_has_once(kind: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, axes = (torch.randn(3, 3, generator=generator).double().to(device) for _ in range(3))
    field = torch.randn(2, 3, 3, generator=generator).double().to(device)
    field = field if kind == "tensor" else field[:, 0]
    # As many points as coordinates, and axes that a third vector determines where there are two points.
    x, mask = padded([first, second[:2]], float("nan"))
    weights = torch.randn(9 + field[0].numel(), generator=generator).double().to(device)

    def module(x: Tensor, axes: Tensor, field: Tensor, mask: Tensor | None) -> Tensor:
        padded_points = nn.functional.pad(x, (0, 0, 0, 3 - x.shape[1]))
        return (torch.cat((padded_points.flatten(1), field.flatten(1)), 1) @ weights).tanh()

    net = FrameAverage(module, PointFrame(), ("points", "vector", kind, "mask"), "invariant")
    more = axes[:1].expand(2, 1, 3)
    together = net(x, more, field, mask.to(device))
    for row, cloud in enumerate((first, second[:2])):
        alone = net(cloud[None], more[row : row + 1], field[row : row + 1], None)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-13)


def test_order_of_points_does_not_matter(device: torch.device) -> None:
    x = THREE["benzene"][None].to(device)
    order = torch.randperm(12).to(device)
    net = FrameAverage(Pairs().to(x), PointFrame(), "points", ("invariant", "vector", "invariant", "points"))
    upright, shuffled = net(x), net(x[:, order])
    torch.testing.assert_close(shuffled.vector, upright.vector, rtol=0, atol=1e-13)
    torch.testing.assert_close(shuffled.points, upright.points[:, order], rtol=0, atol=1e-13)


class Moving(nn.Module):
    """Takes positions and velocities."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.inner = Flat(n, extra=3 * n)

    def forward(self, x: Tensor, v: Tensor) -> Outputs:
        return self.inner(x, v)


def moving_errors(frame: Callable[..., FrameSet], cloud: Tensor) -> float:
    x = cloud[None]
    v = torch.randn(x.shape, dtype=torch.float64).to(x)
    net = FrameAverage(
        Moving(len(cloud)).to(x), frame, ("points", "vector"), ("invariant", "vector", "invariant", "points")
    )
    motion = random_motion(3, mirrored=True)
    still = motion._replace(translation=torch.zeros(3, dtype=torch.float64))
    found = errors(net(motion(x), still(v)), moved_outputs(net(x, v), motion))
    return max(float(found[name].max()) for name in ("invariant", "vector", "points"))


@pytest.mark.parametrize("name", ["one point", "two coincident points", "CO2", "CH4", "H2O", "cube"])
def test_velocities_enter_the_frame(name: str, device: torch.device) -> None:
    assert moving_errors(PointFrame(), THREE[name].to(device)) <= 1e-13


def test_frames_that_ignore_velocities_are_wrong_on_lines(device: torch.device) -> None:
    def positions_only(x: Tensor, mask: Tensor | None = None, vectors: tuple[Tensor, ...] = ()) -> FrameSet:
        return PointFrame()(x, mask)

    assert moving_errors(positions_only, CO2.to(device)) > 1e-3
    assert moving_errors(positions_only, H2O.to(device)) <= 1e-13


@pytest.mark.parametrize("shape", [(3,), (1, 3), (5, 3), (5, 2, 3)], ids=str)
def test_vectors_of_every_shape(shape: tuple[int, ...], device: torch.device) -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    x[1, 3:] = float("nan")
    mask = x.isfinite().all(-1)
    v = torch.randn(2, *shape, dtype=torch.float64)
    if shape[0] == 5:
        v[1, 3:] = float("nan")
    x, v, mask = x.to(device), v.to(device), mask.to(device)
    linear = nn.Linear(3, 1).to(x)

    def module(x: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return linear(v).tanh() * v, (linear(x).tanh() * x * mask[..., None]).sum(1)

    net = FrameAverage(module, PointFrame(), ("points", "vector", "mask"), ("vector", "vector"))
    turn = random_motion(3, "O", mirrored=True).rotation.to(x)
    for got, want in zip(net(x @ turn.mT, v @ turn.mT, mask), net(x, v, mask), strict=True):
        torch.testing.assert_close(got, want @ turn.mT, rtol=0, atol=1e-14)


def test_inputs_with_actions_of_ones_own_need_all_axes(device: torch.device) -> None:
    class Axial(FrameAction):
        rank = 1

        def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
            return torch.linalg.det(rotations).round()[:, None] * (rotations @ x[..., None])[..., 0]

    def module(x: Tensor, spin: Tensor) -> Tensor:
        return (x.sin().sum((1, 2)) + (spin * x[:, 1]).sum(1) + spin.cumsum(1).exp().sum(1)).cos()

    net = FrameAverage(module, PointFrame(), ("points", Axial()), "invariant")
    spin = torch.tensor([[0.3, -0.5, 0.8]], dtype=torch.float64, device=device)
    motion = random_motion(3, mirrored=True)
    turn, x = motion.rotation.to(spin), H2O[None].to(device)
    torch.testing.assert_close(net(x @ turn.mT, -spin @ turn.mT), net(x, spin), rtol=0, atol=1e-13)
    with pytest.raises(DegenerateFrameError, match=r"^inputs\[1\] must come with points and vectors .* in sample 0"):
        net(CO2[None].to(device), spin)


def test_tensor_inputs_need_all_axes(device: torch.device) -> None:
    def module(x: Tensor, a: Tensor) -> Tensor:
        return (x[:, :2].tanh() @ a.tanh()).flatten(1).sum(1).sin()

    net = FrameAverage(module, PointFrame(), ("points", "tensor"), "invariant")
    a = torch.randn(1, 3, 3, dtype=torch.float64).to(device)
    x, turn = H2O[None].to(device), random_motion(3, "O").rotation.to(device)
    torch.testing.assert_close(net(x @ turn.mT, turn @ a @ turn.mT), net(x, a), rtol=0, atol=1e-14)
    with pytest.raises(DegenerateFrameError, match=r"inputs\[1\].*sample 1"):
        net(torch.stack((H2O, CO2)).to(device), a.expand(2, 3, 3))


def test_nests_of_inputs_and_outputs(device: torch.device) -> None:
    def module(batch: dict[str, Tensor]) -> dict[str, object]:
        energy = batch["x"].sin().sum((1, 2)) * batch["charge"]
        return {"energy": energy, "forces": [batch["x"].tanh(), batch["v"].tanh()], "name": "a", "none": None}

    ins = {"x": "points", "v": "vector", "charge": "scalar", "steps": "invariant"}
    outs = {"energy": "scalar", "forces": ("vector", "vector"), "name": "invariant", "none": "invariant"}
    net = FrameAverage(module, PointFrame(), ins, outs)
    x, v = torch.randn(2, 2, 4, 3, dtype=torch.float64).to(device)
    charge = torch.tensor([2, 3]).to(device)
    turn = random_motion(3, mirrored=True).rotation.to(x)
    got = net({"x": x @ turn.mT + 1, "v": v @ turn.mT, "charge": charge, "steps": 3})
    want = net({"x": x, "v": v, "charge": charge, "steps": 3})
    torch.testing.assert_close(got["energy"], want["energy"], rtol=0, atol=1e-13)
    for a, b in zip(got["forces"], want["forces"], strict=True):
        torch.testing.assert_close(a, b @ turn.mT, rtol=0, atol=1e-13)
    assert type(got["forces"]) is list
    assert (got["name"], got["none"]) == ("a", None)


def test_actions_of_your_own(device: torch.device) -> None:
    class Axial(FrameAction):
        rank = 1

        def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
            sign = torch.linalg.det(rotations.detach()).round()
            return sign[:, None] * (rotations @ x[..., None])[..., 0]

    def module(x: Tensor) -> Tensor:
        return torch.linalg.cross(x[:, 1].sin(), x[:, 2].exp())

    x = torch.randn(2, 4, 3, dtype=torch.float64).to(device)
    net = FrameAverage(module, PointFrame("O"), "points", Axial())
    turn = random_motion(3, "O", mirrored=True).rotation.to(x)
    torch.testing.assert_close(net(x @ turn.mT), -net(x) @ turn.mT, rtol=0, atol=1e-13)


def test_bfloat16_autocast_is_around_the_module_only(device: torch.device) -> None:
    x = torch.randn(8, 5, 3).to(device)
    seen = []
    inner = Flat(5).to(device)

    def module(x: Tensor) -> Tensor:
        y = inner(x).vector
        seen.append((x.dtype, y.dtype))
        return y

    net = FrameAverage(module, PointFrame(), "points", "vector")
    turn = random_motion(3, mirrored=True).rotation.to(x)
    moved = x @ turn.mT
    with torch.autocast(device.type, torch.bfloat16), torch.no_grad():
        upright, turned = net(x), net(moved)
        inside = (x.bfloat16() @ turn.mT.bfloat16()).float()
    assert seen[0] == (torch.float32, torch.bfloat16)
    assert upright.dtype == torch.float32
    with torch.no_grad():
        exact = net(x)
    # The module's bfloat16 error does not break equivariance: it is given the same coordinates both times.
    assert float((turned - upright @ turn.mT).abs().max()) <= 1e-5
    assert float((upright - exact).abs().max()) > 1e-4
    assert float((inside - moved).abs().max()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_modules(dtype: torch.dtype, device: torch.device) -> None:
    x = THREE["CH4"][None].to(device, dtype)
    inner = Flat(5).to(device, dtype)
    net = FrameAverage(inner, PointFrame(lmax=3), "points", OUTPUTS)
    half = net(x)
    assert {y.dtype for y in half} == {dtype}
    single = FrameAverage(inner.float(), PointFrame(lmax=3), "points", OUTPUTS)(x.float())
    for a, b in zip(half, single, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0, atol=5e-2)


def test_mixed_precision_keeps_the_wider(device: torch.device) -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64).to(device)
    net = FrameAverage(lambda x: x.float().sum((1, 2)), PointFrame(), "points", "invariant")
    assert net(x).dtype == torch.float64


def test_batch_norm_counts_one_update_and_no_padding(device: torch.device) -> None:
    norm = nn.BatchNorm1d(1).double().to(device)
    net = FrameAverage(lambda x: norm(x[:, :1, 0]), PointFrame(), "points", "invariant")
    net(torch.stack((CH4, torch.randn(5, 3, dtype=torch.float64))).to(device))
    assert int(norm.num_batches_tracked) == 1


@pytest.mark.parametrize("train_samples", [None, 2])
@pytest.mark.parametrize("frame", FRAMES)
def test_an_empty_batch(frame: str, train_samples: int | None, device: torch.device) -> None:
    net = FrameAverage(Flat(5).double(), FRAMES[frame], "points", OUTPUTS, train_samples=train_samples).to(device)
    outputs = net(torch.zeros(0, 5, 3, dtype=torch.float64, device=device))
    assert [tuple(y.shape) for y in outputs] == [(0,), (0, 3), (0, 3, 3), (0, 5, 3)]


def test_only_the_module_is_saved(device: torch.device) -> None:
    inner = Flat(5).to(device)
    net = FrameAverage(inner, PointFrame(lmax=3), "points", OUTPUTS)
    assert list(net.state_dict()) == [f"module.{key}" for key in inner.state_dict()]
    assert list(net.train().state_dict()) == list(net.eval().state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_copies(copied: Callable[[nn.Module], nn.Module], device: torch.device) -> None:
    x = torch.randn(2, 5, 3).to(device)
    net = FrameAverage(Flat(5).to(device), PointFrame(lmax=3), "points", OUTPUTS)
    for a, b in zip(copied(net)(x), net(x), strict=True):
        assert torch.equal(a, b)


def test_compiles_with_breaks(device: torch.device) -> None:
    x = torch.randn(2, 5, 3).to(device)
    net = FrameAverage(Flat(5).to(device), PointFrame(lmax=3), "points", OUTPUTS)
    compiled = torch.compile(net, backend="eager")
    for a, b in zip(compiled(x), net(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_frames_with_weights_to_learn(device: torch.device) -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor, mask: Tensor | None, vectors: tuple[Tensor, ...]) -> FrameSet:
            shift = self.weight + x.mean(1, keepdim=True)
            return FrameSet(torch.eye(3).to(x).expand(len(x), 1, 3, 3), shift, torch.ones(len(x), 1).to(x))

    net = FrameAverage(lambda x: x.square().sum((1, 2)), Learned().to(device), "points", "invariant")
    net(torch.randn(2, 4, 3).to(device)).sum().backward()
    assert list(net.state_dict()) == ["frame.weight"]
    assert float(net.frame.weight.grad.abs().min()) > 0


def test_the_callers_tensors_and_modes_stay(device: torch.device) -> None:
    def greedy(x: Tensor) -> Tensor:
        return x.mul_(0).sum((1, 2))

    x = torch.randn(2, 4, 3).to(device)
    before = x.clone()
    net = FrameAverage(greedy, MeanFrame(), "points", "invariant").eval()
    net(x)
    assert torch.equal(x, before)
    assert not net.training


def test_repr_says_what_it_is() -> None:
    net = FrameAverage(nn.Identity(), PointFrame("SE", 2), "points", "vector", chunk_size=4)
    assert repr(net).splitlines()[1].strip().startswith("frame=PointFrame(group='SE', d=2")
    assert "in_action=PointAction(), out_action=VectorAction(), chunk_size=4" in repr(net)
