"""Each layer of escnn against its counterpart; run where the extra ``escnn`` is installed."""

import pytest
import torch
from escnn_networks import EXACT, PLANES, both, convolution, enn, fields, gspaces, random, relative, to_maps
from tolerances import TOLERANCES
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

import gconv_ga.nn as gnn
from gconv_ga import equivariance_error
from gconv_ga.interop import from_escnn
from gconv_ga.interop._layers import FieldBias

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
        ours[0].weight[0, 0] = ours[0].weight[0, 0].flip(0)
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
        ("tr", [gnn.LiftingConv2d, FieldBias]),
        ("rr", [gnn.GroupConv2d, FieldBias]),
        ("rt", [gnn.GroupConv2d, gnn.GroupPool]),
        ("tt", [gnn.LiftingConv2d, gnn.GroupPool]),
    ],
)
def test_what_convolutions_become(way, kinds):
    _, ours = pair("D4", way, torch.float32, kernel_size=3)
    assert [type(layer) for layer in (ours if isinstance(ours, nn.Sequential) else [ours])] == kinds


def test_the_weights_are_the_coefficients_of_escnn():
    theirs, ours = pair("C8", "rr", torch.float32, kernel_size=3)
    assert ours[0].weight.shape == (4, 2, 8, 6)
    assert torch.equal(ours[0].weight.flatten(), theirs.weights)
    assert torch.equal(ours[1].bias, theirs.bias)
    text = "GroupConv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), bias=False, group='C8', functions=6)"
    assert [repr(layer) for layer in ours] == [text, "FieldBias(4, scale=0.353553)"]
    assert list(ours.state_dict()) == ["0.weight", "1.bias"]


def test_layers_with_the_same_functions_share_one_table():
    space = PLANES["D4"]()
    image, maps, more = fields(space, "t", 1), fields(space, "r", 2), fields(space, "r", 3)
    # As escnn's users make them: with the tables that its layers share.
    layers = [enn.R2Conv(*types, 3, padding=1) for types in ((image, maps), (maps, maps), (maps, more))]
    ours = from_escnn(enn.SequentialModule(*layers))
    assert ours[1][0].filters is ours[2][0].filters
    assert ours[0][0].filters is not ours[1][0].filters


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


ON_IMAGES = {
    "convolution": lambda kind: convolution(kind, kind, 5, padding=2, stride=2),
    "convolution, 1 x 1": lambda kind: convolution(kind, kind, 1, stride=2),
    "max pool": lambda kind: enn.PointwiseMaxPool2D(kind, 3, 2, 1),
    "mean pool": lambda kind: enn.PointwiseAvgPool2D(kind, 3, 2, 1),
    "mean pool, antialiased": lambda kind: enn.PointwiseAvgPoolAntialiased2D(kind, sigma=0.66, stride=2),
}


@pytest.mark.parametrize("name", ["C4", "D4"])
@pytest.mark.parametrize("layer", ON_IMAGES)
def test_strides_on_images_warn_or_are_exact(layer, name):
    """A single grid is not equivariant where pixels are left over; the mean over the orientations' own grids is."""
    theirs = random(ON_IMAGES[layer](fields(PLANES[name](), "t", 2)), torch.float64)
    shared, own = from_escnn(theirs), from_escnn(theirs, sampling="per_orientation")
    good, bad = (torch.randn(1, 2, n, n, dtype=torch.float64) for n in (9, 10))
    for ours in (shared, own):
        assert relative(ours(good), theirs(theirs.in_type(good)).tensor) <= TOLERANCES[torch.float64]
        assert equivariance_error(ours, name, good).max() <= 1e-5
    with pytest.warns(UserWarning, match="sampling='shared' is not equivariant at H=10"):
        assert relative(shared(bad), theirs(theirs.in_type(bad)).tensor) <= TOLERANCES[torch.float64]
    assert equivariance_error(own, name, bad).max() <= 1e-5
    with pytest.warns(UserWarning, match="not equivariant"):
        assert equivariance_error(shared, name, bad).max() > 0.1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["C8", "D4, diagonal axis"])
def test_biases_are_trained_as_in_escnn(name, way):
    """The gradient is that of escnn's coefficient, not sqrt(|G|) times as large."""
    theirs, ours = pair(name, way, torch.float64, kernel_size=3)
    for y in both(theirs, ours, 6, 7):
        y.pow(3).mean().backward()
    (own,) = (parameter for key, parameter in ours.named_parameters() if key.endswith("bias"))
    assert relative(own.grad, theirs.bias.grad) <= TOLERANCES[torch.float64]
    assert float(theirs.bias.grad.abs().min()) > 1e-3


TRANSPOSED = {
    "4, stride 2": {"kernel_size": 4, "stride": 2, "padding": 1},
    "3, stride 2, output padding": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "3, two blocks, no bias": {"kernel_size": 3, "groups": 2, "bias": False},
    "3, dilated": {"kernel_size": 3, "dilation": 2},
}


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant with output_padding")
@pytest.mark.parametrize("way", [*WAYS, "mr", "rm"])
@pytest.mark.parametrize("name", ["C4", "C8", "D4, diagonal axis"])
@pytest.mark.parametrize("window", TRANSPOSED)
def test_transposed_convolutions_give_the_same(window, name, way):
    space = PLANES[name]()
    conv = enn.R2ConvTransposed(
        mixed(space, way[0]), mixed(space, way[1]), recompute=True, initialize=False, **TRANSPOSED[window]
    )
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.normal_()
    theirs = random(conv, torch.float64)
    assert relative(*both(theirs, from_escnn(theirs), 5, 6)) <= TOLERANCES[torch.float64]
    if way == "rr" and name != "C8":
        assert relative(*both(theirs, from_escnn(theirs, filters="grid"), 5, 6)) <= ROUNDING


def test_an_output_padding_warns_or_is_exact():
    maps = fields(PLANES["C4"](), "r", 2)
    theirs = enn.R2ConvTransposed(maps, maps, 3, stride=2, padding=1, output_padding=1, recompute=True).double()
    x = torch.randn(1, 2, 4, 5, 5, dtype=torch.float64)
    with pytest.warns(UserWarning, match="not equivariant with output_padding"):
        assert equivariance_error(from_escnn(theirs), "C4", x, in_action="regular", out_action="regular").max() > 0.1
    own = from_escnn(theirs, sampling="per_orientation")
    assert equivariance_error(own, "C4", x, in_action="regular", out_action="regular").max() <= 1e-5
    image = fields(PLANES["C4"](), "t", 2)
    theirs = enn.R2ConvTransposed(maps, image, 3, stride=2, padding=1, output_padding=1, recompute=True)
    with pytest.warns(UserWarning, match="not equivariant with output_padding"):
        from_escnn(theirs)(x.float())


def mixed(space, letter):
    """Fields of several kinds for "m", in an order that repeats with two blocks."""
    if letter != "m":
        return fields(space, letter, 4)
    vectors = space.irrep(1, 1) if space.fibergroup.name.startswith("D") else space.irrep(1)
    return enn.FieldType(space, 2 * [space.regular_repr, vectors, space.trivial_repr])


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
@pytest.mark.parametrize("way", ["mr", "rm", "mt", "tm", "mm"])
@pytest.mark.parametrize(("name", "window"), [("C4", w) for w in WINDOWS] + [("D4, diagonal axis", "3, two blocks")])
def test_convolutions_of_mixed_fields_give_the_same(name, window, way):
    space = PLANES[name]()
    theirs = random(convolution(mixed(space, way[0]), mixed(space, way[1]), **WINDOWS[window]), torch.float64)
    for mode in (True, False):
        ours = from_escnn(theirs.train(mode))
        assert relative(*both(theirs, ours, 10, 12)) <= TOLERANCES[torch.float64]


MIXED = {
    "norm": lambda kind: enn.InnerBatchNorm(kind),
    "norm, eval": lambda kind: enn.InnerBatchNorm(kind).eval(),
    "max pool": lambda kind: enn.PointwiseMaxPool2D(kind, 3, 2, 1),
    "mean pool": lambda kind: enn.PointwiseAvgPool2D(kind, 2),
    "blur": lambda kind: enn.PointwiseAvgPoolAntialiased2D(kind, sigma=0.66, stride=2),
    "reshuffle": lambda kind: enn.ReshuffleModule(kind, [3, 1, 2, 0]),
    "aligned": lambda kind: enn.R2Upsampling(kind, 2, align_corners=True),
    "up": lambda kind: enn.R2Upsampling(kind, 2),
    "to a size": lambda kind: enn.R2Upsampling(kind, size=(7, 9)),
}


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
@pytest.mark.parametrize("kind", ["quotient", "r", "t"])
@pytest.mark.parametrize("name", ["C4", "D4, diagonal axis"])
@pytest.mark.parametrize("layer", MIXED)
def test_layers_on_mixed_fields_give_the_same(layer, name, kind):
    space = PLANES[name]()
    half = space.quotient_repr((None, 2)) if name.startswith("D") else space.quotient_repr(2)
    quotients = enn.FieldType(space, [half, space.trivial_repr, space.regular_repr, half])
    theirs = random(MIXED[layer](quotients if kind == "quotient" else fields(space, kind, 4)), torch.float64)
    assert relative(*both(theirs, from_escnn(theirs), 6, 5)) <= TOLERANCES[torch.float64]


@pytest.mark.parametrize(
    ("name", "subgroup"), [("D4", (0, 2)), ("D4", (None, 4)), ("C8", 4), ("D4, diagonal axis", (0, 4))]
)
def test_restricted_fields_give_the_same(name, subgroup):
    space = PLANES[name]()
    vectors = space.irrep(1, 1) if name.startswith("D") else space.irrep(1)
    for kind in (fields(space, "r", 2), enn.FieldType(space, [space.regular_repr, vectors + vectors])):
        restrict = enn.RestrictionModule(kind, subgroup)
        disentangle = enn.DisentangleModule(restrict.out_type)
        conv = convolution(disentangle.out_type, fields(disentangle.out_type.gspace, "r", 2), 3)
        theirs = random(enn.SequentialModule(restrict, disentangle, conv), torch.float64)
        assert relative(*both(theirs, from_escnn(theirs), 5, 6)) <= TOLERANCES[torch.float64]


def vectors(name):
    """Scalars, vectors and feature maps, in an order with gaps; on a plane with an infinite group without maps."""
    if name == "SO(2)":
        space = gspaces.rot2dOnR2(-1, maximum_frequency=3)
        found = [space.irrep(1), space.trivial_repr, space.irrep(2), space.trivial_repr, space.irrep(1)]
    else:
        space = PLANES[name]()
        vector = space.irrep(1, 1) if name.startswith("D") else space.irrep(1)
        found = [space.trivial_repr, vector, space.regular_repr, space.trivial_repr, vector]
    return enn.FieldType(space, found)


def gates(kind, keep):
    """Gates before, between and after the fields that they multiply."""
    space = kind.gspace
    scalar, labels = space.trivial_repr, ["gate", "gated", "gated", "gate", "gate", "gated", "gated", "gate"]
    fields = [kind.representations[i] for i in (0, 4, 2, 1)]
    picked = [scalar if label == "gate" else fields.pop() for label in labels]
    return enn.GatedNonLinearity1(enn.FieldType(space, picked), labels, drop_gates=not keep)


ON_FIELDS = {
    "norm relu": lambda kind: enn.NormNonLinearity(kind),
    "norm sigmoid, no bias": lambda kind: enn.NormNonLinearity(kind, "n_sigmoid", bias=False),
    "norm softplus": lambda kind: enn.NormNonLinearity(kind, "n_softplus"),
    "squash": lambda kind: enn.NormNonLinearity(kind, "squash", bias=False),
    "irrep norm": lambda kind: enn.GNormBatchNorm(kind, momentum=0.3),
    "irrep norm, mean of all": lambda kind: enn.GNormBatchNorm(kind, momentum=None, affine=False),
    "scalar norm": lambda kind: enn.IIDBatchNorm2d(kind, eps=0.1),
    "scalar norm without statistics": lambda kind: enn.IIDBatchNorm2d(kind, track_running_stats=False, affine=False),
    "branches": lambda kind: enn.MultipleModule(
        kind, ["a", "b", "a", "b", "b"], [(enn.IdentityModule(kind.index_select([1, 3, 4])), "b"),
                                         (enn.IdentityModule(kind.index_select([0, 2])), "a")], reshuffle=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["C4", "D4, diagonal axis", "SO(2)"])
@pytest.mark.parametrize("layer", ON_FIELDS)
def test_layers_on_vectors_give_the_same_and_train_as_in_escnn(layer, name):
    kind = vectors(name)
    theirs = ON_FIELDS[layer](kind).double().train()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    ours = from_escnn(theirs)
    # MergeModule returns float32.
    tolerance = TOLERANCES[torch.float32 if layer == "branches" else torch.float64]
    for _ in range(2):
        x = torch.randn(3, kind.size, 5, 4, dtype=torch.float64)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        expected, got = theirs(kind(inputs[0])).tensor, ours(inputs[1])
        assert relative(got, expected) <= tolerance
        got.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        assert relative(inputs[1].grad, inputs[0].grad) <= tolerance
    own = [p.grad.flatten() for p in ours.parameters() if p.requires_grad]
    grads = [p.grad.flatten() for p in theirs.parameters() if p.requires_grad]
    if grads:
        assert relative(torch.cat(own).sort().values, torch.cat(grads).sort().values) <= tolerance
    ours, theirs = ours.eval(), theirs.eval()
    assert relative(ours(x), theirs(kind(x)).tensor) <= tolerance
    assert relative(from_escnn(theirs)(x), ours(x)) <= tolerance


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
@pytest.mark.parametrize("name", ["C4", "SO(2)"])
def test_gates_and_pools_of_vectors_give_the_same(name):
    """escnn computes these in float32."""
    kind = vectors(name)
    for theirs in (gates(kind, True), gates(kind, False), enn.NormMaxPool(kind, 3, 2, 1), enn.NormPool(kind)):
        x = torch.randn(2, theirs.in_type.size, 6, 7)
        assert relative(from_escnn(theirs)(x), theirs(theirs.in_type(x)).tensor) <= TOLERANCES[torch.float32]
    with pytest.raises(ValueError, match=r"^sampling must be 'shared' for module, which has a stride"):
        from_escnn(enn.NormMaxPool(kind, 2), sampling="per_orientation")


@pytest.mark.parametrize("function", ["p_relu", "p_elu", "p_sigmoid", "p_tanh"])
def test_functions_of_values_on_the_group_give_the_same(function):
    space = gspaces.rot2dOnR2(-1, maximum_frequency=2)
    irreps = space.fibergroup.bl_irreps(2)
    for inplace in (True, False):
        theirs = enn.FourierPointwise(space, 3, irreps, N=8, function=function, inplace=inplace).double()
        x = torch.randn(2, theirs.in_type.size, 4, 3, dtype=torch.float64)
        expected = theirs(theirs.in_type(x)).tensor
        assert relative(from_escnn(theirs)(x), expected) <= TOLERANCES[torch.float64]
    theirs = enn.FourierELU(space, 2, irreps, N=8, out_irreps=space.fibergroup.bl_irreps(1)).double()
    x = torch.randn(2, theirs.in_type.size, 4, 3, dtype=torch.float64)
    assert relative(from_escnn(theirs)(x), theirs(theirs.in_type(x)).tensor) <= TOLERANCES[torch.float64]


def test_pools_over_mixed_fields_give_the_same():
    space = PLANES["C4"]()
    kind = enn.FieldType(space, [space.regular_repr, space.quotient_repr(2), space.trivial_repr, space.regular_repr])
    theirs, x = enn.GroupPooling(kind), torch.randn(2, kind.size, 3, 4)
    assert torch.equal(from_escnn(theirs)(x), theirs(kind(x)).tensor)
    vectors = enn.FieldType(space, [space.irrep(1), space.trivial_repr, space.irrep(1)])
    theirs, x = enn.NormPool(vectors), torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(from_escnn(theirs)(x), theirs(vectors(x)).tensor)


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


def with_indices():
    """Every kind of layer that has indices of channels."""
    kind = vectors("D4, diagonal axis")
    restrict = enn.RestrictionModule(kind, (0, 2))
    yield from (make(kind) for make in ON_FIELDS.values())
    quotients = enn.FieldType(kind.gspace, [kind.gspace.quotient_repr((None, 2)), *kind.representations[2:4]])
    yield from (MIXED[layer](quotients) for layer in ("norm", "max pool"))
    yield from (gates(kind, True), enn.DisentangleModule(restrict.out_type), enn.NormPool(kind))
    # Another order of the elements than ours.
    regular = fields(PLANES["D4, diagonal axis"](), "r", 2)
    yield enn.SequentialModule(enn.ReLU(regular), enn.IIDBatchNorm2d(regular))


@pytest.mark.filterwarnings("ignore:sampling='shared' is not equivariant")
def test_the_average_of_equal_layers_is_the_layer():
    """With its buffers, as batch norm asks for: an average that rounds takes index 6 to 5."""
    for theirs in with_indices():
        ours = from_escnn(theirs.eval()).double()
        assert not [
            buffer for name, buffer in ours.named_buffers() if not (buffer.is_floating_point() or "num_" in name)
        ]
        averaged = AveragedModel(ours, use_buffers=True, avg_fn=get_ema_avg_fn(0.9))
        x = to_maps(torch.randn(2, theirs.in_type.size, 6, 5, dtype=torch.float64), theirs.in_type)
        for _ in range(4):
            averaged.update_parameters(ours)
        assert relative(averaged(x), ours(x)) <= TOLERANCES[torch.float64]
        # Nothing is left behind either.
        assert ours.to("meta")(x.to("meta")).shape == ours.to_empty(device="cpu")(x).shape
