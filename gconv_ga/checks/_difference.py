"""How far two tensors are from each other, relative to the size of one of them."""

import torch
from torch import Tensor

from ..actions import Action, LabelMask, ScalarField
from ..groups import Group


def wide(x: Tensor) -> Tensor:
    """A copy on the CPU in the widest type of its kind; integers and bool keep theirs."""
    x = x.detach().cpu().clone()
    if x.is_floating_point():
        return x.to(torch.float64)
    return x.to(torch.complex128) if x.is_complex() else x


def interpolates(action: Action, group: Group, element: int) -> bool:
    """Whether the action reads between pixels for this element."""
    return isinstance(action, ScalarField | LabelMask) and not group.is_exact(element)


def in_view(height: int, width: int, view: float) -> Tensor:
    """Where the pixels are that stay in the image at every angle: a disc about the centre, bool ``[H, W]``.

    Args:
        height: Pixels.
        width: Pixels.
        view: Share of the largest radius, ``(min(H, W) - 1) / 2``; the pixels next to the centre are always in.
    """
    rows = torch.arange(height, dtype=torch.float64).unsqueeze(1) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    radius = max(view * (min(height, width) - 1) / 2, 0.75)
    return rows**2 + columns**2 <= radius**2


class Ruler:
    """How to compare tensors that an action has moved by an element.

    Where the action moves indices or coordinates, the measure is the largest absolute value. Where it reads between
    pixels, it is the root mean square inside the disc that stays in view.

    Args:
        action: The action.
        group: The group.
        element: The element.
        view: Share of the disc's radius.
    """

    def __init__(self, action: Action, group: Group, element: int, view: float) -> None:
        self.in_disc = interpolates(action, group, element)
        self.view = view

    def size(self, x: Tensor) -> Tensor:
        """The size of ``x``, a float64 tensor without axes; NaN where ``x`` holds one."""
        x = (x if x.is_complex() else x.to(torch.float64)).abs()
        if self.in_disc:
            height, width = x.shape[-2:]
            return x[..., in_view(height, width, self.view)].square().mean().sqrt()
        return x.amax() if x.numel() else x.sum()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The size of ``a - b``; infinite where the shapes differ."""
        if a.shape != b.shape:
            return torch.tensor(torch.inf, dtype=torch.float64)
        kind = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
        return self.size(a.to(kind) - b.to(kind))
