"""What happens beside the training: reports of its progress, checkpoints."""

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
from ._processes import OwnPart, SharedStatistics


class ReportSteps(pl.Callback):
    """Calls a function after every step, for a progress bar.

    Args:
        report: Called with the number of steps done and the loss of the last one.

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


def fit(
    segmenter: Segmenter,
    stream: Dataset[Any],
    *,
    batch_size: int,
    device: str | torch.device = "cpu",
    seed: int = 0,
    callbacks: Sequence[pl.Callback] = (),
    logger: Logger | None = None,
    precision: str = "32",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
) -> None:
    """Trains a segmenter on a stream, once through and in its order: ``len(stream) // batch_size`` steps.

    The same seeds give the same weights on the same machine and number of threads. Gradients are clipped to norm 1.
    Torch's global generators are left as they were.

    With more than one device Lightning starts the program again for each; every process must come to this call with
    the same arguments. They then see parts of the same batches that one process sees, share the statistics of batch
    norms, and take the loss of the whole batch: up to rounding, the training is that of one process.

    Args:
        segmenter: What is trained, in place; it comes back on the CPU.
        stream: The pairs of image and mask, such as a `CropStream`.
        batch_size: Pairs a step, those of all processes together.
        device: As in `as_device`.
        seed: Of what the model itself draws (dropout); the stream has its own.
        callbacks: Lightning's, such as `ReportSteps` and `SaveCheckpoints`.
        logger: Lightning's, for callbacks that use one.
        precision: As for `Machines`.
        devices: As for `Machines`.
        nodes: As for `Machines`.
        strategy: As for `Machines`.

    Raises:
        ValueError: The stream is shorter than one batch, the batch cannot be shared out evenly, there are no such
            devices, or an argument is none of those listed.
        KeyboardInterrupt: The user has pressed Ctrl-C; what callbacks have saved is there.

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
    machines = Machines(device, devices, nodes, strategy, precision)
    loader = DataLoader(stream, machines.share(size), sampler=OwnPart(length, size, machines.processes))
    shared = [SharedStatistics()] if machines.processes > 1 else []
    seeded = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    with _quiet(), seeded:
        torch.manual_seed(as_int("seed", seed, minimum=0))
        trainer = pl.Trainer(
            **machines.trainer_options(),
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
        with _interruptible():
            trainer.fit(segmenter, loader)
    segmenter.cpu()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it: Lightning turns it into ``sys.exit(1)`` and leaves the signal ignored."""
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
def _quiet() -> Iterator[None]:
    """Lightning without its advertisements, its notes on the hardware and its advice on workers."""
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
