"""What keeps a run while it is trained: its log, its checkpoints, the state to go on from, and when it is enough."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist

from ..data import PairDataset
from ._checkpoint import save_checkpoint
from ._log import Log, LogRow, best_row
from ._predict_image import predict_image
from ._processes import processes
from ._run_config import RunConfig
from ._scores import dice
from ._segmenter import Segmenter
from ._state import TrainingState

STATE, MODEL, BEST = "state.safetensors", "model.safetensors", "best.safetensors"


def enough(rows: Sequence[LogRow], config: RunConfig) -> bool:
    """Whether a run with this log is done: all steps, or ``patience`` looks without a better score than before."""
    last = rows[-1].step if rows else 0
    if config.patience is None or last >= config.steps:
        return last >= config.steps
    best = best_row(rows)
    since = 0 if best is None else best.step
    return last // config.interval - since // config.interval >= config.patience


class KeepRun(pl.Callback):
    """Puts the saved state back at the start; logs every step; validates and saves now and then.

    Each step draws from generators seeded by the run's seed, the step and the process, so that dropout too is the same
    whether the run was interrupted or not.

    Args:
        folder: The run.
        config: Its configuration.
        state: What to go on from; None to begin.
        rows: The log up to there.
        validation: The validation images, shared out among the processes.
        journal: The log of the process that writes; None for the others.
        report: As for `train_run`.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        state: TrainingState | None,
        rows: Sequence[LogRow],
        validation: PairDataset,
        journal: Log | None,
        report: Callable[[int, float], Any] | None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.state = state
        self.rows = list(rows)
        self.validation = validation
        self.report = report
        self.before = 0 if state is None else state.step
        self.journal = journal  # Lightning puts a function of its own under self.log

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step."""
        if self.state is not None:
            self.state.restore(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before a step."""
        numbers = self.config.seed, self.before + trainer.global_step, trainer.global_rank
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step."""
        step, loss = self.before + trainer.global_step, float(outputs["loss"])
        assert isinstance(pl_module, Segmenter)
        look = step % self.config.interval == 0 or step == self.config.steps
        row = LogRow(step, loss, self._validate(pl_module) if look else None)
        self.rows.append(row)
        if trainer.logger is not None:
            scores = {} if row.dice is None else {"dice": row.dice}
            trainer.logger.log_metrics({"loss": loss, **scores}, step)
        if self.journal is not None:
            self.journal.add(row)
            if look:
                self._save(row, pl_module, trainer)
            if self.report is not None:
                self.report(step, loss)
        trainer.should_stop = trainer.should_stop or (look and enough(self.rows, self.config))

    def _save(self, row: LogRow, segmenter: Segmenter, trainer: pl.Trainer) -> None:
        """The state comes last: what it says is done is there."""
        for name in (BEST, MODEL) if row == best_row(self.rows) else (MODEL,):
            save_checkpoint(self.folder / name, segmenter.model, self.config.segmenter, step=row.step)
        TrainingState.take(row.step, segmenter.model, trainer).write(self.folder / STATE)

    def _validate(self, segmenter: Segmenter) -> float | None:
        """The mean Dice score of the validation images; None if there are none, or nothing is in them."""
        scores = torch.zeros(len(self.validation), dtype=torch.float64)
        rank = dist.get_rank() if processes() > 1 else 0
        for index in range(rank, len(scores), processes()):
            image, mask = self.validation[index]
            labels, _ = predict_image(segmenter.model, image, device=segmenter.device)
            ignored, classes = self.config.mask_code.ignore_index, len(self.config.segmenter.classes)
            scores[index] = dice(labels[None], mask[None], classes=classes, ignore_index=ignored)
        if processes() > 1:
            everywhere = scores.to(segmenter.device)
            dist.all_reduce(everywhere)  # what is another's is zero here
            scores = everywhere.cpu()
        return None if bool(scores.isnan().all()) else scores.nanmean().item()
