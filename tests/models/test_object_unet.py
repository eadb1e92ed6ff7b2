"""The U-Net with heads for objects: its maps move as scalars and vectors, and its objects to the last pixel."""

import pytest
import torch

from gconv_ga.actions import ScalarField, VectorField
from gconv_ga.groups import as_group
from gconv_ga.models import ObjectUNet


def moved(maps, group, element):
    return torch.cat((ScalarField()(maps[:, :-2], group, element), VectorField()(maps[:, -2:], group, element)), dim=1)


def error(net, group, elements):
    """The largest difference over the spread of each kind of output."""
    x = torch.randn(1, 2, 21, 28, dtype=torch.float64)
    with torch.no_grad():
        net(torch.randn(2, 2, 16, 16, dtype=torch.float64))  # statistics that are not those of the start
        maps = net.eval().maps(x)
        return max(
            float((net.maps(ScalarField()(x, group, g)) - moved(maps, group, g)).abs().max() / maps[:, -2:].std())
            for g in elements
        )


@pytest.mark.parametrize("group", ["C4", "D4", "C8"])
def test_maps_move_with_the_image(group):
    torch.manual_seed(0)
    net = ObjectUNet(2, 3, group=group, width=2, depth=3, neck=16).double()
    symmetry = as_group(group)
    assert error(net, group, [g for g in range(symmetry.order) if symmetry.is_exact(g)]) < 1e-9


def test_a_plain_network_and_a_plain_head_are_seen():
    torch.manual_seed(0)
    assert error(ObjectUNet(2, 3, group=None, width=4, depth=2, neck=8).double(), "C4", [1]) > 0.1
    net = ObjectUNet(2, 3, group="C4", width=2, depth=2, neck=8).double()
    net.flow_head.matrices = net.flow_head.matrices[[0, 3, 2, 1]]
    assert error(net, "C4", [1]) > 0.1


@pytest.mark.parametrize("group", [None, "C4"])
def test_logits_are_the_first_maps(group):
    net = ObjectUNet(1, 2, group=group, width=2, depth=2, neck=8).eval()
    x = torch.randn(2, 1, 9, 14)
    with torch.no_grad():
        assert net.maps(x).shape == (2, 5, 9, 14)
        assert torch.equal(net(x), net.maps(x)[:, :2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neck": 0}, "neck must be a positive int"),
        ({"classes": 1}, "classes must be an int of at least 2"),
        ({"group": "E4"}, "group must be a group or its name"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ObjectUNet(**{"in_channels": 1, "classes": 2, "width": 1, "depth": 1, **arguments})
