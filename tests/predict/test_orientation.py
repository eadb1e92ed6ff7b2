"""A network that sees an input and its rotated copies in one orientation: its output rotates to the last bit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gconv_ga.actions import ScalarField, VectorField
from gconv_ga.groups import as_group
from gconv_ga.models import EquivariantUNet, ObjectUNet
from gconv_ga.objects import Decoder, decode
from gconv_ga.predict import predict_image, predict_maps, predict_objects
from gconv_ga.predict._orientation import OneOrientation
from gconv_ga.predict._tiles import logit_bands

rotate = ScalarField()


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return nn.Conv2d(3, 2, 3, padding=1)


@pytest.mark.parametrize("shape", [(32, 32), (24, 37), (1, 37), (1, 1)])
@pytest.mark.parametrize("name", ["C2", "C4", "D4", "C8"])
@torch.no_grad()
def test_the_output_rotates_to_the_last_bit(name, shape, plain):
    """Also of a row of pixels that is cut out of a larger image, whose axes of length 1 have the strides of that."""
    group, x = as_group(name), torch.randn(1, 3, 40, 40)[..., : shape[0], : shape[1]]
    network = OneOrientation(plain, group)
    for g in filter(group.is_exact, range(group.order)):
        copy = rotate(x, group, g)
        assert torch.equal(network(copy), rotate(network(x), group, g))
        assert g == 0 or shape[0] == 1 or not torch.allclose(plain(copy), rotate(plain(x), group, g), atol=0.1)


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


@pytest.mark.parametrize("name", ["C4", "D4"])
@pytest.mark.parametrize("shape", [(24, 32), (21, 32), (23, 37)])
@torch.no_grad()
def test_sides_are_extended_to_multiples_of_the_stride(name, shape):
    torch.manual_seed(0)
    halving = nn.Sequential(nn.Conv2d(1, 2, 3, stride=4, padding=1), nn.Upsample(scale_factor=4))
    group, x = as_group(name), torch.randn(1, 1, *shape)
    network = OneOrientation(halving, group, stride=4)
    out = network(x)
    for g in range(group.order):
        assert torch.equal(network(rotate(x, group, g)), rotate(out, group, g))
    candidates = []
    for g in range(group.order):
        copy = rotate(x, group, g)
        height, width = copy.shape[-2:]
        taller = torch.cat((copy, *[copy[..., -1:, :]] * (-height % 4)), dim=-2)
        wider = torch.cat((taller, *[taller[..., :, -1:]] * (-width % 4)), dim=-1)
        candidates.append(rotate(halving(wider)[..., :height, :width], group, group.inverse(g)).double())
    assert sum(torch.equal(out, each) for each in candidates) == 1, "one of the orientations, and its grid alone"
    if shape[0] % 4 or shape[1] % 4:
        assert OneOrientation(halving, group)(x).shape[-2:] == (24, -(-shape[1] // 4) * 4), "it alone changes the size"


@torch.no_grad()
def test_networks_that_name_their_group_are_predicted_in_one_orientation():
    """At 21 x 30 px a network of stride 4 has another grid for each orientation, unless the sides are extended."""
    torch.manual_seed(0)
    net = EquivariantUNet(1, 3, group="C4", width=2, depth=3).eval()
    assert net.encoder(torch.zeros(1, 1, 24, 32))[-1].shape[-2:] == (24 // net.stride, 32 // net.stride)
    image = torch.randn(1, 21, 30)
    found = predict_image(net, image, probabilities=True)
    moved = predict_image(net, image.rot90(1, (-2, -1)), probabilities=True)
    assert torch.equal(moved.labels, found.labels.rot90(1))
    assert torch.allclose(moved.probabilities, found.probabilities.rot90(1, (-2, -1)), atol=1e-7)
    extended = [
        net(F.pad(copy[None], (0, -copy.shape[-1] % 4, 0, -copy.shape[-2] % 4), mode="replicate"))[
            0, :, : copy.shape[-2], : copy.shape[-1]
        ]
        .softmax(dim=0)
        .rot90(-turns, (-2, -1))
        for turns in range(4)
        for copy in [image.rot90(turns, (-2, -1))]
    ]
    assert sum(torch.allclose(found.probabilities, each, atol=1e-6) for each in extended) == 1
    assert not torch.allclose(found.probabilities, net(image[None])[0].softmax(dim=0), atol=1e-4)
    plain = nn.Conv2d(1, 3, 3, padding=1)
    shares = predict_image(plain, image, probabilities=True).probabilities
    assert torch.allclose(shares, plain(image[None])[0].softmax(dim=0), atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_types_have_an_orientation_too(dtype):
    torch.manual_seed(0)
    net = EquivariantUNet(1, 2, group="C4", width=2, depth=2).eval().to(dtype)
    image = torch.randn(1, 21, 30).to(dtype)
    assert torch.equal(predict_image(net, image.rot90(1, (-2, -1))).labels, predict_image(net, image).labels.rot90(1))


@torch.no_grad()
def test_the_maps_are_those_that_objects_are_decoded_from():
    torch.manual_seed(0)
    net, image = ObjectUNet(1, 2, group="C4", width=2, depth=3).eval(), torch.randn(1, 21, 30)
    maps = predict_maps(net, image)
    found = predict_objects(net, image, decoder=Decoder("flow"))
    assert torch.equal(found.labels, maps[:2].argmax(dim=0))
    assert torch.equal(found.objects.labels, decode(maps[:2].argmax(dim=0), Decoder("flow"), maps[2:]).labels)
    rotated = predict_maps(net, image.rot90(1, (-2, -1)))
    assert torch.equal(rotated[:3], maps[:3].rot90(1, (-2, -1)))
    assert torch.equal(rotated[3:], VectorField()(maps[None, 3:], as_group("C4"), 1)[0])
    plain = ObjectUNet(1, 2, group=None, width=4, depth=2).eval()
    assert torch.allclose(predict_maps(plain, image), plain.maps(image[None])[0], atol=1e-6)
