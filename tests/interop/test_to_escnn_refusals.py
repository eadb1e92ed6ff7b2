"""Modules without a counterpart in escnn, and options that are needed; run where the extra ``escnn`` is installed."""

import pytest
import torch
from escnn_networks import PLANES, convolution, fields, random, relative, theirs_on
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.interop import from_escnn, to_escnn

pytestmark = pytest.mark.escnn


class Own(nn.Module):
    def forward(self, input):
        return input


LIFT = gnn.LiftingConv2d(1, 2, 3, group="C4")
REFUSED = {
    "a layer of one's own": (
        nn.Sequential(LIFT, nn.Sequential(Own())),
        r"^module\.1\.0 must be a module that to_escnn converts.*'Own'",
    ),
    "dropout of maps": (
        nn.Sequential(LIFT, gnn.Dropout2d()),
        r"^module\.1 must be a module.*'Dropout2d'. Replace it with nn\.Dropout",
    ),
    "transposed": (
        nn.Sequential(LIFT, gnn.GroupConvTranspose2d(2, 2, 2, group="C4")),
        r"^module\.1 must be a module.*Upsample and GroupConv2d",
    ),
    "pool to a subgroup": (
        nn.Sequential(LIFT, gnn.GroupPool("C4", to="C2")),
        r"^module\.1 must be a pool over the whole",
    ),
    "bicubic": (nn.Sequential(LIFT, gnn.Upsample(2, "bicubic", group="C4")), r"^module\.1 must be 'nearest'"),
    "uncounted padding": (
        nn.Sequential(LIFT, gnn.AvgPool2d(3, 1, 1, count_include_pad=False, group="C4")),
        r"^module\.1 must be a pool that includes its padding",
    ),
    "a line": (gnn.LiftingConv2d(1, 2, (1, 3), group="C2"), r"^module must be a convolution with a square kernel"),
    "padded unevenly": (gnn.LiftingConv2d(1, 2, 4, padding="same", group="C4"), r"^module must be padded equally"),
    "channels that do not fit": (
        nn.Sequential(LIFT, gnn.BatchNorm2d(3)),
        r"^module\.1 must be a layer that takes maps of 2",
    ),
    "an image where a map comes": (
        nn.Sequential(LIFT, nn.Conv2d(2, 1, 1)),
        r"^module\.1 must be a layer that takes maps",
    ),
    "a map where an image comes": (
        nn.Sequential(LIFT, gnn.GroupPool("C4"), gnn.GroupPool("C4")),
        r"^module\.2 must be a layer that takes images",
    ),
    "elements pooled": (nn.Sequential(LIFT, nn.AdaptiveAvgPool3d(1)), r"^module\.1 must be a pool that keeps"),
    "two groups": (
        nn.Sequential(LIFT, gnn.GroupPool("C4"), gnn.LiftingConv2d(2, 1, 1, group="D2")),
        "^module must be a.*C4, D2",
    ),
    "nothing to count": (nn.ReLU(), "^module must be a network with a convolution or a norm"),
    "kernels that do not turn": (
        nn.Sequential(LIFT, gnn.GroupPool("C4"), nn.Conv2d(2, 1, 3)),
        r"^max_error must be at least .* for module\.2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused(case):
    module, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        to_escnn(module)


def test_another_group_than_that_of_the_layers_is_refused():
    with pytest.raises(ValueError, match=r"^module\.0 must be of the group C8"):
        to_escnn(nn.Sequential(LIFT), group="C8")


def test_a_group_is_told_where_no_layer_has_one():
    plain = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    assert to_escnn(plain).in_type.gspace == PLANES["C1"]()
    theirs = to_escnn(plain, group="D4")
    assert theirs.in_type.gspace == PLANES["D4"]()
    symmetric = from_escnn(
        random(convolution(fields(PLANES["C8"](), "t", 2), fields(PLANES["C8"](), "t", 3), 5), torch.float64)
    )
    x = torch.randn(1, 2, 7, 8, dtype=torch.float64)
    assert (
        relative(theirs_on(to_escnn(symmetric, group="C8", functions="default"), x), symmetric(x))
        <= TOLERANCES[torch.float64]
    )


@pytest.mark.parametrize(
    "layer",
    [
        gnn.LiftingConv2d(1, 2, 3, 2, 1, group="C4"),
        nn.Sequential(LIFT, gnn.MaxPool2d(2, group="C4")),
        nn.Sequential(LIFT, gnn.AvgPool2d(2, group="C4")),
    ],
    ids=["convolution", "max pool", "mean pool"],
)
def test_strides_of_every_orientation_for_itself_are_refused_or_shared(layer):
    with pytest.raises(ValueError, match=r"^sampling must be 'shared' for module.*sampling='shared' uses it"):
        to_escnn(layer)
    theirs = to_escnn(layer, sampling="shared")
    good = torch.randn(1, 1, 17, 17) if isinstance(layer, gnn.LiftingConv2d) else torch.randn(1, 1, 18, 18)
    assert relative(theirs_on(theirs, good), layer(good).flatten(1, 2)) <= TOLERANCES[torch.float32]
    bad = good[..., :-1, :-1]
    assert relative(theirs_on(theirs, bad), layer(bad).flatten(1, 2)) > 0.1
