"""Training with Lightning, and callbacks that report progress and save checkpoints."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from .._validate import as_int, invalid
from ..segmenter import Machines, SegmenterConfig, save_checkpoint
from ._module import Segmenter
from ._processes import BatchShareSampler, SharedBatchNorm


class ReportSteps(pl.Callback):
    """Lightning callback that calls a function after every step, for a progress bar.

    Args:
        report: Function of the number of steps done and the loss of the last one.

    Example:
        >>> from gconv_ga.train import ReportSteps
        >>> callback = ReportSteps(lambda step, loss: print(f"{step}: {loss:.3f}"))
        >>> callback.report(1, 0.5)
        1: 0.500
    """

    def __init__(self, report: Callable[[int, float], None]) -> None:
        self.report = report

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the step."""
        self.report(trainer.global_step, float(outputs["loss"]))


class SaveCheckpoints(pl.Callback):
    """Lightning callback that saves a checkpoint every few steps and at the end, replacing the one before.

    Args:
        path: File of the checkpoint.
        config: Configuration that the network was built from.
        every: Number of steps between checkpoints.

    Raises:
        ValueError: ``every`` is not a positive int.

    Example:
        >>> from gconv_ga.segmenter import SegmenterConfig
        >>> from gconv_ga.train import SaveCheckpoints
        >>> from gconv_ga.images import Normalization
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=2, depth=2)
        >>> config = SegmenterConfig("EquivariantUNet", arguments, ("none", "cell"), Normalization([0.3], [0.2]))
        >>> SaveCheckpoints("net.safetensors", config, every=100).every
        100
    """

    def __init__(self, path: str | Path, config: SegmenterConfig, *, every: int = 25) -> None:
        self.path = Path(path)
        self.config = config
        self.every = as_int("every", every, minimum=1)
        self.saved = 0  # step of the checkpoint in the file

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if one is due."""
        done = trainer.global_step == trainer.estimated_stepping_batches
        if (
            trainer.is_global_zero
            and isinstance(pl_module, Segmenter)
            and (done or not trainer.global_step % self.every)
        ):
            save_checkpoint(self.path, pl_module.model, self.config, step=trainer.global_step)
            self.saved = trainer.global_step


def fit(
    segmenter: Segmenter,
    stream: Dataset[Any],
    *,
    batch_size: int,
    machines: Machines | None = None,
    precision: str = "32",
    seed: int = 0,
    callbacks: Sequence[pl.Callback] = (),
    logger: Logger | None = None,
) -> None:
    """Train a segmenter on a stream, once through and in its order: ``len(stream) // batch_size`` steps.

    The same seeds give the same weights on the same machine with the same number of threads. Gradients are clipped to
    norm 1. Torch's global generators are left unchanged.

    With more than one device Lightning starts the program again for each of them, and every process must reach this
    call with the same arguments. Together they see the batches that one process would see, share the statistics of
    batch norms, and compute the loss of the whole batch: up to rounding, the training is that of one process.

    Args:
        segmenter: Module to train, in place. It is moved to the CPU at the end.
        stream: Pairs of image and mask, such as a `CropStream`.
        batch_size: Number of pairs in a step, of all processes together.
        machines: Devices to train on. If None, one process on the CPU.
        precision: Precision of the forward pass: "32", "bf16-mixed", or on a GPU "16-mixed". Weights are float32.
        seed: Random seed of the draws of the model itself (dropout); the stream has its own.
        callbacks: Lightning callbacks, such as `ReportSteps` and `SaveCheckpoints`.
        logger: Lightning logger, for callbacks that use one.

    Raises:
        ValueError: The stream is shorter than one batch, the batch cannot be divided evenly among the processes, or
            the devices do not support the precision.
        FloatingPointError: The loss is NaN or infinite. Files that callbacks have saved remain.
        KeyboardInterrupt: The user pressed Ctrl-C. Files that callbacks have saved remain.

    Example:
        >>> from gconv_ga.train import Segmenter, fit
        >>> from gconv_ga.images import CropStream, load_sample
        >>> from gconv_ga.models import UNet
        >>> stream = CropStream(load_sample("nuclei").train, length=4, crop=32)
        >>> fit(Segmenter(UNet(1, 2, width=2, depth=2)), stream, batch_size=2)
    """
    size = as_int("batch_size", batch_size, minimum=1)
    length = len(cast(Sized, stream))
    if size > length:
        raise invalid("batch_size", f"at most {length}, the length of the stream", size)
    where = Machines() if machines is None else machines
    options = where.trainer_options(precision)
    loader = DataLoader(stream, where.share(size), sampler=BatchShareSampler(length, size, where.processes))
    shared = [SharedBatchNorm()] if where.processes > 1 else []
    generators_kept = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    with _without_lightning_messages(), generators_kept:
        torch.manual_seed(as_int("seed", seed, minimum=0))
        trainer = pl.Trainer(
            **options,
            plugins=cast(Any, shared),
            use_distributed_sampler=False,
            max_steps=length // size,
            max_epochs=1,
            gradient_clip_val=1.0,
            callbacks=list(callbacks),
            logger=logger or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with _plain_keyboard_interrupt():
            trainer.fit(segmenter, loader)
    segmenter.cpu()


@contextmanager
def _plain_keyboard_interrupt() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on Ctrl-C: Lightning turns it into ``sys.exit(1)`` and leaves the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _without_lightning_messages() -> Iterator[None]:
    """Silence Lightning's advertisements, its notes on the hardware and its advice on workers."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="(pytorch_lightning|lightning_fabric)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
