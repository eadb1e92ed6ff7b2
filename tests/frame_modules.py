"""Modules without any symmetry, random motions, and equivariance errors of averages."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

OUTPUTS = ("invariant", "vector", "tensor", "points")


class Outputs(NamedTuple):
    invariant: Tensor
    vector: Tensor
    tensor: Tensor
    points: Tensor


class Flat(nn.Module):
    """An MLP on flattened coordinates: it depends on positions and on the order of the points."""

    def __init__(self, n: int, d: int = 3, extra: int = 0) -> None:
        super().__init__()
        self.n, self.d = n, d
        widths = (n * d + extra, 24, 24, 1 + d + d * d + n * d)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, *others: Tensor) -> Outputs:
        y = self.net(torch.cat([x.flatten(1), *(other.to(x.dtype).flatten(1) for other in others)], 1))
        d = self.d
        parts = y.split((1, d, d * d, self.n * d), 1)
        return Outputs(parts[0].squeeze(1), parts[1], parts[2].unflatten(1, (d, d)), parts[3].unflatten(1, (-1, d)))


class Pairs(nn.Module):
    """Message passing that depends on positions, but not on the order or number of the points; takes a mask."""

    def __init__(self, d: int = 3, width: int = 12) -> None:
        super().__init__()
        self.d = d
        self.message = nn.Sequential(nn.Linear(2 * d, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.whole = nn.Linear(width, 1 + d + d * d)
        self.each = nn.Linear(2 * width, d)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Outputs:
        n, d = x.shape[1], self.d
        pairs = torch.cat((x.unsqueeze(2).expand(-1, n, n, d), x.unsqueeze(1).expand(-1, n, n, d)), -1)
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        valid = valid.to(x.dtype).unsqueeze(-1)
        count = valid.sum(1)
        messages = (self.message(pairs) * valid.unsqueeze(1)).sum(2) / count.unsqueeze(1) * valid
        total = messages.sum(1) / count
        y = self.whole(total)
        points = self.each(torch.cat((messages, total.unsqueeze(1).expand_as(messages)), -1))
        return Outputs(y[:, 0], y[:, 1 : 1 + d], y[:, 1 + d :].unflatten(1, (d, d)), points)


class Motion(NamedTuple):
    """``x -> R x + t``."""

    rotation: Tensor
    translation: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.rotation.to(x).mT + self.translation.to(x)


def random_motion(d: int, group: str = "E", mirrored: bool = False) -> Motion:
    """A random element of the group; it reflects only if the group has reflections."""
    turn, triangle = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))
    turn = turn * triangle.diagonal().sign()
    if (torch.linalg.det(turn) < 0) != (mirrored and not group.startswith("S")):
        turn[:, 0] *= -1
    shift = 2 * torch.randn(d, dtype=torch.float64)
    return Motion(turn, shift if "E" in group else torch.zeros_like(shift))


def moved_outputs(outputs: Outputs, motion: Motion) -> Outputs:
    """``rho_2(g)`` of all outputs, written out."""
    turn = motion.rotation.to(outputs.vector)
    return Outputs(outputs.invariant, outputs.vector @ turn.mT, turn @ outputs.tensor @ turn.mT, motion(outputs.points))


def errors(a: Outputs, b: Outputs) -> dict[str, Tensor]:
    """The largest difference in each sample, relative to the output or to 1, for each output."""
    found = {}
    for name, x, y in zip(Outputs._fields, a, b, strict=True):
        difference = (x - y).detach().abs() / max(1.0, float(y.detach().abs().max()))
        found[name] = difference.flatten(1).amax(1) if difference.ndim > 1 else difference
    return found


def equivariance_errors(
    net: Callable[..., Outputs], x: Tensor, group: str = "E", *others: Tensor, trials: int = 2
) -> dict[str, Tensor]:
    """The largest ``Phi(g x) - g Phi(x)`` over random motions; every other motion reflects, if the group does."""
    upright = net(x, *others)
    worst: dict[str, Tensor] = {}
    for trial in range(trials):
        motion = random_motion(x.shape[-1], group, mirrored=trial % 2 == 0)
        for name, error in errors(net(motion(x), *others), moved_outputs(upright, motion)).items():
            # maximum keeps NaN
            worst[name] = torch.maximum(worst.get(name, error), error)
    return worst
