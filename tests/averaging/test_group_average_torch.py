"""GroupAverage with torch's tools: compile, export, autocast, copies, fake tensors, memory layouts."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from slow_average import Crooked, relative, slow_average
from tolerances import TOLERANCES
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gconv_ga.averaging import GroupAverage

TIGHT, SINGLE, HALF = TOLERANCES[torch.float64], TOLERANCES[torch.float32], TOLERANCES[torch.bfloat16]
SIZES = pytest.mark.parametrize("size", [(10, 10), (10, 13)], ids=str)


def normed(device: torch.device) -> nn.Module:
    """A module with parameters and buffers, all of them random."""
    net = nn.Sequential(Crooked(), nn.BatchNorm2d(2), nn.ReLU()).double()
    with torch.no_grad():
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
    return net.to(device)


def image(size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64).to(device)


@pytest.mark.parametrize(
    ("group", "out_action", "chunk_size", "size"),
    [("C4", "scalar", None, (10, 10)), ("D4", "vector", 3, (10, 13))],
)
def test_compiles_into_one_graph(
    group: str, out_action: str, chunk_size: int | None, size: tuple[int, int], device: torch.device
) -> None:
    net = nn.Conv2d(3, 2, 3, stride=2, padding=1).double().to(device)
    average = GroupAverage(net, group, out_action=out_action, chunk_size=chunk_size)
    torch._dynamo.reset()
    compiled = torch.compile(average, fullgraph=True, backend="aot_eager")
    x = image(size, device).requires_grad_()
    assert relative(compiled(x), average(x)) <= TIGHT
    (one,), (other,) = (torch.autograd.grad(f(x).square().sum(), x) for f in (compiled, average))
    assert relative(one, other) <= TIGHT


@pytest.mark.slow
def test_compiles_with_the_default_compiler(device: torch.device) -> None:
    average = GroupAverage(nn.Conv2d(3, 2, 3, stride=2, padding=1).double().to(device), "C4")
    torch._dynamo.reset()
    x = image((10, 13), device)
    assert relative(torch.compile(average, fullgraph=True)(x), average(x)) <= TIGHT


def test_nests_compile_into_one_graph(device: torch.device) -> None:
    net = normed(device)
    average = GroupAverage(lambda d: {"y": [net(d["x"]), None]}, "D4", {"x": "scalar"}, {"y": "scalar"})
    torch._dynamo.reset()
    x = image((10, 13), device)
    y = torch.compile(average, fullgraph=True, backend="eager")({"x": x})["y"]
    assert y[1] is None
    assert relative(y[0], average({"x": x})["y"][0]) <= TIGHT


@pytest.mark.parametrize(("group", "size"), [("D4", (10, 13)), ("C8", (10, 10))])
def test_exports(group: str, size: tuple[int, int], device: torch.device) -> None:
    average = GroupAverage(normed(device), group).eval()
    x = image(size, device)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(average, (x,), dynamic_shapes={"inputs": ({0: batch},)})
    for inputs in (x, torch.cat((x, x.flip(-1), x))):
        assert relative(program.module()(inputs), average(inputs)) <= TIGHT


@pytest.mark.parametrize("size", [(10, 13), (9, 17), (17, 9), (12, 12)], ids=str)
def test_exports_with_free_height_and_width(size: tuple[int, int], device: torch.device) -> None:
    average = GroupAverage(nn.Conv2d(3, 2, 3, stride=2, padding=1).double().to(device), "D4")
    height, width = torch.export.Dim("height", min=4), torch.export.Dim("width", min=4)
    dynamic = {"inputs": ({2: height, 3: width},)}
    program = torch.export.export(average, (image((10, 13), device),), dynamic_shapes=dynamic)
    x = image(size, device)
    if size[0] == size[1]:  # a square image takes one pass, which is another program
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            program.module()(x)
    else:
        assert relative(program.module()(x), average(x)) <= TIGHT


def test_drawn_elements_compile_with_a_break(device: torch.device) -> None:
    average = GroupAverage(nn.Conv2d(3, 2, 3, padding=1).double().to(device), "D4", num_samples=2)
    torch._dynamo.reset()
    compiled = torch.compile(average, backend="eager")
    x = image((10, 13), device)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = average(x)
        torch.manual_seed(seed)
        assert relative(compiled(x), expected) <= TIGHT


@SIZES
def test_autocast(size: tuple[int, int], device: torch.device) -> None:
    net = normed(device).float().eval()
    x = image(size, device).float()
    with torch.autocast(device.type, torch.bfloat16):
        y = GroupAverage(net, "D4")(x)
    assert relative(y.float(), slow_average(net, "D4", x)) <= HALF


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("group", ["D4", "C8"])
def test_half_precision(group: str, dtype: torch.dtype, device: torch.device) -> None:
    average = GroupAverage(nn.Conv2d(3, 2, 3, padding=1).to(device), group, out_action="vector")
    x = image((10, 13), device)
    expected = average(x.float())
    y = average.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert relative(y.float(), expected) <= HALF


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
@pytest.mark.parametrize("sampled", [False, True])
def test_copies_do_the_same(copied: Any, sampled: bool, device: torch.device) -> None:
    options = {"num_samples": 2, "generator": torch.Generator().manual_seed(3)} if sampled else {}
    average = GroupAverage(normed(device), "D4", out_action={"y": ["vector"]}, chunk_size=3, **options).eval()
    average.out_action = average.out_action["y"][0]
    other = copied(average)
    assert repr(other) == repr(average)
    x = image((10, 13), device)
    for _ in range(3):  # a generator is copied with its state
        assert torch.equal(other(x), average(x))
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(other(x), average(x))


def test_state_dict_is_the_modules(device: torch.device) -> None:
    plain, other = normed(device), normed(device)
    average = GroupAverage(plain, "D4").train()
    in_training = average.state_dict()
    assert list(in_training) == [f"module.{key}" for key in plain.state_dict()]
    assert list(average.eval().state_dict()) == list(in_training)
    file = io.BytesIO()
    torch.save(in_training, file)
    file.seek(0)
    restored = GroupAverage(other, "D4").eval()
    x = image((10, 13), device)
    assert relative(restored(x), average(x)) > 0.1
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored(x), average(x))


def test_the_callers_mode_stays(device: torch.device) -> None:
    net = normed(device)
    net[1].eval()
    net.train(True)[1].eval()
    GroupAverage(net, "D4")(image((10, 10), device))
    assert net.training
    assert not net[1].training


@SIZES
def test_memory_layouts(size: tuple[int, int], device: torch.device) -> None:
    average = GroupAverage(normed(device), "D4").eval()
    x = image(size, device)
    expected = average(x)
    assert relative(average(x.to(memory_format=torch.channels_last)), expected) <= TIGHT
    wide = torch.stack((x, -x), -1)[..., 0]
    assert not wide.is_contiguous()
    assert relative(average(wide), expected) <= TIGHT
    assert relative(average(x[:1].expand(2, -1, -1, -1)), average(x[:1]).expand(2, -1, -1, -1)) <= TIGHT


@SIZES
def test_an_empty_batch(size: tuple[int, int], device: torch.device) -> None:
    y = GroupAverage(normed(device), "D4").eval()(image(size, device)[:0])
    assert y.shape == (0, *GroupAverage(normed(device), "D4").eval()(image(size, device)).shape[1:])


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("group", ["D4", "C8"])
def test_runs_on_fake_tensors(group: str) -> None:
    with FakeTensorMode():
        net = GroupAverage(nn.Conv2d(3, 4, 3, padding=1, device="cuda"), group, out_action="vector")
        y = net(torch.empty(2, 3, 10, 13, device="cuda"))
    assert y.shape == (2, 4, 10, 13)
    assert y.device.type == "cuda"


def test_repr() -> None:
    assert repr(GroupAverage(nn.ReLU(), "c4")) == "GroupAverage(\n  group='C4'\n  (module): ReLU()\n)"
    average = GroupAverage(torch.tanh, "D4", "labels", {"y": "invariant"}, chunk_size=2, num_samples=3)
    expected = (
        "tanh, group='D4', in_action=LabelMask(fill=0), out_action={'y': Invariant()}, chunk_size=2, num_samples=3"
    )
    assert repr(average) == f"GroupAverage({expected})"
