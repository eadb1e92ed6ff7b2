"""Statements 3 to 6 of the derivation: both sides, a slow loop, and cases that must fail."""

from collections.abc import Callable

import pytest
import torch
from broken_groups import WrongInverse
from slow_loops import correlate, lift, matrices, transposed, turn
from tolerances import TOLERANCES
from torch import Tensor

from gconv_ga.identities import (
    Sides,
    correlation_commutes,
    kernel_rotation,
    lifting_rotates_and_shifts,
    mean_of_lifting_is_group_average,
)

TIGHT = TOLERANCES[torch.float64]
EXACT = ("C1", "C2", "C4", "D1", "D2", "D4")
ELEMENTS = pytest.mark.parametrize(
    ("group", "element"), [(name, g) for name in EXACT for g in range(len(matrices(name)))]
)
CASES = pytest.mark.parametrize(
    ("size", "padding", "kernel_size"),
    [((6, 6), 0, (3, 3)), ((5, 5), 1, (2, 2)), ((4, 7), 1, (3, 3))],
    ids=str,
)
RECTANGULAR = pytest.mark.parametrize(
    ("size", "padding", "kernel_size"),
    [((6, 6), 0, (3, 2)), ((5, 5), 1, (2, 2)), ((4, 7), 1, (2, 3))],
    ids=str,
)
SIZES = pytest.mark.parametrize(("size", "padding"), [((6, 6), 0), ((5, 5), 1), ((4, 7), 1), ((7, 5), 0)], ids=str)


def pair(
    kernel_size: tuple[int, int], size: tuple[int, int], device: torch.device, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    kernel, image = torch.randn(2, 3, *kernel_size, dtype=dtype), torch.randn(2, 3, *size, dtype=dtype)
    return kernel.to(device), image.to(device)


@RECTANGULAR
@ELEMENTS
def test_kernel_rotation(
    group: str, element: int, size: tuple[int, int], padding: int, kernel_size: tuple[int, int], device: torch.device
) -> None:
    (kernel, image), g = pair(kernel_size, size, device), matrices(group)[element]
    sides = kernel_rotation(kernel, image, group, element, padding=padding)
    assert sides.error <= TIGHT
    assert Sides(sides.left, correlate(kernel, turn(image, g), padding)).error <= TIGHT


@RECTANGULAR
@ELEMENTS
def test_correlation_commutes(
    group: str, element: int, size: tuple[int, int], padding: int, kernel_size: tuple[int, int], device: torch.device
) -> None:
    (kernel, image), g = pair(kernel_size, size, device), matrices(group)[element]
    sides = correlation_commutes(kernel, image, group, element, padding=padding)
    assert sides.error <= TIGHT
    assert Sides(sides.right, turn(correlate(kernel, image, padding), g)).error <= TIGHT


@SIZES
def test_statement_3_fails_in_the_wrong_direction(size: tuple[int, int], padding: int, device: torch.device) -> None:
    kernel, image = pair((3, 3), size, device)
    assert kernel_rotation(kernel, image, WrongInverse(4), 1, padding=padding).error > 0.1
    left, quarter = kernel_rotation(kernel, image, "C4", 1, padding=padding).left, matrices("C4")[1]
    assert Sides(left, turn(correlate(turn(kernel, quarter), image, padding), quarter)).error > 0.1
    assert Sides(left, turn(correlate(kernel, image, padding), quarter)).error > 0.1


@SIZES
def test_statement_4_fails_for_one_turned_without_the_other(
    size: tuple[int, int], padding: int, device: torch.device
) -> None:
    kernel, image = pair((3, 3), size, device)
    left, quarter = correlation_commutes(kernel, image, "C4", 1, padding=padding).left, matrices("C4")[1]
    assert Sides(left, turn(correlate(kernel, image, padding), transposed(quarter))).error > 0.1
    assert Sides(left, correlate(kernel, turn(image, quarter), padding)).error > 0.1
    assert Sides(left, correlate(turn(kernel, transposed(quarter)), turn(image, quarter), padding)).error > 0.1


@CASES
@ELEMENTS
def test_lifting_rotates_and_shifts(
    group: str, element: int, size: tuple[int, int], padding: int, kernel_size: tuple[int, int], device: torch.device
) -> None:
    (kernel, image), g = pair(kernel_size, size, device), matrices(group)[element]
    sides = lifting_rotates_and_shifts(kernel, image, group, element, padding=padding)
    assert sides.left.shape[2] == len(matrices(group))
    assert sides.error <= TIGHT
    assert Sides(sides.left, lift(kernel, turn(image, g), group, padding)).error <= TIGHT


@SIZES
def test_the_shift_of_rotations_is_cyclic(size: tuple[int, int], padding: int, device: torch.device) -> None:
    kernel, image = pair((3, 3), size, device)
    right = lifting_rotates_and_shifts(kernel, image, "C4", 1, padding=padding).right
    turned = turn(lift(kernel, image, "C4", padding), matrices("C4")[1])
    assert Sides(right, turned.roll(1, 2)).error <= TIGHT
    assert Sides(right, turned).error > 0.1  # no shift
    assert Sides(right, turned.roll(-1, 2)).error > 0.1  # the wrong way


@SIZES
def test_statement_5_fails_in_the_wrong_direction(size: tuple[int, int], padding: int, device: torch.device) -> None:
    kernel, image = pair((3, 3), size, device)
    assert lifting_rotates_and_shifts(kernel, image, WrongInverse(4), 1, padding=padding).error > 0.1


@CASES
@ELEMENTS
def test_mean_of_lifting_is_group_average(
    group: str, element: int, size: tuple[int, int], padding: int, kernel_size: tuple[int, int], device: torch.device
) -> None:
    (kernel, image), g = pair(kernel_size, size, device), matrices(group)[element]
    sides = mean_of_lifting_is_group_average(kernel, image, group, element, padding=padding)
    assert sides.error <= TIGHT
    assert Sides(sides.left, lift(kernel, turn(image, g), group, padding).mean(2)).error <= TIGHT
    terms = [turn(correlate(kernel, turn(image, transposed(h)), padding), h) for h in matrices(group)]
    assert Sides(sides.right, turn(sum(terms) / len(terms), g)).error <= TIGHT


@SIZES
def test_statement_6_fails_for_a_wrong_inverse_and_for_other_groups(
    size: tuple[int, int], padding: int, device: torch.device
) -> None:
    kernel, image = pair((3, 3), size, device)
    assert mean_of_lifting_is_group_average(kernel, image, WrongInverse(4), padding=padding).error > 0.1
    left = mean_of_lifting_is_group_average(kernel, image, "C4", padding=padding).left
    for wrong in ("C1", "C2"):  # not D4: the C4 mean of a 3 x 3 kernel is invariant under D4 too
        assert Sides(left, mean_of_lifting_is_group_average(kernel, image, wrong, padding=padding).right).error > 0.05
    assert Sides(left, lift(kernel, image, "C4", padding).amax(2)).error > 0.1  # another reduction


def test_single_precision(device: torch.device) -> None:
    kernel, image = pair((3, 3), (9, 12), device, torch.float32)
    tolerance = TOLERANCES[torch.float32]
    for element in range(8):
        for statement in STATEMENTS:
            assert statement(kernel, image, "D4", element, padding=1).error <= tolerance


STATEMENTS: list[Callable[..., Sides]] = [
    kernel_rotation,
    correlation_commutes,
    lifting_rotates_and_shifts,
    mean_of_lifting_is_group_average,
]


@pytest.mark.parametrize("statement", [lifting_rotates_and_shifts, mean_of_lifting_is_group_average])
def test_all_elements_must_map_the_pixel_grid_to_itself(statement: Callable[..., Sides]) -> None:
    with pytest.raises(ValueError, match=r"^group must be C1, C2, C4, D1, D2 or D4, but got group=CyclicGroup\(8\)\."):
        statement(torch.ones(2, 3, 3, 3), torch.ones(2, 3, 6, 6), "C8", 2)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kernel": torch.ones(3, 3, 3)}, r"kernel must be a tensor \[C_out, C_in, kh, kw\]"),
        ({"image": torch.ones(3, 6, 6)}, r"image must be a tensor \[B, C_in=3, H, W\]"),
        ({"image": torch.ones(2, 2, 6, 6)}, r"image must be a tensor \[B, C_in=3, H, W\]"),
        ({"padding": -1}, "padding must be an int of at least 0"),
        ({"group": "S4"}, "group must be a group or its name"),
        ({"group": "C8"}, "(element|group) must be"),
        ({"element": 4}, "element must be an element 0 .. 3 of C4"),
        ({"element": "r"}, "element must be an int"),
    ],
    ids=str,
)
def test_refusals(statement: Callable[..., Sides], changes: dict[str, object], match: str) -> None:
    arguments = {"kernel": torch.ones(2, 3, 3, 3), "image": torch.ones(2, 3, 6, 6), "group": "C4", "element": 1}
    with pytest.raises(ValueError, match=match):
        statement(**arguments | changes)


@pytest.mark.parametrize("statement", STATEMENTS[:2])
def test_exact_elements_of_other_groups_are_taken(statement: Callable[..., Sides], device: torch.device) -> None:
    assert statement(*pair((3, 3), (5, 7), device), "C8", 2).error <= TIGHT
