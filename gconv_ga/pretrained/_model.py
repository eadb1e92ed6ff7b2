"""A trained network with everything that it needs to find objects in an image as it is in its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .._validate import invalid, wrong_shape
from ..objects import Objects
from ..predict import predict_objects
from ..segmenter import SegmenterConfig, load_checkpoint
from ._files import find_checkpoint, read_card


@dataclass(frozen=True)
class PretrainedModel:
    """A trained network of the package, with its normalization and the rules by which it finds objects.

    Called on an image it returns the objects. Images are normalized by percentiles of their own, so neither their
    number type nor the gain and offset of a camera matter. The objects of an image that is rotated by a multiple of 90
    degrees are the rotated objects, to the last pixel.

    Args:
        name: Name of the network.
        model: The network, in eval mode, on the CPU: from normalized images to logits.
        config: Classes, normalization, and rules for objects.
        card: What is known about it, as for `read_card`.

    Shape:
        - image: ``[C, H, W]``, C = 1 for "nuclei" and 3 for "histology", of any number type
        - output: ``labels``, ``[H, W]``, int64, and ``classes``, ``[objects]``

    Raises:
        ValueError: The image is no tensor, has other axes or another number of channels, or is smaller than 8 pixels;
            its values are not finite.

    Example:
        >>> import torch
        >>> from gconv_ga.models import load
        >>> image = torch.zeros(1, 60, 80)
        >>> image[0, 20:34, 30:44] = 900.0
        >>> objects = load("nuclei")(image)
        >>> objects.labels.shape, objects.labels.dtype
        (torch.Size([60, 80]), torch.int64)
    """

    name: str
    model: nn.Module = field(repr=False)
    config: SegmenterConfig = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)

    def __call__(self, image: Tensor, *, tile: int = 256, device: str | torch.device = "cpu") -> Objects:
        """Find the objects of an image.

        Args:
            image: Image in the units of its file.
            tile: Side in pixels of the tiles into which larger images are cut.
            device: Device to compute on.

        Raises:
            ValueError: As for the class.
        """
        channels = len(self.config.normalization.mean)
        if not isinstance(image, Tensor):
            advice = "torchvision.transforms.v2.functional.pil_to_tensor and torch.from_numpy make one"
            raise invalid("image", f"a tensor [C={channels}, H, W]", type(image).__name__, advice)
        if image.ndim != 3 or image.shape[0] != channels:
            advice = "choose one channel, such as image[:1]" if channels == 1 else "for grey images use 'nuclei'"
            raise wrong_shape("image", f"[C={channels}, H, W]", image, advice)
        normalized = self.config.normalization(image.to(torch.float32))
        return predict_objects(self.model, normalized, decoder=self.config.decoder, tile=tile, device=device).objects


def load(name: str) -> PretrainedModel:
    """Load a trained network of the package. Nothing is downloaded.

    Args:
        name: "nuclei", for nuclei in fluorescence images of one channel, bright on dark; or "histology", for nuclei in
            RGB images of tissue in purple stains or haematoxylin and eosin. ``gconv-ga models NAME`` says more.

    Returns:
        The network: called on an image ``[C, H, W]`` in the units of its file, it returns its objects: numbers
        ``[H, W]``, int64, 0 where there is none. Its ``model`` maps normalized images ``[B, C, H, W]`` to logits
        ``[B, 2, H, W]`` and can be trained further.

    Raises:
        ValueError: There is no such network.

    Example:
        >>> from gconv_ga.models import load
        >>> load("nuclei").config.classes
        ('background', 'nucleus')
    """
    checkpoint = load_checkpoint(find_checkpoint(name))
    return PretrainedModel(name, checkpoint.model, checkpoint.config, read_card(name))
