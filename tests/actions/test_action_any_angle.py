"""Angles off the grid: interpolation against images whose rotated versions are known in closed form."""

import math

import pytest
import torch

from gconv_ga.actions import Boxes, Keypoints, LabelMask, Points, RegularField, ScalarField, VectorField
from gconv_ga.groups import C8, C12, D8, as_group

SIZE = 65
OFF_GRID = [("C8", 1), ("C8", 3), ("C12", 1), ("C12", 4), ("C16", 5), ("D8", 1), ("D8", 9), ("D6", 7)]
# For this image, measured at all eight: bilinear .0027 to .0028, bicubic .0052 to .0055 (torch's cubic kernel, with
# a = -.75, is sharper than the one with a = -.5, and further from smooth images than straight lines are).
BOUNDS = {"bilinear": 0.004, "bicubic": 0.008}


def positions(size=SIZE):
    """Pixel centres about the centre of the image, x right and y up, in units of half a side: each ``[H, W]``."""
    line = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / (size / 2)
    return line.expand(size, size), -line.unsqueeze(1).expand(size, size)


def smooth(x, y):
    """Three bumps without symmetry and without structure below about a tenth of the image."""
    bumps = ((0.3, 0.2, 1.0, 0.30), (-0.4, 0.1, -0.7, 0.25), (0.1, -0.5, 0.6, 0.35))
    return sum(a * torch.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * s**2)) for u, v, a, s in bumps)


def truth(group, g, function=smooth):
    """``f(g^-1 y)`` in closed form."""
    x, y = positions()
    matrix = group.matrices[g].T  # orthogonal: its transpose is the inverse
    return function(matrix[0, 0] * x + matrix[0, 1] * y, matrix[1, 0] * x + matrix[1, 1] * y)


def disc(size=SIZE):
    """The pixels that stay in view at every angle."""
    x, y = positions(size)
    return x**2 + y**2 <= ((size - 3) / size) ** 2


def error(a, b):
    """The largest difference inside the disc, relative to the largest value there."""
    inside = disc()
    return float((a - b)[..., inside].abs().max() / b[..., inside].abs().max())


@pytest.mark.parametrize("interpolation", BOUNDS)
@pytest.mark.parametrize(("name", "g"), OFF_GRID)
def test_a_turned_image_is_close_to_the_truth(name, g, interpolation, device):
    group = as_group(name)
    moved = ScalarField(interpolation)(smooth(*positions()).to(device), group, g).cpu()
    assert error(moved, truth(group, g)) <= BOUNDS[interpolation]
    other_way = g - g % group.n + -g % group.n  # the same reflection, rotated the other way
    assert error(moved, truth(group, other_way)) > 0.5


@pytest.mark.parametrize(("name", "g"), OFF_GRID)
def test_there_and_back_and_the_law_are_close(name, g):
    group, act = as_group(name), ScalarField()
    image = smooth(*positions())
    assert error(act(act(image, group, g), group, group.inverse(g)), image) <= 2 * BOUNDS["bilinear"]
    for h in range(group.order):
        both = act(act(image, group, h), group, g)
        assert error(both, truth(group, group.product(g, h))) <= 2 * BOUNDS["bilinear"]


def test_the_error_of_bilinear_reading_falls_with_the_square_of_the_pixel():
    """Half the pixel size, a quarter of the error: so the rest is interpolation, not a shifted centre."""

    def error_at(size):
        x, y = positions(size)
        middle = math.sqrt(0.5)
        moved = ScalarField()(smooth(x, y), C8, 1)
        exact = smooth(middle * (x + y), middle * (y - x))
        return float((moved - exact)[disc(size)].abs().max())

    for size in (32, 33):
        assert 3 <= error_at(size) / error_at(2 * size) <= 5


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
def test_borders_are_those_of_grid_sample(size, border):
    moved = ScalarField(border=border)(torch.ones(size, size), C8, 1)
    corner = {"zeros": 0.0, "border": 1.0, "reflection": 1.0}[border]
    assert moved[0, 0] == corner
    assert moved[size // 2, size // 2] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_types_are_read_at_the_right_place(dtype):
    """Positions are float32 at least: bfloat16 cannot represent pixel 257."""
    x = torch.arange(300.0).expand(300, 300).to(dtype)
    moved = ScalarField()(x, C8, 1)
    assert moved.dtype == dtype
    wanted = ScalarField()(x.double(), C8, 1)
    torch.testing.assert_close(
        moved.double(), wanted, rtol=torch.finfo(dtype).eps, atol=0.02
    )  # at the border the values fall from 300 to 0


@pytest.mark.parametrize("order", ["xy", "yx"])
@pytest.mark.parametrize(("name", "g"), OFF_GRID)
def test_turned_gradients_are_gradients_of_the_turned_image(name, g, order):
    group = as_group(name)

    def gradient(f):
        down, right = torch.gradient(f, dim=(-2, -1))
        return torch.stack((right, down) if order == "xy" else (down, right))

    moved = VectorField(order=order)(gradient(smooth(*positions())), group, g)
    assert error(moved, gradient(truth(group, g))) <= 0.006
    untouched = ScalarField()(gradient(smooth(*positions())), group, g)
    assert error(untouched, gradient(truth(group, g))) > 0.1


@pytest.mark.parametrize("group", [C12, D8], ids=str)
def test_maps_on_the_group_rotate_and_shift(group):
    f = torch.stack([smooth(*positions()) * (h + 1) for h in range(group.order)])
    for g in range(1, group.order):
        moved = RegularField()(f, group, g)
        for h in range(group.order):
            assert torch.equal(moved[group.product(g, h)], ScalarField()(f[h], group, g))


def test_labels_are_read_at_the_nearest_pixel():
    """A half-plane: only pixels whose centre is within half a diagonal of its edge may differ."""

    def label(x, y):
        return (0.8 * x + 0.6 * y > 0.15).long() + 2

    x, y = positions()
    for g in (1, 3, 9, 15):
        moved, wanted = LabelMask(fill=-100)(label(x, y), D8, g), truth(D8, g, label)
        far = (truth(D8, g, lambda x, y: (0.8 * x + 0.6 * y - 0.15).abs()) > 1.5 / SIZE) & disc()
        assert far.sum() > 0.9 * disc().sum()
        assert torch.equal(moved[far], wanted[far])
        assert moved[0, 0] == -100
        assert not torch.equal(moved[far], truth(D8, D8.product(1, g), label)[far])


@pytest.mark.parametrize("g", [1, 3, 9, 15])
def test_labels_outside_the_image_are_the_fill(g):
    """Outside is where ``g^-1 y`` lies beyond the outer edges of the outer pixels."""
    moved = LabelMask(fill=7)(torch.ones(SIZE, SIZE, dtype=torch.long), D8, g)
    beyond = truth(D8, g, lambda x, y: torch.maximum(x.abs(), y.abs())) > 1
    assert torch.equal(moved, torch.where(beyond, 7, 1))
    assert 0 < beyond.sum() < 0.3 * beyond.numel()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int32, torch.float32], ids=str)
def test_labels_keep_their_type(dtype):
    moved = LabelMask(fill=1)(torch.zeros(9, 9, dtype=dtype), C8, 1)
    assert moved.dtype == dtype
    assert (moved[0, 0], moved[4, 4]) == (1, 0)


@pytest.mark.parametrize("size", [(41, 41), (40, 52)], ids=str)
@pytest.mark.parametrize(("name", "g"), OFF_GRID)
def test_a_spot_and_its_keypoint_move_together(name, g, size):
    """The keypoint moves to the centre of gravity of the rotated spot."""
    group = as_group(name)
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in size)
    x, y = size[1] / 2 + 6.3, size[0] / 2 - 4.1
    spot = torch.exp(-((columns - x) ** 2 + (rows.unsqueeze(1) - y) ** 2) / 8)
    moved = ScalarField()(spot, group, g)
    centre = torch.stack(((moved * columns).sum(), (moved * rows.unsqueeze(1)).sum())) / moved.sum()
    found = Keypoints(size)(torch.tensor([x, y], dtype=torch.float64), group, g)
    torch.testing.assert_close(found, centre, rtol=0, atol=0.01)
    assert Keypoints(size).after(group, g).size == size


@pytest.mark.parametrize(("name", "g"), OFF_GRID)
def test_keypoints_obey_the_law_at_every_angle_on_a_square(name, g):
    group, action = as_group(name), Keypoints((9, 9))
    x = torch.rand(5, 2, dtype=torch.float64) * 9
    for h in range(group.order):
        both = action(action(x, group, h), group, g)
        torch.testing.assert_close(both, action(x, group, group.product(g, h)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["C3", "C8", "D6", "D8"])
def test_points_obey_the_law_at_every_angle(name):
    group, x = as_group(name), torch.rand(5, 3, dtype=torch.float64)
    for g in range(group.order):
        for h in range(group.order):
            both = Points()(Points()(x, group, h), group, g)
            torch.testing.assert_close(both, Points()(x, group, group.product(g, h)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "g"), OFF_GRID)
def test_a_turned_box_is_the_smallest_around_its_corners(name, g):
    group, size = as_group(name), (30, 30)
    box = torch.tensor([8.0, 10.0, 15.0, 22.0], dtype=torch.float64)
    corners = torch.tensor([[x, y] for x in (8.0, 15.0) for y in (10.0, 22.0)], dtype=torch.float64)
    up = (corners - 15) * torch.tensor([1.0, -1.0], dtype=torch.float64)  # about the middle, y up
    turned = (up @ group.matrices[g].T) * torch.tensor([1.0, -1.0], dtype=torch.float64) + 15
    wanted = torch.cat((turned.amin(0), turned.amax(0)))
    torch.testing.assert_close(Boxes(size)(box, group, g), wanted, rtol=0, atol=1e-12)
