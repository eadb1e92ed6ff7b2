"""Registered rules, and the report."""

import pytest
import torch
import torch.nn.functional as F
from conversion_nets import image
from slow_average import relative, slow_average
from tolerances import TOLERANCES
from torch import nn

from gconv_ga.conversion import NotConvertible, convert, register

X = image(1, 3, 16, 16)


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Each test has a registry of its own."""
    monkeypatch.setattr("gconv_ga.conversion._convert._registered", {})


class Standardised(nn.Conv2d):
    """A convolution whose kernels are standardized at every call."""

    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (variance + 1e-5).sqrt(), self.bias, self.stride, self.padding)


def merged(conv, group):
    """A plain convolution with the standardized kernels."""
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding).to(conv.weight)
    variance, mean = torch.var_mean(conv.weight.detach(), (1, 2, 3), keepdim=True)
    plain.weight.data, plain.bias.data = (conv.weight.detach() - mean) / (variance + 1e-5).sqrt(), conv.bias.data
    return plain


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), Standardised(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)
    ).double()


@torch.no_grad()
def test_a_convolution_of_its_own_is_swapped(model):
    net = convert(model, "C4", X)
    (row,) = [row for row in net.report.rows if row.path == "2"]
    assert (row.kind, row.action) == ("Standardised", "swap")
    assert list(net.convolutions()) == ["2", "4"]
    assert relative(net(X), slow_average(model, "C4", X)) <= TOLERANCES[torch.float64]


@torch.no_grad()
def test_a_rule_that_returns_a_plain_convolution_lets_it_be_opened(model):
    register(Standardised, merged)
    net = convert(model, "C4", X)
    (row,) = [row for row in net.report.rows if row.path == "2"]
    assert (row.kind, row.action, row.why) == ("Standardised", "swap", "registered")
    assert list(net.convolutions()) == ["2", "4"]
    assert relative(net(X), slow_average(model, "C4", X)) <= TOLERANCES[torch.float64]


class Roll(nn.Module):
    """Has a child, so that it is not a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(x.roll(1, -1))


class Smooth(nn.Module):
    """A leaf that commutes, which convert cannot know."""

    def forward(self, x):
        return x / (1 + x.abs())


def test_the_words_of_the_registry():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Roll(), Smooth()).double()
    with pytest.raises(NotConvertible, match=r"Suspects: 1 \(Roll"):
        convert(model, "C4", X)
    register(Roll, "conjugate")
    register(Smooth, "keep")
    report = convert(model, "C4", X).report
    assert [(row.path, row.action, row.why) for row in report.rows[1:]] == [
        ("1", "conjugate", "registered"),
        ("2", "keep", "registered"),
    ]
    register(Roll, "keep")
    with pytest.raises(NotConvertible):
        convert(model, "C4", X)


def test_what_the_user_asks_for_comes_before_the_registry():
    register(Smooth, "keep")
    net = convert(nn.Sequential(nn.Conv2d(3, 4, 3), Smooth()).double(), "C4", X, conjugate="Smooth")
    assert net.report.rows[1].action == "conjugate"


def test_subclasses_have_rules_of_their_own(model):
    register(nn.Conv2d, "keep")
    report = convert(model, "C4", X, verify=False).report
    assert [row.action for row in report.rows] == ["keep", "keep", "swap", "keep", "keep"]


class Upright(nn.Module):
    """A rule's own module for orbits: the plain layer on images that it rotates itself, under C2."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        first, second = x.unflatten(0, (-1, 2)).unbind(1)
        return torch.stack((self.layer(first), self.layer(second.rot90(2, (-2, -1))).rot90(2, (-2, -1))), 1).flatten(
            0, 1
        )


@torch.no_grad()
def test_a_rule_may_return_any_module_for_orbits():
    register(Roll, lambda layer, group: Upright(layer))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Roll(), nn.Conv2d(4, 2, 3)).double()
    net = convert(model, "C2", X)
    assert type(net.model[1]) is Upright
    assert relative(net(X), slow_average(model, "C2", X)) <= TOLERANCES[torch.float64]
    with pytest.raises(NotConvertible, match="the converted Sequential fails at 1"):
        convert(model, "C1", X)


def test_a_rule_may_refuse():
    def refuse(module, group):
        raise ValueError(f"cube must be round under {group.name}.")

    register(Roll, refuse)
    with pytest.raises(NotConvertible, match=r"1 \(Roll\): cube must be round under C4\."):
        convert(nn.Sequential(nn.Conv2d(3, 4, 3), Roll()).double(), "C4", X)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((3, "keep"), "module_class must be a class of torch.nn.Module, but got module_class=3"),
        ((int, "keep"), "module_class must be a class of torch.nn.Module"),
        ((Roll, "conj"), "rule must be one of 'keep', 'conjugate'.*Did you mean 'conjugate'"),
    ],
)
def test_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        register(*arguments)


def test_the_table():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), Smooth(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ).double()
    lines = str(convert(model, "D4", X).report).splitlines()
    assert lines[:-1] == [
        "module  class              action     why",
        "------  -----------------  ---------  -----------------------------------------",
        "0       Conv2d             swap       kernels rotate",
        "1       MaxPool2d          keep       each orientation starts at its own edge",
        "2       Smooth             conjugate  unknown class",
        "3.0     AdaptiveAvgPool2d  keep       commutes",
        "3.1     Flatten            keep       each orientation is rotated upright first",
    ]
    assert lines[-1].startswith("D4: 3 keep, 1 swap, 1 conjugate; differs from the group average by ")
