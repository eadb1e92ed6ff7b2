"""What keeps a run while it is trained: its log, its checkpoints, the state to go on from, and when it is enough."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.loggers import TensorBoardLogger
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from .._files import write_atomically
from .._validate import invalid, missing_extra
from ..evaluate import dice
from ..images import CropStream, MaskFile, PairDataset, PairFiles
from ..plots import learning_curves, save_figure
from ..predict import predict_image
from ..segmenter import as_device, save_checkpoint
from ._config import RunConfig
from ._fit import fit
from ._module import CrossEntropyDice, Segmenter
from ._processes import is_main_process, processes
from ._start import start_at_frequencies
from ._state import Log, LogRow, TrainingState, best_row, read_log, read_state

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


CONFIG, INIT, LOG, CURVES = "run.json", "init.safetensors", "log.csv", "curves.png"


def read_run(folder: str | Path) -> RunConfig:
    """The configuration of a run.

    Args:
        folder: The run.

    Raises:
        ValueError: There is no run in the folder, or its configuration or its state is damaged.

    Example:
        >>> from gconv_ga.train import read_run
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
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    init: Mapping[str, Tensor] | None = None,
    tensorboard: bool = False,
    report: Callable[[int, float], Any] | None = None,
) -> nn.Module:
    """Trains in a folder, or goes on with the training that was interrupted there.

    The folder holds ``run.json`` (the configuration), ``model.safetensors`` (the last checkpoint),
    ``best.safetensors`` (that of the best validation score), ``state.safetensors`` (what it takes to go on),
    ``log.csv``, and at the end ``curves.png``. All but the log are written beside and renamed, so the program may end
    at any moment: called again with the same configuration, files, number of processes and of threads, it ends with
    the same weights to the last bit, and with the same log.

    A new head begins as `start_at_frequencies` says, for the masks of the training images.

    Where several processes train (``devices``, ``nodes``), each must come to this call with the same arguments; one of
    them writes. All nodes must see the folder.

    Args:
        folder: The run.
        config: Its configuration.
        pairs: The files, at least those that ``config.split`` names for training and validation.
        device: As in `as_device`.
        devices: As for `Machines`.
        nodes: As for `Machines`.
        strategy: As for `Machines`.
        init: The first weights of a new run whose ``config.init`` says where they come from; they are kept in
            ``init.safetensors``. None for random ones.
        tensorboard: Whether to log for TensorBoard too, into ``tensorboard``; needs the extra of that name.
        report: Called after each step with the number of steps done, earlier ones included, and the loss.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        ValueError: A file that the split names is not among ``pairs``; the folder holds a run of another
            configuration; ``init`` is not what ``config.init`` announces; or as for `fit`.
        ModuleNotFoundError: TensorBoard is not installed.
        KeyboardInterrupt: The user has pressed Ctrl-C; the last saved state is there.

    Example:
        >>> import tempfile
        >>> from gconv_ga.train import train_run
        >>> from pathlib import Path
        >>> import gconv_ga.images
        >>> from gconv_ga.images import Normalization, find_images, match_masks
        >>> from gconv_ga.train import RunConfig
        >>> from gconv_ga.segmenter import SegmenterConfig
        >>> sample = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"
        >>> pairs, _ = match_masks(find_images(sample / "images")[:4], sample / "masks")
        >>> arguments = dict(in_channels=1, classes=2, group="C4", width=1, depth=2)
        >>> segmenter = SegmenterConfig("EquivariantUNet", arguments, ("none", "nucleus"), Normalization([40], [30]))
        >>> config = RunConfig(segmenter, {"00": "train", "01": "val"}, steps=2, batch_size=2, crop=32)
        >>> with tempfile.TemporaryDirectory() as run:
        ...     model = train_run(run, config, pairs)
        ...     sorted(path.name for path in Path(run).iterdir())
        ['best.safetensors', 'curves.png', 'log.csv', 'model.safetensors', 'run.json', 'state.safetensors']
    """
    place, where = Path(folder), as_device(device)
    if tensorboard and find_spec("tensorboard") is None:  # Lightning would take a substitute
        absent = ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
        raise missing_extra(__name__, "tensorboard", absent)
    _settle(place, config, init)
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
    else:
        if config.init is not None:
            model.load_state_dict(load_file(place / INIT) if init is None else dict(init))
        if config.has_new_head:
            masks = (band for pair in training.pairs for band in MaskFile(pair.mask, config.mask_code).bands())
            start_at_frequencies(model, masks, ignore_index=config.mask_code.ignore_index)
    rows = [row for row in read_log(place / LOG) if row.step <= step]
    if is_main_process():
        for left in place.glob(".*.part"):  # by a program that was killed while it wrote
            left.unlink()
    journal = Log(place / LOG, step) if is_main_process() else None
    if not enough(rows, config):
        keeper = KeepRun(place, config, state, rows, validation, journal, report)
        rest = Subset(stream, range(step * config.batch_size, config.steps * config.batch_size))
        loss = CrossEntropyDice(config.mask_code.ignore_index)
        segmenter = Segmenter(model, learning_rate=config.learning_rate, loss=loss)
        fit(
            segmenter, rest, batch_size=config.batch_size, device=where, seed=config.seed, callbacks=[keeper],
            logger=_tensorboard(place, step) if tensorboard else None, precision=config.precision, devices=devices,
            nodes=nodes, strategy=strategy,
        )  # fmt: skip
        rows = keeper.rows
    if is_main_process():
        save_checkpoint(place / MODEL, model, config.segmenter, step=rows[-1].step)
        scores = [(row.step, row.dice) for row in rows if row.dice is not None]
        save_figure(learning_curves([(row.step, row.loss) for row in rows], scores), place / CURVES)
    return model.eval()


def _tensorboard(folder: Path, step: int) -> TensorBoardLogger:
    """A log that forgets what an interrupted run wrote after ``step``."""
    return TensorBoardLogger(folder, name="tensorboard", version="", purge_step=step + 1)


def _settle(folder: Path, config: RunConfig, init: Mapping[str, Tensor] | None) -> None:
    """Writes the configuration into a new run, after the weights that it begins with.

    Raises:
        ValueError: There is another one, or the weights are not what it announces.
    """
    if (folder / CONFIG).exists():
        if read_run(folder) != config:
            raise invalid("config", f"that of the run in {folder}", config, "take another folder")
        return
    if (init is None) != (config.init is None):
        takes = "None, as config.init is" if config.init is None else "the weights that config.init announces"
        raise invalid("init", takes, None if init is None else sorted(init))
    if is_main_process():
        if init is not None:
            write_atomically(folder / INIT, save(dict(init)))
        write_atomically(folder / CONFIG, (config.to_json() + "\n").encode())


def _named(pairs: Sequence[PairFiles], config: RunConfig, part: str) -> list[PairFiles]:
    """The files of a part of the split, in the order of their names."""
    files = {pair.name: pair for pair in pairs}
    missing = [name for name in config.names(part) if name not in files]
    if missing:
        raise invalid("pairs", f"all files of the split, {missing[0]!r} among them", sorted(files))
    return [files[name] for name in config.names(part)]
