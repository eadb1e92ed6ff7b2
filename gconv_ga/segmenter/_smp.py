"""Networks of segmentation_models_pytorch, converted: equivariant, and for images of every size."""

import difflib
import re

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._validate import invalid, one_of
from ..conversion import ConvertedNetwork, convert
from ..groups import as_group

# Those that `convert` takes with a convolutional encoder. MAnet and DPT mix positions in a way of their own, PAN needs
# images of 128 pixels and more.
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
EXAMPLE = (2, 70, 101)  # images, rows and columns: not square, and no multiples of anything


class AnySize(nn.Module):
    """A network that takes multiples of a number of pixels, for every size: the image is padded, the answer cropped.

    One side is padded and cropped, by `torch.nn.functional.pad` alone: converted, each orientation does it on its own
    side, so that the result is equivariant at every size.

    Args:
        model: What takes multiples of ``step``.
        step: Pixels.

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
    """A network of segmentation_models_pytorch.

    Args:
        name: One of `SMP_NAMES`.
        encoder: A convolutional encoder of that package, such as "resnet18", or "tu-" and a name of timm's.
        in_channels: Channels of the image.
        classes: Channels of the logits.
        weights: Trained weights of the encoder, such as "imagenet", which are downloaded; None for none.

    Raises:
        ValueError: There is no such network, encoder or weights.
    """
    one_of("name", name, SMP_NAMES)
    # No colons and slashes: timm would take an address and look there.
    if encoder not in smp.encoders.get_encoder_names() and not re.fullmatch(r"tu-[\w.-]+", encoder):
        takes = "an encoder of segmentation_models_pytorch, or tu- and a name of timm's"
        close = difflib.get_close_matches(encoder, smp.encoders.get_encoder_names(), n=1)
        raise invalid("encoder", takes, encoder, f"the closest is {close[0]!r}" if close else "")
    try:
        model = smp.create_model(name, encoder, encoder_weights=weights, in_channels=in_channels, classes=classes)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        takes = "an encoder of segmentation_models_pytorch" + (f" with weights {weights!r}" if weights else "")
        raise invalid("encoder", takes, encoder, f"it says: {error}") from None
    except OSError as error:
        raise invalid("weights", "trained weights that can be had from here", weights, f"it says: {error}") from None
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
    """The network of `plain_smp`, converted to the one that is its group average; see `convert`.

    Args:
        in_channels: Channels of the image.
        classes: Channels of the logits.
        name: As for `plain_smp`.
        encoder: As for `plain_smp`.
        group: C2, C4, D1, D2 or D4.
        open_taps: Whether orientations may mix: ``|G|`` times the weights, beginning at zero.
        verify: Whether to compare with the group average.

    Raises:
        ValueError: There is no such network, encoder or group, or it cannot be converted.
    """
    model = plain_smp(name, encoder, in_channels, classes)
    batch, *size = EXAMPLE
    example = torch.randn(batch, in_channels, *size, generator=torch.Generator().manual_seed(0))
    net = convert(model, as_group(group), example, verify=verify)
    if open_taps:
        net.open_taps()
    return net
