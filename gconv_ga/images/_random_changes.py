"""Random changes of an image and its mask: of colours and contrast, blur, noise, and of the shape of objects."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as v2

from .._validate import wrong_shape
from ._changes import Changes

SPACING = 32  # of the points that an elastic change displaces, in pixels
RGB = 3


class RandomChanges:
    """Change a normalized image and its mask at random, each kind of change in half of the calls.

    Elastic changes move the mask, or the numbers of objects, with the image, without mixing classes; all others leave
    it as it is. The kind ``scale`` is not among them: `CropStream` cuts larger and smaller windows, since a crop does
    not hold what lies beside it. Brightness, contrast and colour are changed in the units of normalized images, in
    which the transforms of torchvision, made for values from 0 to 1, cannot be used.

    Draws from torch's global generator, as torchvision's transforms do.

    Args:
        changes: The changes, or their name as for `Changes.named`.

    Shape:
        - image: ``[C, H, W]``, normalized
        - mask: ``[H, W]``, whole numbers
        - output: the two, in the same shapes

    Raises:
        ValueError: There are no such changes, or the shapes of image and mask do not fit.

    Example:
        >>> import torch
        >>> from gconv_ga.images import RandomChanges
        >>> image, mask = torch.randn(3, 48, 64), torch.randint(2, (48, 64))
        >>> changed, moved = RandomChanges("strong")(image, mask)
        >>> changed.shape, moved.shape, moved.dtype
        (torch.Size([3, 48, 64]), torch.Size([48, 64]), torch.int64)

    References:
        Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015 (elastic changes by a coarse grid of displacements); Tellez et
        al., "Quantifying the effects of data augmentation and stain color normalization", Medical Image Analysis 2019.
    """

    def __init__(self, changes: Changes | str) -> None:
        self.changes = Changes.named(changes) if isinstance(changes, str) else changes

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if image.ndim != 3 or mask.shape != image.shape[1:]:
            raise wrong_shape("mask", f"[H, W] of an image [C, H, W] = {tuple(image.shape)}", mask)
        largest = self.changes
        if _is_due(largest.elastic):
            image, mask = _bend(image, mask, largest.elastic)
        if _is_due(largest.color) and len(image) == RGB:
            angle = largest.color * float(_uniform())
            image = torch.einsum("ij,jhw->ihw", _turn_hue(angle, _factor(largest.color / 100)).to(image), image)
        if _is_due(largest.contrast):
            factors = torch.stack([_factor(largest.contrast) for _ in image])
            shifts = largest.contrast * _uniform(len(image))
            image = image * factors.to(image)[:, None, None] + shifts.to(image)[:, None, None]
        if _is_due(largest.blur):
            image = _blur(image, largest.blur * float(torch.rand(())))
        if _is_due(largest.noise):
            image = v2.gaussian_noise(image, sigma=largest.noise * float(torch.rand(())), clip=False)
        return image, mask

    def zoom(self) -> float:
        """Draw the factor by which objects become larger; 1 in half of the calls, and if ``scale`` is 0."""
        return float(_factor(self.changes.scale)) if _is_due(self.changes.scale) else 1.0


def _is_due(largest: float) -> bool:
    return largest > 0 and bool(torch.rand(()) < 0.5)


def _uniform(*shape: int) -> Tensor:
    """Draw from -1 to 1."""
    return 2 * torch.rand(shape) - 1


def _factor(more: float) -> Tensor:
    """Draw a factor between ``1 + more`` and its inverse; as likely above 1 as below."""
    return (math.log1p(more) * _uniform()).exp()


def _turn_hue(degrees: float, saturation: Tensor) -> Tensor:
    """Return the map of colours that rotates about the grey axis and scales the distance from it."""
    grey = torch.full((RGB, RGB), 1 / RGB)
    across = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(RGB)
    angle = math.radians(degrees)
    return grey + saturation * (math.cos(angle) * (torch.eye(RGB) - grey) + math.sin(angle) * across)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian that is cut off at three standard deviations."""
    reach = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)  # no more can be reflected at the border
    if reach < 1:
        return image
    blurred: Tensor = v2.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred


def _bend(image: Tensor, mask: Tensor, deviation: float) -> tuple[Tensor, Tensor]:
    """Displace the points of a coarse grid at random, and what lies between smoothly; outside is a reflection.

    torchvision's elastic transform would fill what comes from outside by a constant, in image and mask.
    """
    height, width = mask.shape
    # Two points more on each axis: between the outer ones the displacement is as large as elsewhere.
    coarse = [side // SPACING + 3 for side in (height, width)]
    points = deviation * torch.randn(1, 2, *coarse)
    fine = F.interpolate(points, [count * SPACING for count in coarse], mode="bicubic", align_corners=False)
    first = SPACING + (SPACING - height % SPACING) // 2, SPACING + (SPACING - width % SPACING) // 2
    shift = fine[0, :, first[0] : first[0] + height, first[1] : first[1] + width]
    rows = torch.arange(height)[:, None] + shift[0]
    columns = torch.arange(width) + shift[1]
    # In grid_sample -1 and 1 are the outer edges of the outer pixels; x comes first.
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)[None].to(image)
    bent = F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]
    # Indices of pixels in place of a sampled mask: floating-point numbers would round large numbers of objects.
    row, column = (
        _reflected(where.round().to(torch.int64), side) for where, side in ((rows, height), (columns, width))
    )
    return bent, mask[row, column]


def _reflected(index: Tensor, side: int) -> Tensor:
    """Reflect indices at the outer edges of the outer pixels."""
    index = index.remainder(2 * side)
    return torch.where(index < side, index, 2 * side - 1 - index)
