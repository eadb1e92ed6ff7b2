"""What the copy keeps, what computed weights become, and which programs are refused in words."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.ao.nn.quantized
import torch.nn.functional as F
from conversion_nets import image, of_timm, randomised
from slow_average import relative, slow_average
from tolerances import TOLERANCES
from torch import nn
from torch.nn.utils import parametrizations, prune

from gconv_ga.conversion import NotConvertible, convert, fold

TIGHT = TOLERANCES[torch.float64]
X = image(2, 3, 16, 21)


def net_of(layer=None, channels: int = 8) -> nn.Sequential:
    layer = nn.Conv2d(3, channels, 3, 2, 1) if layer is None else layer
    return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(channels, 2, 3)).double()


class Versioned(nn.BatchNorm2d):
    """Loads only a state with its version, as torchvision's MNASNet does."""

    _version = 7

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        if local_metadata.get("version") != 7:
            raise ValueError("version should be 7")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def test_versions_are_kept_and_found():
    inner = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), Versioned(4)), nn.Conv2d(4, 2, 1)).double()
    net = convert(inner, "C4", X)
    state = inner.state_dict()
    versions = dict(state._metadata)
    net.load_state_dict(state)
    assert state._metadata == versions
    assert versions.items() <= net.state_dict()._metadata.items()
    inner.load_state_dict(net.state_dict())
    outer = nn.ModuleDict({"net": net})
    outer.load_state_dict(outer.state_dict())
    nn.ModuleDict({"net": inner}).load_state_dict(outer.state_dict())


def test_a_plain_state_keeps_its_versions_in_a_converted_network_inside_of_another_module():
    inner = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), Versioned(4)), nn.Conv2d(4, 2, 1)).double()
    state = nn.ModuleDict({"net": inner, "head": nn.Linear(2, 2)}).state_dict()
    outer = nn.ModuleDict({"net": convert(inner, "C4", X), "head": nn.Linear(2, 2)})
    versions = dict(state._metadata)
    with torch.no_grad():
        outer["net"].model[0][0].weight.zero_()
    outer.load_state_dict(state)
    assert state._metadata == versions
    assert torch.equal(outer["net"].model[0][0].weight, inner[0][0].weight)
    del state._metadata["net.0.1"]
    with pytest.raises(ValueError, match="version should be 7"):
        outer.load_state_dict(state)


class Broken(nn.Sequential):
    """Comes back from copying in training mode and without hooks, as a graph of torch.fx does."""

    def __deepcopy__(self, memo):
        twin = Broken(*(copy.deepcopy(part, memo) for part in self))
        for module in twin.modules():
            module.train()
        return twin


def test_modes_and_hooks_are_those_of_the_original():
    model = Broken(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).double().eval()
    model[1].train()
    model.register_forward_hook(lambda module, args, output: 2 * output)
    net = convert(model, "C4", X)
    assert [m.training for m in net.model.modules()] == [False, False, True, False]
    model[1].eval()
    net.eval()
    with torch.no_grad():
        assert relative(net(X), slow_average(model, "C4", X)) <= TIGHT


def test_a_graph_of_fx():
    model = torch.fx.symbolic_trace(net_of()).eval()
    net = convert(model, "C4", X)
    assert not any(module.training for module in net.modules())


@torch.no_grad()
def test_compiled_modules_are_unwrapped():
    plain = net_of()
    for model in (torch.compile(plain), nn.Sequential(torch.compile(plain), nn.Tanh())):
        net = convert(model, "C4", X)
        assert net.report.count("swap") == 2
        assert not any("_orig_mod" in key for key in net.state_dict())
    whole = net_of()
    whole.compile()
    assert relative(convert(whole, "C4", X)(X), slow_average(plain.__class__(*whole), "C4", X)) <= TIGHT


class Sub(nn.Conv2d):
    """A convolution without a forward of its own."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows, columns, 3, padding=1)


class Same(nn.Conv2d):
    """Pads to a multiple of the stride, one pixel more at the end."""

    def forward(self, x):
        pads = [(0, max((-(-n // 2) - 1) * 2 + 3 - n, 0)) for n in x.shape[-2:]]
        (_, rows), (_, columns) = pads
        x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standard(nn.Conv2d):
    """Standardizes its weight."""

    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


COMPUTED = {
    "subclass": lambda: Sub(8, 8),
    "same": lambda: Same(8, 8, 3, 2),
    "standardized": lambda: Standard(8, 8, 3, 2, 1),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3, 2, 1)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, 2, 1)),
    "old weight norm": lambda: torch.nn.utils.weight_norm(nn.Conv2d(8, 8, 3, 2, 1)),
    "old spectral norm": lambda: torch.nn.utils.spectral_norm(nn.Conv2d(8, 8, 4, 2, 1, padding_mode="reflect")),
    "pruned": lambda: prune.l1_unstructured(nn.Conv2d(8, 8, 3, 2, 1), "weight", 0.3),
    "transposed": lambda: parametrizations.weight_norm(nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)),
}


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_computed_weights_are_swapped_and_can_be_opened(name):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), COMPUTED[name](), nn.ReLU(), nn.Conv2d(8, 2, 3)).double()
    model(X).sum().backward()  # what hooks have computed is no leaf any more
    net = convert(model.eval(), "D4", image(1, 3, 16, 21))
    assert net.report.count("swap") == 3
    assert isinstance(net.model[2], type(model[2])), "still an instance of its class"
    x = image(2, 3, 17, 17, seed=7)
    with torch.no_grad():
        expected = slow_average(model, "D4", x)
        assert relative(net(x), expected) <= TIGHT
        net.open_taps()
        assert list(net.convolutions()) == ["2", "4"]
        assert relative(net(x), expected) <= TIGHT
        assert relative(copy.deepcopy(net)(x), expected) <= TIGHT
        assert relative(fold(net)(x), expected) <= TIGHT
        for module in net.convolutions().values():
            module.taps.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        assert relative(net(x.rot90(1, (-2, -1))), net(x).rot90(1, (-2, -1))) <= TIGHT
        assert relative(net(x), expected) > 1e-3
    net.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@torch.no_grad()
def test_swapped_subclasses_can_be_pickled():
    net = convert(nn.Sequential(Sub(3, 4), nn.ReLU(), Standard(4, 2, 3)).double(), "C4", X)
    assert torch.equal(pickle.loads(pickle.dumps(net))(X), net(X))


class Masked(nn.Conv2d):
    """More than a convolution: it also weighs the rows."""

    def forward(self, x):
        return super().forward(x) * torch.linspace(1, 2, x.shape[-2]).to(x)[:, None]


@torch.no_grad()
def test_a_forward_that_does_more_is_conjugated():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Masked(4, 4, 3, padding=1), nn.Conv2d(4, 2, 3)).double()
    net = convert(model, "C4", X)
    assert [row.action for row in net.report.rows] == ["swap", "conjugate", "swap"]
    assert relative(net(X), slow_average(model, "C4", X)) <= TIGHT


def test_opening_nothing_warns():
    with pytest.warns(UserWarning, match="open_taps.. has opened nothing: the network has no convolution"):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double(), "C4", X).open_taps()
    with pytest.warns(UserWarning, match="layers chose none"):
        convert(net_of(), "C4", X).open_taps(lambda path, module: False)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TracerWarning")
def test_programs_are_refused_in_words():
    plain = net_of()
    quantized = nn.Sequential(nn.Conv2d(3, 8, 3), torch.ao.nn.quantized.FloatFunctional())
    exported = torch.export.export(plain, (X,)).module()
    for model, words in (
        (torch.jit.trace(plain, X), "it is a TorchScript program"),
        (nn.Sequential(torch.jit.script(plain)), r"it is a TorchScript program \(at 0\)"),
        (exported, "it is a program of torch.export"),
        (quantized, r"it is quantized \(at 1, FloatFunctional\)"),
    ):
        with pytest.raises(NotConvertible, match=f"cannot be converted: {words}"):
            convert(model, "C4", X)


@dataclass
class Output:
    logits: torch.Tensor


def called(function) -> nn.Module:
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net_of()

        def forward(self, x):
            return function(self.net(x))

    return Called()


def test_outputs_and_randomness_are_told_in_words():
    with pytest.raises(NotConvertible, match="Called returns a Output, whose tensors convert cannot reach"):
        convert(called(Output), "C4", X)
    with pytest.raises(NotConvertible, match="is random in eval mode: two calls with the same input differ at output"):
        convert(called(lambda y: y + torch.randn_like(y)), "C4", X)


def test_untracked_norms_are_told_in_words():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.Conv2d(8, 2, 1)).double()
    with pytest.raises(NotConvertible, match=r"1 \(BatchNorm2d, track_running_stats=False\) takes its statistics from"):
        convert(model, "C4", X)


@torch.no_grad()
def test_einops_layers_keep_or_conjugate():
    layers = pytest.importorskip("einops.layers.torch")

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3)
            self.tokens, self.mlp = layers.Rearrange("b c h w -> b (h w) c"), nn.Linear(8, 32)
            self.shuffle = layers.Rearrange("b (c p q) h w -> b c (h p) (w q)", p=2, q=2)

        def forward(self, x):
            y = self.mlp(self.tokens(self.first(x))).transpose(1, 2)
            return self.last(self.shuffle(y.unflatten(2, x.shape[-2:])))

    model = Mixed().double()
    net = convert(model, "C4", X)
    assert {row.path: row.action for row in net.report.rows}["shuffle"] == "conjugate"
    assert relative(net(X), slow_average(model, "C4", X)) <= TIGHT


@pytest.mark.parametrize(("name", "opened"), [("tf_efficientnet_b0", 80), ("eca_nfnet_l0", 56)])
def test_networks_of_computed_convolutions_can_be_opened(name, opened):
    model = randomised(of_timm(name, num_classes=2)(), image(1, 3, 32, 45))
    assert len(convert(model, "C2", image(1, 3, 32, 45), verify=False).convolutions()) == opened


def test_what_does_not_run_in_float64_is_told_in_words():
    single = called(lambda y: y @ torch.eye(y.shape[-1]))
    with pytest.raises(NotConvertible, match="Called does not run in float64, in which convert compares: "):
        convert(single.float(), "C2", X.float())
