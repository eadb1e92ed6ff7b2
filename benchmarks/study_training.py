"""One training of study.py, scored with its last weights and with those that a validation split selects."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from segmentation_tasks import KINDS, Kind, Task
from torch import Tensor, nn

from gconv_ga import GroupAverage
from gconv_ga.evaluate import dice
from gconv_ga.images import CropStream, Normalization, Split
from gconv_ga.predict import predict_labels
from gconv_ga.train import Segmenter, fit

VALIDATION = 4  # images, in addition to those for training
SCHEDULES = ("cycle", "polynomial", "SGD")


@dataclass(frozen=True)
class Setting:
    """Optimizer of a training.

    Args:
        rate: Highest learning rate.
        decay: Weight decay.
        schedule: "cycle" is AdamW with one cycle of the learning rate, as `Segmenter` has it. "polynomial" is AdamW
            with a rate that falls as ``(1 - step / steps) ** 0.9``. "SGD" is the optimizer of nnU-Net: that fall, and
            Nesterov momentum of 0.99.
    """

    rate: float = 1e-2
    decay: float = 1e-2
    schedule: str = "cycle"


class StudySegmenter(Segmenter):
    """Lightning module with the optimizer of a setting."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        super().__init__(model, learning_rate=setting.rate, weight_decay=setting.decay)
        self.schedule = setting.schedule

    def configure_optimizers(self) -> Any:
        if self.schedule == "cycle":
            return super().configure_optimizers()
        arguments = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        optimizer = (
            torch.optim.SGD(self.parameters(), momentum=0.99, nesterov=True, **arguments)
            if self.schedule == "SGD"
            else torch.optim.AdamW(self.parameters(), **arguments)
        )
        steps = int(self.trainer.estimated_stepping_batches)
        fall = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": fall, "interval": "step"}}


class Selection(pl.Callback):
    """Lightning callback that keeps the weights with the best validation score, as ``gconv-ga train`` does.

    Args:
        score: Function from the network to its validation score.
        every: Number of steps between validations.
    """

    def __init__(self, score: Callable[[nn.Module], float], every: int) -> None:
        self.score = score
        self.every = every
        self.scores: list[float] = []
        self.step = 0
        self.weights: dict[str, Tensor] = {}
        self.seconds = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate if it is time."""
        if trainer.global_step % self.every:
            return
        start = time.process_time()
        model = pl_module.model
        self.scores.append(self.score(model))
        if self.scores[-1] >= max(self.scores):
            self.step, self.weights = trainer.global_step, copy.deepcopy(model.state_dict())
        self.seconds += time.process_time() - start


@dataclass(frozen=True)
class Draw:
    """Images of one run, normalized with statistics of those for training.

    Args:
        task: Images for training and test images.
        validation: Images by which weights are selected.
        held_out: All images that are neither for training nor test images: the optimizer is chosen by these.
    """

    task: Task
    validation: Split
    held_out: Split


def draw(
    parts: dict[str, Split], name: str, images: int | None, seed: int, crop: int = 0, validation: int = VALIDATION
) -> Draw:
    """Draw the images of a run; for one seed, those for training are those of `load_task`.

    Args:
        parts: Result of `read_parts` or `quick_parts`.
        name: Name of the set.
        images: Number of images for training. If None, all but those for validation.
        seed: Seed of the choice.
        crop: Side of the training crops in pixels. If 0, the default of the set.
        validation: Number of images for validation.
    """
    kind, whole, test = KINDS[name], parts["train"], parts["test"]
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    count = len(whole) - validation if images is None else images
    normalization = Normalization.measure(whole.images[order[:count]], kind.percentile)
    if crop:
        kind = Kind(kind.classes, kind.percentile, crop, kind.batch)

    def normalized(split: Split, index: Tensor | slice) -> Split:
        return Split(normalization(split.images[index]), split.masks[index])

    task = Task(name, kind, normalized(whole, order[:count]), normalized(test, slice(None)))
    return Draw(task, normalized(whole, order[count : count + validation]), normalized(whole, order[count:]))


def train_and_score(
    model: nn.Module, images: Draw, *, steps: int, setting: Setting, seed: int, averaged: bool
) -> dict[str, Any]:
    """Train a network in place, and score it on the test images.

    Args:
        model: Network that returns logits.
        images: Images; weights are selected after every tenth of the training.
        steps: Number of steps.
        setting: Optimizer.
        seed: Seed of the crops and their augmentation.
        averaged: Whether to score the average over D4 of the last weights too.
    """
    task = images.task

    def dice_on(split: Split, network: nn.Module) -> float:
        return dice(predict_labels(network, split.images, batch_size=1), split.masks, classes=task.kind.classes)

    selection = Selection(lambda network: dice_on(images.validation, network), every=max(1, steps // 10))
    stream = CropStream(task.train, length=steps * task.kind.batch, crop=task.kind.crop, symmetry="D4", seed=seed)
    start = time.process_time()
    fit(StudySegmenter(model, setting), stream, batch_size=task.kind.batch, seed=seed, callbacks=[selection])
    seconds = time.process_time() - start - selection.seconds
    row = {
        "seconds": seconds,
        "steps per second": steps / seconds,
        "validation": selection.scores,
        "held out": dice_on(images.held_out, model),
        "selected step": selection.step,
        "last": dice_on(task.test, model),
        "averaged": dice_on(task.test, GroupAverage(model, "D4")) if averaged else None,
    }
    model.load_state_dict(selection.weights)
    return row | {"selected": row["last"] if selection.step == steps else dice_on(task.test, model)}
