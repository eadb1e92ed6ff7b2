"""Tiles: where they lie, that they hide nothing, and that a turned image gets the turned prediction."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerances import TOLERANCES
from torch import nn

from gconv_ga.actions import ScalarField
from gconv_ga.averaging import GroupAverage
from gconv_ga.groups import as_group
from gconv_ga.models import EquivariantUNet
from gconv_ga.predict import Tiled, _tiles
from gconv_ga.predict._tiles import ScratchTensor, scratch, shares, starts

SIZES = {torch.float32: (700, 431), torch.float64: (210, 131)}
TILES = {torch.float32: 256, torch.float64: 76}


@st.composite
def axes(draw):
    size, tile = draw(st.integers(1, 300)), draw(st.integers(1, 64))
    return size, tile, draw(st.integers(0, tile // 2))


@given(axes())
def test_tiles_cover_the_axis_and_lie_the_same_from_both_ends(axis):
    size, tile, overlap = axis
    begins = starts(*axis)
    assert begins[0] == 0
    assert begins[-1] == max(size - tile, 0)
    assert all(0 < b - a <= tile - overlap for a, b in pairwise(begins))
    assert [max(size - tile, 0) - begin for begin in reversed(begins)] == begins


@given(axes())
def test_shares_sum_to_one_and_are_the_same_from_both_ends(axis):
    size = axis[0]
    total = torch.zeros(size, dtype=torch.float64)
    for begin, share in zip(starts(*axis), shares(*axis), strict=True):
        assert share.min() >= 0
        total[begin : begin + len(share)] += share
    assert (total - 1).abs().max() <= TOLERANCES[torch.float64]
    for share, mirrored in zip(shares(*axis), reversed(shares(*axis)), strict=True):
        assert (share - mirrored.flip(0)).abs().max() <= TOLERANCES[torch.float64]


def image(dtype, generator, size=None):
    return torch.randn(1, 1, *(size or SIZES[dtype]), dtype=dtype, generator=generator)


def errors(net, group, x):
    """The largest error of every element but the identity, over the largest value."""
    symmetry, move = as_group(group), ScalarField()
    with torch.no_grad():
        y = net(x)
        scale = y.abs().max()
        differences = [
            (net(move(x, symmetry, g)) - move(y, symmetry, g)).abs().max() / scale for g in range(1, symmetry.order)
        ]
    return torch.stack(differences)


def unet(group, dtype):
    return EquivariantUNet(1, 2, group=group, width=1, depth=3).eval().to(dtype)


def crooked(dtype):
    """A plain network of small reach: three pixels."""
    layers = [nn.Conv2d(1, 3, 5, padding=2), nn.Tanh(), nn.Conv2d(3, 2, 3, padding=1)]
    return nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_a_turned_image_gets_the_turned_prediction(group, dtype, generator, device):
    net = Tiled(unet(group, dtype).to(device), tile=TILES[dtype])
    assert errors(net, group, image(dtype, generator).to(device)).max() <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_the_average_of_a_plain_network_turns_too(group, dtype, generator):
    x = image(dtype, generator)
    net = Tiled(GroupAverage(crooked(dtype), group), tile=TILES[dtype])
    assert errors(net, group, x).max() <= TOLERANCES[dtype]
    assert errors(Tiled(net.module.module, tile=TILES[dtype]), group, x).max() > 0.1


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_inside_and_outside_are_the_same_average(group, generator):
    x, plain = image(torch.float64, generator, (130, 97)), crooked(torch.float64)
    with torch.no_grad():
        inside = Tiled(GroupAverage(plain, group), tile=48)(x)
        outside = GroupAverage(Tiled(plain, tile=48), group)(x)
    assert (inside - outside).abs().max() <= TOLERANCES[torch.float64] * inside.abs().max()


def test_tiles_that_lie_otherwise_from_the_far_end_are_seen(monkeypatch, generator):
    """As in other packages: each tile as far as it goes, the last one moved back."""

    def greedy(size, tile, overlap):
        return [*range(0, max(size - tile, 0), tile - overlap), max(size - tile, 0)]

    monkeypatch.setattr(_tiles, "starts", greedy)
    net = Tiled(unet("C4", torch.float64), tile=96)
    assert errors(net, "C4", image(torch.float64, generator, (210, 131))).max() > 1e-4


@pytest.mark.parametrize("size", [(150, 97), (20, 90), (31, 17)])
def test_a_network_of_small_reach_gives_what_it_gives_on_the_whole_image(size, generator):
    x, plain = image(torch.float64, generator, size), crooked(torch.float64)
    with torch.no_grad():
        y = Tiled(plain, tile=40, overlap=12)(x)  # 12 / 4 = 3 pixels of reach
        assert (y - plain(x)).abs().max() <= TOLERANCES[torch.float64]


def test_too_little_overlap_for_the_reach_is_seen(generator):
    x, plain = image(torch.float64, generator, (150, 97)), crooked(torch.float64)
    with torch.no_grad():
        assert (Tiled(plain, tile=40, overlap=4)(x) - plain(x)).abs().max() > 1e-3


@pytest.mark.parametrize("overlap", [0, 7, None])
@pytest.mark.parametrize("size", [(70, 43), (9, 200), (1, 1)])
def test_a_constant_network_gives_a_constant_map(size, overlap):
    y = Tiled(lambda x: torch.full_like(x, 3.25), tile=16, overlap=overlap)(torch.zeros(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert (y - 3.25).abs().max() <= TOLERANCES[torch.float32]


def test_bands_are_the_output_in_parts_of_bounded_height(generator):
    x, net = image(torch.float64, generator, (150, 97)), Tiled(crooked(torch.float64), tile=32)
    with torch.no_grad():
        bands = list(net.bands(x))
        assert torch.equal(torch.cat(bands, dim=-2), net(x))
    assert len(bands) > 3
    assert max(band.shape[-2] for band in bands) <= 32


class Parts:
    """The windows of one image."""

    def __init__(self, x):
        self.x, self.shape = x[0], x.shape[1:]

    def window(self, top, left, height, width):
        return self.x[:, top : top + height, left : left + width]


@pytest.mark.parametrize("overlap", [0, 5, 16])
@pytest.mark.parametrize("size", [(150, 97), (33, 190), (9, 12), (71, 71)])
def test_rows_of_tiles_on_disk_give_the_same(size, overlap, generator, monkeypatch):
    x, net = image(torch.float64, generator, size), Tiled(crooked(torch.float64), tile=32, overlap=overlap)
    used = []
    monkeypatch.setattr(_tiles, "LIMIT", 0)
    monkeypatch.setattr(_tiles, "scratch", lambda *what: used.append(scratch(*what)) or used[-1])
    monkeypatch.setattr(_tiles, "BAND", 1000)
    with torch.no_grad():
        bands = list(net.bands(Parts(x)))
        assert torch.equal(torch.cat(bands, dim=-2), net(x))
    assert max(band.numel() for band in bands) <= max(1000, bands[0].shape[1] * size[1])
    assert all(isinstance(room, ScratchTensor) for room in used)
    assert len(used) == len(starts(size[0], 32, overlap)) > 0


def test_gradients_pass_through_tiles_of_windows(generator, monkeypatch):
    monkeypatch.setattr(_tiles, "LIMIT", 0)
    x, net = image(torch.float64, generator, (50, 41)), crooked(torch.float64)
    weight = next(net.parameters())
    (found,) = torch.autograd.grad(sum(band.square().sum() for band in Tiled(net, 32).bands(Parts(x))), weight)
    (expected,) = torch.autograd.grad(Tiled(net, 32)(x).square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().max() > 0


def test_progress_counts_every_tile():
    seen = []
    calls = []
    net = Tiled(lambda x: calls.append(x.shape) or x, tile=16, progress=lambda *counts: seen.append(counts))
    net(torch.zeros(1, 1, 40, 30))
    assert seen == [(count + 1, len(calls)) for count in range(len(calls))]
    assert len(calls) == len(starts(40, 16, 4)) * len(starts(30, 16, 4))


def test_half_precision_is_summed_in_single_and_comes_back():
    y = Tiled(lambda x: x, tile=16)(torch.full((1, 1, 40, 30), 3.0, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert bool((y == 3).all())


def test_gradients_flow(generator):
    x, plain = image(torch.float64, generator, (50, 37)).requires_grad_(), crooked(torch.float64)
    (ours,) = torch.autograd.grad(Tiled(plain, tile=32, overlap=12)(x).square().sum(), x)
    (whole,) = torch.autograd.grad(plain(x).square().sum(), x)
    assert (ours - whole).abs().max() <= TOLERANCES[torch.float64] * whole.abs().max()


def test_repr():
    assert repr(Tiled(nn.ReLU(), tile=64)) == "Tiled(\n  tile=64, overlap=16\n  (module): ReLU()\n)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile": 0}, "tile must be a positive int"),
        ({"tile": 32.0}, "tile must be a positive int"),
        ({"tile": 32, "overlap": -1}, "overlap must be an int of at least 0"),
        ({"tile": 32, "overlap": 17}, "overlap must be at most 16, half of tile=32"),
    ],
)
def test_a_wrong_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tiled(nn.ReLU(), **arguments)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 0, 8)])
def test_a_wrong_input_is_refused(shape):
    with pytest.raises(ValueError, match=r"input must be a tensor \[B, C, H, W\]"):
        Tiled(nn.ReLU())(torch.zeros(shape))


def test_a_module_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match="the module's output must be a tensor"):
        Tiled(nn.MaxPool2d(2))(torch.zeros(1, 1, 8, 8))
