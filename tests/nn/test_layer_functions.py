"""The functional forms agree with the layers, and with the formulas pixel by pixel."""

import copy

import pytest
import slow_loops
import torch
from layer_catalogue import GROUPS, USES, scrambled
from slow_average import relative
from slow_layers import inverse, product_table
from tolerances import TOLERANCES

import gconv_ga.nn as gnn
from gconv_ga.nn.functional import group_conv2d, group_pool, lifting_conv2d

EXACT = TOLERANCES[torch.float64]


@pytest.mark.parametrize("group", GROUPS)
def test_lifting_is_the_formula(group):
    """``[k * f](g) = (L_g k) * f``, transformed and summed pixel by pixel."""
    x, k = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    assert relative(lifting_conv2d(x, k, group, padding=1), slow_loops.lift(k, x, group, padding=1)) <= EXACT


@pytest.mark.parametrize("group", GROUPS)
def test_group_convolution_is_the_formula(group):
    """``[k * f](g) = sum_h (L_g k)(., h) * f(., h)`` with ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)``."""
    matrices = slow_loops.matrices(group)
    f = torch.randn(1, 2, len(matrices), 4, 5, dtype=torch.float64)
    k = torch.randn(2, 2, len(matrices), 3, 3, dtype=torch.float64)
    maps = []
    for g, matrix in enumerate(matrices):
        total = 0
        for h in range(len(matrices)):
            plane = k[:, :, product_table(group)[inverse(group, g)][h]]
            total = total + slow_loops.correlate(slow_loops.turn(plane, matrix), f[:, :, h])
        maps.append(total)
    assert relative(group_conv2d(f, k, group), torch.stack(maps, dim=2)) <= EXACT


@pytest.mark.parametrize(
    ("taps", "options"),
    [
        (None, {"stride": 2, "padding": 1}),
        (3, {"padding": "same", "groups": 2}),
        (2, {"dilation": 2, "stride": 3, "padding": 2, "padding_mode": "circular"}),
        (1, {"stride": 2, "padding": 1, "padding_mode": "reflect"}),
    ],
)
@pytest.mark.parametrize("fields", [2, 48])  # with many fields, few taps are gathered
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_functions_are_the_layers(group, fields, taps, options, device):
    conv = scrambled(gnn.GroupConv2d(2, fields, 3, **options, group=group, group_kernel_size=taps)).to(device)
    f = torch.randn(2, 2, conv.group.order, 9, 8, dtype=torch.float64).to(device)
    assert relative(group_conv2d(f, conv.weight, group, conv.bias, **options), conv(f)) <= EXACT
    lift = scrambled(gnn.LiftingConv2d(2, 2, 3, **options, group=group)).to(device)
    x = f[:, :, 0]
    assert relative(lifting_conv2d(x, lift.weight, group, lift.bias, **options), lift(x)) <= EXACT
    for to in (None, "C2"):
        assert torch.equal(group_pool(f, group, "max", to=to), gnn.GroupPool(group, "max", to=to)(f))


@pytest.mark.parametrize("name", [name for name in USES if name.endswith("gathered")])
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_gathered_taps_are_the_dense_ones(group, name):
    """The layer chooses between two ways by their speed; both are in the catalogue, and they must agree."""
    gathering = scrambled(USES[name].make(group).double())
    dense = copy.deepcopy(gathering)
    dense._mixes_all = True
    assert not gathering._mixes_all
    f = USES[name].input(group, (9, 8))
    assert relative(gathering(f), dense(f)) <= EXACT
    gathering.neighbours = gathering.neighbours.roll(1, 0)
    assert relative(gathering(f), dense(f)) > 0.1


@pytest.mark.parametrize("function", ["lifting", "group"])
def test_functions_take_weights_that_learn(function):
    k = torch.randn(2, 1, *((2,) if function == "group" else ()), 3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 1, *((4,) if function == "group" else ()), 4, 5, dtype=torch.float64)
    call = group_conv2d if function == "group" else lifting_conv2d
    assert torch.autograd.gradcheck(lambda k: call(x, k, "C4", stride=2, padding=1), (k,), fast_mode=True)


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_the_gradient_of_a_pool_turns_too(reduction):
    """Equal maps share the gradient: a maximum that favoured one orientation would break equivariance in training."""
    f = torch.ones(1, 1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    group_pool(f, "C4", reduction).sum().backward()
    assert torch.equal(f.grad, torch.full_like(f, 0.25))
