"""One entry per action: the action and a tensor that it moves, for an image of ``H x W``."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from strategies import shuffled
from torch import Tensor

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
)
from gconv_ga.groups import Group


class Case(NamedTuple):
    """An action for an image of the given size, and a float64 tensor of whole numbers below 2^8 that it moves."""

    action: Callable[[int, int], Action]
    tensor: Callable[[Group, int, int], Tensor]
    unsigned: bool  # whether it takes unsigned types


def pixels(*front: int) -> Callable[[Group, int, int], Tensor]:
    return lambda group, height, width: shuffled((*front, height, width), seed=1)


def in_image(count: int) -> Callable[[Group, int, int], Tensor]:
    """Positions inside the image, on quarters of a pixel, which are reflected without rounding."""

    def draw(group: Group, height: int, width: int) -> Tensor:
        scale = torch.tensor([width, height], dtype=torch.float64).repeat(count // 2)
        return (torch.rand(2, 3, count, generator=torch.Generator().manual_seed(1)) * scale * 4).floor() / 4

    return draw


CASES = {
    "scalar": Case(lambda h, w: ScalarField(), pixels(1, 3), True),
    "scalar without axes in front": Case(lambda h, w: ScalarField(), pixels(), True),
    "vector": Case(lambda h, w: VectorField(), pixels(1, 4), False),
    "vector rows first": Case(lambda h, w: VectorField(order="yx"), pixels(1, 2), False),
    "regular": Case(
        lambda h, w: RegularField(), lambda group, h, w: shuffled((1, 2, group.order, h, w), seed=2) % 251, True
    ),
    "labels": Case(lambda h, w: LabelMask(fill=7), pixels(2), True),
    "invariant": Case(lambda h, w: Invariant(), lambda group, h, w: shuffled((2, 5), seed=3), True),
    "points": Case(lambda h, w: Points(), lambda group, h, w: shuffled((2, 5, 2), seed=4), False),
    "points in space": Case(lambda h, w: Points(), lambda group, h, w: shuffled((5, 3), seed=5), False),
    "keypoints": Case(lambda h, w: Keypoints((h, w)), in_image(2), False),
    "boxes": Case(
        lambda h, w: Boxes((h, w)),
        # Sorted: the upper left corner comes first, as in the output of the action.
        lambda group, h, w: in_image(4)(group, h, w).unflatten(-1, (2, 2)).sort(dim=-2).values.flatten(-2),
        False,
    ),
}
