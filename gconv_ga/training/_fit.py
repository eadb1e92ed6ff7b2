"""Training, quietly and repeatably."""

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from .._validate import as_int, invalid
from ._machines import Machines
from ._processes import OwnPart, SharedStatistics
from ._segmenter import Segmenter


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
        >>> from gconv_ga.data import CropStream, load_sample
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
