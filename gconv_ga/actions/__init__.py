"""How a group element moves a tensor: the representations, as objects.

An action is called with the tensor, the group and the element and gives ``L_g x``. For images and maps the element
axis and the pixel axes are last: ``x[B, C, H, W]``, ``f[B, C, |G|, H, W]``. Multiples of 90 degrees and mirrors are
index moves on any height and width; other angles are interpolated (`ScalarField` says how) and their error is small
but not zero.

Names: `Action`, `ScalarField`, `VectorField`, `RegularField`, `Invariant`, `LabelMask`, `Points`, `Keypoints`,
`Boxes`, `as_action` (from a name), and for authors of layers `GridMove`, `grid_move`, `move_grid` (index moves),
`leftover`, `good_sizes_near` (sizes that strided windows cover without a rest), and for whoever moves what models take
and return `nest_leaves`, `rebuild_nest`, `Leaf`, `as_actions`, `pair_leaves`, `pair_inputs`.

Example:
    >>> import torch
    >>> from gconv_ga.actions import ScalarField
    >>> from gconv_ga.groups import C4
    >>> image = torch.arange(6.0).view(1, 1, 2, 3)
    >>> turned = ScalarField()(image, C4, 1)
    >>> turned.shape, torch.equal(turned, torch.rot90(image, 1, (-2, -1)))
    (torch.Size([1, 1, 3, 2]), True)
"""

from ._action import Action, Invariant
from ._fields import LabelMask, RegularField, ScalarField, VectorField
from ._grid import GridMove, good_sizes_near, grid_move, leftover, move_grid
from ._nests import Leaf, as_action, as_actions, nest_leaves, pair_inputs, pair_leaves, rebuild_nest
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
]
