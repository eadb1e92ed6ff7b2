"""Augmentation by a group: an image and its mask are moved by the same random element."""

from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from .._validate import invalid
from ..actions import LabelMask, ScalarField
from ..groups import Group, as_group


class RandomSymmetry(v2.Transform):  # type: ignore[misc]  # torchvision has no type hints
    """Transform (torchvision v2) that moves an image and its mask by the same random element of a group.

    All elements are equally likely. For C4 and D4, pixels are moved and never interpolated, on images of any height and
    width (``H x W`` rotated by 90 degrees is ``W x H``); torchvision's own rotations keep the canvas and fill its
    corners. Draws from torch's global generator, as torchvision's transforms do. What else is in a sample, such as the
    label of its image, passes through.

    Args:
        group: The group or its name; "D4" for rotations by multiples of 90 degrees and reflections.
        fill: Class of pixels that come from outside the image, at angles off the grid.

    Shape:
        - image: ``[..., C, H, W]``, a `torchvision.tv_tensors.Image`
        - mask: ``[..., H, W]``, a `torchvision.tv_tensors.Mask`

    Raises:
        ValueError: ``group`` is not a group. When called: the sample holds boxes, keypoints, a video or a PIL image, or
            no ``Image`` but a plain tensor of two axes or more: they would stay where they were beside what is moved.

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

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what would have to move with the image but would not.

        Raises:
            ValueError: As above.
        """
        no_image = not any(isinstance(value, tv_tensors.Image) for value in flat_inputs)
        for value in flat_inputs:
            known = isinstance(value, self._transformed_types)
            plain = isinstance(value, Tensor) and not isinstance(value, tv_tensors.TVTensor)
            placed = isinstance(value, tv_tensors.TVTensor | PIL.Image.Image) or (plain and no_image and value.ndim > 1)
            if placed and not known:
                advice = (
                    f"a {type(value).__name__} would stay where it is; torchvision.tv_tensors.Image(x) wraps an image"
                )
                raise invalid("sample", "of tv_tensors.Image and tv_tensors.Mask", value, advice)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the element to move by."""
        return {"element": int(torch.randint(self.group.order, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Move the image or mask."""
        action = LabelMask(self.fill) if isinstance(inpt, tv_tensors.Mask) else ScalarField()
        moved = action(inpt.as_subclass(torch.Tensor), self.group, params["element"])
        wrapped: Tensor = tv_tensors.wrap(moved, like=inpt)
        return wrapped
