"""Statements 10 and 11: both sides, a slow loop, and what the identities must reject."""

import pytest
import torch
from slow_loops import correlate, matrices, product, transposed, turn
from tolerances import TOLERANCES
from torch import Tensor

from gconv_ga.actions import RegularField, ScalarField
from gconv_ga.groups import CyclicGroup
from gconv_ga.identities import Sides, group_correlation_is_equivariant, regular_field_rotates_and_shifts
from gconv_ga.identities import _group_correlations as room

TIGHT = TOLERANCES[torch.float64]
ELEMENTS = pytest.mark.parametrize(
    ("group", "element"), [(name, g) for name in ("C2", "C4", "D1", "D4") for g in range(len(matrices(name)))]
)


def slow_move(f: Tensor, group: str, element: int) -> Tensor:
    """``f(h^-1 y, h^-1 g)``, with the elements as integer matrices."""
    listed = matrices(group)
    back = transposed(listed[element])
    return torch.stack([turn(f[:, :, listed.index(product(back, g))], listed[element]) for g in listed], dim=2)


def feature_map(group: str, size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.randn(2, 2, len(matrices(group)), *size, dtype=torch.float64).to(device)


@ELEMENTS
def test_regular_fields_rotate_and_shift(group: str, element: int, device: torch.device) -> None:
    f = feature_map(group, (3, 4), device)
    sides = regular_field_rotates_and_shifts(f, group, element)
    assert torch.equal(sides.left, sides.right)
    assert torch.equal(sides.right, slow_move(f, group, element))


class ShiftsBackwards(RegularField):
    """The planes move in the other direction, ``f(h^-1 y, h g)``."""

    def __call__(self, x: Tensor, group: CyclicGroup, element: int) -> Tensor:
        return ScalarField()(x, group, element).index_select(-3, torch.tensor(group.products[element]).to(x.device))


class RotatesClockwise(RegularField):
    """Planes and shifts move in the other direction: a representation of C4 too, but not that of its matrices."""

    def __call__(self, x: Tensor, group: CyclicGroup, element: int) -> Tensor:
        return super().__call__(x, group, group.inverse(element))


class Stays(RegularField):
    """The planes keep their positions."""

    def __call__(self, x: Tensor, group: CyclicGroup, element: int) -> Tensor:
        return ScalarField()(x, group, element)


@pytest.mark.parametrize("broken", [ShiftsBackwards, RotatesClockwise, Stays])
def test_statement_10_rejects_a_broken_action(
    broken: type[RegularField], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "RegularField", broken)
    assert regular_field_rotates_and_shifts(feature_map("C4", (4, 4), device), CyclicGroup(4), 1).error > 0.1


@ELEMENTS
def test_group_correlations_are_equivariant(group: str, element: int, device: torch.device) -> None:
    f = feature_map(group, (4, 5), device)
    kernel = torch.randn(1, 2, f.shape[2], 3, 3, dtype=torch.float64).to(device)
    sides = group_correlation_is_equivariant(kernel, f, group, element, padding=1)
    assert sides.error <= TIGHT
    maps = [correlate(slow_move(kernel, group, g).flatten(1, 2), f.flatten(1, 2), padding=1) for g in range(f.shape[2])]
    assert Sides(sides.right, slow_move(torch.stack(maps, dim=2), group, element)).error <= TIGHT


def test_statement_11_rejects_kernels_whose_planes_shift_wrongly(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, kernel = feature_map("C4", (5, 5), device), torch.randn(1, 2, 4, 3, 3, dtype=torch.float64).to(device)

    def shifted_wrongly(f: Tensor, kernel: Tensor, group: CyclicGroup, padding: int) -> Tensor:
        moved = [turn(kernel, g).roll(-n, 2) for n, g in enumerate(matrices("C4"))]  # roll(n) would be right
        return torch.stack([correlate(k.flatten(1, 2), f.flatten(1, 2), padding) for k in moved], dim=2)

    right = group_correlation_is_equivariant(kernel, f, "C4", 0).right
    assert group_correlation_is_equivariant(kernel, f, "C4", 1).error <= TIGHT
    monkeypatch.setattr(room, "group_conv2d", shifted_wrongly)
    for element in (0, 1):
        assert group_correlation_is_equivariant(kernel, f, "C4", element).error > 0.1
    assert Sides(group_correlation_is_equivariant(kernel.roll(1, 2), f, "C4", 0).right, right).error > 0.1


@pytest.mark.parametrize("broken", [ShiftsBackwards, RotatesClockwise, Stays])
def test_statement_11_rejects_a_broken_action(
    broken: type[RegularField], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, kernel = feature_map("C4", (5, 5), device), torch.randn(1, 2, 4, 3, 3, dtype=torch.float64).to(device)
    monkeypatch.setattr(room, "RegularField", broken)
    assert group_correlation_is_equivariant(kernel, f, CyclicGroup(4), 1).error > 0.1


def test_refusals() -> None:
    f, kernel = torch.randn(1, 2, 4, 5, 5), torch.randn(1, 2, 4, 3, 3)
    for arguments, match in (
        ((kernel, f, "C8", 2), "group must be C1, C2, C4, D1, D2 or D4, .* do not map the pixel grid to itself"),
        ((kernel, f, "C4", 4), "element must be an element"),
        ((kernel, f, "D4", 1), r"feature_map must be a tensor \[B, C, \|G\|=8, H, W\]"),
        ((kernel[:, :, :2], f, "C4", 1), r"kernel must be a tensor \[C_out, C_in=2, \|G\|=4, kh, kw\]"),
    ):
        with pytest.raises(ValueError, match=match):
            group_correlation_is_equivariant(*arguments)
    with pytest.raises(ValueError, match="padding must be"):
        group_correlation_is_equivariant(kernel, f, "C4", 1, padding=-1)
    with pytest.raises(ValueError, match="feature_map must be a tensor"):
        regular_field_rotates_and_shifts(f[0], "C4", 1)
