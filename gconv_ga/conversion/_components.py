"""The part of an action that is not about pixels: in the image's own frame those are in place already."""

from typing import Any

import torch
from torch import Tensor

from .._validate import invalid
from ..actions import Action, Invariant, LabelMask, Leaf, ScalarField, nest_leaves
from ..groups import Group
from ._orbit import to_orbit


def check_in_action(actions: Any) -> None:
    """Refuse actions on inputs that move something other than pixels and components.

    Raises:
        ValueError: There is one.
    """
    for name, action in nest_leaves(actions, "in_action"):
        if not isinstance(action, ScalarField | LabelMask | Invariant):
            advice = "coordinates of another frame do not fit an image that is not turned; use GroupAverage"
            raise invalid(name, "an action on images, or 'invariant'", action, advice)


def orbit_of(leaf: Leaf, group: Group) -> Any:
    """An input for all orientations, ``[B |G|, ...]``; what is no tensor stays."""
    x, action = leaf.value, leaf.action
    if not isinstance(x, Tensor) or x.ndim == 0:
        return x
    if not isinstance(action, ScalarField) or type(action) is ScalarField:
        return to_orbit(x, group)
    turned = [_turn_components(action, x, group, group.inverse(g)) for g in range(group.order)]
    return torch.stack(turned, dim=1).flatten(0, 1)


def in_the_image_frame(leaf: Leaf, group: Group) -> Tensor:
    """``[B, |G|, ...]``: what each orientation says of the image as it is.

    Shape:
        - leaf: ``[B |G|, ...]``
        - output: ``[B, |G|, ...]``
    """
    maps: Tensor = leaf.value.unflatten(0, (-1, group.order))
    action = leaf.action
    if isinstance(action, Invariant) or type(action) is ScalarField:
        return maps
    turned = []
    for g, y in enumerate(maps.unbind(1)):
        if isinstance(action, ScalarField):
            turned.append(_turn_components(action, y, group, g))
        else:
            # What the model saw was turned back by g: an action that knows the image's size starts from there.
            turned.append(action.after(group, group.inverse(g))(y, group, g))
    return torch.stack(turned, dim=1)


def _turn_components(action: Action, x: Tensor, group: Group, element: int) -> Tensor:
    """``L_g`` of every pixel by itself, as an image of one pixel."""
    pixels = x.movedim((-2, -1), (1, 2))
    return action(pixels[..., None, None], group, element)[..., 0, 0].movedim((1, 2), (-2, -1))
