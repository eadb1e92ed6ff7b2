"""The room without escnn: it can be imported, names what is missing, and converted networks still work."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from slow_average import relative
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.conversion import fold
from gconv_ga.filters import Filters, GridFilters, SteerableFilters
from gconv_ga.groups import C1, as_group
from gconv_ga.interop import from_escnn, to_escnn
from gconv_ga.interop._layers import AllPlanesFilters, Blur, Mask, OnePlaneFilters

TIGHT = TOLERANCES[torch.float64]


def test_it_is_imported_without_escnn_and_says_what_to_install():
    program = """
import sys
before = "escnn" in sys.modules
import gconv_ga.interop
print(before or "escnn" in sys.modules)
sys.modules["escnn"] = None  # as if it were not installed
for call in (gconv_ga.interop.from_escnn, gconv_ga.interop.to_escnn):
    try:
        import torch
        call(torch.nn.ReLU())
    except ModuleNotFoundError as error:
        print(error.name, error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    message = 'escnn gconv_ga.interop needs escnn, which is not installed. Run: pip install "gconv_ga[escnn]"'
    assert run.stdout.splitlines() == ["False", message, message]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": "steerable"}, "^filters must be one of 'escnn', 'grid'"),
        ({"filters": None}, "^filters must be one of"),
        ({"sampling": "own"}, "^sampling must be one of 'shared', 'per_orientation'"),
    ],
)
def test_options_of_the_way_in_are_checked_first(options, message):
    with pytest.raises(ValueError, match=message):
        from_escnn(None, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "own"}, "^sampling must be one of 'per_orientation', 'shared'"),
        ({"functions": "some"}, "^functions must be one of 'auto', 'default', 'all'"),
        ({"max_error": -1}, "^max_error must be a number of at least 0"),
        ({"max_error": "small"}, "^max_error must be a number of at least 0"),
        ({"max_error": True}, "^max_error must be a number of at least 0"),
        ({"max_error": float("nan")}, "^max_error must be a number of at least 0"),
        ({"group": "E8"}, "^group must be a group or its name"),
    ],
)
def test_options_of_the_way_back_are_checked_first(options, message):
    with pytest.raises(ValueError, match=message):
        to_escnn(nn.Sequential(), **options)


def test_only_a_module_goes_back():
    with pytest.raises(ValueError, match=r"^module must be a torch\.nn\.Module"):
        to_escnn(3)


def tables(name, kernel_size=3):
    """The functions of our steerable filters as tables like those made of escnn's functions."""
    group = as_group(name)
    steerable = SteerableFilters(group, (kernel_size, kernel_size))
    one = steerable.basis.kernels.flatten(2)
    weights = torch.eye(group.order * len(one), dtype=torch.float64).view(-1, 1, group.order, len(one))
    full = steerable.turn_and_shift(weights, steerable.tables())
    return steerable, OnePlaneFilters(group, (3, 3), one), AllPlanesFilters(group, (3, 3), full)


@pytest.mark.parametrize("name", ["C1", "C4", "C8", "D3"])
def test_tables_make_the_kernels_that_the_same_functions_make_elsewhere(name, generator):
    steerable, one, full = tables(name)
    for filters in (one, full):
        assert isinstance(filters, Filters)
        assert filters.shape == steerable.shape
    weight = torch.randn(3, 2, steerable.group.order, *steerable.shape, generator=generator, dtype=torch.float64)
    expected = steerable.turn_and_shift(weight, steerable.tables())
    for filters in (one, full):
        assert relative(filters.turn_and_shift(weight, filters.tables()), expected) <= TIGHT
    turned = one.turn(weight[:, :, 0], one.tables())
    assert relative(turned, steerable.turn(weight[:, :, 0], steerable.tables())) <= TIGHT


@pytest.mark.parametrize("name", ["C4", "D3"])
def test_functions_in_another_order_would_be_seen(name, generator):
    steerable, _, full = tables(name)
    weight = torch.randn(3, 2, steerable.group.order, *steerable.shape, generator=generator, dtype=torch.float64)
    other = AllPlanesFilters(full.group, (3, 3), full.functions.transpose(1, 2))
    expected = steerable.turn_and_shift(weight, steerable.tables())
    assert relative(other.turn_and_shift(weight, other.tables()), expected) > 0.1


def test_tables_of_all_planes_are_for_layers_with_all_planes():
    full = tables("C4")[2]
    layer = gnn.LiftingConv2d(1, 2, 3, group="C4", filters=full)
    with pytest.raises(ValueError, match=r"^filters must be made for kernels of one plane"):
        layer(torch.randn(1, 1, 5, 5))
    with pytest.raises(ValueError, match=r"^filters must be made for C8 and kernels of 3 x 3"):
        gnn.GroupConv2d(1, 2, 3, group="C8", filters=full)


@pytest.mark.parametrize("name", ["C4", "C8"])
def test_weights_drawn_anew_keep_the_variance_of_noise(name, generator):
    _, one, full = tables(name)
    order = one.group.order
    noise = torch.randn(4, 16, 24, 24, generator=generator, dtype=torch.float64)
    maps = torch.randn(4, 16, order, 12, 12, generator=generator, dtype=torch.float64)
    lift = gnn.LiftingConv2d(16, 64, 3, group=name, filters=one, dtype=torch.float64)
    conv = gnn.GroupConv2d(16, 64, 3, group=name, filters=full, dtype=torch.float64)
    few = gnn.GroupConv2d(16, 64, 3, group=name, filters=one, group_kernel_size=1, dtype=torch.float64)
    # Maps are taken to have passed a ReLU, which has left half of their energy.
    for layer, x, variance in ((lift, noise, 1.0), (conv, maps, 2.0), (few, maps, 2.0)):
        assert layer(x).var().item() == pytest.approx(variance, rel=0.15)


def test_layers_with_tables_are_layers_like_any_other(device, generator):
    _, one, full = tables("C8")
    net = nn.Sequential(
        gnn.LiftingConv2d(2, 4, 3, padding=1, group="C8", filters=one),
        nn.ReLU(),
        gnn.GroupConv2d(4, 4, 3, padding=1, group="C8", filters=full),
        gnn.GroupConv2d(4, 3, 3, group="C8", filters=one, group_kernel_size=1),
        gnn.GroupPool("C8"),
    ).to(device, torch.float64)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"]
    x = torch.randn(1, 2, 8, 9, generator=generator, dtype=torch.float64).to(device)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.float().double(), fold(net)):
        assert relative(twin(x), net(x)) <= TIGHT
    assert "functions=6" in repr(net[2])


def test_other_objects_than_filters_are_refused():
    with pytest.raises(ValueError, match=r"^filters must be one of 'auto', 'grid', 'steerable'"):
        gnn.LiftingConv2d(1, 2, 3, group="C4", filters=torch.zeros(3))
    assert isinstance(GridFilters(C1, (3, 3)), Filters)


def smooth():
    line = torch.tensor([1.0, 4.0, 1.0], dtype=torch.float64) / 6
    return line[:, None] * line


@pytest.mark.parametrize("sampling", ["shared", "per_orientation"])
def test_a_blur_is_a_convolution_of_each_map(sampling, generator):
    x = torch.randn(2, 3, 4, 9, 11, generator=generator, dtype=torch.float64)
    expected = nn.functional.conv2d(x.flatten(0, 2).unsqueeze(1), smooth()[None, None], stride=2, padding=1)
    blur = Blur(smooth(), (2, 2), (1, 1), as_group("C4"), sampling)
    assert relative(blur(x), expected.view(2, 3, 4, *expected.shape[2:])) <= TIGHT
    assert relative(Blur(smooth(), (2, 2), (1, 1), None, sampling)(x[:, :, 1]), blur(x)[:, :, 1]) <= TIGHT
    assert (
        relative(Blur(smooth(), (2, 2), (0, 0), None, sampling)(x[:, :, 1])[..., :4, :5], blur(x)[:, :, 1, :4, :5])
        > 0.1
    )


def test_a_blur_takes_maps_of_its_group():
    assert (
        repr(Blur(smooth(), (2, 2), (1, 1), None, "shared"))
        == "Blur(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))"
    )
    assert "group='C4'" in repr(Blur(smooth(), (2, 2), (1, 1), as_group("C4"), "shared"))
    with pytest.raises(ValueError, match=r"^input must be a tensor \[B, C, \|G\|=4, H, W\]"):
        Blur(smooth(), (1, 1), (1, 1), as_group("C4"), "shared")(torch.zeros(1, 2, 8, 5, 5))
    with pytest.raises(ValueError, match=r"^input must be a tensor \[B, C, H, W\]"):
        Blur(smooth(), (1, 1), (1, 1), None, "shared")(torch.zeros(1, 2, 4, 5, 5))


def test_a_mask_is_of_one_size():
    mask = Mask(torch.eye(5))
    assert torch.equal(mask(torch.ones(1, 2, 5, 5)), torch.eye(5).expand(1, 2, 5, 5))
    assert repr(mask) == "Mask(size=(5, 5))"
    with pytest.raises(ValueError, match=r"^input must be a tensor \[\.\.\., H=5, W=5\]"):
        mask(torch.ones(1, 2, 5, 6))
