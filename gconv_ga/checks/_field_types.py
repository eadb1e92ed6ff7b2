"""Which action a tensor inside a network has, told from its shape."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..actions import Action, Invariant, LabelMask, Leaf, Points, RegularField, ScalarField, VectorField
from ..groups import Group, as_group

NAMES = {
    ScalarField: "scalar",
    RegularField: "regular",
    VectorField: "vector",
    Invariant: "invariant",
    LabelMask: "labels",
    Points: "points",
}


@dataclass(frozen=True)
class ChannelsLast(ScalarField):
    """The action on images ``[B, H, W, C]``."""

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        return super().__call__(x.movedim(-1, 1), as_group(group), element).movedim(1, -1).contiguous()


class UnknownFieldError(Exception):
    """No rule says how the group acts on this tensor."""


class FixedSizeError(UnknownFieldError):
    """A size among the inputs does not turn with the image."""


def infer(x: Tensor, group: Group, known: list[Leaf], last: bool) -> Action:
    """The action on ``x``: ``[B, C, H, W]`` scalar, ``[B, C, |G|, H, W]`` regular, ``[B, K]`` and fewer axes invariant.

    Args:
        x: The tensor.
        group: The group.
        known: Tensors whose action the user has told; ``x`` may be one of them.
        last: Whether four axes mean ``[B, H, W, C]``.

    Raises:
        UnknownFieldError: Three axes (tokens) or five without the group's order in third place, or more.
    """
    for leaf in known:
        if isinstance(leaf.value, Tensor) and leaf.value.shape == x.shape and torch.equal(leaf.value, x):
            return leaf.action
    if x.ndim == 4:
        return ChannelsLast() if last else ScalarField()
    if x.ndim == 5 and x.shape[2] == group.order:
        return RegularField()
    if x.ndim <= 2:
        return Invariant()
    raise UnknownFieldError(f"no rule tells how {group.name} acts on a tensor of shape {tuple(x.shape)}")


def channels_last(module: nn.Module, shape: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether four axes mean ``[B, H, W, C]`` in the module's input, and in its output.

    `torch.nn.Linear` and `torch.nn.LayerNorm` over one axis work along the last; a LayerNorm2d of torchvision or timm
    is a LayerNorm that moves the axes itself. A module called Permute with ``dims`` (torchvision has one) changes the
    layout. For what acts on each number by itself it does not matter.

    Args:
        module: The module.
        shape: The shape of its input.
    """
    dims = list(getattr(module, "dims", [])) if type(module).__name__ == "Permute" else []
    if dims:
        return dims == [0, 3, 1, 2], dims == [0, 2, 3, 1]
    along_last = isinstance(module, nn.Linear)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        along_last = shape[-1:] == tuple(module.normalized_shape) and not type(module).__name__.endswith("2d")
    return along_last, along_last


def name_of(action: Action) -> str:
    """A word for an action in a table."""
    return "scalar, channels last" if isinstance(action, ChannelsLast) else NAMES.get(type(action), repr(action))
