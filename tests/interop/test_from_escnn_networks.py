"""Whole networks of escnn, converted: the same output, training, saving, folding. Run where ``escnn`` is installed."""

import copy
import io
import subprocess
import sys

import pytest
import torch
from escnn_networks import PLANES, both, classifier, convolution, enn, fields, random, relative, to_maps
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga import equivariance_error
from gconv_ga.conversion import fold
from gconv_ga.groups import as_group
from gconv_ga.interop import from_escnn

pytestmark = pytest.mark.escnn

TIGHT = TOLERANCES[torch.float64]
GROUPS = ["C2", "C3", "C4", "C8", "D1", "D3", "D4", "D4, diagonal axis"]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", GROUPS)
def test_a_network_gives_the_same(name, mode):
    theirs = classifier(name).train(mode == "train")
    ours = from_escnn(theirs)
    assert ours.training == theirs.training
    assert relative(*both(theirs, ours, 12, 16)) <= TIGHT


@pytest.mark.parametrize("name", ["C4", "C8", "D4"])
def test_a_network_gives_the_same_in_float32(name):
    theirs = classifier(name, torch.float32).eval()
    assert relative(*both(theirs, from_escnn(theirs), 12, 16)) <= TOLERANCES[torch.float32]


def test_a_network_of_another_group_would_be_seen():
    """C4 and D2 have as many elements."""
    theirs, other = classifier("C4").eval(), classifier("D2").eval()
    mixed = from_escnn(theirs)
    mixed[2], mixed[6][0] = from_escnn(other[2]), from_escnn(other[6][0])
    assert relative(*both(theirs, mixed, 12, 16)) > 0.1


def tutorial(name):
    """A classifier as escnn's examples build it: with a mask, antialiased pools and a pool over the group."""
    space = PLANES[name]()
    image, few, many = fields(space, "t", 1), fields(space, "r", 3), fields(space, "r", 4)
    parts = [
        enn.SequentialModule(
            enn.MaskModule(image, 29, margin=1),
            enn.R2Conv(image, few, kernel_size=7, padding=1, bias=False),
            enn.InnerBatchNorm(few),
            enn.ReLU(few, inplace=True),
        ),
        enn.SequentialModule(
            enn.R2Conv(few, many, kernel_size=5, padding=2, bias=False), enn.InnerBatchNorm(many), enn.ReLU(many)
        ),
        enn.SequentialModule(enn.PointwiseAvgPoolAntialiased(many, sigma=0.66, stride=2)),
        enn.PointwiseAvgPoolAntialiased(many, sigma=0.66, stride=1, padding=0),
        enn.GroupPooling(many),
    ]
    return random(enn.SequentialModule(*parts), torch.float32)


@pytest.mark.parametrize("name", ["C8", "D4"])
def test_a_network_of_the_tutorials_gives_the_same(name):
    theirs = tutorial(name).eval()
    assert relative(*both(theirs, from_escnn(theirs), 29, 29)) <= TOLERANCES[torch.float32]


def test_names_and_modes_are_kept():
    theirs = classifier("C4")
    theirs[6][1].eval()
    theirs[2].weights.requires_grad_(False)
    ours = from_escnn(theirs)
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]
    assert isinstance(ours.get_submodule("6.3.1"), nn.LeakyReLU)
    assert [layer.training for layer in ours[6]] == [True, False, True, True]
    assert ours.training
    assert [parameter.requires_grad for parameter in ours[2].parameters()] == [False, True]


def test_a_module_used_twice_is_used_twice():
    space = PLANES["C4"]()
    maps = fields(space, "r", 2)
    conv = convolution(maps, maps, 3, padding=1)
    theirs = random(enn.SequentialModule(conv, enn.ReLU(maps), conv), torch.float64)
    ours = from_escnn(theirs)
    assert ours[0] is ours[2]
    assert relative(*both(theirs, ours, 6, 7)) <= TIGHT


def test_the_network_that_is_converted_stays_as_it_is():
    theirs = classifier("C4")
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    state = torch.random.get_rng_state()
    ours = from_escnn(theirs)
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    after = theirs.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def step(net, loss):
    """One step of steepest descent on all parameters."""
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.01 * parameter.grad


@pytest.mark.parametrize("name", ["C8", "D4"])
def test_training_goes_on_as_in_escnn(name, generator):
    """The weights are the same coefficients of the same functions, so descent takes the same steps."""
    theirs = classifier(name).train()
    ours = from_escnn(theirs)
    start = relative(*both(theirs, from_escnn(classifier(name)), 12, 12))
    for _ in range(3):
        got, expected = both(theirs, ours, 12, 12, generator=generator)
        step(ours, got.square().mean())
        step(theirs, expected.square().mean())
    assert relative(*both(theirs, ours, 12, 12)) <= 100 * TIGHT < start
    assert relative(*both(theirs, from_escnn(theirs), 12, 12)) <= TIGHT


@pytest.mark.parametrize("name", ["C4", "D4", "C8"])
def test_a_converted_network_is_as_equivariant_as_escnn_and_on_the_grid_more(name):
    theirs = classifier(name).eval()
    group, image = as_group(name), torch.randn(1, 2, 16, 16, dtype=torch.float64)
    exact = [g for g in range(group.order) if group.is_exact(g)]
    error = equivariance_error(from_escnn(theirs), group, image)[exact].max()
    assert 1e-11 < error < 1e-5
    if group.is_exact():
        assert equivariance_error(from_escnn(theirs, filters="grid"), group, image).max() <= TIGHT


@pytest.mark.parametrize("name", ["C4", "D4"])
def test_on_the_grid_a_network_gives_the_same_up_to_rounding_and_loads_anywhere(name):
    theirs = classifier(name, torch.float32).eval()
    ours = from_escnn(theirs, filters="grid")
    assert relative(*both(theirs, ours, 12, 16)) <= TOLERANCES[torch.float32]
    # Its layers are those that one writes down.
    written = gnn.LiftingConv2d(2, 3, 5, padding=2, group=name)
    written.load_state_dict(ours[2].state_dict())
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(written(x), ours[2](x))


def strided(name):
    space = PLANES[name]()
    image, maps = fields(space, "t", 1), fields(space, "r", 2)
    return random(
        enn.SequentialModule(
            convolution(image, maps, 3, padding=1, stride=2),
            enn.PointwiseAvgPoolAntialiased2D(maps, sigma=0.66, stride=2),
            enn.PointwiseMaxPool2D(maps, 2),
            enn.PointwiseAvgPool2D(maps, 2, stride=1),
        ),
        torch.float64,
    )


def test_strides_sample_as_in_escnn_or_every_orientation_for_itself():
    """The two agree where no pixel is left over; elsewhere escnn is not equivariant, and there is a warning."""
    theirs = strided("C4")
    shared, own = from_escnn(theirs), from_escnn(theirs, sampling="per_orientation")
    good, bad = 8 * 3 + 5, 8 * 3 + 4
    for ours in (shared, own):
        assert relative(*both(theirs, ours, good, good)) <= TIGHT
    with pytest.warns(UserWarning, match="not equivariant at H="):
        assert relative(*both(theirs, shared, bad, bad)) <= TIGHT
    assert relative(*both(theirs, own, bad, bad)) > 0.1
    x = torch.randn(1, 1, bad, bad, dtype=torch.float64)
    turned = own(x.rot90(1, (-2, -1)))
    assert relative(turned, own(x).rot90(1, (-2, -1)).roll(1, 2)) <= 1e-6  # escnn's rounding
    with pytest.warns(UserWarning, match="not equivariant"):
        assert relative(shared(x.rot90(1, (-2, -1))), shared(x).rot90(1, (-2, -1)).roll(1, 2)) > 0.1


@pytest.mark.parametrize("filters", ["escnn", "grid"])
def test_a_converted_network_folds_to_plain_layers(filters):
    ours = from_escnn(classifier("D4").eval(), filters=filters)
    folded, x = fold(ours), torch.randn(2, 2, 12, 16, dtype=torch.float64)
    assert relative(folded(x), ours(x)) <= TIGHT
    assert not any(isinstance(part, gnn.LiftingConv2d | gnn.GroupConv2d) for part in folded.modules())


def test_a_blur_and_a_mask_stay_in_a_folded_network():
    ours = from_escnn(tutorial("C8").eval())
    x = torch.randn(1, 1, 29, 29)
    assert relative(fold(ours)(x), ours(x)) <= TOLERANCES[torch.float32]


def test_a_converted_network_compiles():
    ours, x = from_escnn(classifier("C8").eval()), torch.randn(1, 2, 12, 16, dtype=torch.float64)
    with torch.no_grad():
        assert relative(torch.compile(ours, fullgraph=True, backend="aot_eager")(x), ours(x)) <= TIGHT


def test_a_copy_is_of_its_own():
    ours, x = from_escnn(classifier("C8").eval()), torch.randn(1, 2, 12, 16, dtype=torch.float64)
    before, twin = ours(x), copy.deepcopy(ours)
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        twin[2][0].weight.zero_()
    assert torch.equal(ours(x), before)
    twin.load_state_dict(ours.state_dict())
    assert torch.equal(twin(x), before)


def test_kernels_take_another_dtype_from_the_table_itself():
    theirs = classifier("C8").eval()
    once, back = from_escnn(theirs), from_escnn(theirs).half().double()
    with torch.no_grad():
        for part, coarse in zip(once.parameters(), back.parameters(), strict=True):
            coarse.copy_(part)
    assert relative(*both(theirs, once, 12, 16)) <= TIGHT
    assert relative(back[2](torch.ones(1, 2, 9, 9).double()), once[2](torch.ones(1, 2, 9, 9).double())) <= TIGHT


def test_a_saved_network_loads_where_escnn_is_not_installed(tmp_path):
    """Save and load the whole network, then load a state_dict into it."""
    ours = from_escnn(classifier("C8").eval())
    x = torch.randn(1, 2, 12, 16, dtype=torch.float64)
    torch.save((ours, x, ours(x), copy.deepcopy(ours.state_dict())), tmp_path / "net.pt")
    program = f"""
import sys
sys.modules["escnn"] = None  # as if it were not installed
import torch
net, x, expected, state = torch.load({str(tmp_path / "net.pt")!r}, weights_only=False)
assert torch.equal(net(x), expected)
with torch.no_grad():
    net[2][0].weight.zero_()
assert not torch.equal(net(x), expected)
print(net.load_state_dict(state), torch.equal(net(x), expected))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "<All keys matched successfully> True", run.stderr


def test_a_file_holds_a_table_once():
    """Of two layers with the same functions; their own copies in other dtypes stay out."""
    maps = fields(PLANES["C8"](), "r", 2)
    theirs = enn.SequentialModule(*(enn.R2Conv(maps, maps, 5, recompute=False) for _ in range(2)))
    (block,) = theirs[0].basisexpansion.children()
    table = block.sampled_basis.nbytes * 4 // block.sampled_basis.element_size()
    for dtype in (torch.float32, torch.float64):
        ours, file = from_escnn(theirs).to(dtype), io.BytesIO()
        ours(torch.zeros(1, 2, 8, 9, 9, dtype=dtype))
        torch.save(ours, file)
        assert table < file.tell() < 1.3 * table
    # A file of one layer is as large.
    torch.save(from_escnn(theirs)[0], one := io.BytesIO())
    assert one.tell() > 0.8 * file.tell()


def test_tables_go_where_the_weights_go():
    maps = fields(PLANES["C4"](), "r", 2)
    ours, x = from_escnn(convolution(maps, maps, 3)), torch.randn(1, 2, 4, 5, 5)
    with torch.inference_mode():
        expected = ours.double()(x.double())
    # A table that is first used in inference mode can be trained later.
    ours(x.double()).sum().backward()
    assert relative(ours.float()(x).double(), expected) <= TOLERANCES[torch.float32]


def test_input_and_output_of_maps_are_those_of_geometric_tensors():
    space = PLANES["C4"]()
    maps = fields(space, "r", 3)
    theirs = random(convolution(maps, maps, 3, padding=1), torch.float64)
    x = torch.randn(1, 12, 6, 7, dtype=torch.float64)
    expected = theirs(maps(x)).tensor
    got = from_escnn(theirs)(x.unflatten(1, (3, 4)))
    assert relative(got, to_maps(expected, maps)) <= TIGHT
    assert relative(got.flatten(1, 2), expected) <= TIGHT
