"""Layers under torch's tools: compilers, export, autocast, memory formats, unusual inputs, repr."""

import shutil

import pytest
import torch
from layer_catalogue import CONVOLUTIONS, REPRESENTATIVES, USES, each_item, scrambled
from slow_average import relative
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn

EXACT = TOLERANCES[torch.float64]


def layer_and_input(name, group="C4", size=(8, 11), device="cpu"):
    use = USES[name]
    return scrambled(use.make(group)).to(device), use.input(group, size).to(device)


@pytest.fixture(autouse=True)
def _no_graph_of_another_test():
    torch.compiler.reset()


@pytest.mark.parametrize("name", USES)
def test_the_layer_compiles_whole(name, device):
    layer, x = layer_and_input(name, device=device)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        layer(x)  # caches kernels, which must not end up in the graph
        assert relative(compiled(x), layer(x)) <= EXACT
        for parameter in layer.parameters():
            parameter.mul_(3)
        assert relative(compiled(x), layer(x)) <= EXACT


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_the_gradient_compiles(name, device):
    layer, x = layer_and_input(name, device=device)
    compiled = torch.compile(layer.train(), fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (layer, compiled):
        layer.zero_grad()
        function(x).square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    assert relative(gradients[1], gradients[0]) <= EXACT


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("cached", [False, True], ids=["first", "cached"])
@pytest.mark.parametrize("name", USES)
def test_the_layer_is_traced(name, cached):
    """Without operators of our own, which only this package knows; with the weights, which can be replaced."""
    layer, x = layer_and_input(name)
    other, _ = layer_and_input(name)
    with torch.no_grad(), gnn.algorithm("fourier"):
        if cached:
            layer(x)
        traced = torch.jit.trace(layer, (x,))
        assert "gconv_ga::" not in str(traced.inlined_graph)
        assert relative(traced(-x), layer(-x)) <= EXACT
        traced.load_state_dict(other.state_dict())
        assert relative(traced(x), other(x)) <= EXACT


def small_network(group):
    return nn.Sequential(
        gnn.LiftingConv2d(1, 2, 3, padding=1, group=group), gnn.BatchNorm2d(2), nn.ReLU(),
        gnn.GroupConv2d(2, 2, 3, padding=1, group=group, group_kernel_size=2), gnn.GroupPool(group),
    ).eval()  # fmt: skip


def test_a_compiled_network_takes_other_sizes(device):
    net = small_network("C4").double().to(device)
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for size in [(2, 1, 8, 9), (3, 1, 12, 10)]:
            x = torch.randn(size, dtype=torch.float64).to(device)
            assert relative(compiled(x), net(x)) <= EXACT


@pytest.mark.slow
def test_a_network_compiles_with_inductor():
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler: torch.compile's default backend needs one on the CPU")
    net = small_network("C4")
    with torch.no_grad():
        x = torch.randn(2, 1, 8, 9)
        # Plain loops without a precompiled header: the C++ compiler takes two thirds of the time for them.
        plain = {"cpp.simdlen": 1, "cpp_cache_precompile_headers": False, "compile_threads": 1}
        assert relative(torch.compile(net, fullgraph=True, options=plain)(x), net(x)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("name", USES)
def test_the_layer_exports(name):
    layer, x = layer_and_input(name)
    program = torch.export.export(layer, (x,))
    assert relative(program.module()(x), layer(x)) <= EXACT
    assert set(program.state_dict) == set(layer.state_dict())


def test_a_network_exports_with_free_sizes():
    net = small_network("D4").double()
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(net, (torch.randn(2, 1, 9, 10, dtype=torch.float64),), dynamic_shapes=(free,))
    x = torch.randn(3, 1, 12, 7, dtype=torch.float64)
    assert relative(program.module()(x), net(x)) <= EXACT


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", USES)
def test_autocast_gives_the_dtype_that_torch_gives(name, mode, device):
    use = USES[name]
    layer, x = layer_and_input(name, device=device)
    layer, x = getattr(layer.float(), mode)(), x.float()
    torch.manual_seed(1)
    expected = layer(x)
    torch.manual_seed(1)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == (torch.bfloat16 if use.bf16 else torch.float32)
    assert relative(y.float(), expected) <= TOLERANCES[torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", USES)
def test_other_dtypes(name, dtype, device):
    layer, x = layer_and_input(name, device=device)
    expected = layer(x)
    y = layer.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert relative(y.double(), expected) <= TOLERANCES[dtype]


def strided(x):
    """Return the same numbers at every other place of a larger tensor, with its last two axes swapped."""
    larger = x.new_full((*x.shape[:-2], 2 * x.shape[-1], x.shape[-2]), torch.nan)
    larger[..., ::2, :] = x.transpose(-2, -1)
    return larger[..., ::2, :].transpose(-2, -1)


def channels_last(x):
    return x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def expanded(x):
    return x[:1].expand_as(x)


@pytest.mark.parametrize("layout", [strided, channels_last, expanded], ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("name", USES)
def test_strides_change_no_number(name, layout, device):
    layer, x = layer_and_input(name, device=device)
    other = layout(x)
    assert not other.is_contiguous()
    assert relative(layer(other), layer(other.contiguous())) <= EXACT


@pytest.mark.parametrize("name", USES)
def test_the_layer_moves_to_channels_last(name, device):
    layer, x = layer_and_input(name, device=device)
    expected = layer(x)
    assert relative(layer.to(memory_format=torch.channels_last)(x), expected) <= EXACT
    assert all(parameter.is_leaf for parameter in layer.parameters())


@pytest.mark.parametrize("name", USES)
def test_an_empty_batch_has_an_empty_output(name, device):
    use = USES[name]
    layer, x = layer_and_input(name, device=device)
    x = x[:0].requires_grad_()
    y = layer(x)
    assert y.shape == (0, *layer(use.input("C4", (8, 11)).to(device)).shape[1:])
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("name", USES)
def test_the_input_is_left_alone(name, device):
    layer, x = layer_and_input(name, device=device)
    before = x.clone()
    layer(x), layer.train()(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", [name for name in USES if "steerable" not in name])
def test_the_repr_can_be_typed(name):
    use = USES[name]
    layer = use.make("D4")
    typed = eval(repr(layer), vars(gnn).copy())
    assert type(typed) is use.layer
    assert repr(typed) == repr(layer)
    states = [{key: value.shape for key, value in each.state_dict().items()} for each in (typed, layer)]
    assert states[0] == states[1]


@pytest.mark.parametrize(("layer", "text"), each_item("texts"))
def test_the_repr_says_what_is_not_the_default(layer, text):
    assert repr(text.arguments.make(layer)) == f"{layer.__name__}({text.text})"


def test_every_convolution_is_here():
    assert {USES[name].layer for name in CONVOLUTIONS} == {
        gnn.LiftingConv2d, gnn.GroupConv2d, gnn.GroupConvTranspose2d,
    }  # fmt: skip
