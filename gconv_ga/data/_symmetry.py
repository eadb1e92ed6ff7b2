"""Augmentation by the elements of a group."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group


class RandomSymmetry(v2.Transform):  # type: ignore[misc]  # torchvision has no type hints
    """Moves the image and its mask by an element of a group, each equally likely: a transform of torchvision v2.

    For C4 and D4 pixels are moved and never interpolated, on images of any height and width (a quarter turn of
    ``H x W`` is ``W x H``); torchvision's own rotations keep the canvas and fill its corners. Draws from torch's
    global generator, as torchvision's transforms do.

    Args:
        group: The group or its name; "D4" for quarter turns and mirrors.
        fill: The class of pixels that come from outside the image, at angles off the grid.

    Shape:
        - image: ``[..., C, H, W]``, a `torchvision.tv_tensors.Image`
        - mask: ``[..., H, W]``, a `torchvision.tv_tensors.Mask`

    Raises:
        ValueError: ``group`` is no group.

    Example:
        >>> import torch
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
        """The element to move by."""
        return {"element": int(torch.randint(self.group.order, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The image or mask, moved."""
        action = LabelMask(self.fill) if isinstance(inpt, tv_tensors.Mask) else ScalarField()
        moved = action(inpt.as_subclass(torch.Tensor), self.group, params["element"])
        wrapped: Tensor = tv_tensors.wrap(moved, like=inpt)
        return wrapped
