"""Actions refuse tensors they cannot move and name the argument; they are plain immutable values."""

import copy
import dataclasses
import pickle

import pytest
import torch
from action_cases import CASES

from gconv_ga.actions import (
    Action,
    Boxes,
    Invariant,
    Keypoints,
    LabelMask,
    Points,
    RegularField,
    ScalarField,
    VectorField,
    as_action,
    grid_move,
)
from gconv_ga.groups import C4, C8

IMAGE = torch.zeros(1, 4, 5, 5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ScalarField("linear"), r"^interpolation must be one of 'bilinear'.* Did you mean 'bilinear'\?$"),
        (lambda: ScalarField("lanczos"), r"^interpolation must be one of .* but got interpolation='lanczos'\.$"),
        (lambda: ScalarField(border="zero"), r"^border must be one of .* Did you mean 'zeros'\?$"),
        (lambda: VectorField(order="xz"), r"^order must be one of 'xy', 'yx', but got order='xz'"),
        (lambda: VectorField(border=0), r"^border must be one of .* but got border=0\.$"),
        (lambda: LabelMask(fill=0.5), r"^fill must be an int, but got fill=0\.5"),
        (lambda: LabelMask(fill=True), r"^fill must be an int, but got fill=True"),
        (lambda: Keypoints(5), r"^size must be the image's \(H, W\), but got size=5"),
        (lambda: Keypoints(5.5), r"^size must be the image's \(H, W\), but got size=5\.5"),
        (lambda: Keypoints("54"), r"^size must be the image's \(H, W\), but got size='54'"),
        (lambda: Boxes((3, 4, 5)), r"^size must be the image's \(H, W\), but got size=\(3, 4, 5\)"),
        (lambda: Boxes((3, 0)), r"^size must be a positive int, but got size=0"),
        (lambda: Keypoints((3.5, 4)), r"^size must be a positive int, but got size=3\.5"),
    ],
)
def test_bad_options_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("action", "x", "group", "match"),
    [
        (ScalarField(), torch.zeros(5), C4, r"^x must be a tensor \[\.\.\., H, W\], but got \(5,\)"),
        (ScalarField(), IMAGE.long(), C8, r"^x must be floating point at angles off the grid.* Use LabelMask"),
        (LabelMask(), torch.zeros(5), C4, r"^x must be a tensor \[\.\.\., H, W\], but got \(5,\)"),
        (LabelMask(fill=-100), IMAGE.byte(), C8, r"^fill must be a class that torch\.uint8 can hold.*=-100"),
        (LabelMask(fill=2), IMAGE.bool(), C8, r"^fill must be a class that torch\.bool can hold.*=2"),
        (LabelMask(fill=300), IMAGE.to(torch.int8), C8, r"^fill must be a class that torch\.int8 can hold"),
        (VectorField(), IMAGE[:, :3], C4, r"^x must be a tensor \[\.\.\., 2 m, H, W\] .* but got \(1, 3, 5, 5\)"),
        (VectorField(), IMAGE[0, 0], C4, r"^x must be a tensor \[\.\.\., 2 m, H, W\] .* but got \(5, 5\)"),
        (RegularField(), IMAGE[:, :3], C4, r"^x must be a tensor \[\.\.\., \|G\|=4, H, W\], but got \(1, 3, 5, 5\)"),
        (RegularField(), IMAGE[0, 0], C4, r"^x must be a tensor \[\.\.\., \|G\|=4, H, W\], but got \(5, 5\)"),
        (Points(), torch.zeros(2), C4, r"^x must be a tensor \[\.\.\., N, d\] with d >= 2, but got \(2,\)"),
        (Points(), torch.zeros(4, 1), C4, r"^x must be a tensor \[\.\.\., N, d\] with d >= 2, but got \(4, 1\)"),
        (Points(), torch.zeros(4, 2).byte(), C4, r"^x must be of a type with negative numbers"),
        (VectorField(), IMAGE.bool(), C4, r"^x must be of a type with negative numbers"),
        (Keypoints((5, 5)), torch.zeros(4, 3), C4, r"^x must be a tensor \[\.\.\., 2\] .* but got \(4, 3\)"),
        (Keypoints((5, 5)), torch.zeros(4, 2).byte(), C4, r"^x must be of a type with negative numbers"),
        (Boxes((5, 5)), torch.zeros(4, 2), C4, r"^x must be a tensor \[\.\.\., 4\] .* but got \(4, 2\)"),
        (Boxes((5, 5)), torch.tensor(1.0), C4, r"^x must be a tensor \[\.\.\., 4\] .* but got \(\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(action, x, group, match):
    with pytest.raises(ValueError, match=match):
        action(x, group, 1)


@pytest.mark.parametrize("element", [4, -1, 1.0, True, "1"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_no_element_is_refused(case, element):
    with pytest.raises(ValueError, match=r"^element must be "):
        CASES[case].action(3, 3)(CASES[case].tensor(C4, 3, 3), C4, element)


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_group_is_refused(case):
    with pytest.raises(ValueError, match=r"^group must be a group or its name"):
        CASES[case].action(3, 3)(CASES[case].tensor(C4, 3, 3), 4, 1)


def test_no_index_move_turns_by_an_eighth():
    with pytest.raises(ValueError, match=r"^element must be a multiple of 90 degrees in C8, but got element=1"):
        grid_move(C8, 1)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("scalar", ScalarField()),
        ("vector", VectorField()),
        ("regular", RegularField()),
        ("invariant", Invariant()),
        ("labels", LabelMask()),
        ("points", Points()),
    ],
)
def test_names_mean_actions(name, action):
    assert as_action(name) == action
    assert as_action(action) is action


@pytest.mark.parametrize(
    ("action", "match"),
    [
        ("scaler", r"^out_action must be one of 'scalar', .* Did you mean 'scalar'\?$"),
        ("keypoints", r"^out_action must be an action or its name.* Write Keypoints\(\(H, W\)\) and Boxes"),
        ("boxes", r"^out_action must be an action or its name.* Write Keypoints\(\(H, W\)\) and Boxes"),
        (ScalarField, r"^out_action must be an action or its name.* Call the class"),
        (None, r"^out_action must be an action or its name.* but got out_action=None"),
        (torch.rot90, r"^out_action must be an action or its name.* derive a class from gconv_ga\.actions\.Action"),
    ],
)
def test_what_is_no_action_is_refused(action, match):
    with pytest.raises(ValueError, match=match):
        as_action(action, "out_action")


ACTIONS = [ScalarField("bicubic"), VectorField(order="yx"), LabelMask(3), Points(), Keypoints((3, 4)), Boxes([3, 4])]


@pytest.mark.parametrize("action", [*ACTIONS, Invariant(), RegularField()], ids=repr)
def test_actions_are_values(action):
    for equal in (pickle.loads(pickle.dumps(action)), copy.deepcopy(action), eval(repr(action))):
        assert equal == action
        assert hash(equal) == hash(action)
    for field in dataclasses.fields(action):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(action, field.name, None)


def test_actions_of_different_kinds_are_different():
    assert ScalarField() != RegularField()
    assert Keypoints((3, 4)) != Boxes((3, 4))
    assert Keypoints((3, 4)) != Keypoints((4, 3))


def test_an_action_of_ones_own_needs_only_a_call():
    class Negate(Action):
        def __call__(self, x, group, element):
            return -x

    assert as_action(Negate()).after(C4, 1)(torch.ones(1), C4, 1) == -1
    with pytest.raises(TypeError, match="abstract"):
        Action()
