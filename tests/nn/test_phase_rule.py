"""Strides, windows and up-sampling at every size from 8 to 40: exact by the phase rule, broken on one shared grid."""

import re
import warnings
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from layer_catalogue import scrambled
from slow_average import relative
from slow_layers import act_on_image, act_on_map, each, transposed_convolution, upsampling
from tolerances import TOLERANCES

import gconv_ga.nn as gnn

EXACT = TOLERANCES[torch.float64]
# All sizes, square and not: with a stride of up to 4 every pair of remainders is among them.
SIZES = [(n, n) for n in range(8, 41)] + [(n, 8 + (5 * n + 3) % 33) for n in range(8, 41)]
# A rotation by 90 degrees and a reflection: every element of D4 is a product of them, as the group tests show.
GENERATORS = (1, 4)
WINDOWS = [
    (k, s, p, d)
    for k, s, p, d in product((1, 2, 3, 4, 5, 7), (1, 2, 3, 4), (0, 1, 2, 3), (1, 2))
    if p <= d * (k - 1) // 2 and (s > 1 or k == 4) and d * (k - 1) < 8 and (d == 1 or k == 3)
]


def assert_exact(run, act_in, act_out, x, *size):
    """Check both generators; a requested size is transposed with the image."""
    y = run(x, *size)
    for g in GENERATORS:
        turned = [wanted[::-1] if g == 1 else wanted for wanted in size]
        assert relative(run(act_in(x, "D4", g), *turned), act_out(y, "D4", g)) <= EXACT, (tuple(x.shape[-2:]), size, g)


def test_the_windows_and_sizes_are_many():
    assert len(WINDOWS) > 40
    assert {(h % s, w % s) for h, w in SIZES for s in (4,)} == set(product(range(4), repeat=2))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_lifting_is_exact_at_every_size(window):
    k, s, p, d = window
    layer = scrambled(gnn.LiftingConv2d(1, 1, k, s, p, d, group="D4"))
    with torch.no_grad():
        for size in SIZES:
            assert_exact(layer, act_on_image, act_on_map, torch.randn(1, 1, *size, dtype=torch.float64))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_group_convolution_is_exact_at_every_size(window):
    k, s, p, d = window
    layer = scrambled(gnn.GroupConv2d(1, 1, k, s, p, d, group="D4"))
    with torch.no_grad():
        for size in SIZES:
            assert_exact(layer, act_on_map, act_on_map, torch.randn(1, 1, 8, *size, dtype=torch.float64))


@pytest.mark.parametrize("taps", [5, 3, 1])
@pytest.mark.parametrize("window", WINDOWS[::6], ids=str)
@pytest.mark.parametrize("gathered", [False, True])
def test_group_convolution_with_few_taps_is_exact_at_every_size(window, taps, gathered):
    k, s, p, d = window
    layer = scrambled(gnn.GroupConv2d(1, 1, k, s, p, d, group="D4", group_kernel_size=taps))
    layer._mixes_all = not gathered
    with torch.no_grad():
        for size in SIZES:
            assert_exact(layer, act_on_map, act_on_map, torch.randn(1, 1, 8, *size, dtype=torch.float64))


@pytest.mark.parametrize("taps", [None, 2])
@pytest.mark.parametrize(
    ("window", "extra"), [((2, 2, 0, 1), 0), ((3, 2, 1, 1), 1), ((2, 3, 0, 1), 2), ((3, 2, 1, 3), 2)], ids=str
)
def test_transposed_convolution_is_exact_at_every_size(window, extra, taps):
    k, s, p, d = window
    layer = gnn.GroupConvTranspose2d(1, 1, k, s, p, extra, dilation=d, group="D4", group_kernel_size=taps)
    layer = scrambled(layer)
    with torch.no_grad():
        for height, width in SIZES[::2]:
            f = torch.randn(1, 1, 8, height // 2, width // 2, dtype=torch.float64)
            assert_exact(layer, act_on_map, act_on_map, f)


@pytest.mark.parametrize("make", [gnn.MaxPool2d, gnn.AvgPool2d], ids=lambda make: make.__name__)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), (3, 3, 0), (2, 3, 1), (4, 4, 1)], ids=str)
def test_pools_are_exact_at_every_size(make, window, ceil_mode):
    layer = make(*window, ceil_mode=ceil_mode, group="D4")
    for size in SIZES:
        assert_exact(layer, act_on_map, act_on_map, torch.randn(1, 1, 8, *size, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [2, 3])
def test_upsampling_is_exact_to_every_size(factor, mode):
    layer = gnn.Upsample(factor, mode, group="D4")
    for height, width in SIZES:
        f = torch.randn(1, 1, 8, height // factor, width // factor, dtype=torch.float64)
        assert_exact(layer, act_on_map, act_on_map, f, (height, width))


@pytest.mark.parametrize("size", [(8, 9), (9, 9), (10, 8)], ids=str)
def test_a_wanted_size_is_the_slow_references(size, device):
    f = torch.randn(2, 2, 4, 4, 4, dtype=torch.float64).to(device)
    bilinear = gnn.Upsample(2, "bilinear", group="C4")
    if max(size) < 10:
        expected = each(upsampling(2, "bilinear"), f, "C4", size)
        assert relative(bilinear(f, output_size=size), expected) <= EXACT
    transposed = scrambled(gnn.GroupConvTranspose2d(2, 2, 2, 3, 1, group="C4")).to(device)
    with torch.no_grad():
        wanted = torch.Size(n + 1 for n in size)
        expected = transposed_convolution(transposed, f, "C4", None, wanted)
        assert relative(transposed(f, output_size=wanted), expected) <= EXACT


# --- One grid for all orientations, as in other libraries.


def one_grid_is_exact(n, k, s, p, d):
    """Return whether a strided correlation of random numbers commutes with a flip, by computing both."""
    x, kernel = torch.randn(1, 1, n, dtype=torch.float64), torch.randn(1, 1, k, dtype=torch.float64)
    y = F.conv1d(x, kernel, None, s, p, d)
    return torch.allclose(F.conv1d(x.flip(-1), kernel.flip(-1), None, s, p, d).flip(-1), y)


SHARED = [(3, 2, 1, 1), (2, 2, 0, 1), (7, 2, 3, 1), (4, 4, 0, 1), (3, 3, 1, 2)]


@pytest.mark.parametrize("window", SHARED, ids=str)
def test_one_shared_grid_is_exact_where_it_does_not_warn_and_broken_where_it_does(window):
    k, s, p, d = window
    layer = scrambled(gnn.LiftingConv2d(1, 1, k, s, p, d, group="C4", sampling="shared"))
    good = {n for n in range(5, 50) if n + 2 * p > d * (k - 1) and one_grid_is_exact(n, k, s, p, d)}
    seen = set()
    for n in range(12, 30):
        x = torch.randn(1, 1, n, n, dtype=torch.float64)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            y = layer(x)
            error = relative(layer(x.rot90(1, (-2, -1))), act_on_map(y, "C4", 1))
        assert (error <= EXACT) == (n in good)
        assert bool(caught) == (n not in good)
        seen.add(n in good)
        if caught:
            assert error > 0.01
            below, above = max(m for m in good if m < n), min(m for m in good if m > n)
            assert f"at H={n} " in str(caught[0].message)
            assert f"the nearest sizes where it is: {below} and {above}." in str(caught[0].message)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("layer", "shape", "match"),
    [
        (gnn.GroupConv2d(1, 1, 3, 2, 1, group="C4", sampling="shared"), (9, 8), "at W=8 .* 7 and 9"),
        (gnn.MaxPool2d(2, group="C4", sampling="shared"), (9, 8), "at H=9 .* 8 and 10"),
        (gnn.AvgPool2d(3, 2, 1, group="C4", sampling="shared"), (8, 9), "at H=8 .* 7 and 9"),
        (gnn.GroupConv2d(1, 1, 2, padding="same", group="C4", sampling="shared"), (8, 8), "at H=8 .*no size is"),
        (
            gnn.GroupConvTranspose2d(1, 1, 2, 2, 0, 1, group="C4", sampling="shared"),
            (8, 8),
            "output_padding .* any size",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None,
)
def test_a_shared_grid_warns_and_is_broken(layer, shape, match):
    layer, f = scrambled(layer), torch.randn(1, 1, 4, *shape, dtype=torch.float64)
    with pytest.warns(UserWarning, match=f"sampling='shared' is not equivariant.*{match}"):
        y = layer(f)
    errors = []
    for g in (1, 2, 3):
        with pytest.warns(UserWarning, match="shared"):
            turned = layer(act_on_map(f, "C4", g))
        errors.append(relative(turned, act_on_map(y, "C4", g)))
    assert max(errors) > 0.01


@pytest.mark.parametrize(("group", "size"), [("D1", (8, 9)), ("C1", (8, 8))], ids=str)
def test_axes_that_nothing_flips_need_no_warning(group, size):
    layer = scrambled(gnn.LiftingConv2d(1, 1, 3, 2, 1, group=group, sampling="shared"))
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    y = layer(x)  # a warning would be an error
    for g in range(layer.group.order):
        assert relative(layer(act_on_image(x, group, g)), act_on_map(y, group, g)) <= EXACT
    assert layer.group.order == 1 or re.search("shared", repr(layer))


@pytest.mark.parametrize("kind", ["lifting", "group"])
def test_both_samplings_agree_where_nothing_is_left_over(kind):
    make, x = gnn.LiftingConv2d, torch.randn(1, 2, 17, 21, dtype=torch.float64)
    if kind == "group":
        make, x = gnn.GroupConv2d, torch.randn(1, 2, 4, 17, 21, dtype=torch.float64)
    own = scrambled(make(2, 2, 3, 2, 1, group="C4"))
    shared = scrambled(make(2, 2, 3, 2, 1, group="C4", sampling="shared"))
    shared.load_state_dict(own.state_dict())
    assert torch.equal(own(x), shared(x))


# --- Windows that are not square, and padding of one side.


@pytest.mark.parametrize("group", ["C1", "C2", "D1", "D2", "C4", "D4"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((1, 7), 1, (0, 3)), ((1, 7), 2, (0, 3)), ((4, 2), 3, (1, 0))], ids=str
)
def test_windows_that_are_not_square(group, kernel, stride, padding, device):
    lift = scrambled(gnn.LiftingConv2d(1, 2, kernel, stride, padding, group=group)).to(device)
    conv = scrambled(gnn.GroupConv2d(2, 1, kernel, stride, padding, group=group)).to(device)
    with torch.no_grad():
        for size in [(14, 14), (15, 18), (20, 13)]:
            x = torch.randn(1, 1, *size, dtype=torch.float64).to(device)
            y = lift(x)
            z = conv(y)
            for g in range(lift.group.order):
                turned = lift(act_on_image(x, group, g))
                assert relative(turned, act_on_map(y, group, g)) <= EXACT
                assert relative(conv(turned), act_on_map(z, group, g)) <= EXACT


@pytest.mark.parametrize("group", ["C2", "D1", "D2"])
def test_strides_that_differ_where_no_element_swaps_the_axes(group):
    lift = scrambled(gnn.LiftingConv2d(1, 1, (3, 4), (2, 3), (1, 0), (1, 2), group=group))
    pool = gnn.MaxPool2d((3, 2), (2, 1), (1, 0), group=group)
    for size in SIZES[::5]:
        x = torch.randn(1, 1, *size, dtype=torch.float64)
        f = torch.randn(1, 1, lift.group.order, *size, dtype=torch.float64)
        y, z = lift(x), pool(f)
        for g in range(lift.group.order):
            assert relative(lift(act_on_image(x, group, g)), act_on_map(y, group, g)) <= EXACT
            assert relative(pool(act_on_map(f, group, g)), act_on_map(z, group, g)) <= EXACT


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_same_padding_of_every_kind_keeps_size_and_symmetry(kernel, mode):
    lift = scrambled(gnn.LiftingConv2d(1, 1, kernel, padding="same", padding_mode=mode, group="D4"))
    conv = scrambled(gnn.GroupConv2d(1, 1, kernel, padding="same", padding_mode=mode, dilation=2, group="D4"))
    for size in SIZES[::4]:
        x = torch.randn(1, 1, *size, dtype=torch.float64)
        y = lift(x)
        assert y.shape[-2:] == x.shape[-2:] == conv(y).shape[-2:]
        assert_exact(lift, act_on_image, act_on_map, x)
        assert_exact(conv, act_on_map, act_on_map, y.detach())
