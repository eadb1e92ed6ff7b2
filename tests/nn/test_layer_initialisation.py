"""Initialisation preserves the variance through deep stacks, for every group, kernel and number of taps."""

import math

import pytest
import torch
from slow_average import relative
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.filters import SteerableFilters
from gconv_ga.groups import as_group

LAYERS = 9
MAKERS = [gnn.LiftingConv2d, gnn.GroupConv2d, gnn.GroupConvTranspose2d]


def deviations(group, taps, kernel, fields, seed, scale=1.0):
    """Return the standard deviation after the lifting and after each of nine group convolutions with ReLU before them.

    After a few ReLUs the maps are nearly constant over pixels and elements. Then there are only as many independent
    numbers as fields, and with few of them the deviation drifts at random, as in a plain network of as few channels.
    """
    torch.manual_seed(seed)
    # Circular, so that no border fades what passes through.
    same = {"padding": kernel // 2, "padding_mode": "circular", "group": group}
    with torch.no_grad():
        x = gnn.LiftingConv2d(3, fields, kernel, **same)(torch.randn(2, 3, 7, 7))
        found = [x.std().item()]
        for _ in range(LAYERS):
            layer = gnn.GroupConv2d(fields, fields, kernel, group_kernel_size=taps, **same)
            layer.weight.mul_(scale)
            x = layer(torch.relu(x))
            found.append(x.std().item())
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("group", "taps", "kernel", "fields"),
    [
        ("C4", None, 3, 128), ("C4", 1, 3, 128), ("C4", 2, 5, 128), ("C4", None, 1, 128), ("D4", None, 3, 64),
        ("D2", None, 3, 128), ("C1", None, 3, 128),
    ],
)  # fmt: skip
def test_ten_layers_hold_the_deviation(group, taps, kernel, fields, seed):
    found = deviations(group, taps, kernel, fields, seed)
    assert len(found) == 1 + LAYERS
    assert all(0.5 <= deviation <= 2 for deviation in found), found


def test_another_scale_is_seen():
    """Weights that ignore the ReLU lack a factor of sqrt(2) in each layer."""
    assert deviations("C4", None, 3, 64, 0, scale=1 / math.sqrt(2))[-1] < 0.1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (3, 1, 1)])
@pytest.mark.parametrize("taps", [None, 1])
def test_up_sampling_holds_the_deviation(taps, kernel, stride, padding, seed):
    torch.manual_seed(seed)
    layer = gnn.GroupConvTranspose2d(
        32, 32, kernel, stride, padding, group="C4", group_kernel_size=taps, dtype=torch.float64
    )
    with torch.no_grad():
        y = layer(torch.relu(torch.randn(2, 32, 4, 24, 24, dtype=torch.float64)))
    assert 0.5 <= y[..., 4:-4, 4:-4].std() <= 2


@pytest.mark.parametrize(
    "layer",
    [
        gnn.LiftingConv2d(3, 400, 3, group="C4"),
        gnn.GroupConv2d(6, 400, 3, groups=2, group="C4", group_kernel_size=2),
        gnn.GroupConvTranspose2d(6, 400, 2, 2, group="C4", group_kernel_size=1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_variance_is_hes(layer):
    """One (for an image) or two (after a ReLU) over the count of numbers that an output sums over."""
    numbers = {"LiftingConv2d": 3 * 9, "GroupConv2d": 3 * 2 * 9 / 2, "GroupConvTranspose2d": 6 * 1 * 1 / 2}
    expected = 1 / numbers[type(layer).__name__]
    assert relative(layer.weight.var(), torch.tensor(expected)) < 0.1
    assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_seed_decides_and_global_state_stays(make):
    torch.manual_seed(5)
    first = make(2, 3, 3, group="C4")
    state = torch.get_rng_state()
    torch.manual_seed(5)
    second = make(2, 3, 3, group="C4")
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(state, torch.get_rng_state())
    nn.init.ones_(first.weight)
    first.reset_parameters()
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: gnn.LiftingConv2d(3, 4000, 5, **options),
        lambda **options: gnn.GroupConv2d(3, 600, 5, **options),
        lambda **options: gnn.GroupConvTranspose2d(600, 3, 5, 2, 2, 1, **options),
    ],
    ids=["lifting", "group", "transposed"],
)
def test_steerable_kernels_begin_smooth(make):
    """The function with the largest output on photographs has the largest initial weights, as ``smoothing`` says."""
    torch.manual_seed(0)
    for smoothing in (0.0, 0.25):
        filters = SteerableFilters(as_group("C8"), (5, 5), smoothing=smoothing)
        layer = make(group="C8", filters=filters)
        found = layer.weight.detach().flatten(0, -2).std(0)
        expected = torch.tensor(filters.basis.gain) ** smoothing
        ratio = found / expected
        assert ratio.max() / ratio.min() < 1.1
        assert (found.max() / found.min() > 2) == (smoothing > 0)
