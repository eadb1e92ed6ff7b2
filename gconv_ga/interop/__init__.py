"""Conversion of escnn networks to networks of this package, with their weights, and back.

Names: `from_escnn`, `to_escnn`, and `without_escnn`, for loading a network of a user's class elsewhere.

The first two need the extra ``escnn`` (which needs gfortran and numpy below 2) when they are called. Importing this
room, and loading, running, training or folding a converted network do not need it.

Example:
    >>> import importlib.util
    >>> import torch
    >>> from gconv_ga.interop import from_escnn
    >>> if importlib.util.find_spec("escnn"):  # the extra of that name
    ...     from escnn import gspaces, nn as enn
    ...
    ...     space = gspaces.flipRot2dOnR2(4)
    ...     image, maps = enn.FieldType(space, [space.trivial_repr]), enn.FieldType(space, 8 * [space.regular_repr])
    ...     net = from_escnn(enn.SequentialModule(enn.R2Conv(image, maps, 3, padding=1), enn.ReLU(maps)))
    ...     assert net(torch.randn(1, 1, 32, 32)).shape == (1, 8, 8, 32, 32)  # [B, C, |G|, H, W]
"""

from ._absent import without_escnn
from ._from_escnn import from_escnn
from ._to_escnn import to_escnn

__all__ = ["from_escnn", "to_escnn", "without_escnn"]
