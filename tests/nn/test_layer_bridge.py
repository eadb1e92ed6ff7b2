"""The bridge inside road 1: layers with one tap, pooled by the mean, are the group average of the plain layers."""

import pytest
import torch
from layer_catalogue import GROUPS, scrambled
from slow_average import elements, relative, slow_average, turn
from slow_layers import act_on_map
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn

EXACT = TOLERANCES[torch.float64]


def twins(group, taps=1):
    """Return a plain network with strides and pools, and the equivariant one with the same kernels."""
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, (1, 3), padding="same", groups=2), nn.GELU(), nn.AvgPool2d(3, 2, 1),
        nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.Tanh(), nn.Conv2d(3, 2, 2, padding="same", padding_mode="reflect"),
    )  # fmt: skip
    own = {"group": group, "group_kernel_size": taps}
    ours = nn.Sequential(
        gnn.LiftingConv2d(2, 4, 3, 2, 1, group=group), gnn.BatchNorm2d(4), nn.ReLU(), gnn.MaxPool2d(2, group=group),
        gnn.GroupConv2d(4, 4, (1, 3), padding="same", groups=2, **own), nn.GELU(), gnn.AvgPool2d(3, 2, 1, group=group),
        gnn.GroupConvTranspose2d(4, 3, 3, 2, 1, 1, **own), nn.Tanh(),
        gnn.GroupConv2d(3, 2, 2, padding="same", padding_mode="reflect", **own), gnn.GroupPool(group),
    )  # fmt: skip
    scrambled(plain), scrambled(ours)
    with torch.no_grad():
        for mine, theirs in zip(ours, plain, strict=False):
            for name, tensor in [*mine.named_parameters(), *mine.named_buffers()]:
                source = getattr(theirs, name, None)
                if isinstance(source, torch.Tensor):
                    # The first plane of a group kernel is the identity's; the others, if there are any, stay random.
                    (tensor[:, :, 0] if tensor.ndim == 5 else tensor).copy_(source)
    return plain, ours


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (31, 38), (30, 45)], ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_one_tap_and_the_mean_are_the_group_average(group, size, device):
    plain, ours = (net.to(device) for net in twins(group))
    x = torch.randn(2, 2, *size, dtype=torch.float64).to(device)
    with torch.no_grad():
        assert relative(ours(x), slow_average(plain, group, x)) <= EXACT
        # The plain network is far from its average: there was something to average.
        assert group == "C1" or relative(plain(x), ours(x)) > 0.1


def test_more_taps_are_another_function():
    plain, ours = twins("C4", taps=2)
    x = torch.randn(1, 2, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert relative(ours(x), slow_average(plain, "C4", x)) > 0.1


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_pooling_d4_to_c4_pools_the_mirror_pairs(reduction, device):
    pool = gnn.GroupPool("D4", reduction, to="C4")
    f = torch.randn(2, 3, 8, 5, 6, dtype=torch.float64).to(device)
    y = pool(f)
    assert y.shape == (2, 3, 4, 5, 6)
    for i in range(4):
        # Element 4 + i is r^i m, the reflection of r^i.
        pair = f[:, :, i], f[:, :, 4 + i]
        expected = (pair[0] + pair[1]) / 2 if reduction == "mean" else torch.maximum(*pair)
        assert torch.equal(y[:, :, i], expected)
    for g in range(4):
        assert torch.equal(pool(act_on_map(f, "D4", g)), act_on_map(y, "C4", g))


def test_pooling_step_by_step_is_pooling_at_once():
    f = torch.randn(2, 3, 8, 5, 6, dtype=torch.float64)
    steps = gnn.GroupPool("C2")(gnn.GroupPool("C4", to="C2")(gnn.GroupPool("D4", to="C4")(f)))
    assert relative(steps, gnn.GroupPool("D4")(f)) <= EXACT


def test_lifted_maps_pool_to_an_image_that_turns(device):
    net = nn.Sequential(gnn.LiftingConv2d(1, 2, 3, 2, 1, group="D4"), nn.ReLU(), gnn.GroupPool("D4", "max"))
    net, x = scrambled(net).to(device), torch.randn(1, 1, 12, 15, dtype=torch.float64).to(device)
    for g in elements("D4"):
        assert relative(net(turn(x, g)), turn(net(x), g)) <= EXACT
