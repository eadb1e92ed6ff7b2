"""A run: a folder in which a training lives, is interrupted, and goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from .._validate import invalid
from ..data import CropStream, PairDataset, PairFiles
from ..plots import learning_curves, save_figure
from ._checkpoint import save_checkpoint, write_atomically
from ._devices import as_device
from ._fit import fit
from ._log import Log, LogRow, read_log
from ._losses import CrossEntropyDice
from ._predict_image import predict_image
from ._run_config import RunConfig
from ._scores import dice
from ._segmenter import Segmenter
from ._state import TrainingState, read_state

CONFIG, STATE, MODEL, LOG, CURVES = "run.json", "state.safetensors", "model.safetensors", "log.csv", "curves.png"


def read_run(folder: str | Path) -> RunConfig:
    """The configuration of a run.

    Args:
        folder: The run.

    Raises:
        ValueError: There is no run in the folder, or its configuration or its state is damaged.

    Example:
        >>> read_run("nowhere")
        Traceback (most recent call last):
            ...
        ValueError: folder must be a run, but got folder='nowhere'. There is no run.json in it.
    """
    try:
        text = (Path(folder) / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise invalid("folder", "a run", str(folder), f"there is no {CONFIG} in it") from None
    if (Path(folder) / STATE).exists():
        read_state(Path(folder) / STATE)
    return RunConfig.from_json(text)


def train_run(
    folder: str | Path,
    config: RunConfig,
    pairs: Sequence[PairFiles],
    *,
    device: str | torch.device = "cpu",
    every: int | None = None,
    report: Callable[[int, float], Any] | None = None,
) -> nn.Module:
    """Trains in a folder, or goes on with the training that was interrupted there.

    The folder holds ``run.json`` (the configuration), ``model.safetensors`` (a checkpoint), ``state.safetensors`` (what
    it takes to go on), ``log.csv``, and at the end ``curves.png``. All but the log are written beside and renamed, so
    the program may end at any moment: called again with the same configuration, files and number of threads, it ends
    with the same weights to the last bit, and with the same log. Networks that draw random numbers themselves
    (dropout) are not among those that `RunConfig` can describe.

    Args:
        folder: The run.
        config: Its configuration.
        pairs: The files, at least those that ``config.split`` names for training and validation.
        device: As in `as_device`.
        every: Steps from one saved state, and one look at the validation images, to the next; None for a tenth of all.
        report: Called after each step with the number of steps done, earlier ones included, and the loss.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        ValueError: A file that the split names is not among ``pairs``; the folder holds a run of another
            configuration; there is no such device.
        KeyboardInterrupt: The user has pressed Ctrl-C; the last saved state is there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import gconv_ga.data
        >>> from gconv_ga.data import Normalization, find_images, match_masks
        >>> from gconv_ga.training import RunConfig, SegmenterConfig
        >>> sample = Path(gconv_ga.data.__file__).parent / "sample" / "nuclei"
        >>> pairs, _ = match_masks(find_images(sample / "images")[:4], sample / "masks")
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=1, depth=2)
        >>> segmenter = SegmenterConfig("EquivariantUNet", arguments, ("none", "nucleus"), Normalization([40], [30]))
        >>> config = RunConfig(segmenter, {"00": "train", "01": "val"}, steps=2, batch_size=2, crop=32)
        >>> with tempfile.TemporaryDirectory() as run:
        ...     model = train_run(run, config, pairs)
        ...     sorted(path.name for path in Path(run).iterdir())
        ['curves.png', 'log.csv', 'model.safetensors', 'run.json', 'state.safetensors']
    """
    place, where = Path(folder), as_device(device)
    _settle(place, config)
    training, validation = (
        PairDataset(_named(pairs, config, part), config.segmenter.normalization, config.mask_code)
        for part in ("train", "val")
    )
    stream: Dataset[Any] = CropStream(
        training, length=config.steps * config.batch_size, crop=config.crop, symmetry=config.augmentation,
        seed=config.seed,
    )  # fmt: skip
    model = config.segmenter.build(seed=config.seed)
    state = read_state(place / STATE) if (place / STATE).exists() else None
    step = 0 if state is None else state.step
    if state is not None:
        model.load_state_dict(state.weights)
    journal = Log(place / LOG, step)
    if step < config.steps:
        keeper = KeepRun(place, config, state, validation, journal, every or max(1, config.steps // 10), report)
        rest = Subset(stream, range(step * config.batch_size, config.steps * config.batch_size))
        loss = CrossEntropyDice(config.mask_code.ignore_index)
        segmenter = Segmenter(model, learning_rate=config.learning_rate, loss=loss)
        fit(segmenter, rest, batch_size=config.batch_size, device=where, seed=config.seed, callbacks=[keeper])
    save_checkpoint(place / MODEL, model, config.segmenter, step=config.steps)
    rows = read_log(place / LOG)
    scores = [(row.step, row.dice) for row in rows if row.dice is not None]
    save_figure(learning_curves([(row.step, row.loss) for row in rows], scores), place / CURVES)
    return model.eval()


class KeepRun(pl.Callback):
    """Puts the saved state back at the start; logs every step; validates and saves now and then."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        state: TrainingState | None,
        validation: PairDataset,
        journal: Log,
        every: int,
        report: Callable[[int, float], Any] | None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.state = state
        self.validation = validation
        self.every = every
        self.report = report
        self.before = 0 if state is None else state.step
        self.journal = journal  # Lightning puts a function of its own under self.log

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step."""
        if self.state is not None:
            self.state.restore(trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step."""
        step, loss = self.before + trainer.global_step, float(outputs["loss"])
        assert isinstance(pl_module, Segmenter)
        if step % self.every and step != self.config.steps:
            self.journal.add(LogRow(step, loss, None))
        else:
            self.journal.add(LogRow(step, loss, self._validate(pl_module)))
            scheduler = trainer.lr_scheduler_configs[0].scheduler
            state = TrainingState.take(step, pl_module.model, trainer.optimizers[0], scheduler)
            save_checkpoint(self.folder / MODEL, pl_module.model, self.config.segmenter, step=step)
            state.write(self.folder / STATE)
        if self.report is not None:
            self.report(step, loss)

    def _validate(self, segmenter: Segmenter) -> float | None:
        """The mean Dice score of the validation images; None if there are none, or nothing is in them."""
        scores = []
        for index in range(len(self.validation)):
            image, mask = self.validation[index]
            labels, _ = predict_image(segmenter.model, image, device=segmenter.device)
            ignored, classes = self.config.mask_code.ignore_index, len(self.config.segmenter.classes)
            scores.append(dice(labels[None], mask[None], classes=classes, ignore_index=ignored))
        return torch.tensor(scores).nanmean().item() if any(score == score for score in scores) else None


def _settle(folder: Path, config: RunConfig) -> None:
    """Writes the configuration into a new run.

    Raises:
        ValueError: There is another one.
    """
    if not (folder / CONFIG).exists():
        write_atomically(folder / CONFIG, (config.to_json() + "\n").encode())
    elif read_run(folder) != config:
        raise invalid("config", f"that of the run in {folder}", config, "take another folder")


def _named(pairs: Sequence[PairFiles], config: RunConfig, part: str) -> list[PairFiles]:
    """The files of a part of the split, in the order of their names."""
    files = {pair.name: pair for pair in pairs}
    missing = [name for name in config.names(part) if name not in files]
    if missing:
        raise invalid("pairs", f"all files of the split, {missing[0]!r} among them", sorted(files))
    return [files[name] for name in config.names(part)]
