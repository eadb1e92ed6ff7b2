"""`equivariance_error` against explicit loops, on networks equivariant by construction, and on broken ones."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from symmetric_nets import Lifting, SmallUNet, classifier, gradient, image, symmetric_net, symmetrise, turn
from tolerances import TOLERANCES
from torch import nn

from gconv_ga.actions import Boxes, Keypoints, ScalarField, VectorField
from gconv_ga.checks import equivariance_error
from gconv_ga.groups import C4, D4, as_group

EXACT = TOLERANCES[torch.float64]


def worst(*args, **options):
    return float(equivariance_error(*args, **options).max())


@pytest.mark.parametrize("size", [(8, 8), (7, 10)], ids=str)
@pytest.mark.parametrize("mirrors", [False, True])
def test_the_error_is_the_formula_written_out(mirrors, size):
    group = D4 if mirrors else C4
    net, x = nn.Conv2d(1, 2, 3, padding=1).double(), image(2, 1, *size)
    errors = equivariance_error(net, group, x)
    assert errors.shape == (group.order,)
    assert (errors.dtype, errors.device.type) == (torch.float64, "cpu")
    with torch.no_grad():
        for g in range(group.order):
            difference = net(turn(x, g, mirrors)) - turn(net(x), g, mirrors)
            assert float(errors[g]) == pytest.approx(float(difference.abs().max() / net(x).abs().max()), rel=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (6, 10)], ids=str)
@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D1", "D2", "D4"])
@pytest.mark.parametrize(
    ("make", "out_action"),
    [(symmetric_net, "scalar"), (lambda: symmetrise(SmallUNet()), "scalar"), (classifier, "invariant")],
    ids=["net", "unet", "classifier"],
)
def test_networks_equivariant_by_construction_have_none(make, out_action, name, size, device):
    net, x = make().double().to(device), image(2, 1, *size).to(device)
    errors = equivariance_error(net, name, x, out_action=out_action)
    assert bool((errors <= EXACT).all())
    assert errors.shape == (as_group(name).order,)


@pytest.mark.parametrize("size", [(6, 6), (5, 8)], ids=str)
def test_lifted_maps_are_regular_fields(size):
    net, x = Lifting().double(), image(2, 1, *size)
    assert worst(net, "C4", x, out_action="regular") <= EXACT
    # they are not scalar fields, whose elements stay where they are
    assert worst(net, "C2", x, out_action="scalar") > 0.1


@pytest.mark.parametrize("steps", [(0, -1, -2, -3), (0, 1, 2, 2), (0, 1, 3, 2), (1, 1, 2, 3)])
def test_lifting_with_kernels_in_the_wrong_order_is_broken(steps):
    """The wrong direction, one element off by one, two swapped."""
    assert worst(Lifting(steps).double(), "C4", image(1, 1, 6, 6), out_action="regular") > 0.1


@pytest.mark.parametrize("size", [(7, 7), (6, 9)], ids=str)
def test_gradients_are_vector_fields(size):
    x = image(2, 1, *size)
    assert worst(gradient, "D4", x, out_action="vector") <= EXACT
    assert worst(gradient, "D4", x, out_action="scalar") > 0.1
    assert worst(gradient, "D4", x, out_action=VectorField(order="yx")) > 0.1
    upside_down = lambda x: gradient(x) * torch.tensor([1.0, -1.0]).view(2, 1, 1)  # noqa: E731
    assert worst(upside_down, "C4", x, out_action="vector") > 0.1


def test_vectors_go_in():
    divergence = lambda v: torch.gradient(v[:, :1], dim=-1)[0] + torch.gradient(v[:, 1:], dim=-2)[0]  # noqa: E731
    assert worst(divergence, "D4", image(1, 2, 6, 7), in_action="vector") <= EXACT
    assert worst(divergence, "D4", image(1, 2, 6, 7), in_action="scalar") > 0.1


@pytest.mark.parametrize("name", ["C8", "D6"])
def test_points_are_exact_at_every_angle(name):
    x = image(2, 5, 3)
    pairwise = lambda x: x - x.mean(1, keepdim=True) * x.square().sum((1, 2), keepdim=True)  # noqa: E731
    assert worst(pairwise, name, x, in_action="points", out_action="points") <= 1e-13
    assert worst(lambda x: x.square(), name, x, in_action="points", out_action="points") > 0.1


class Spots(nn.Module):
    """Adds a spot to the image at each keypoint of ``[B, N, 2]``; returns a dict."""

    def forward(self, picture, points, *, shift=0.0):
        height, width = picture.shape[-2:]
        rows = torch.arange(height, dtype=points.dtype) - points[..., 1:]
        columns = torch.arange(width, dtype=points.dtype) - points[..., :1] + shift
        spots = torch.exp(-(rows.square().unsqueeze(-1) + columns.square().unsqueeze(-2)))
        drawn = picture + spots.sum(1, keepdim=True)
        boxes = torch.cat((points.amin(1) + 0.5, points.amax(1) + 0.5), -1)
        return {"drawn": drawn, "mean": (drawn.mean((1, 2, 3)), None), "points": points + 0, "box": boxes, "name": "a"}


@pytest.mark.parametrize("size", [(8, 8), (6, 9)], ids=str)
def test_several_inputs_and_outputs_each_with_its_action(size):
    x, points = image(2, 1, *size), torch.rand(2, 3, 2, dtype=torch.float64) * 5
    actions = {
        "drawn": "scalar",
        "mean": ["invariant", "invariant"],
        "points": Keypoints(size),
        "box": Boxes(size),
        "name": "invariant",
        "only in training": "scalar",
    }
    options = {"in_action": ("scalar", Keypoints(size)), "out_action": actions}
    assert worst(Spots(), "D4", x, points, **options) <= EXACT
    shifted = lambda x, points: Spots()(x, points, shift=1.0)  # noqa: E731
    assert worst(shifted, "D4", x, points, **options) > 0.1
    wrong_size = Keypoints((size[0] + 1, size[1]))
    assert worst(Spots(), "D4", x, points, in_action=("scalar", wrong_size), out_action=actions) > 0.1


def test_every_output_has_its_own_scale():
    """A large output does not hide a small broken one, in any order."""
    net = symmetric_net().double()
    for outputs in (lambda x: (net(x) * 1e9, x.roll(1, -1) * 1e-9), lambda x: [x.roll(1, -1) * 1e-9, net(x) * 1e9]):
        assert worst(outputs, "C4", image(1, 1, 6, 6)) > 0.1


class BrokenFor(nn.Module):
    """Equivariant except on one input, where one pixel is off."""

    def __init__(self, trap, by):
        super().__init__()
        self.net, self.trap, self.by = symmetric_net().double(), trap, by

    def forward(self, x):
        y = self.net(x)
        if x.shape == self.trap.shape and torch.equal(x, self.trap):
            y[0, 1, -1, 0] += self.by
        return y


@pytest.mark.parametrize("by", [1e-3, math.nan, math.inf])
@pytest.mark.parametrize("size", [(6, 6), (5, 7)], ids=str)
@pytest.mark.parametrize("g", range(1, 8))
def test_a_net_broken_for_one_element_in_one_pixel_is_found(g, size, by):
    x = image(1, 1, *size)
    errors = equivariance_error(BrokenFor(turn(x, g, mirrors=True), by), "D4", x)
    bad = [h for h in range(8) if not errors[h] <= EXACT]
    assert bad == [g]
    assert by == 1e-3 or not errors[g].isfinite()


def test_nan_is_handed_on():
    errors = equivariance_error(BrokenFor(image(1, 1, 6, 6), math.nan), "C4", image(1, 1, 6, 6))
    assert errors.isnan().all()
    x = image(1, 1, 6, 6)
    x[0, 0, 2, 3] = math.nan
    assert equivariance_error(symmetric_net().double(), "C4", x).isnan().all()


@pytest.mark.parametrize("position", range(3))
def test_nan_in_any_output_is_handed_on(position):
    """Also if a number comes after it: a comparison would drop it."""
    net = symmetric_net().double()

    def outputs(x):
        several = [net(x), net(x) + 1, net(x) * 2]
        if x.shape[-1] == 5:
            several[position] = several[position] * math.nan
        return several

    errors = equivariance_error(outputs, "C4", image(1, 1, 5, 6))
    assert errors.isnan().tolist() == [False, True, False, True]


def test_other_shapes_and_other_outputs_are_infinitely_far():
    uneven = nn.Conv2d(1, 2, 3, stride=(2, 1), padding=1).double()
    assert equivariance_error(uneven, "C4", image(1, 1, 7, 7))[1:].tolist() == [
        math.inf,
        pytest.approx(1, abs=2),
        math.inf,
    ]
    sometimes = lambda x: (x, x) if x.shape[-1] == 5 else (x,)  # noqa: E731
    assert equivariance_error(sometimes, "C4", image(1, 1, 5, 6)).tolist() == [0, math.inf, 0, math.inf]


def test_random_and_stateful_modules_differ_from_themselves():
    noisy = lambda x: F.dropout(x, 0.5, training=True)  # noqa: E731
    assert float(equivariance_error(noisy, "C4", image(1, 1, 6, 6))[0]) > 0.1

    class Counts(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x + self.calls

    assert float(equivariance_error(Counts(), "C4", image(1, 1, 6, 6))[0]) > 0.1


def test_dropout_is_off_even_in_a_net_that_trains():
    net = nn.Sequential(symmetric_net(), nn.Dropout(0.5)).double().train()
    assert worst(net, "D4", image(2, 1, 6, 7)) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_types_have_errors_of_their_size(dtype):
    errors = equivariance_error(symmetric_net().to(dtype), "D4", image(2, 1, 8, 8, dtype=dtype))
    assert float(errors.max()) <= TOLERANCES.get(dtype, 1e-2)
    broken = nn.Conv2d(1, 2, 3).to(dtype)
    assert worst(broken, "C4", image(2, 1, 8, 8, dtype=dtype)) > 0.1


def test_class_indices_are_compared_as_numbers():
    net = symmetric_net().double()
    labels = lambda x: net(x).argmax(1)  # noqa: E731
    x = image(2, 1, 8, 9)
    assert worst(labels, "D4", x, out_action="labels") == 0
    assert worst(lambda x: labels(x).roll(1, -1), "D4", x, out_action="labels") == 1
    assert worst(lambda x: labels(x).to(torch.uint8).bool().roll(1, -1), "D4", x, out_action="labels") == 1


def test_integer_inputs_are_moved_too():
    net = symmetric_net().double()
    codes = (image(2, 6, 7) * 50).to(torch.uint8)
    assert worst(lambda codes: net(codes.unsqueeze(1).double()), "D4", codes, in_action="labels") <= EXACT


def test_complex_numbers_are_compared():
    x = image(2, 1, 6, 6)
    assert worst(lambda x: torch.complex(x, x.square()), "D4", x) == 0
    assert worst(lambda x: torch.complex(x, x.square().roll(1, -1)), "D4", x) > 0.1


def test_what_is_no_tensor_is_handed_on():
    seen = []

    def module(x, flag, options):
        seen.append((flag, options["scale"]))
        return options["scale"] * x

    assert worst(module, "C4", image(1, 1, 4, 4), "flag", {"scale": 2.0}) == 0
    assert set(seen) == {("flag", 2.0)}


def test_the_group_may_be_given_by_name():
    net, x = nn.Conv2d(1, 1, 3).double(), image(1, 1, 6, 6)
    assert torch.equal(equivariance_error(net, "d4", x), equivariance_error(net, D4, x))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: equivariance_error(3, "C4", x), r"^module must be a module or another callable, but got module=3"),
        (lambda x: equivariance_error(nn.ReLU(), 4, x), r"^group must be a group or its name"),
        (lambda x: equivariance_error(nn.ReLU(), "C4"), r"^inputs must be tensors, or nests with at least one"),
        (lambda x: equivariance_error(nn.ReLU(), "C4", 3.0), r"^inputs must be tensors, or nests with at least one"),
        (
            lambda x: equivariance_error(nn.ReLU(), "C4", x, in_action="scaler"),
            r"^in_action must be one of .*'scalar'\?",
        ),
        (lambda x: equivariance_error(nn.ReLU(), "C4", x, out_action=3), r"^out_action must be an action or its name"),
        (
            lambda x: equivariance_error(nn.ReLU(), "C4", x, out_action=("scalar",)),
            r"^out_action must be one action, or",
        ),
        (
            lambda x: equivariance_error(nn.ReLU(), "C4", x, x, in_action=["scalar"]),
            r"^in_action must be one action, or",
        ),
        (
            lambda x: equivariance_error(lambda x: {"a": x, "b": x}, "C4", x, out_action={"a": "scalar"}),
            r"^out_action must be a mapping with the keys of output, \['a', 'b'\].*Give 'b' an action",
        ),
        (
            lambda x: equivariance_error(nn.ReLU(), "C4", x, in_action="vector"),
            r"^input does not fit its action Vector",
        ),
        (
            lambda x: equivariance_error(nn.ReLU(), "C4", x, out_action="regular"),
            r"^output does not fit its action Reg",
        ),
        (
            lambda x: equivariance_error(lambda x: (x, SimpleNamespace(y=x.roll(1, -1))), "C4", x),
            r"^output\[1\] must be a tensor, None, a number or a string",
        ),
        (lambda x: equivariance_error(nn.ReLU(), "C4", x, view=0), r"^view must be above 0 and at most 1"),
        (lambda x: equivariance_error(nn.ReLU(), "C4", x, view=1.5), r"^view must be above 0 and at most 1"),
        (lambda x: equivariance_error(nn.ReLU(), "C4", x, view=True), r"^view must be above 0 and at most 1"),
    ],
)
def test_bad_arguments_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(image(1, 1, 5, 5))


def test_an_action_of_ones_own_is_used():
    class Negated(ScalarField):
        """Moves the image and changes its sign with each rotation by 90 degrees."""

        def __call__(self, x, group, element):
            return super().__call__(x, group, element) * (-1) ** element

    assert worst(lambda x: x**3, "C4", image(1, 1, 6, 6), in_action=Negated(), out_action=Negated()) == 0
    assert worst(lambda x: x**2, "C4", image(1, 1, 6, 6), in_action=Negated(), out_action=Negated()) > 0.1
