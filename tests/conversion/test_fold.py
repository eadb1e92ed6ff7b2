"""A folded network consists of plain torch layers and has the same output at every size."""

import copy

import pytest
import torch
from conversion_nets import Busy, image, of_smp, randomised
from slow_average import elements, relative, turn
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.conversion import convert, fold
from gconv_ga.groups import as_group
from gconv_ga.models import EquivariantUNet
from gconv_ga.nn.authoring import KeepsKernels

TIGHT = TOLERANCES[torch.float64]
GROUPS = ["C1", "C2", "C4", "D1", "D2", "D4", "C8"]
WINDOWS = {
    "3": {"kernel_size": 3},
    "3 stride 2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "2 stride 2": {"kernel_size": 2, "stride": 2},
    "same, even": {"kernel_size": 4, "padding": "same"},
    "same, even, dilated": {"kernel_size": 4, "padding": "same", "dilation": 2},
    "dilated, stride 2": {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2},
    "a line": {"kernel_size": (3, 1), "padding": (1, 0)},
    "a line, stride 2": {"kernel_size": (1, 3), "padding": (0, 1), "stride": 2},
    "reflect": {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "reflect"},
    "circular": {"kernel_size": 4, "padding": "same", "padding_mode": "circular"},
    "1 stride 3": {"kernel_size": 1, "stride": 3},
}
TRANSPOSED = {
    "2 stride 2": {"kernel_size": 2, "stride": 2},
    "output padding": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "a line": {"kernel_size": (3, 1), "padding": (1, 0)},
    "dilated": {"kernel_size": 3, "dilation": 2},
    "dilated, output padding": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "dilation": 2},
}
POOLS = {
    "2": {"kernel_size": 2},
    "3 2 1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride 1": {"kernel_size": 3, "stride": 1},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "a line": {"kernel_size": (3, 1), "stride": 1, "padding": (1, 0)},
}


def counts(order):
    return sorted({1, min(2, order), min(3, order), order})


def skip_lines_off_the_grid(group, window):
    # Steerable kernels are square and odd.
    if group == "C8" and window["kernel_size"] != 3:
        pytest.skip("kernels of this shape are for groups of quarter turns")


@torch.no_grad()
def check(layer, *shapes):
    layer = layer.double().eval()
    folded = fold(layer)
    for shape in shapes:
        x = image(*shape)
        assert relative(folded(x), layer(x)) <= TIGHT
    assert not any(isinstance(module, KeepsKernels) for module in folded.modules())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("group", GROUPS)
def test_convolutions(group, window, groups):
    skip_lines_off_the_grid(group, WINDOWS[window])
    options = WINDOWS[window] | {"group": group, "groups": groups}
    order = as_group(group).order
    # One folded layer at sizes of every residue.
    check(gnn.LiftingConv2d(4, 6, **options), (2, 4, 12, 13), (1, 4, 15, 12), (1, 4, 13, 13))
    for count in counts(order):
        shapes = [(1, 4, order, 12, 13), (1, 4, order, 15, 12)]
        check(gnn.GroupConv2d(4, 6, group_kernel_size=count, **options), *shapes)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("window", TRANSPOSED)
@pytest.mark.parametrize("group", GROUPS)
def test_transposed_convolutions(group, window, groups):
    skip_lines_off_the_grid(group, TRANSPOSED[window])
    options, order = TRANSPOSED[window] | {"group": group, "groups": groups}, as_group(group).order
    for count in counts(order):
        layer = gnn.GroupConvTranspose2d(4, 6, group_kernel_size=count, **options)
        check(layer, (1, 4, order, 5, 7), (1, 4, order, 6, 6))


@pytest.mark.parametrize("window", POOLS)
@pytest.mark.parametrize("group", GROUPS)
def test_pools(group, window):
    shapes = [(2, 3, as_group(group).order, *size) for size in ((12, 13), (15, 12), (14, 14))]
    check(gnn.MaxPool2d(group=group, **POOLS[window]), *shapes)
    check(gnn.AvgPool2d(group=group, count_include_pad=False, **POOLS[window]), *shapes)


@pytest.mark.parametrize("group", GROUPS)
def test_blurred_pools(group):
    check(gnn.MaxBlurPool2d(group), *((2, 3, as_group(group).order, *size) for size in ((12, 13), (15, 12), (14, 14))))


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_group_pools(reduction):
    check(gnn.GroupPool("D4", reduction), (2, 3, 8, 5, 6))
    to_rotations = gnn.GroupPool("D4", reduction, to="C4")
    assert type(fold(to_rotations)) is gnn.GroupPool
    check(to_rotations, (2, 3, 8, 5, 6))


@pytest.mark.parametrize("pooling", ["max", "max_blur"])
@pytest.mark.parametrize("group", ["C4", "D4", "C8"])
@torch.no_grad()
def test_a_network_by_design(group, pooling):
    net = randomised(EquivariantUNet(1, 2, group=group, width=3, depth=3, pooling=pooling), image(1, 1, 22, 25))
    folded = fold(net)
    assert {type(m) for m in folded.modules() if isinstance(m, nn.modules.conv._ConvNd)} == {nn.Conv2d}
    assert {type(m) for m in folded.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)} == {nn.BatchNorm3d}
    for size in ((22, 25), (24, 24), (31, 20)):
        x = image(2, 1, *size, seed=7)
        assert relative(folded(x), net(x)) <= TIGHT


@pytest.mark.parametrize("count", [1, 2, 3, None])
@pytest.mark.parametrize("group", ["C1", "C2", "C4", "D1", "D2", "D4"])
@torch.no_grad()
def test_a_converted_network(group, count):
    order = len(elements(group))
    if count is not None and count > order:
        pytest.skip("more taps than elements")
    net = convert(randomised(Busy(), image(2, 3, 24, 31)), group, image(1, 3, 24, 31))
    net.open_taps(group_kernel_size=count)
    generator = torch.Generator().manual_seed(5)
    for module in net.convolutions().values():
        if module.taps is not None:
            module.taps.normal_(0, 0.1, generator=generator)
    folded = fold(net)
    for size in ((24, 31), (32, 32), (33, 26)):
        x = image(2, 3, *size, seed=7)
        y = folded(x)
        assert relative(y, net(x)) <= TIGHT
        assert relative(folded(turn(x, elements(group)[-1])), turn(y, elements(group)[-1])) <= TIGHT


@torch.no_grad()
def test_a_network_that_people_use():
    net = convert(randomised(of_smp("Unet")(), image(1, 3, 32, 64)), "C4", image(1, 3, 32, 64))
    x = image(1, 3, 64, 32, seed=7)
    assert relative(fold(net)(x), net(x)) <= TIGHT


@torch.no_grad()
def test_a_wrong_kernel_would_show():
    """The comparison in these tests fails for one flipped kernel."""
    net = convert(randomised(Busy(), image(2, 3, 24, 31)), "C4", image(1, 3, 24, 31))
    folded, x = fold(net), image(2, 3, 24, 31)
    conv = next(m for m in folded.model.wide.modules() if type(m) is nn.Conv2d)
    conv.weight[:1] = conv.weight[:1].flip(-1)
    assert relative(folded(x), net(x)) > 1e-6


@torch.no_grad()
def test_it_is_a_copy_for_inference():
    net = convert(randomised(Busy(), image(2, 3, 24, 31)), "C4", image(1, 3, 24, 31)).train()
    before = copy.deepcopy(net.state_dict())
    folded = fold(net)
    assert net.training
    assert not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    x = image(2, 3, 24, 31)
    expected = folded(x)
    for parameter in net.parameters():
        parameter.zero_()
    assert torch.equal(folded(x), expected)
    assert torch.equal(fold(folded)(x), expected)
    assert torch.equal(copy.deepcopy(folded)(x), expected)


@torch.no_grad()
def test_it_lives_where_the_network_lives(device):
    net = EquivariantUNet(1, 2, group="C4", width=2, depth=2).double().eval()
    x = image(1, 1, 13, 14)
    assert relative(fold(net.to(device))(x.to(device)).cpu(), net(x.to(device)).cpu()) <= TIGHT


def test_shared_layers_stay_shared():
    conv = gnn.GroupConv2d(2, 2, 3, padding=1, group="C4")
    folded = fold(nn.Sequential(conv, nn.ReLU(), conv))
    assert folded[0] is folded[2]


def test_refusals():
    with pytest.raises(ValueError, match=r"net must be a torch\.nn\.Module, but got net='net'"):
        fold("net")
    up = fold(gnn.GroupConvTranspose2d(2, 3, 2, stride=2, group="C4"))
    x = torch.randn(1, 2, 4, 5, 5)
    assert up(x, output_size=(10, 10)).shape == (1, 3, 4, 10, 10)
    with pytest.raises(ValueError, match=r"output_size must be \(10, 10\), what the output_padding of the layer gives"):
        up(x, output_size=(11, 11))


@torch.no_grad()
def test_export_with_every_axis_free():
    """Strict: any guard on a size would be refused."""
    net = fold(EquivariantUNet(1, 2, group="C4", width=2, depth=2).double().eval())
    axes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    exported = torch.export.export(net, (image(2, 1, 12, 14),), dynamic_shapes=(axes,)).module()
    for shape in ((1, 1, 13, 9), (3, 1, 16, 16)):
        x = image(*shape, seed=7)
        assert relative(exported(x), net(x)) <= TIGHT


class Standardized(nn.Conv2d):
    """Standardizes its weight at each call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class PaddedAtTheEnd(nn.Conv2d):
    """Pads by what the size leaves over."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, -x.shape[-1] % 2, 0, -x.shape[-2] % 2)))


class Brighter(nn.Conv2d):
    """Has a bias that depends on the image's size."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight, self.bias * x.shape[-1] * x.shape[-2], self.stride, self.padding)


COMPUTED = {
    "weight norm, a hook": lambda: nn.utils.weight_norm(nn.Conv2d(4, 6, 3, 2, 1)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3, padding="same", bias=False)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 6, (1, 3), padding=(0, 1))),
    "standardized": lambda: Standardized(4, 6, 3, 2, 1, groups=2),
    "transposed": lambda: nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1)),
}


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
@torch.no_grad()
def test_a_weight_that_does_not_depend_on_the_input_is_computed_once(name, opened):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), COMPUTED[name](), nn.Conv2d(6, 2, 1)).double().eval()
    net = convert(plain, "C4", image(1, 3, 18, 22)).eval()
    if opened:
        net.open_taps()
        for module in net.convolutions().values():
            module.taps.normal_(std=0.1)
    for parameter in net.model[1].parameters():
        parameter.mul_(1.5)  # what a hook has computed before is out of date
    folded = fold(net)
    assert not [module for module in folded.modules() if isinstance(module, KeepsKernels)]
    for shape in ((18, 22), (17, 24)):
        x = image(2, 3, *shape, seed=3)
        assert relative(folded(x), net(x)) <= TIGHT


@pytest.mark.parametrize("kind", [PaddedAtTheEnd, Brighter])
@torch.no_grad()
def test_what_depends_on_the_input_stays_as_it_is(kind):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4, 6, 3, 2, 1)).double().eval()
    net = convert(plain, "C4", image(1, 3, 18, 22)).eval()
    folded = fold(net)
    x = image(2, 3, 17, 24, seed=3)
    assert relative(folded(x), net(x)) <= TIGHT
