"""Objects of rotated and reflected images are the rotated and reflected objects, end to end, to the last pixel."""

import math

import pytest
import torch
from torch import nn

from gconv_ga.actions import ScalarField
from gconv_ga.averaging import GroupAverage
from gconv_ga.groups import as_group
from gconv_ga.images import load_sample
from gconv_ga.models import EquivariantUNet, ObjectUNet, UNet
from gconv_ga.objects import Decoder, changed_objects, object_table
from gconv_ga.predict import ObjectFiles, predict_image, predict_objects

IMAGE = load_sample("nuclei").test.images[0][:, :70, :93]
ELEMENTS = {"C4": (1, 2, 3), "D4": (1, 4, 7)}  # all rotations; a rotation and both kinds of reflections


def balanced(net):
    """The network in eval mode, with a bias that calls a third of the pixels nuclei, so that there are objects."""
    net.eval()
    with torch.no_grad():
        logits = net(IMAGE[None])[0]
        net.segmentation_head.bias[1] -= (logits[1] - logits[0]).quantile(0.66)
    return net


def make(name):
    torch.manual_seed(0)
    if name == "UNet":
        return balanced(UNet(1, 2, width=3, depth=3))
    if name == "average":
        return GroupAverage(balanced(UNet(1, 2, width=2, depth=2)), "D4").eval()
    return balanced(EquivariantUNet(1, 2, group=name, width=2, depth=3))


def changes(net, group, **options):
    """The largest change over elements of the group; tables of unchanged objects are compared too."""
    first = predict_objects(net, IMAGE, **options)
    assert len(first.objects.classes) > 5
    found = []
    for element in ELEMENTS[group]:
        moved = predict_objects(net, ScalarField()(IMAGE, group, element), **options)
        found.append(changed_objects(first.objects.labels, moved.objects.labels, group, element))
        tables = [object_table(each.objects, probability=each.probability) for each in (first, moved)]
        if found[-1].pixels == 0:
            names = ("area", "major_axis", "minor_axis", "mean_probability")
            invariants = [sorted(zip(*(table[name] for name in names), strict=True)) for table in tables]
            for before, after in zip(*invariants, strict=True):
                assert after == pytest.approx(before, rel=1e-5)
    return max(found)


@pytest.mark.parametrize("tile", [256, 40])
@pytest.mark.parametrize(("name", "group"), [("C4", "C4"), ("D4", "D4"), ("average", "D4")])
def test_objects_rotate_with_the_image(name, group, tile):
    assert changes(make(name), group, tile=tile) == (0, 0, 0)


def test_a_plain_network_is_seen():
    assert changes(make("UNet"), "C4").pixels > 0.01


class Sum(nn.Module):
    """Logits 0 and the sum of 3 x 3 pixels less 1.5, added in the order of the pixels."""

    def forward(self, x):
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        total = torch.zeros_like(x)
        for row in range(3):
            for column in range(3):
                total = total + padded[..., row : row + x.shape[2], column : column + x.shape[3]]
        return torch.cat((torch.zeros_like(x), total - 1.5), dim=1)


def test_rounding_decides_no_class():
    """In float32, 2^24 + 1 + 1 + 1 - 2^24 is 0 in this order and 3 in the reverse."""
    image = torch.zeros(1, 5, 5)
    image[0, 1:4, 1:4] = torch.tensor([[2.0**24, 1, 1], [1, 0, 0], [0, 0, -(2.0**24)]])
    reverse = image.rot90(2, (-2, -1))
    plain, rotated = (predict_image(Sum(), each).labels for each in (image, reverse))
    assert plain[2, 2] != rotated[2, 2]
    exact, rotated = (
        predict_objects(Sum(), each, decoder=Decoder("components", smallest=1)) for each in (image, reverse)
    )
    assert exact.labels[2, 2] == rotated.labels[2, 2] == 1
    assert torch.equal(exact.labels.rot90(2), rotated.labels)
    assert torch.equal(exact.objects.labels > 0, exact.labels > 0)


def test_what_is_sure_is_not_computed_again():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(x.dtype)
            return torch.cat((x, 1 - x), dim=1).to(x.dtype)

    net = Counted()
    image = torch.rand(1, 9, 9).round()
    found = predict_objects(net, image)
    assert calls == [torch.float32]
    assert torch.equal(found.labels, (image[0] == 0).long())
    assert found.probability.unique().tolist() == pytest.approx([1 / (1 + math.exp(-1))])
    image[0, 0, 0] = 0.5
    predict_objects(net, image)
    assert calls == [torch.float32, torch.float32, torch.float64]


@pytest.mark.parametrize(
    ("group", "dtypes"),
    [(as_group("C4"), [torch.float32]), (None, [torch.float32, torch.float64]), ("a", [torch.float32, torch.float64])],
)
def test_a_network_that_names_its_group_computes_once(group, dtypes):
    """Where two classes are as good as equal, too; any other attribute of that name says nothing."""
    calls = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.group = group

        def forward(self, x):
            calls.append(x.dtype)
            return torch.cat((x, 1 - x), dim=1)

    predict_objects(Counted(), torch.full((1, 9, 9), 0.5))
    assert calls == dtypes


def test_the_network_keeps_its_dtype_and_its_modes():
    net = make("C4")
    net.encoder.train()
    predict_objects(net, torch.zeros(1, 20, 20))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert net.encoder.training
    assert not net.training


@pytest.mark.parametrize("size", [0.0, -1.0, math.inf, math.nan])
def test_a_pixel_without_size_is_refused(size):
    with pytest.raises(ValueError, match="pixel_size must be a positive number"):
        ObjectFiles(pixel_size=size)


@pytest.mark.parametrize("method", ["distance", "flow"])
@pytest.mark.parametrize("tile", [256, 40])
def test_objects_of_predicted_maps_rotate_with_the_image(method, tile):
    torch.manual_seed(1)
    net = balanced(ObjectUNet(1, 2, group="C4", width=2, depth=2, neck=16))
    with torch.no_grad():
        net.flow_head.weight *= 5
        net.distance_head.weight *= 5
        net.distance_head.bias += 1
    assert changes(net, "C4", tile=tile, decoder=Decoder(method, smallest=4, rise=0.02)) == (0, 0, 0)


def test_rules_that_need_maps_are_refused_for_networks_without():
    with pytest.raises(ValueError, match=r"decoder must be one of the methods 'watershed' and 'components'.*'flow'"):
        predict_objects(make("C4"), IMAGE, decoder=Decoder("flow"))
