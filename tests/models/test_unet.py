"""The U-Nets: sizes, exact equivariance, the baseline, and the group average that one tap makes of it."""

import copy
import pickle

import pytest
import torch
from tolerances import TOLERANCES
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gconv_ga.groups import as_group
from gconv_ga.models import EquivariantUNet, UNet
from gconv_ga.nn import GroupConv2d

GROUPS = ["C1", "C2", "C4", "D1", "D2", "D4"]
SIZES = [(16, 16), (17, 17), (19, 24), (30, 21)]


def move(x, element):
    """An element of D4 by torch's own functions: reflect the last axis first, then rotate."""
    quarters, reflected = element % 4, element >= 4
    return (x.flip(-1) if reflected else x).rot90(quarters, (-2, -1))


# The elements of each group as elements of D4, in the group's own order.
AS_D4 = {
    "C1": [0], "C2": [0, 2], "C4": [0, 1, 2, 3], "D1": [0, 4], "D2": [0, 2, 4, 6], "D4": [0, 1, 2, 3, 4, 5, 6, 7],
}  # fmt: skip


def scrambled(net, generator):
    """The network in float64 and eval mode, with random norms, biases and running statistics."""
    net = net.double().eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            size = module.num_features
            module.running_mean = torch.randn(size, generator=generator, dtype=torch.float64)
            module.running_var = 0.5 + torch.rand(size, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                module.weight.copy_(0.5 + torch.rand(size, generator=generator))
                module.bias.copy_(0.3 * torch.randn(size, generator=generator))
    with torch.no_grad():
        net.segmentation_head.bias.copy_(torch.randn(net.classes, generator=generator))
    return net


def equivariance(net, x, elements):
    """The largest error over the elements, relative to how much the logits vary over the image; NaN if there is one."""
    y = net(x)
    return torch.stack([error(net(move(x, g)), move(y, g)) for g in elements]).max()


def error(y, expected):
    """The largest error, relative to how much the logits of its class vary over the image."""
    spread = expected.std(dim=(-2, -1))
    assert spread.min() > 1e-4, "constant logits are no evidence"
    return ((y - expected).abs().amax(dim=(-2, -1)) / spread).max()


def trained(net, generator, steps=3):
    """A few training steps on noise, so that weights and statistics change."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        x = torch.randn(2, net.in_channels, 18, 21, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        net.train()(x).square().mean().backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("size", [*SIZES, (16, 61), (64, 64)], ids=str)
@pytest.mark.parametrize("network", ["equivariant", "plain"])
def test_logits_have_the_size_of_the_image(network, size):
    net = EquivariantUNet(3, 4, group="C4", width=2, depth=4)
    net = net if network == "equivariant" else net.baseline()
    assert net(torch.zeros(2, 3, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_logits_turn_with_the_image(group, size, device, generator):
    net = scrambled(EquivariantUNet(2, 3, group=group, width=2, depth=3), generator).to(device)
    x = torch.randn(1, 2, *size, generator=generator, dtype=torch.float64).to(device)
    assert equivariance(net, x, AS_D4[group]) <= TOLERANCES[torch.float64]


OPTIONS = [{"reduction": "max"}, {"group_kernel_size": 1}, {"group_kernel_size": 3}, {"pooling": "max_blur"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_logits_turn_with_the_image_whatever_the_options(options, generator):
    net = scrambled(EquivariantUNet(1, 2, group="C4", width=2, depth=3, **options), generator)
    x = torch.randn(1, 1, 17, 22, generator=generator, dtype=torch.float64)
    assert equivariance(net, x, AS_D4["C4"]) <= TOLERANCES[torch.float64]


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_logits_turn_with_the_image_after_training(group, generator):
    net = scrambled(EquivariantUNet(1, 2, group=group, width=2, depth=3), generator)
    before = net.segmentation_head.weight.detach().clone()
    trained(net, generator)
    assert not torch.equal(before, net.segmentation_head.weight)
    x = torch.randn(2, 1, 18, 25, generator=generator, dtype=torch.float64)
    assert equivariance(net, x, AS_D4[group]) <= TOLERANCES[torch.float64]


def test_a_network_that_does_not_turn_is_seen(generator):
    x = torch.randn(1, 1, 24, 24, generator=generator, dtype=torch.float64)
    plain = scrambled(UNet(1, 2, width=8, depth=3), generator)
    assert equivariance(plain, x, AS_D4["C4"]) > 1e-2
    turns_only = scrambled(EquivariantUNet(1, 2, group="C4", width=2, depth=3), generator)
    assert equivariance(turns_only, x, AS_D4["D4"]) > 1e-2


@pytest.mark.parametrize("pooling", ["max", "max_blur"])
@pytest.mark.parametrize("size", [*SIZES, (32, 32)], ids=str)
@pytest.mark.parametrize("group", ["C2", "C4", "D1", "D4"])
def test_one_tap_is_the_group_average_of_the_plain_network(group, size, pooling, generator):
    plain = scrambled(UNet(2, 3, width=4, depth=3, pooling=pooling), generator)
    net = EquivariantUNet(2, 3, group=group, width=4, depth=3, group_kernel_size=1, pooling=pooling).double().eval()
    state, target = plain.state_dict(), net.state_dict()
    assert list(state) == list(target)
    net.load_state_dict({name: tensor.view(target[name].shape) for name, tensor in state.items()})
    x = torch.randn(2, 2, *size, generator=generator, dtype=torch.float64)
    inverse = as_group("D4").inverse
    average = torch.stack([move(plain(move(x, inverse(g))), g) for g in AS_D4[group]]).mean(dim=0)
    assert error(net(x), average) <= TOLERANCES[torch.float64]
    assert error(plain(x), average) > 1e-2


def multiply_adds(net):
    for layer in net.modules():
        if isinstance(layer, GroupConv2d) and len(layer.taps) < layer.group.order:
            # Where it is faster, a layer multiplies by zeros for the taps it lacks: this is not counted.
            layer._mixes_all = False
    with FlopCounterMode(display=False) as counter:
        net.eval().to("meta")(torch.zeros(1, net.in_channels, 48, 48, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("taps", [None, 1])
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("group", ["C1", "C2", "C4", "D2", "D4"])
def test_the_baseline_does_as_many_multiply_adds(group, depth, taps):
    net = EquivariantUNet(1, 2, group=group, width=12, depth=depth, group_kernel_size=taps)
    baseline = net.baseline()
    assert isinstance(baseline, UNet)
    assert (baseline.in_channels, baseline.classes, baseline.depth) == (1, 2, depth)
    assert multiply_adds(baseline) == pytest.approx(multiply_adds(net), rel=0.05)


def test_the_baseline_pools_alike():
    x = torch.randn(1, 2, 17, 22)
    net = EquivariantUNet(2, 3, group="C1", width=2, depth=3, pooling="max_blur").eval()
    baseline, other = net.baseline().eval(), EquivariantUNet(2, 3, group="C1", width=2, depth=3).baseline().eval()
    own = {name: tensor.view(baseline.state_dict()[name].shape) for name, tensor in net.state_dict().items()}
    baseline.load_state_dict(own)
    other.load_state_dict(own)
    assert error(baseline(x), net(x)) <= 1e-4
    assert error(other(x), net(x)) > 1e-2


@pytest.mark.parametrize("network", [EquivariantUNet, UNet])
def test_other_poolings_are_refused(network):
    with pytest.raises(ValueError, match="pooling must be one of 'max', 'max_blur', but got pooling='mean'"):
        network(1, 2, pooling="mean")


def test_a_narrower_baseline_is_seen():
    net = EquivariantUNet(1, 2, group="C4", width=6, depth=3)
    assert multiply_adds(UNet(1, 2, width=22, depth=3)) != pytest.approx(multiply_adds(net), rel=0.05)


def test_an_answer_that_does_not_depend_on_the_image_is_no_evidence(generator):
    net = scrambled(EquivariantUNet(1, 2, group="C4", width=2, depth=3), generator)
    nn.init.zeros_(net.segmentation_head.weight)
    with pytest.raises(AssertionError, match="no evidence"):
        equivariance(net, torch.randn(1, 1, 16, 16, dtype=torch.float64), AS_D4["C4"])


def test_equal_multiply_adds_take_a_fraction_of_the_weights():
    net = EquivariantUNet(1, 2, group="C4", width=8, depth=3)
    weights, baseline = (sum(p.numel() for p in each.parameters()) for each in (net, net.baseline()))
    assert weights / baseline == pytest.approx(1 / 4, rel=0.01)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_copies_give_the_same_logits(way, generator):
    net = trained(EquivariantUNet(1, 2, group="D2", width=2, depth=3).double(), generator)
    x = torch.randn(1, 1, 16, 19, generator=generator, dtype=torch.float64)
    if way == "state_dict":  # saved in train mode, loaded in eval mode
        other = EquivariantUNet(1, 2, group="D2", width=2, depth=3).double().eval()
        other.load_state_dict(net.train().state_dict())
        net.eval()
    else:
        other = copy.deepcopy(net) if way == "deepcopy" else pickle.loads(pickle.dumps(net))
    assert torch.equal(net(x), other(x))


def test_memory_format_changes_no_logits(generator):
    net = scrambled(EquivariantUNet(3, 2, group="C4", width=2, depth=3), generator)
    x = torch.randn(2, 3, 20, 17, generator=generator, dtype=torch.float64)
    expected = net(x)
    got = net(x.to(memory_format=torch.channels_last))
    assert error(got, expected) <= TOLERANCES[torch.float64]


def test_an_empty_batch_gives_empty_logits():
    assert EquivariantUNet(1, 2, group="C4", width=2, depth=3).eval()(torch.zeros(0, 1, 16, 16)).shape == (0, 2, 16, 16)


@pytest.mark.parametrize("network", [EquivariantUNet, UNet])
@pytest.mark.parametrize("argument", ["in_channels", "classes", "width", "depth", "kernel_size"])
@pytest.mark.parametrize("value", [0, 2.5, True])
def test_numbers_out_of_range_are_refused(network, argument, value):
    arguments = {"in_channels": 1, "classes": 2, "width": 2, "depth": 2, argument: value}
    with pytest.raises(ValueError, match=f"^{argument} must be .*got {argument}={value}"):
        network(**arguments)


@pytest.mark.parametrize("network", [EquivariantUNet, UNet])
def test_an_even_kernel_is_refused(network):
    with pytest.raises(ValueError, match=r"^kernel_size must be odd, but got kernel_size=4. An even kernel shifts"):
        network(1, 2, width=2, depth=2, kernel_size=4)


def test_what_is_no_group_is_refused():
    with pytest.raises(ValueError, match=r"^group must be a group or its name"):
        EquivariantUNet(1, 2, group="quarter turns", width=2)


def test_a_wrong_reduction_is_refused():
    with pytest.raises(ValueError, match=r"^reduction must be one of"):
        EquivariantUNet(1, 2, group="C4", width=2, reduction="sum")


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (1, 16, 16), (1, 1, 3, 16), (1, 1, 16, 3)], ids=str)
@pytest.mark.parametrize("network", ["equivariant", "plain"])
def test_images_that_do_not_fit_are_refused(network, shape):
    net = EquivariantUNet(1, 2, group="C4", width=2, depth=3)
    net = net if network == "equivariant" else net.baseline()
    with pytest.raises(ValueError, match=r"^input must be a tensor \[B, C=1, H >= 4, W >= 4\]"):
        net(torch.zeros(shape))
