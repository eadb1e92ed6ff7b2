"""A network that sees an input and its rotated copies in one orientation: its output rotates to the last bit."""

import pytest
import torch
from torch import nn

from gconv_ga.actions import ScalarField, VectorField
from gconv_ga.groups import as_group
from gconv_ga.models import EquivariantUNet
from gconv_ga.predict._orientation import OneOrientation
from gconv_ga.predict._tiles import logit_bands

rotate = ScalarField()


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3, padding=1)


@pytest.mark.parametrize("shape", [(32, 32), (24, 37)])
@pytest.mark.parametrize("name", ["C2", "C4", "D4", "C8"])
@torch.no_grad()
def test_the_output_rotates_to_the_last_bit(name, shape, plain):
    group, x = as_group(name), torch.randn(1, 3, *shape)
    network = OneOrientation(plain, group)
    for g in filter(group.is_exact, range(group.order)):
        copy = rotate(x, group, g)
        assert torch.equal(network(copy), rotate(network(x), group, g))
        assert g == 0 or not torch.allclose(plain(copy), rotate(plain(x), group, g), atol=0.1)


@torch.no_grad()
def test_of_a_network_that_is_not_equivariant_under_reflections_they_are_kept(plain):
    x = torch.randn(1, 3, 16, 16)
    network = OneOrientation(plain, "C4")
    assert not torch.allclose(network(x.flip(-1)), network(x).flip(-1), atol=0.1)


@pytest.mark.parametrize("name", ["C4", "D4"])
@pytest.mark.parametrize("shape", [(32, 32), (24, 37)])
@torch.no_grad()
def test_vectors_rotate_as_vectors(name, shape):
    torch.manual_seed(0)
    group, x = as_group(name), torch.randn(1, 3, *shape)
    network = OneOrientation(nn.Conv2d(3, 5, 3, padding=1), group, vectors=2)
    symmetric = torch.stack([rotate(torch.randn(1, 3, 16, 16), group, g) for g in range(group.order)]).amax(dim=0)
    for image in (x, symmetric):
        out = network(image)
        for g in range(group.order):
            moved = network(rotate(image, group, g))
            assert torch.equal(moved[:, :3], rotate(out[:, :3], group, g))
            assert torch.equal(moved[:, 3:], VectorField()(out[:, 3:], group, g))
            assert g == 0 or not torch.allclose(moved[:, 3:], rotate(out[:, 3:], group, g), atol=0.1)


@torch.no_grad()
def test_an_input_that_is_symmetric_has_a_symmetric_output(plain):
    group = as_group("D4")
    x = torch.randn(1, 3, 16, 16)
    x = torch.stack([rotate(x, group, g) for g in range(group.order)]).amax(dim=0)
    out = OneOrientation(plain, group)(x)
    for g in range(1, group.order):
        assert torch.equal(rotate(out, group, g), out)
        assert not torch.allclose(rotate(plain(x), group, g), plain(x), atol=0.1), "the first of them alone"


@torch.no_grad()
def test_averages_of_tiles_rotate_too(plain):
    """Four tiles overlap in one place; added in another order, float32 would be rounded otherwise."""
    x = torch.randn(3, 60, 75)
    for network, is_exact in ((OneOrientation(plain, "C4"), True), (Rounded(plain), False)):
        upright, rotated = (
            torch.cat(list(logit_bands(network, each, tile=32, device="cpu")), dim=-2)
            for each in (x, x.rot90(1, (-2, -1)))
        )
        difference = (upright.rot90(1, (-2, -1)) - rotated).abs().amax()
        assert (difference < 1e-14) if is_exact else (1e-9 < difference < 1e-5)


class Rounded(nn.Module):
    """As `OneOrientation`, in float32."""

    def __init__(self, model):
        super().__init__()
        self.network = OneOrientation(model, "C4")

    def forward(self, x):
        return self.network(x).float()


@torch.no_grad()
def test_an_equivariant_network_is_left_as_it_is():
    net = EquivariantUNet(1, 2, group="C4", width=2, depth=2).eval()
    x = torch.randn(1, 1, 40, 32)
    out = OneOrientation(net, "C4")(x)
    assert torch.allclose(out, net(x).double(), atol=1e-5)
    copy = x.rot90(1, (-2, -1))
    assert torch.equal(OneOrientation(net, "C4")(copy), out.rot90(1, (-2, -1)))
