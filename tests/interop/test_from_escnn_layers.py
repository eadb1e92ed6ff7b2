"""Each layer of escnn against its counterpart; run where the extra ``escnn`` is installed."""

import pytest
import torch
from escnn_networks import EXACT, PLANES, both, convolution, enn, fields, random, relative
from tolerances import TOLERANCES
from torch import nn

import gconv_ga.nn as gnn
from gconv_ga.interop import from_escnn

pytestmark = pytest.mark.escnn

WAYS = ["tr", "rr", "rt", "tt"]
ROUNDING = 1e-6  # escnn samples its functions in float32
WINDOWS = {
    "1": {"kernel_size": 1},
    "3": {"kernel_size": 3, "padding": 1},
    "4, valid": {"kernel_size": 4},
    "5, stride 2": {"kernel_size": 5, "padding": 2, "stride": 2},
    "4, stride 2": {"kernel_size": 4, "padding": 1, "stride": 2},
    "3, dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "3, two blocks": {"kernel_size": 3, "groups": 2},
    "3, reflect, no bias": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect", "bias": False},
    "3, another basis": {"kernel_size": 3, "rings": [0.0, 1.0], "sigma": [0.1, 0.4], "frequencies_cutoff": 3.0},
    "3, fewer functions": {"kernel_size": 3, "basis_filter": lambda function: function["radius"] > 0},
}

# All windows for three groups, some for the others.
CASES = [
    (name, window)
    for name in PLANES
    for window in (WINDOWS if name in ("C4", "C8", "D4, diagonal axis") else ("1", "5, stride 2", "3, dilated"))
]


def pair(name, way, dtype, **options):
    space = PLANES[name]()
    theirs = random(convolution(fields(space, way[0], 2), fields(space, way[1], 4), **options), dtype)
    return theirs, from_escnn(theirs, filters="escnn")


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "window"), CASES)
def test_convolutions_give_the_same(name, way, window):
    theirs, ours = pair(name, way, torch.float64, **WINDOWS[window])
    for size in ((11, 14), (13, 13)):
        assert relative(*both(theirs, ours, *size)) <= TOLERANCES[torch.float64]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["C4", "C8", "D4", "D6"])
def test_convolutions_give_the_same_in_float32(name, way):
    theirs, ours = pair(name, way, torch.float32, kernel_size=5, padding=2)
    assert relative(*both(theirs, ours, 12, 15)) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("name", ["C4", "C8", "D4"])
def test_elements_in_another_order_would_be_seen(name):
    """The order of some libraries: reflections before rotations, and rotations clockwise."""
    theirs, ours = pair(name, "tr", torch.float64, kernel_size=3)
    got, expected = both(theirs, ours, 12, 15)
    assert relative(got, expected) <= TOLERANCES[torch.float64]
    assert relative(got.flip(2), expected) > 0.1
    assert relative(got[:, :, [0, *range(got.shape[2] - 1, 0, -1)]], expected) > 0.1
    assert relative(got.flatten(1, 2).unflatten(1, (-1, got.shape[1])).transpose(1, 2), expected) > 0.1


def test_wrong_weights_would_be_seen():
    theirs, ours = pair("D4", "rr", torch.float64, kernel_size=3)
    with torch.no_grad():
        ours.weight[0, 0] = ours.weight[0, 0].flip(0)
    assert relative(*both(theirs, ours, 9, 9)) > 1e-3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EXACT)
def test_on_the_grid_convolutions_give_the_same_up_to_rounding(name, way):
    space = PLANES[name]()
    conv = convolution(fields(space, way[0], 2), fields(space, way[1], 4), 5, padding=2, groups=2)
    theirs = random(conv, torch.float64)
    ours = from_escnn(theirs, filters="grid")
    assert relative(*both(theirs, ours, 12, 15)) <= ROUNDING
    weights = [parameter for key, parameter in ours.named_parameters() if key.endswith("weight")]
    assert [tuple(weight.shape[-2:]) for weight in weights] == [(5, 5)]


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        ("tr", [gnn.LiftingConv2d]),
        ("rr", [gnn.GroupConv2d]),
        ("rt", [gnn.GroupConv2d, gnn.GroupPool]),
        ("tt", [gnn.LiftingConv2d, gnn.GroupPool]),
    ],
)
def test_what_convolutions_become(way, kinds):
    _, ours = pair("D4", way, torch.float32, kernel_size=3)
    assert [type(layer) for layer in (ours if isinstance(ours, nn.Sequential) else [ours])] == kinds


def test_the_weights_are_the_coefficients_of_escnn():
    theirs, ours = pair("C8", "rr", torch.float32, kernel_size=3)
    assert ours.weight.shape == (4, 2, 8, 6)
    assert torch.equal(ours.weight.flatten(), theirs.weights)
    assert repr(ours) == "GroupConv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), group='C8', functions=6)"
    assert list(ours.state_dict()) == ["weight", "bias"]


def test_layers_with_the_same_functions_share_one_table():
    space = PLANES["D4"]()
    image, maps, more = fields(space, "t", 1), fields(space, "r", 2), fields(space, "r", 3)
    # As escnn's users make them: with the tables that its layers share.
    layers = [enn.R2Conv(*types, 3, padding=1) for types in ((image, maps), (maps, maps), (maps, more))]
    ours = from_escnn(enn.SequentialModule(*layers))
    assert ours[1].filters is ours[2].filters
    assert ours[0].filters is not ours[1].filters


POINTWISE = {
    "ReLU": lambda kind: enn.ReLU(kind),
    "ELU": lambda kind: enn.ELU(kind, alpha=0.3),
    "LeakyReLU": lambda kind: enn.LeakyReLU(kind, negative_slope=0.3),
    "p_relu": lambda kind: enn.PointwiseNonLinearity(kind, "p_relu"),
    "p_elu": lambda kind: enn.PointwiseNonLinearity(kind, "p_elu"),
    "p_sigmoid": lambda kind: enn.PointwiseNonLinearity(kind, "p_sigmoid"),
    "p_tanh": lambda kind: enn.PointwiseNonLinearity(kind, "p_tanh"),
    "dropout": lambda kind: enn.PointwiseDropout(kind, 0.7).eval(),
    "identity": lambda kind: enn.IdentityModule(kind),
    "norm": lambda kind: enn.InnerBatchNorm(kind, eps=0.1).eval(),
    "norm, not affine": lambda kind: enn.InnerBatchNorm(kind, affine=False),
    "norm without statistics": lambda kind: enn.InnerBatchNorm(kind, track_running_stats=False).eval(),
    "max pool": lambda kind: enn.PointwiseMaxPool2D(kind, 3, 2, 1),
    "max pool, ceil": lambda kind: enn.PointwiseMaxPool2D(kind, 2, 3, ceil_mode=True),
    "max pool, dilated": lambda kind: enn.PointwiseMaxPool2D(kind, 3, 1, 0, 2),
    "mean pool": lambda kind: enn.PointwiseAvgPool2D(kind, 3, 2, 1),
    "mean pool, ceil": lambda kind: enn.PointwiseAvgPool2D(kind, 2, ceil_mode=True),
    "max pool, antialiased": lambda kind: enn.PointwiseMaxPoolAntialiased2D(kind, 3, 2, 1, sigma=0.6),
    "mean pool, antialiased": lambda kind: enn.PointwiseAvgPoolAntialiased2D(kind, sigma=0.66, stride=2),
    "adaptive max": lambda kind: enn.PointwiseAdaptiveMaxPool2D(kind, (3, 2)),
    "adaptive mean": lambda kind: enn.PointwiseAdaptiveAvgPool2D(kind, 1),
    "bilinear": lambda kind: enn.R2Upsampling(kind, scale_factor=2),
    "nearest": lambda kind: enn.R2Upsampling(kind, scale_factor=3, mode="nearest"),
    "mask": lambda kind: enn.MaskModule(kind, 13, margin=1),
}


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
@pytest.mark.parametrize("letter", ["t", "r"])
@pytest.mark.parametrize("name", ["C4", "D4, diagonal axis"])
@pytest.mark.parametrize("layer", POINTWISE)
def test_other_layers_give_the_same(layer, name, letter):
    theirs = random(POINTWISE[layer](fields(PLANES[name](), letter, 3)), torch.float64)
    ours = from_escnn(theirs)
    assert ours.training == theirs.training
    # Of float32 tables, such as the blur's, both have the same digits.
    assert relative(*both(theirs, ours, 13, 13)) <= TOLERANCES[torch.float64]


@pytest.mark.parametrize("letter", ["t", "r"])
def test_pooling_over_the_group_gives_the_same(letter):
    theirs = enn.GroupPooling(fields(PLANES["D4"](), letter, 3))
    assert relative(*both(theirs, from_escnn(theirs), 7, 8)) <= TOLERANCES[torch.float32]


def test_the_other_pool_over_the_group_would_be_seen():
    theirs = enn.GroupPooling(fields(PLANES["D4"](), "r", 3))
    assert relative(*both(theirs, gnn.GroupPool("D4", "mean"), 7, 8)) > 0.1


@pytest.mark.parametrize("letter", ["t", "r"])
def test_norms_go_on_counting_in_training(letter):
    theirs = random(enn.InnerBatchNorm(fields(PLANES["C8"](), letter, 3), momentum=0.3), torch.float64).train()
    ours = from_escnn(theirs)
    for _ in range(3):
        assert relative(*both(theirs, ours, 6, 7)) <= TOLERANCES[torch.float64]
    (inner,) = (part for part in theirs.modules() if isinstance(part, nn.BatchNorm3d))
    for name, value in inner.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=TOLERANCES[torch.float64])


def test_dropout_is_that_of_single_pixels_in_training():
    theirs = enn.PointwiseDropout(fields(PLANES["C4"](), "r", 3), 0.4).train()
    ours = from_escnn(theirs)
    assert (type(ours), ours.p, ours.training) == (nn.Dropout, 0.4, True)
