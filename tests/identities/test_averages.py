"""Statements 1, 2 and 7 of the derivation: both sides, a slow loop, and cases that must fail."""

import pytest
import torch
from broken_groups import NeverBackByAQuarter, WrongInverse
from slow_loops import matrices, turn
from tolerances import TOLERANCES
from torch import Tensor, nn

from gconv_ga.actions import Keypoints
from gconv_ga.identities import Sides, average_is_equivariant, average_keeps_equivariant, invariant_average

TIGHT = TOLERANCES[torch.float64]
SIZES = pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9)], ids=str)
ELEMENTS = pytest.mark.parametrize(
    ("group", "element"),
    [(group, g) for group in ("C1", "C2", "C4", "D1", "D2", "D4") for g in range(len(matrices(group)))],
)


class Strided(nn.Module):
    """A network without any symmetry: a stride, an even kernel, a ramp."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x + torch.linspace(0, 1, x.shape[-1]).to(x)))


@pytest.fixture
def net(device: torch.device) -> nn.Module:
    return Strided().double().to(device)


def image(size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64).to(device)


def inverse(g: tuple[tuple[int, int], tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    return (g[0][0], g[1][0]), (g[0][1], g[1][1])


def slow_average(net: nn.Module, group: str, x: Tensor, invariant: bool = False) -> Tensor:
    terms = [(g, net(turn(x, inverse(g)))) for g in matrices(group)]
    return sum(y if invariant else turn(y, g) for g, y in terms) / len(terms)


def corner(x: Tensor) -> Tensor:
    """One vector for each image, which depends on its orientation."""
    return torch.tanh(x[..., 0, 0] + 2 * x[..., 0, 1])


def test_the_loop_turns_as_torch_does(device: torch.device) -> None:
    x = image((4, 6), device)
    for g, quarter in zip(matrices("D4"), [0, 1, 2, 3, 0, 1, 2, 3], strict=True):
        mirrored = g[0][0] * g[1][1] - g[0][1] * g[1][0] < 0
        assert torch.equal(turn(x, g), torch.rot90(x.flip(-1) if mirrored else x, quarter, (-2, -1)))


@SIZES
@ELEMENTS
def test_average_is_equivariant(
    group: str, element: int, size: tuple[int, int], net: nn.Module, device: torch.device
) -> None:
    x, g = image(size, device), matrices(group)[element]
    sides = average_is_equivariant(net, group, x, element)
    assert sides.error <= TIGHT
    assert Sides(sides.left, slow_average(net, group, turn(x, g))).error <= TIGHT
    assert Sides(sides.right, turn(slow_average(net, group, x), g)).error <= TIGHT


@SIZES
def test_average_of_vectors_is_equivariant(size: tuple[int, int], net: nn.Module, device: torch.device) -> None:
    x = image(size, device)
    for element in range(8):
        assert average_is_equivariant(net, "D4", x, element, out_action="vector").error <= TIGHT


def test_average_of_keypoints_is_equivariant_on_other_canvases(device: torch.device) -> None:
    def shifted_peak(x: Tensor) -> Tensor:
        flat = x[:, 0].flatten(1).argmax(1)
        return torch.stack((flat % x.shape[-1], flat // x.shape[-1]), -1).to(x) * 0.9 + 0.3

    x = image((6, 9), device)
    for element in range(8):
        assert average_is_equivariant(shifted_peak, "D4", x, element, out_action=Keypoints((6, 9))).error <= TIGHT


@SIZES
def test_statement_1_fails_for_a_wrong_inverse(size: tuple[int, int], net: nn.Module, device: torch.device) -> None:
    assert average_is_equivariant(net, WrongInverse(4), image(size, device), 1).error > 0.1


@SIZES
def test_statement_1_fails_without_averaging(size: tuple[int, int], net: nn.Module, device: torch.device) -> None:
    x, half_turn = image(size, device), matrices("C2")[1]
    assert Sides(net(turn(x, half_turn)), turn(net(x), half_turn)).error > 0.1


def test_statement_1_fails_for_a_wrong_action(net: nn.Module, device: torch.device) -> None:
    x = image((8, 8), device)
    right = average_is_equivariant(net, "C4", x, 1, out_action="vector").right
    assert Sides(average_is_equivariant(net, "C4", x, 1).left, right).error > 0.1


def symmetric(group: str, device: torch.device) -> nn.Module:
    """Equivariant by design: a kernel that is invariant under the group, and a ReLU."""
    # Five taps: a 3 x 3 kernel that is invariant under C4 is invariant under D4 too.
    conv = nn.Conv2d(3, 2, 5, padding=2, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(sum(turn(conv.weight, g) for g in matrices(group)) / len(matrices(group)))
    return nn.Sequential(conv, nn.ReLU()).to(device)


@SIZES
@pytest.mark.parametrize("group", ["C1", "C2", "C4", "D1", "D2", "D4"])
def test_average_keeps_equivariant(group: str, size: tuple[int, int], device: torch.device) -> None:
    x, module = image(size, device), symmetric(group, device)
    sides = average_keeps_equivariant(module, group, x)
    assert sides.error <= TIGHT
    assert Sides(sides.left, slow_average(module, group, x)).error <= TIGHT


@SIZES
@pytest.mark.parametrize(("group", "too_small"), [("C4", "C2"), ("D4", "C4"), ("D1", "C4"), ("D2", "C2")])
def test_statement_2_fails_for_another_group(
    group: str, too_small: str, size: tuple[int, int], device: torch.device
) -> None:
    assert average_keeps_equivariant(symmetric(too_small, device), group, image(size, device)).error > 0.1


@SIZES
@ELEMENTS
def test_invariant_average(group: str, element: int, size: tuple[int, int], device: torch.device) -> None:
    x = image(size, device)
    sides = invariant_average(corner, group, x, element)
    assert sides.left.shape == (2, 3)
    assert sides.error <= TIGHT
    assert Sides(sides.left, slow_average(corner, group, x, invariant=True)).error <= TIGHT


@SIZES
def test_statement_7_fails_for_a_wrong_inverse(size: tuple[int, int], device: torch.device) -> None:
    x = image(size, device)
    assert invariant_average(corner, NeverBackByAQuarter(4), x, 1).error > 0.1
    # A wrong direction alone is no fault here: the sum is over the same elements, and the output is not transformed.
    assert invariant_average(corner, WrongInverse(4), x, 1).error <= TIGHT


@SIZES
def test_statement_7_fails_without_averaging_and_for_other_groups(size: tuple[int, int], device: torch.device) -> None:
    x = image(size, device)
    assert Sides(corner(turn(x, matrices("C4")[1])), corner(x)).error > 0.1
    left = invariant_average(corner, "C4", x, 1).left
    for wrong in ("C2", "D4"):
        assert Sides(left, slow_average(corner, wrong, x, invariant=True)).error > 0.1


def test_statement_7_needs_an_output_that_stays(device: torch.device) -> None:
    with pytest.raises(ValueError, match="output must be a tensor of shape"):
        invariant_average(lambda x: x, "C4", image((6, 9), device), 1)


@pytest.mark.parametrize("statement", [average_is_equivariant, invariant_average])
def test_refusals(statement: object, device: torch.device) -> None:
    x = image((6, 6), device)
    for arguments, match in (
        ((corner, "S4", x, 0), "group must be"),
        ((corner, "C4", x, 4), "element must be an element"),
        ((corner, "C4", x, 0, "scaler"), "in_action must be one of"),
        ((corner, "C4", x[0, 0, 0], 0), r"\[\.\.\., H, W\]"),
    ):
        with pytest.raises(ValueError, match=match):
            statement(*arguments)
    with pytest.raises(ValueError, match="out_action must be one of"):
        average_is_equivariant(corner, "C4", x, 0, out_action="flow")


@pytest.mark.parametrize("statement", [average_is_equivariant, invariant_average, average_keeps_equivariant])
def test_the_callers_tensor_is_never_written(statement: object, device: torch.device) -> None:
    x = image((6, 6), device)
    before = x.clone()
    arguments = (lambda x: x.mul_(2), "C4", x)
    statement(*arguments) if statement is average_keeps_equivariant else statement(*arguments, 0)
    assert torch.equal(x, before)
