"""Networks of segmentation_models_pytorch, converted: equivariant, and for images of any size."""

import difflib
import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._validate import invalid, one_of
from ..conversion import ConvertedNetwork, convert
from ..groups import as_group

# The networks that `convert` accepts with a convolutional encoder. MAnet and DPT mix positions by attention, and PAN
# needs images of at least 128 pixels.
SMP_NAMES = (
    "Unet",
    "UnetPlusPlus",
    "Linknet",
    "FPN",
    "PSPNet",
    "DeepLabV3",
    "DeepLabV3Plus",
    "UPerNet",
    "Segformer",
)
EXAMPLE = (2, 70, 101)  # images, rows, columns: not square, and not multiples of the stride of any encoder


class AnySize(nn.Module):
    """Make a network for multiples of ``step`` pixels accept every size: pad the image, crop the output.

    Only `torch.nn.functional.pad` is used, at the bottom and on the right. In a converted network each orientation pads
    its own side, so the result is equivariant at every size.

    Args:
        model: Network for images whose sides are multiples of ``step``.
        step: Step of the image size in pixels.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, classes, H, W]``
    """

    def __init__(self, model: nn.Module, step: int) -> None:
        super().__init__()
        self.model = model
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        logits: Tensor = self.model(F.pad(x, (0, -width % self.step, 0, -height % self.step)))
        return F.pad(logits, (0, width - logits.shape[-1], 0, height - logits.shape[-2]))

    def extra_repr(self) -> str:
        return f"step={self.step}"


def plain_smp(name: str, encoder: str, in_channels: int, classes: int, weights: str | None = None) -> nn.Module:
    """Build a network of segmentation_models_pytorch for images of any size.

    Args:
        name: Name of the network: Unet, UnetPlusPlus, Linknet, FPN, PSPNet, DeepLabV3, DeepLabV3Plus, UPerNet or
            Segformer.
        encoder: Convolutional encoder of that package, such as "resnet18", or "tu-" and the name of a timm model.
        in_channels: Number of image channels.
        classes: Number of classes, the channels of the logits.
        weights: Pretrained weights of the encoder, such as "imagenet"; they are downloaded. If None, the weights are
            random.

    Raises:
        ValueError: There is no such network or encoder, or its weights do not exist or could not be downloaded.

    Example:
        >>> from gconv_ga.segmenter import plain_smp
        >>> plain_smp("Unet", "resnet18", in_channels=1, classes=2).step
        32
    """
    one_of("name", name, SMP_NAMES)
    import segmentation_models_pytorch as smp  # takes a second to load, and other networks do not need it

    # No colons and slashes: timm would take them as an address to download from.
    if encoder not in smp.encoders.get_encoder_names() and not re.fullmatch(r"tu-[\w.-]+", encoder):
        takes = "an encoder of segmentation_models_pytorch, or tu- and the name of a timm model"
        close = difflib.get_close_matches(encoder, smp.encoders.get_encoder_names(), n=1)
        raise invalid("encoder", takes, encoder, f"the closest is {close[0]!r}" if close else "")
    try:
        model = smp.create_model(name, encoder, encoder_weights=weights, in_channels=in_channels, classes=classes)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        takes = "an encoder of segmentation_models_pytorch" + (f" with weights {weights!r}" if weights else "")
        raise invalid("encoder", takes, encoder, f"the package says: {error}") from None
    except OSError as error:
        takes = "pretrained weights that can be downloaded"
        raise invalid("weights", takes, weights, f"the download failed: {error}") from None
    return AnySize(model, model.encoder.output_stride)


def converted_smp(
    in_channels: int,
    classes: int,
    *,
    name: str,
    encoder: str,
    group: str = "C4",
    open_taps: bool = False,
    verify: bool = False,
) -> ConvertedNetwork:
    """Build the network of `plain_smp`, converted to its group average; see `convert`.

    Args:
        in_channels: Number of image channels.
        classes: Number of classes, the channels of the logits.
        name: As for `plain_smp`.
        encoder: As for `plain_smp`.
        group: Name of the group: C2, C4, D1, D2 or D4.
        open_taps: If True, orientations may mix: ``|G|`` times the weights, initialized to zero.
        verify: If True, compare the result with the group average.

    Raises:
        ValueError: There is no such network, encoder or group, or the network cannot be converted.
    """
    model = plain_smp(name, encoder, in_channels, classes)
    batch, *size = EXAMPLE
    example = torch.randn(batch, in_channels, *size, generator=torch.Generator().manual_seed(0))
    net = convert(model, as_group(group), example, verify=verify)
    if open_taps:
        net.open_taps()
    return net
