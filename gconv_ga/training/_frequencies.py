"""A new network begins by saying how frequent each class is."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .._validate import invalid

HEAD = "segmentation_head"


def start_at_frequencies(
    model: nn.Module, masks: Iterable[Tensor] | Tensor, *, ignore_index: int | None = None
) -> None:
    """Sets the bias of a segmenter's head to the logarithm of each class's share of the pixels.

    Otherwise the first thing that training does where a class is rare is to make it rarer everywhere, by way of all the
    maps that speak for it; where these are few, ReLUs can be driven to zero for good, and the network calls everything
    background ever after.

    Args:
        model: A network with a ``segmentation_head`` that ends in a layer with a bias, as `UNet`, `EquivariantUNet` and
            the networks of segmentation_models_pytorch have it; the averages and conversions of these, too.
        masks: Those of the training images; bands of masks do as well.
        ignore_index: Pixels of this class count nowhere; None to count all.

    Shape:
        - masks: each ``[..., H, W]``, class indices

    Raises:
        ValueError: The network has no such head, or a mask has a class that it does not tell.

    Example:
        >>> import torch
        >>> from gconv_ga.models import UNet
        >>> model = UNet(1, 2, width=2, depth=2)
        >>> start_at_frequencies(model, torch.tensor([[0, 0], [0, 1]]))
        >>> model.segmentation_head.bias.softmax(0)  # of 4 pixels, and one more of each class
        tensor([0.6667, 0.3333], grad_fn=<SoftmaxBackward0>)

    References:
        Lin, Goyal, Girshick, He, Dollar, "Focal loss for dense object detection", ICCV 2017, section 4.1.
    """
    biases = [
        parameter
        for name, parameter in model.named_parameters()
        if name.endswith(".bias") and HEAD in name.split(".") and parameter.ndim == 1
    ]
    if not biases:
        raise invalid("model", f"a network whose {HEAD} has a bias", type(model).__name__)
    bias = biases[-1]
    # One more pixel of each class: a class that no mask has is rare, not impossible.
    counts = torch.ones(len(bias), dtype=torch.float64)
    for mask in masks:
        classes = mask.flatten().to(torch.int64)
        classes = classes if ignore_index is None else classes[classes != ignore_index]
        found = classes.bincount(minlength=len(bias)).cpu()
        if len(found) > len(bias):
            takes = f"class indices below {len(bias)}, as the network has classes"
            raise invalid("masks", takes, int(classes.max()), "say ignore_index if it is to be ignored")
        counts += found
    with torch.no_grad():
        bias.copy_((counts / counts.sum()).log())
