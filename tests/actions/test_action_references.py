"""The actions against functions of torch and torchvision, and against formulas written out."""

import pytest
import torch
from strategies import shuffled

from gconv_ga.actions import (
    Boxes,
    GridMove,
    Keypoints,
    LabelMask,
    Points,
    RegularField,
    ScalarField,
    VectorField,
    grid_move,
    move_grid,
)
from gconv_ga.groups import C1, C2, C4, C8, D1, D4

SIZES = [(4, 4), (5, 5), (3, 5), (6, 2)]


def rot90(x, group, g):
    """Reflect the last axis, then rotate by i, with torch's functions."""
    turns = (g % group.n) * 4 // group.n
    return torch.rot90(x.flip(-1) if g >= group.n else x, turns, (-2, -1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("action", [ScalarField(), LabelMask()], ids=repr)
@pytest.mark.parametrize("g", range(8))
def test_images_move_as_torch_moves_them(action, size, g):
    x = shuffled((2, 3, *size), seed=0)
    assert torch.equal(action(x, D4, g), rot90(x, D4, g))
    assert torch.equal(move_grid(x, grid_move(D4, g)), rot90(x, D4, g))


@pytest.mark.parametrize("group", [C1, C2, C4, D1, D4], ids=str)
def test_positive_angles_are_those_of_rot90(group):
    x = shuffled((3, 5), seed=0)
    for g in range(group.order):
        assert torch.equal(ScalarField()(x, group, g), rot90(x, group, g))


def test_an_image_written_out():
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert ScalarField()(x, D4, 1).tolist() == [[3, 6], [2, 5], [1, 4]]
    assert ScalarField()(x, D4, 4).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert ScalarField()(x, D4, 5).tolist() == [[1, 4], [2, 5], [3, 6]]


def test_quarter_turns_of_finer_groups_are_the_same_moves():
    assert [grid_move(C8, 2 * g) for g in range(4)] == [grid_move(C4, g) for g in range(4)]
    assert grid_move(C4, 1) == GridMove(transpose=True, flip_rows=True, flip_columns=False)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", [C4, D4], ids=str)
def test_maps_on_the_group_rotate_and_shift(group, size):
    """``(L_g f)(y, h) = f(g^-1 y, g^-1 h)``, one element at a time."""
    f = shuffled((2, 3, group.order, *size), seed=0)
    for g in range(group.order):
        moved = RegularField()(f, group, g)
        for h in range(group.order):
            assert torch.equal(moved[:, :, group.product(g, h)], rot90(f[:, :, h], group, g))


@pytest.mark.parametrize("order", ["xy", "yx"])
@pytest.mark.parametrize("g", range(8))
@pytest.mark.parametrize("size", [(7, 7), (6, 9)], ids=str)
def test_the_gradient_of_a_moved_image_is_the_moved_gradient(g, size, order):
    """Central differences commute with multiples of 90 degrees and reflections up to the sign of the action."""

    def gradient(image):
        down, right = torch.gradient(image, dim=(-2, -1), edge_order=2)
        return torch.stack((right, down) if order == "xy" else (down, right), dim=-3)

    image = shuffled((2, *size), seed=0)
    moved = VectorField(order=order)(gradient(image), D4, g)
    assert torch.equal(moved, gradient(ScalarField()(image, D4, g)))


def test_vectors_without_their_components_turned_are_no_gradient():
    image = shuffled((6, 6), seed=0)
    gradient = torch.stack(torch.gradient(image, dim=(-1, -2)))
    assert not torch.allclose(ScalarField()(gradient, C4, 1), VectorField()(gradient, C4, 1))
    assert not torch.allclose(VectorField(order="yx")(gradient, C4, 1), VectorField()(gradient, C4, 1))


def test_channels_are_vectors_one_after_another():
    x = shuffled((2, 6, 3, 4), seed=0)
    for g in range(8):
        pairs = [VectorField()(pair, D4, g) for pair in x.split(2, dim=1)]
        assert torch.equal(VectorField()(x, D4, g), torch.cat(pairs, dim=1))


@pytest.mark.parametrize("group", [D4, C8], ids=str)
def test_points_are_multiplied_by_the_matrices(group):
    x = shuffled((2, 5, 3), seed=0)
    for g in range(group.order):
        moved = Points()(x, group, g)
        torch.testing.assert_close(moved[..., :2], x[..., :2] @ group.matrices[g].T, rtol=0, atol=1e-13)
        assert torch.equal(moved[..., 2], x[..., 2])


def test_whole_numbers_beyond_float_precision_are_kept():
    x = torch.tensor([[2**53 + 1, -(2**53) - 3]])
    assert Points()(x, C4, 1).tolist() == [[2**53 + 3, 2**53 + 1]]


@pytest.mark.parametrize("g", range(8))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_pixel_and_its_keypoint_move_together(size, g):
    """Marked at row i and column j, the keypoint is (j, i)."""
    height, width = size
    for i in range(height):
        for j in range(width):
            image = torch.zeros(size)
            image[i, j] = 1
            x, y = Keypoints(size)(torch.tensor([j, i]), D4, g).tolist()
            assert ScalarField()(image, D4, g)[y, x] == 1


@pytest.mark.parametrize("g", range(8))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_patch_and_its_box_move_together(size, g):
    """Edges: rows i to k (without k) and columns j to l are the box (j, i, l, k)."""
    image = torch.zeros(size)
    image[1:2, 0:2] = 1
    left, top, right, bottom = Boxes(size)(torch.tensor([0, 1, 2, 2]), D4, g).tolist()
    moved = ScalarField()(image, D4, g)
    assert moved[top:bottom, left:right].sum() == moved.sum() == (bottom - top) * (right - left)


@pytest.mark.parametrize("g", range(8))
def test_the_whole_image_stays_a_box(g):
    size = (5, 8)
    height, width = Boxes(size).after(D4, g).size
    assert ScalarField()(torch.empty(size), D4, g).shape == (height, width)
    assert Boxes(size)(torch.tensor([0, 0, 8, 5]), D4, g).tolist() == [0, 0, width, height]


@pytest.fixture(scope="module")
def vision():
    """The transforms of torchvision, which rotate images, keypoints and boxes by separate code."""
    pytest.importorskip("torchvision", reason="torchvision is the independent reference for keypoints and boxes")
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    return tv_tensors, functional


def corners(size):
    """Twenty pairs of an upper left and a lower right corner, as edges: two tensors ``[20, 2]``."""
    draw = torch.rand(20, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (draw * torch.tensor(size[::-1])).sort(dim=1).values.unbind(1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("g", range(8))
@pytest.mark.parametrize("kind", ["image", "boxes", "keypoints"])
def test_torchvision_moves_them_alike(kind, g, size, vision):
    tv_tensors, functional = vision
    low, high = corners(size)
    if kind == "image":
        action, ours = ScalarField(), shuffled((1, *size), seed=0)
        theirs = tv_tensors.Image(ours)
    elif kind == "boxes":
        action, ours = Boxes(size), torch.cat((low, high), dim=1)
        theirs = tv_tensors.BoundingBoxes(ours, format="XYXY", canvas_size=size)
    else:
        action, ours = Keypoints(size), low - 0.5  # pixel centres are at whole numbers, edges half a pixel off
        theirs = tv_tensors.KeyPoints(ours, canvas_size=size)
    theirs = functional.horizontal_flip(theirs) if g >= 4 else theirs
    # torchvision reflects keypoints about pixel centres and rotates them about edges: shift them for the rotation.
    shift = 0.5 if kind == "keypoints" else 0.0
    theirs = functional.rotate(tv_tensors.wrap(theirs + shift, like=theirs), 90.0 * (g % 4), expand=True)
    # torchvision rotates coordinates with cosines in float32.
    torch.testing.assert_close(action(ours, D4, g), theirs.as_subclass(torch.Tensor) - shift, rtol=0, atol=1e-4)
    if kind != "image":
        assert action.after(D4, g).size == tuple(theirs.canvas_size)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchvision_mirrors_rows_alike(size, vision):
    """A vertical flip is a horizontal flip followed by a rotation by 180 degrees."""
    tv_tensors, functional = vision
    x = torch.tensor([[0.25, 1.5]], dtype=torch.float64)
    keypoints = functional.vertical_flip(tv_tensors.KeyPoints(x, canvas_size=size))
    assert torch.equal(Keypoints(size)(x, D4, 6), keypoints.as_subclass(torch.Tensor))
