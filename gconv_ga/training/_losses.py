"""The loss of a segmenter."""

from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from .._validate import wrong_shape


class CrossEntropyDice(nn.Module):
    """Cross-entropy plus the soft Dice loss, equally weighted.

    Cross-entropy gives every pixel a gradient from the first step; Dice minds the class that covers few pixels.

    Args:
        ignore_index: Pixels of this class count in neither; None to count all.

    Shape:
        - logits: ``[B, classes, H, W]``
        - masks: ``[B, H, W]``, class indices
        - output: a scalar

    Raises:
        ValueError: The masks do not fit the logits.

    Example:
        >>> import torch
        >>> loss = CrossEntropyDice()
        >>> masks = torch.tensor([[[0, 1], [1, 2]]])
        >>> right = 50.0 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2)
        >>> loss(right, masks).shape, round(float(loss(right, masks)), 3)
        (torch.Size([]), 0.0)

    References:
        Isensee et al., "nnU-Net", Nature Methods 18, 2021, who train on this sum. The Dice loss is that of
        segmentation_models_pytorch.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.dice = DiceLoss("multiclass", ignore_index=ignore_index)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        if masks.shape != logits[:, 0].shape:
            raise wrong_shape("masks", f"[B, H, W] = {tuple(logits[:, 0].shape)}, as the logits are", masks)
        loss: Tensor = self._cross_entropy(logits, masks) + self.dice(logits, masks)
        return loss

    def _cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The mean over the pixels that count; zero where none does, for which torch gives NaN."""
        if self.ignore_index is None:
            return F.cross_entropy(logits, masks)
        total = F.cross_entropy(logits, masks, ignore_index=self.ignore_index, reduction="sum")
        return total / (masks != self.ignore_index).sum().clamp_min(1)
