"""Actions: how a group element moves a tensor, that is, the representations as objects.

An action is called with a tensor, a group and an element, and returns ``L_g x``. Images and feature maps have their
pixel axes last, and the element axis right before them: ``x[B, C, H, W]``, ``f[B, C, |G|, H, W]``. Multiples of 90
degrees and reflections permute indices, at any height and width. Other angles are interpolated (see `ScalarField`),
so their error is small but not zero.

Names: `Action`, `ScalarField`, `VectorField`, `RegularField`, `Invariant`, `LabelMask`, `Points`, `Keypoints`, `Boxes`
and `as_action` (from a name). For authors of layers: `GridMove`, `grid_move`, `move_grid` (permutations of the pixel
grid), `leftover` and `good_sizes_near` (sizes that strided windows cover completely). For code that moves the inputs
and outputs of whole models: `nest_leaves`, `rebuild_nest`, `Leaf`, `as_actions`, `pair_leaves`, `pair_inputs`,
`require_plain`.

Example:
    >>> import torch
    >>> from gconv_ga.actions import ScalarField
    >>> from gconv_ga.groups import C4
    >>> image = torch.arange(6.0).view(1, 1, 2, 3)
    >>> rotated = ScalarField()(image, C4, 1)
    >>> rotated.shape, torch.equal(rotated, torch.rot90(image, 1, (-2, -1)))
    (torch.Size([1, 1, 3, 2]), True)
"""

from ._fields import (
    Action,
    GridMove,
    Invariant,
    LabelMask,
    RegularField,
    ScalarField,
    VectorField,
    good_sizes_near,
    grid_move,
    leftover,
    move_grid,
)
from ._nests import Leaf, as_action, as_actions, nest_leaves, pair_inputs, pair_leaves, rebuild_nest, require_plain
from ._points import Boxes, Keypoints, Points

__all__ = [
    "Action",
    "Boxes",
    "GridMove",
    "Invariant",
    "Keypoints",
    "LabelMask",
    "Leaf",
    "Points",
    "RegularField",
    "ScalarField",
    "VectorField",
    "as_action",
    "as_actions",
    "good_sizes_near",
    "grid_move",
    "leftover",
    "move_grid",
    "nest_leaves",
    "pair_inputs",
    "pair_leaves",
    "rebuild_nest",
    "require_plain",
]
