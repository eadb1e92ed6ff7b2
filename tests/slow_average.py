"""The group average written out with torch.rot90 and torch.flip, for groups that map the grid to itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

EXACT = {"C1": 1, "C2": 2, "C4": 4, "D1": 1, "D2": 2, "D4": 4}
SIZES = [(12, 12), (13, 13), (12, 17), (17, 12), (31, 45)]


def elements(group: str) -> list[tuple[int, bool]]:
    """Return ``(rotations by 90 degrees, mirrored)`` for every element, in the order of the library."""
    n = EXACT[group]
    turns = [(4 // n * i, False) for i in range(n)]
    return turns if group[0] == "C" else turns + [(quarters, True) for quarters, _ in turns]


def turn(x: Tensor, element: tuple[int, bool]) -> Tensor:
    """Reflect the last axis if mirrored, then rotate."""
    quarters, mirrored = element
    return torch.rot90(x.flip(-1) if mirrored else x, quarters, (-2, -1))


def turn_back(x: Tensor, element: tuple[int, bool]) -> Tensor:
    """Invert `rotate`: rotate back, then reflect."""
    quarters, mirrored = element
    x = torch.rot90(x, -quarters, (-2, -1))
    return x.flip(-1) if mirrored else x


def slow_average(module: Callable[[Tensor], Tensor], group: str, x: Tensor) -> Tensor:
    """Average with one pass for each element."""
    outputs = [turn(module(turn_back(x, g)), g) for g in elements(group)]
    return sum(outputs[1:], outputs[0]) / len(outputs)


class Crooked(nn.Module):
    """A network with every fault: stride, one-sided padding, even kernel, and a ramp that depends on the position."""

    def __init__(self, channels: int = 3, out: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, out, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, x.shape[-1], dtype=x.dtype, device=x.device)
        return self.second(nn.functional.pad(torch.tanh(self.first(x + ramp)), (1, 0, 1, 0)))


def relative(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value. Zeros on both sides prove nothing and give NaN."""
    assert actual.shape == expected.shape
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())
