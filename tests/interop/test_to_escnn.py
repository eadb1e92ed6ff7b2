"""Networks of this package as networks of escnn. Run where the extra ``escnn`` is installed."""

import doctest
import importlib
import re
import warnings
from pathlib import Path

import pytest
import torch
from escnn_networks import PLANES, classifier, enn, fields, random, relative, theirs_on
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.groups import as_group
from gconv_ga.interop import from_escnn, to_escnn

pytestmark = pytest.mark.escnn

TIGHT = TOLERANCES[torch.float64]
ROUNDING = 1e-6  # escnn samples its functions in float32
EXACT = ["C1", "C2", "C4", "D1", "D2", "D4"]


def network(group, *, kernel_size=3, taps=None):
    """A network with a layer of each kind, except a maximum over the group, which is float32 in escnn."""
    net = nn.Sequential(
        gnn.LiftingConv2d(2, 3, kernel_size, padding=1, group=group),
        gnn.BatchNorm2d(3),
        nn.ReLU(),
        gnn.MaxPool2d(2, group=group, sampling="shared"),
        nn.Sequential(
            gnn.GroupConv2d(3, 16, 3, padding="same", group=group, group_kernel_size=taps, bias=False),
            nn.LeakyReLU(0.3),
            gnn.Upsample(2, "bilinear", group=group),
        ),
        gnn.AvgPool2d(3, 1, group=group),
        gnn.GroupPool(group),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 4, 1),
        nn.Tanh(),
    )
    net = net.double()
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
                part.weight.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
@pytest.mark.parametrize("taps", [None, 1], ids=["all taps", "one tap"])
@pytest.mark.parametrize("kernel_size", [2, 3, 5])
@pytest.mark.parametrize("name", EXACT)
def test_a_network_of_quarter_turns_goes_back(name, kernel_size, taps):
    ours = network(name, kernel_size=kernel_size, taps=taps)
    theirs = to_escnn(ours)
    x = torch.randn(2, 2, 12, 13, dtype=torch.float64)
    assert relative(theirs_on(theirs, x), ours(x)) <= ROUNDING
    assert not theirs.training


def test_a_few_taps_of_many_fields_go_back():
    """Such a layer depends on an orientation's neighbours only, and they are not symmetric about it."""
    ours = gnn.GroupConv2d(2, 32, 3, group="D4", group_kernel_size=2).double()
    x = torch.randn(1, 2, 8, 7, 8, dtype=torch.float64)
    assert ours.rotated_kernels().shape[2] == 2 * 2
    assert relative(theirs_on(to_escnn(ours), x), ours(x).flatten(1, 2)) <= ROUNDING


@pytest.mark.parametrize(("kernel_size", "dilation"), [(4, 1), (7, 1), (9, 1), (3, 2), (4, 3)])
@pytest.mark.parametrize("name", ["C4", "D4"])
def test_every_kernel_that_turns_by_quarter_turns_goes_back(name, kernel_size, dilation):
    ours = gnn.LiftingConv2d(1, 3, kernel_size, dilation=dilation, group=name).double()
    x = torch.randn(1, 1, 16, 17, dtype=torch.float64)
    assert relative(theirs_on(to_escnn(ours), x), ours(x).flatten(1, 2)) <= ROUNDING


@pytest.mark.parametrize("name", ["C3", "C8", "D6"])
def test_kernels_of_three_by_three_go_back_for_every_group(name):
    ours = network(name)
    x = torch.randn(2, 2, 12, 12, dtype=torch.float64)
    assert relative(theirs_on(to_escnn(ours), x), ours(x)) <= ROUNDING


def test_float32_goes_back_beside_other_networks_of_escnn():
    """escnn's layers share their tables, and the new network must not alter those of others, nor be altered by them."""
    kinds = fields(PLANES["C4"](), "t", 1), fields(PLANES["C4"](), "r", 2)
    other = enn.R2Conv(*kinds, 3)
    image = torch.randn(1, 1, 6, 6)
    expected = other(kinds[0](image)).tensor
    ours = network("C4")
    to_escnn(ours)
    assert torch.equal(other(kinds[0](image)).tensor, expected)
    other.double()
    ours.float()
    x = torch.randn(1, 2, 12, 12)
    assert relative(theirs_on(to_escnn(ours), x), ours(x)) <= TOLERANCES[torch.float32]
    # A layer whose table another has doubled: so it must stay.
    alone = gnn.LiftingConv2d(1, 2, 3, group="C4")
    with torch.no_grad():
        alone.weight.zero_()[..., 1, 1] = 1.0
    to_escnn(alone, functions="default")
    assert other(kinds[0](image.double())).tensor.dtype == torch.float64
    other.float()


@pytest.mark.parametrize("name", ["C4", "C8", "D3", "D4"])
def test_what_came_from_escnn_goes_back_as_it_was(name):
    theirs = classifier(name).eval()
    ours = from_escnn(theirs)
    back = to_escnn(ours, functions="default", max_error=1e-12)
    x = torch.randn(1, 2, 12, 16, dtype=torch.float64)
    assert relative(theirs_on(back, x), theirs_on(theirs, x)) <= TIGHT
    torch.testing.assert_close(back[2].weights, theirs[2].weights)
    torch.testing.assert_close(back[2].bias, theirs[2].bias)
    assert repr(back[6]) == repr(theirs[6])
    # By default too these are the functions that are taken, since they do.
    assert [p.shape for p in to_escnn(ours).parameters()] == [p.shape for p in theirs.parameters()]


def test_a_blur_and_a_mask_go_back():
    image, maps = fields(PLANES["C4"](), "t", 1), fields(PLANES["C4"](), "r", 2)
    theirs = enn.SequentialModule(
        enn.MaskModule(image, 11),
        enn.R2Conv(image, maps, 3),
        enn.PointwiseMaxPoolAntialiased2D(maps, 3, 2, 1),
        enn.PointwiseAdaptiveAvgPool2D(maps, 2),
    )
    ours = from_escnn(random(theirs, torch.float32))
    x = torch.randn(1, 1, 11, 11)
    assert relative(theirs_on(to_escnn(ours), x), theirs_on(theirs, x)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("sampling", ["shared", "per_orientation"])
def test_strides_on_images_and_aligned_corners_go_back(sampling):
    image = fields(PLANES["C4"](), "t", 2)
    theirs = enn.SequentialModule(
        enn.R2Upsampling(image, 2, align_corners=True),
        enn.R2Conv(image, fields(PLANES["C4"](), "r", 2), 1),
        enn.R2Upsampling(fields(PLANES["C4"](), "r", 2), 2, align_corners=True),
        enn.R2Conv(fields(PLANES["C4"](), "r", 2), image, 1),
        enn.R2Conv(image, image, 3, padding=1, stride=2),
        enn.PointwiseMaxPool2D(image, 3, 2, 1),
        enn.PointwiseAvgPoolAntialiased2D(image, sigma=0.66, stride=2),
    )
    ours = from_escnn(random(theirs, torch.float32), sampling=sampling)
    x = torch.randn(1, 2, 9, 9)
    back = to_escnn(ours, sampling="shared")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert relative(theirs_on(back, x), theirs_on(theirs, x)) <= TOLERANCES[torch.float32]
    if sampling == "shared":
        assert [type(part) for part in back] == [type(part) for part in theirs]
    else:
        with pytest.raises(ValueError, match=r"^sampling must be 'shared' for module\.4"):
            to_escnn(ours)


def test_a_single_layer_goes_back_and_a_pool_by_the_maximum():
    conv = gnn.LiftingConv2d(1, 2, 3, group="C4")
    x = torch.randn(1, 1, 6, 7)
    theirs = to_escnn(conv)
    assert type(theirs) is enn.R2Conv
    assert relative(theirs_on(theirs, x), conv(x).flatten(1, 2)) <= TOLERANCES[torch.float32]
    pooled = nn.Sequential(conv, gnn.GroupPool("C4", "max"))
    assert type(to_escnn(pooled)[1]) is enn.GroupPooling
    assert relative(theirs_on(to_escnn(pooled), x), pooled(x)) <= TOLERANCES[torch.float32]


OTHERS = {
    "ELU": nn.ELU(0.3),
    "sigmoid": nn.Sigmoid(),
    "dropout": nn.Dropout(0.4).eval(),
    "identity": nn.Identity(),
    "empty": nn.Sequential(),
    "nearest": gnn.Upsample(2, group="C4"),
    "adaptive mean": nn.AdaptiveAvgPool3d((None, 2, 3)),
    "adaptive max": nn.AdaptiveMaxPool3d((None, 2, 3)),
}
ON_IMAGES = {
    "max pool": nn.MaxPool2d(2),
    "mean pool": nn.AvgPool2d((2, 3), 1),
    "up": nn.Upsample(scale_factor=2, mode="bilinear"),
    "adaptive mean": nn.AdaptiveAvgPool2d((2, 3)),
    "adaptive max": nn.AdaptiveMaxPool2d(2),
}


@pytest.mark.parametrize("layer", OTHERS)
def test_other_layers_on_maps_go_back(layer):
    ours = nn.Sequential(gnn.LiftingConv2d(1, 2, 3, group="C4"), OTHERS[layer])
    x = torch.randn(1, 1, 9, 10)
    assert relative(theirs_on(to_escnn(ours), x), ours(x).flatten(1, 2)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("layer", ON_IMAGES)
def test_other_layers_on_images_go_back(layer):
    ours = nn.Sequential(
        ON_IMAGES[layer], gnn.LiftingConv2d(1, 2, 1, group="D4"), gnn.GroupPool("D4"), ON_IMAGES[layer]
    )
    x = torch.randn(1, 1, 9, 10)
    assert relative(theirs_on(to_escnn(ours), x), ours(x)) <= TOLERANCES[torch.float32]


def test_maps_are_known_as_such_before_the_first_layer_that_counts_them():
    ours = nn.Sequential(
        nn.ReLU(), gnn.MaxPool2d(2, group="C4", sampling="shared"), gnn.GroupPool("C4"), nn.Conv2d(3, 2, 1)
    )
    theirs = to_escnn(ours)
    x = torch.randn(1, 3, 4, 8, 8)
    assert relative(theirs_on(theirs, x), ours(x)) <= TOLERANCES[torch.float32]


def test_a_module_used_twice_is_used_twice():
    conv, relu = gnn.GroupConv2d(2, 2, 3, padding=1, group="C4"), nn.ReLU()
    theirs = to_escnn(
        nn.Sequential(gnn.LiftingConv2d(1, 2, 3, group="C4"), relu, conv, relu, conv, gnn.GroupPool("C4"), relu)
    )
    assert theirs[2] is theirs[4]
    # A layer of escnn has one type.
    assert theirs[1] is theirs[3]
    assert theirs[6] is not theirs[1]


def test_training_flags_and_frozen_weights_go_back():
    ours = nn.Sequential(gnn.LiftingConv2d(1, 2, 3, group="C4"), gnn.BatchNorm2d(2), nn.ReLU()).train()
    ours[1].eval()
    ours[0].weight.requires_grad_(False)
    theirs = to_escnn(ours)
    assert (theirs.training, theirs[1].training) == (True, False)
    assert (theirs[0].weights.requires_grad, theirs[0].bias.requires_grad) == (False, True)


@pytest.mark.parametrize(("name", "error"), [("C8", 0.16), ("D8", 0.15)])
def test_larger_kernels_at_other_angles_are_refused_with_their_distance(name, error):
    """escnn's functions differ there; the figure is from the docstring."""
    ours = nn.Sequential(nn.Identity(), gnn.LiftingConv2d(2, 8, 5, group=name))
    with pytest.raises(
        ValueError, match=r"^max_error must be at least [\d.]+ for module\.1.*got max_error=1e-05"
    ) as caught:
        to_escnn(ours)
    found = float(re.search(r"at least ([\d.]+)", str(caught.value))[1])
    assert found == pytest.approx(error, rel=0.3)
    near = to_escnn(ours, max_error=found * 1.1)
    # It is the distance of the kernels, and what the output differs by on noise.
    x = torch.randn(1, 2, 64, 64)
    got, expected = theirs_on(near, x), ours(x).flatten(1, 2).detach()
    assert float((got - expected).norm() / expected.norm()) == pytest.approx(found, rel=0.3)


def test_escnns_default_leaves_corners_out():
    ours = gnn.LiftingConv2d(1, 2, 3, group="C4")
    with pytest.raises(ValueError, match=r"^max_error must be at least 0\.\d+ for module,.*functions='auto'"):
        to_escnn(ours, functions="default")
    # A smooth kernel is among its functions.
    with torch.no_grad():
        ours.weight.zero_()[..., 1, 1] = 1.0
    assert len(to_escnn(ours, functions="default").weights) < len(to_escnn(ours, functions="all").weights)


def test_wrong_kernels_would_be_seen():
    ours = network("C4")
    theirs = to_escnn(ours)
    with torch.no_grad():
        ours[0].weight.copy_(ours[0].weight.flip(-1))
    x = torch.randn(2, 2, 12, 12, dtype=torch.float64)
    assert relative(theirs_on(theirs, x), ours(x)) > 0.1


@pytest.mark.parametrize("name", ["gconv_ga.interop", "gconv_ga.interop._from_escnn", "gconv_ga.interop._to_escnn"])
def test_the_examples_run_with_escnn(name):
    """In the other environment, the lines behind `find_spec` do not run."""
    module = importlib.import_module(name)
    assert "find_spec" in Path(module.__file__).read_text(encoding="utf-8")
    found = doctest.testmod(module)
    assert (found.failed, found.attempted > 0) == (0, True)


def test_the_example_of_the_readme_runs_with_escnn(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "from_escnn" in b)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    loaded = torch.load("ours.pt", weights_only=False)
    assert torch.equal(loaded(names["x"]), names["ours"](names["x"]))
    assert as_group("D4").order == loaded[0][0].group.order
