"""Augmentation by a group: an image and its mask are moved by the same random element."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group


class RandomSymmetry(v2.Transform):  # type: ignore[misc]  # torchvision has no type hints
    """Transform (torchvision v2) that moves an image and its mask by the same random element of a group.

    All elements are equally likely. For C4 and D4, pixels are moved and never interpolated, on images of any height and
    width (``H x W`` rotated by 90 degrees is ``W x H``); torchvision's own rotations keep the canvas and fill its
    corners. Draws from torch's global generator, as torchvision's transforms do.

    Args:
        group: The group or its name; "D4" for rotations by multiples of 90 degrees and reflections.
        fill: Class of pixels that come from outside the image, at angles off the grid.

    Shape:
        - image: ``[..., C, H, W]``, a `torchvision.tv_tensors.Image`
        - mask: ``[..., H, W]``, a `torchvision.tv_tensors.Mask`

    Raises:
        ValueError: ``group`` is not a group.

    Example:
        >>> import torch
        >>> from gconv_ga.images import RandomSymmetry
        >>> from torchvision import tv_tensors
        >>> image, mask = tv_tensors.Image(torch.rand(3, 24, 32)), tv_tensors.Mask(torch.zeros(24, 32))
        >>> moved, moved_mask = RandomSymmetry("D4")(image, mask)
        >>> sorted(moved.shape[-2:]), moved.shape[-2:] == moved_mask.shape
        ([24, 32], True)
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask)

    def __init__(self, group: Group | str, fill: int = 0) -> None:
        super().__init__()
        self.group = as_group(group)
        self.fill = fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the element to move by."""
        return {"element": int(torch.randint(self.group.order, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Move the image or mask."""
        action = LabelMask(self.fill) if isinstance(inpt, tv_tensors.Mask) else ScalarField()
        moved = action(inpt.as_subclass(torch.Tensor), self.group, params["element"])
        wrapped: Tensor = tv_tensors.wrap(moved, like=inpt)
        return wrapped
