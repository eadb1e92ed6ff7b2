"""What happens beside the training: reports of its progress, checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from .._validate import as_int
from ._checkpoint import save_checkpoint
from ._config import SegmenterConfig
from ._segmenter import Segmenter


class ReportSteps(pl.Callback):
    """Calls a function after every step, for a progress bar.

    Args:
        report: Called with the number of steps done and the loss of the last one.

    Example:
        >>> callback = ReportSteps(lambda step, loss: print(f"{step}: {loss:.3f}"))
        >>> callback.report(1, 0.5)
        1: 0.500
    """

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self.report = report

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step."""
        self.report(trainer.global_step, float(outputs["loss"]))


class SaveCheckpoints(pl.Callback):
    """Writes a checkpoint every so many steps, each over the one before, and one at the end.

    Args:
        path: The file.
        config: What the network was built from.
        every: Steps from one checkpoint to the next.

    Raises:
        ValueError: ``every`` is no positive int.

    Example:
        >>> from gconv_ga.data import Normalization
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=2, depth=2)
        >>> config = SegmenterConfig("EquivariantUNet", arguments, ("none", "cell"), Normalization([0.3], [0.2]))
        >>> SaveCheckpoints("net.safetensors", config, every=100).every
        100
    """

    def __init__(self, path: str | Path, config: SegmenterConfig, *, every: int = 25) -> None:
        self.path = Path(path)
        self.config = config
        self.every = as_int("every", every, minimum=1)
        self.saved = 0  # the step of the file as it is now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step."""
        done = trainer.global_step == trainer.estimated_stepping_batches
        if (
            trainer.is_global_zero
            and isinstance(pl_module, Segmenter)
            and (done or not trainer.global_step % self.every)
        ):
            save_checkpoint(self.path, pl_module.model, self.config, step=trainer.global_step)
            self.saved = trainer.global_step
