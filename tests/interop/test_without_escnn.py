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
from gconv_ga.interop import from_escnn, to_escnn, without_escnn
from gconv_ga.interop._field_layers import (
    Branches,
    Channels,
    FieldBasis,
    FieldBlock,
    FieldConv2d,
    FieldConvTranspose2d,
    FieldMaximum,
    FieldNorm,
)
from gconv_ga.interop._geometric import FieldType, GeometricTensor, Group, GSpace2D, Representation, tensor_directsum
from gconv_ga.interop._layers import AllPlanesFilters, Blur, FieldBias, Mask, OnePlaneFilters, SharedGrid, Spread, Table
from gconv_ga.nn.authoring import make_geometry

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
    full = steerable.rotate_and_shift(weights, steerable.tables())
    return steerable, OnePlaneFilters(group, (3, 3), one), AllPlanesFilters(group, (3, 3), full)


@pytest.mark.parametrize("name", ["C1", "C4", "C8", "D3"])
def test_tables_make_the_kernels_that_the_same_functions_make_elsewhere(name, generator):
    steerable, one, full = tables(name)
    for filters in (one, full):
        assert isinstance(filters, Filters)
        assert filters.shape == steerable.shape
    weight = torch.randn(3, 2, steerable.group.order, *steerable.shape, generator=generator, dtype=torch.float64)
    expected = steerable.rotate_and_shift(weight, steerable.tables())
    for filters in (one, full):
        assert relative(filters.rotate_and_shift(weight, filters.tables()), expected) <= TIGHT
    turned = one.rotate(weight[:, :, 0], one.tables())
    assert relative(turned, steerable.rotate(weight[:, :, 0], steerable.tables())) <= TIGHT


@pytest.mark.parametrize("name", ["C4", "D3"])
def test_functions_in_another_order_would_be_seen(name, generator):
    steerable, _, full = tables(name)
    weight = torch.randn(3, 2, steerable.group.order, *steerable.shape, generator=generator, dtype=torch.float64)
    other = AllPlanesFilters(full.group, (3, 3), full.functions.transpose(1, 2))
    expected = steerable.rotate_and_shift(weight, steerable.tables())
    assert relative(other.rotate_and_shift(weight, other.tables()), expected) > 0.1


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


def test_a_table_is_kept_once_and_exactly():
    exact, fine = torch.randn(4).double(), torch.full((4,), 1 / 3, dtype=torch.float64)
    assert Table(torch.randn(4).float().double()).numbers.dtype == torch.float32
    assert torch.equal(Table(fine).numbers, fine)
    table = Table(exact.float())
    weight = torch.zeros(1, dtype=torch.float64)
    assert table.like(weight) is table.like(weight)
    assert table.like(weight.float()) is table.numbers
    assert copy.deepcopy(table) is table
    # A copy in another dtype stays out of a file.
    large = Table(torch.randn(10_000))
    large.like(weight)
    assert len(pickle.dumps(large)) < 1.1 * large.numbers.nbytes
    meta = torch.zeros(1, device="meta")
    assert large.like(meta).is_meta
    assert torch.equal(large.like(weight.half()).float(), large.numbers.half().float())


def test_a_bias_is_trained_by_its_scale():
    x = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    layer = FieldBias(torch.randn(3, dtype=torch.float64), 0.5)
    assert relative(layer(x), x + 0.5 * layer.bias.detach().view(3, 1, 1, 1)) <= TIGHT
    layer(x).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((3,), 0.5 * 2 * 4 * 25, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^input must be a tensor \[B, C=3, \|G\|, H, W\]"):
        layer(x[:, :2])


def test_an_image_spreads_over_the_elements():
    x = torch.randn(2, 3, 5, 6)
    assert torch.equal(Spread(as_group("C4"))(x), torch.stack(4 * [x], 2))
    assert repr(Spread(as_group("C4"))) == "Spread('C4')"
    with pytest.raises(ValueError, match=r"^input must be a tensor \[B, C, H, W\]"):
        Spread(as_group("C4"))(x[0])


def test_a_shared_grid_warns_at_the_sizes_that_are_not_equivariant():
    layer = SharedGrid(make_geometry(as_group("C4"), (3, 3), (2, 2), 1, (1, 1), shared=True))
    x = torch.zeros(1, 1, 9, 9)
    assert layer(x) is x
    with pytest.warns(UserWarning, match="not equivariant at W=10"):
        layer(torch.zeros(1, 1, 9, 10))


def test_maps_and_channels_are_each_others_inverse():
    order, x = (0, 3, 1, 2), torch.randn(2, 3, 4, 5, 6)
    channels = Channels(order, False)(x)
    assert torch.equal(Channels(order, True)(channels), x)
    # Our element i is escnn's channel order[i].
    assert torch.equal(channels.view(x.shape)[:, :, list(order)], x)
    assert not torch.equal(Channels((0, 1, 2, 3), False)(x), channels)


def blocks_and_kernels(generator):
    """Functions from fields of 1 and 2 channels to such fields, and their sum by hand."""
    ins, outs = [(0, 1), (2,), (3, 4)], [(0,), (1, 2), (3,)]
    kernels, weights, blocks = torch.zeros(4, 5, 9, dtype=torch.float64), [], []
    for o in (1, 2):
        for i in (1, 2):
            table = torch.randn(3, o, i, 9, generator=generator, dtype=torch.float64)
            rows, columns = [f for f in outs if len(f) == o], [f for f in ins if len(f) == i]
            weight = torch.randn(len(rows), len(columns), 3, generator=generator, dtype=torch.float64)
            for p, row in enumerate(rows):
                for q, column in enumerate(columns):
                    for b in range(3):
                        for k, r in enumerate(row):
                            for m, c in enumerate(column):
                                kernels[r, c] += weight[p, q, b] * table[b, k, m]
            start = sum(w.numel() for w in weights)
            places = (torch.tensor([c for f in part for c in f]) for part in (rows, columns))
            blocks.append(FieldBlock(Table(table), start, start + weight.numel(), *places))
            weights.append(weight)
    return blocks, torch.cat([weight.flatten() for weight in weights]), kernels.view(4, 5, 3, 3)


def test_kernels_of_mixed_fields_are_put_together_block_by_block(generator):
    blocks, weight, kernels = blocks_and_kernels(generator)
    geometry = make_geometry(as_group("C4"), (3, 3), (2, 2), 1, (1, 1), shared=True)
    bias, functions = torch.randn(2).double(), torch.randn(4, 2).double()
    x = torch.randn(2, 5, 7, 9, generator=generator, dtype=torch.float64)
    layer = FieldConv2d(blocks, (4, 5), weight, bias, functions, geometry, 1, padding_mode="zeros")
    expected = nn.functional.conv2d(x, kernels, functions @ bias, 2, 1)
    assert relative(layer(x), expected) <= TIGHT
    assert relative(pickle.loads(pickle.dumps(layer))(x), expected) <= TIGHT
    assert list(layer.state_dict()) == ["weight", "bias"]
    with pytest.warns(UserWarning, match="not equivariant at H=8"):
        layer(x[..., :-1, :].new_zeros(1, 5, 8, 9))
    with pytest.raises(ValueError, match=r"^input must be a tensor \[B, C=5, H, W\]"):
        layer(x[:, :4])
    up = FieldConvTranspose2d(blocks, (4, 5), weight, None, None, geometry, 1, output_padding=(0, 0))
    assert relative(up(x), nn.functional.conv_transpose2d(x, kernels.transpose(0, 1), None, 2, 1)) <= TIGHT
    up = FieldConvTranspose2d(blocks, (4, 5), weight, None, None, geometry, 1, output_padding=(1, 1))
    with pytest.warns(UserWarning, match="not equivariant with output_padding"):
        assert relative(up(x), nn.functional.conv_transpose2d(x, kernels.transpose(0, 1), None, 2, 1, 1)) <= TIGHT


def test_layers_on_fields_treat_each_field_for_itself(generator):
    sizes, x = (2, 1, 3, 2), torch.randn(2, 8, 3, 4, generator=generator, dtype=torch.float64)
    parts = x.split(sizes, 1)
    assert torch.equal(FieldMaximum(sizes, invariant=True)(x), torch.cat([p.amax(1, True) for p in parts], 1))
    expected = torch.cat([p.square().sum(1, True).sqrt() for p in parts], 1)
    assert relative(FieldNorm(sizes, invariant=True)(x), expected) <= TIGHT
    index = torch.tensor([2, 0, 1])
    permutes, mixes = torch.eye(3)[index].double(), torch.randn(2, 2, generator=generator).double()
    assert torch.equal(FieldBasis([permutes, permutes])(x[:, :6]), torch.cat([x[:, index], x[:, 3 + index]], 1))
    expected = torch.cat(
        [torch.einsum("oi,bihw->bohw", m, p) for m, p in ((mixes, x[:, :2]), (permutes, x[:, 2:5]))], 1
    )
    assert relative(FieldBasis([mixes, permutes])(x[:, :5]), expected) <= TIGHT
    branches = Branches([nn.ReLU(), nn.Tanh()], [torch.tensor([1, 3]), torch.tensor([0, 2])])
    assert torch.equal(branches(x[:, :4]), torch.cat([x[:, [1, 3]].relu(), x[:, [0, 2]].tanh()], 1))


def test_stand_ins_have_the_names_and_sizes_that_a_forward_asks_for():
    group = Group("C4", 4)
    scalar, regular = Representation("irrep_0", 1, group), Representation("regular", 4, group)
    space = GSpace2D("C4_on_R2", group, scalar, regular)
    kind = FieldType(space, [regular, scalar, regular])
    assert (kind.size, len(kind), kind.uniform, kind.fibergroup.order()) == (9, 3, False, 4)
    assert (kind.fields_start, kind.fields_end) == ([0, 4, 5], [4, 5, 9])
    assert kind.fields_names == ["regular", "irrep_0", "regular"]
    assert list(kind) == [regular, scalar, regular]
    assert kind.index_select([0, 2]) == FieldType(space, 2 * [regular]) != kind
    assert repr(kind) == "[C4_on_R2: {regular (x1), irrep_0 (x1), regular (x1)}(9)]"
    x = torch.randn(2, 9, 3, 3)
    f = kind(x.clone())
    assert isinstance(f, GeometricTensor)
    assert torch.equal((f + f - 0.5 * f).tensor, x + x - 0.5 * x)
    first, rest = f.split([1])
    assert [part.type.fields_names for part in (first, rest)] == [["regular"], ["irrep_0", "regular"]]
    joined = tensor_directsum([first, rest])
    assert joined.type == kind
    assert torch.equal(joined.tensor, x)
    assert [part.shape[1] for part in f.split(None)] == [4, 1, 4]
    assert f[:1].shape == f[:1].size() == (1, 9, 3, 3)
    assert f.to(torch.float64).tensor.dtype == torch.float64
    f += f
    f -= 0.25 * f
    f *= 2.0
    assert torch.allclose(f.tensor, 3 * x)
    for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert torch.equal(twin.tensor, f.tensor)
        assert twin.type == kind
        assert hash(twin.type) == hash(kind)


def test_a_file_that_imports_escnn_is_imported_without_it(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from escnn import gspaces, nn as enn\nfrom escnn.nn import FieldType, GeometricTensor, R2Conv\n"
        "class Block(enn.EquivariantModule):\n    def forward(self, x):\n        return x\n"
        "class Conv(R2Conv):\n    pass\n"
    )
    program = f"""
import sys, importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "escnn" else found(name)
sys.path.insert(0, {str(tmp_path)!r})
from gconv_ga.interop import without_escnn, from_escnn
with without_escnn():
    import mine
    with without_escnn():
        pass
    print("escnn" in sys.modules)
print("escnn" in sys.modules, isinstance(mine.Block().in_type, mine.FieldType))
for call in (lambda: mine.Conv(1, 2), lambda: mine.gspaces.rot2dOnR2(4)):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[:2] == ["True", "False False"]
    assert "Conv of it was called" in run.stdout.splitlines()[2]
    assert "rot2dOnR2 of it was called" in run.stdout.splitlines()[3]
    assert callable(without_escnn)
