"""The loss of a segmenter, and the Lightning module that trains it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from .._validate import as_int, invalid, wrong_shape
from ..conversion import ConvertedNetwork
from ._processes import gather

NEAR = 2  # pixels from a boundary


class CrossEntropyDice(nn.Module):
    """Cross-entropy plus the soft Dice loss, equally weighted.

    Cross-entropy gives every pixel a gradient from the first step; Dice gives weight to classes that cover few pixels.

    Args:
        ignore_index: Pixels of this class are excluded from both terms. If None, all pixels count.
        class_weights: Weight of each class in the cross-entropy, such as those of `class_weights`. If None, all are 1.
        boundary: What is added to the weight 1 of pixels from which another class is at most two pixels away, along
            rows and columns, in the cross-entropy.

    Shape:
        - logits: ``[B, classes, H, W]``
        - masks: ``[B, H, W]``, class indices
        - output: a scalar

    Raises:
        ValueError: The shape of the masks does not fit that of the logits, or ``boundary`` is negative.

    Example:
        >>> import torch
        >>> from gconv_ga.train import CrossEntropyDice
        >>> loss = CrossEntropyDice()
        >>> masks = torch.tensor([[[0, 1], [1, 2]]])
        >>> right = 50.0 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2)
        >>> loss(right, masks).shape, round(float(loss(right, masks)), 3)
        (torch.Size([]), 0.0)

    References:
        Isensee et al., "nnU-Net", Nature Methods 18, 2021, who train with this sum. The Dice loss is the one of
        segmentation_models_pytorch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        class_weights: Sequence[float] | None = None,
        boundary: float = 0.0,
    ) -> None:
        super().__init__()
        if not boundary >= 0:
            raise invalid("boundary", "at least 0", boundary)
        self.ignore_index = ignore_index
        self.boundary = boundary
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.dice = DiceLoss("multiclass", ignore_index=ignore_index)

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        if masks.shape != logits[:, 0].shape:
            raise wrong_shape("masks", f"[B, H, W] = {tuple(logits[:, 0].shape)}, as the logits are", masks)
        loss: Tensor = self._cross_entropy(logits, masks) + self.dice(logits, masks)
        return loss

    def _cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the mean over the pixels that are not ignored, or zero if all are, for which torch returns NaN."""
        ignored = -100 if self.ignore_index is None else self.ignore_index  # -100 is torch's own default
        weights = None if self.class_weights is None else self.class_weights.to(logits)
        if self.boundary:
            errors = F.cross_entropy(logits, masks, weights, ignore_index=ignored, reduction="none")
            of_pixels = (1 + self.boundary * _near_boundary(masks, ignored)) * (masks != ignored)
            return (errors * of_pixels).sum() / of_pixels.sum().clamp_min(1)
        if self.ignore_index is None and weights is None:
            return F.cross_entropy(logits, masks)
        total = F.cross_entropy(logits, masks, weights, ignore_index=ignored, reduction="sum")
        return total / (masks != ignored).sum().clamp_min(1)


def _near_boundary(masks: Tensor, ignored: int) -> Tensor:
    """Return True for pixels with two classes in the square of five pixels around them; ignored pixels have none."""
    side, is_ignored = 2 * NEAR + 1, masks == ignored
    highest, lowest = (
        F.max_pool2d((sign * masks).double().masked_fill(is_ignored, -torch.inf), side, stride=1, padding=NEAR)
        for sign in (1, -1)
    )
    return highest > -lowest


class Segmenter(pl.LightningModule):
    """Lightning module that trains any model that outputs logits, with AdamW and a one-cycle learning rate.

    The learning rate rises over the first tenth of the steps and then falls to zero along a cosine; the small steps at
    the start let the batch norms settle before the large ones. The taps of a `ConvertedNetwork` have a smaller rate of
    their own, see `ConvertedNetwork.param_groups`. If several processes train, each has a part of the batch, and the
    loss is that of the whole batch: the Dice loss of a batch is not the mean of the Dice losses of its parts.

    Args:
        model: Network from ``[B, C, H, W]`` to logits ``[B, classes, H, W]``.
        learning_rate: Highest learning rate of the cycle.
        weight_decay: Weight decay of AdamW.
        loss: Module that compares logits with masks. If None, `CrossEntropyDice`.
        steps: Length of the cycle in steps. If None, the number of steps of the trainer.

    Shape:
        - input: ``[B, C, H, W]``
        - output: ``[B, classes, H, W]``, logits

    Raises:
        ValueError: The learning rate is not positive, or ``steps`` is not a positive int.

    Example:
        >>> import torch
        >>> from gconv_ga.train import Segmenter
        >>> from gconv_ga.models import EquivariantUNet
        >>> segmenter = Segmenter(EquivariantUNet(1, 2, group="C4", width=2, depth=2))
        >>> segmenter(torch.zeros(1, 1, 16, 20)).shape
        torch.Size([1, 2, 16, 20])

    References:
        Smith and Topin, "Super-convergence", 2018; Loshchilov and Hutter, "Decoupled weight decay regularization",
        ICLR 2019.
    """

    _default_loss: ClassVar[type[nn.Module]] = CrossEntropyDice

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float = 1e-2,
        weight_decay: float = 1e-2,
        loss: nn.Module | None = None,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise invalid("learning_rate", "positive", learning_rate)
        self.model = model
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss = self._default_loss() if loss is None else loss
        self.steps = None if steps is None else as_int("steps", steps, minimum=1)
        self.steps_before = 0  # of a training that is resumed, for messages

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch of images and masks.

        Raises:
            FloatingPointError: The loss is NaN or infinite: the training has diverged.
        """
        images, masks = batch
        loss: Tensor = self.loss(gather(self(images)).flatten(0, 1), gather(masks).flatten(0, 1))
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"the loss of step {self.steps_before + self.global_step + 1} is {loss.item()}")
        return loss

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule, which sets the learning rate at every step."""
        groups: list[dict[str, Any]] = [{"params": list(self.parameters()), "lr": self.learning_rate}]
        if isinstance(self.model, ConvertedNetwork):
            groups = self.model.param_groups(self.learning_rate)
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches) if self.steps is None else self.steps
        # A rise of exactly one step would make torch divide by zero.
        rise = 0.1 if steps != 10 else 0.2
        rates = [group["lr"] for group in groups]
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=rise)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
