"""Predicted classes and how well they cover the true ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchmetrics.functional.segmentation import dice_score

from .._validate import as_int, invalid, wrong_shape


def predict_labels(
    model: nn.Module, images: Tensor, *, batch_size: int = 8, device: str | torch.device = "cpu"
) -> Tensor:
    """The most likely class of each pixel.

    Args:
        model: It gives logits; it is used in eval mode, on ``device``, and left in the modes it came in.
        images: The images, normalised as in training.
        batch_size: Images at a time.
        device: Where to compute. The model stays there.

    Shape:
        - images: ``[N, C, H, W]``
        - output: ``[N, H, W]``, int64, on the CPU

    Raises:
        ValueError: ``images`` has other axes.

    Example:
        >>> import torch
        >>> predict_labels(torch.nn.Conv2d(1, 3, 1), torch.zeros(2, 1, 8, 10)).shape
        torch.Size([2, 8, 10])
    """
    if images.ndim != 4:
        raise wrong_shape("images", "[N, C, H, W]", images)
    with torch.no_grad(), evaluating(model.to(device)):
        parts = images.split(as_int("batch_size", batch_size, minimum=1))
        return torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in parts])


def dice(labels: Tensor, masks: Tensor, *, classes: int, ignore_index: int | None = None) -> float:
    """The Dice score: for each image and class but the background, ``2 |A and B| / (|A| + |B|)``; the mean of these.

    A class that is neither predicted nor there counts in no mean; where that holds of all, the score is NaN.

    Args:
        labels: The predicted classes.
        masks: The true ones.
        classes: How many there are; 0 is the background.
        ignore_index: Pixels that have this value in the mask count nowhere; None to count all.

    Shape:
        - labels: ``[N, H, W]``, class indices
        - masks: ``[N, H, W]``, class indices

    Raises:
        ValueError: The shapes differ, or there are fewer than two classes.

    Example:
        >>> import torch
        >>> dice(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), classes=2)
        0.6666666865348816
    """
    if labels.shape != masks.shape or labels.ndim != 3:
        raise wrong_shape("labels", f"[N, H, W] = {tuple(masks.shape)}, as the masks are", labels)
    count = as_int("classes", classes, minimum=2)
    if ignore_index is not None:
        # The background counts in no score, so what is ignored is called background in both.
        inside = masks != ignore_index
        labels, masks = labels * inside, masks * inside
    if max(int(labels.max()), int(masks.max())) >= count:
        raise invalid("classes", "more than the largest label", count, "labels are 0 .. classes - 1")
    scores = dice_score(labels, masks, count, include_background=False, average="none", input_format="index")
    return float(scores.nanmean())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
