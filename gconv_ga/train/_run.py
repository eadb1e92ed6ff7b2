"""A training run in a folder: it can be interrupted at any moment, resumed exactly, and extended."""

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
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

from .._files import alone_in, remove_unfinished, write_atomically
from .._validate import argument_of, invalid, missing_extra, not_finite
from ..evaluate import dice
from ..images import CropStream, MaskFile, PairDataset, PairFiles, rare_places
from ..objects import Decoder
from ..plots import learning_curves, save_figure
from ..predict import predict_image
from ..segmenter import Machines, load_checkpoint, save_checkpoint
from ._config import RunConfig
from ._fit import fit
from ._module import CrossEntropyDice, Segmenter
from ._objects import ObjectLoss, ObjectSegmenter, ObjectStream, best_rules, candidate_scores
from ._processes import is_main_process, process_count, process_rank
from ._signals import StopSignals
from ._start import class_weights, start_at_frequencies
from ._state import CsvLog, LogRow, TrainingState, best_row, read_log, read_state

CONFIG, INIT, LOG, CURVES = "run.json", "init.safetensors", "log.csv", "curves.png"
PADDING = -1  # class of the padded pixels of images that are smaller than a crop, if the masks have no ignored ones
STATE, MODEL, BEST = "state.safetensors", "model.safetensors", "best.safetensors"


def read_run(folder: str | Path) -> RunConfig:
    """Return the configuration of a run.

    Args:
        folder: Folder of the run.

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
    machines: Machines | None = None,
    init: Mapping[str, Tensor] | None = None,
    tensorboard: bool = False,
    report: Callable[[int, float], Any] | None = None,
) -> nn.Module:
    """Train in a folder, or resume the training that was interrupted there.

    The folder holds ``run.json`` (the configuration), ``model.safetensors`` (the last checkpoint),
    ``best.safetensors`` (the one with the best validation score in the second half of the steps, and with ``patience``
    in all of them), ``state.safetensors`` (the state to resume from), ``log.csv``, and at the end ``curves.png``. All
    files but the log are written under another name and renamed, so the program may be killed at any moment: called
    again with the same configuration, files, number of processes and threads, it ends with the same weights to the last
    bit, and with the same log. On Ctrl-C and SIGTERM the step in progress is finished and the state is saved; a second
    signal ends the program at once. While it runs, a lock on the folder refuses other trainings there.

    Images smaller than a crop are padded by reflection; padded pixels are ignored by the loss.

    If the network has heads for objects and the masks hold the numbers of objects, all heads are trained, on targets
    that are computed from the objects in each crop, and a checkpoint holds the rules of `choose_decoder`. The
    validation score is the average precision of the objects that these rules find.

    The bias of a new head is initialized by `start_at_frequencies` from the masks of the training images.

    A run is extended by calling this again with more ``steps`` and an otherwise equal configuration. Training then
    continues from the last saved state: the weights and the optimizer's moments are kept, and the learning rate (and
    AdamW's first beta, which the cycle moves too) jumps to the value that a cycle of the new length has at that step,
    and follows that cycle to its end. The crops are those that a run of the new length has at these steps. The new
    number of steps is stored in ``run.json`` at once, and the extended run can be interrupted and resumed exactly, like
    any other. It is not the run that would have had the new length from the start: the first steps of that one follow
    the longer cycle too. With ``every=None`` the interval between validations becomes a tenth of the new number.

    If several processes train, each must reach this call with the same arguments; one of them writes. All nodes must
    see the folder.

    Args:
        folder: Folder of the run.
        config: Configuration of the run.
        pairs: Files, at least those that ``config.split`` names for training and validation.
        machines: Devices to train on. If None, one process on the CPU.
        init: Initial weights of a new run whose ``config.init`` describes their origin; they are kept in
            ``init.safetensors``. If None, the weights are random.
        tensorboard: If True, also log for TensorBoard, in the folder ``tensorboard``. Needs the extra of that name.
        report: Function called after each step with the number of steps done, earlier ones included, and the loss.

    Returns:
        The network, on the CPU, in eval mode.

    Raises:
        ValueError: A file that the split names is not among ``pairs``; the folder holds a run with another
            configuration, or with more steps, or another training is at work there; ``init`` does not fit
            ``config.init``; or as for `fit`.
        FloatingPointError: The loss or a weight became NaN or infinite. The last saved state remains, and no file holds
            such weights.
        ModuleNotFoundError: TensorBoard is not installed.
        KeyboardInterrupt: The user pressed Ctrl-C. The state is saved.
        SystemExit: The process received SIGTERM; exit code 143. The state is saved.

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
    place, where = Path(folder), Machines() if machines is None else machines
    if tensorboard and importlib.util.find_spec("tensorboard") is None:  # Lightning would use a substitute
        absent = ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
        raise missing_extra(__name__, "tensorboard", absent)
    training, validation = (
        PairDataset(
            _files_of(pairs, config, part),
            config.segmenter.normalization,
            config.mask_encoding,
            config.segmenter.reading,
        )
        for part in ("train", "val")
    )
    where.trainer_options(config.precision)
    where.share(config.batch_size)
    with ExitStack() as held:
        if is_main_process():
            place.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(alone_in(place))
            except BlockingIOError:
                advice = "wait until it has ended, or take another folder"
                raise invalid("folder", "one in which no other training is at work", str(folder), advice) from None
        _record_config(place, config, init)
        logger = functools.partial(_tensorboard, place) if tensorboard else None
        return _train(place, config, training, validation, where, init, logger, report)


def _train(
    place: Path,
    config: RunConfig,
    training: PairDataset,
    validation: PairDataset,
    where: Machines,
    init: Mapping[str, Tensor] | None,
    logger: Callable[[int], TensorBoardLogger] | None,
    report: Callable[[int, float], Any] | None,
) -> nn.Module:
    """Train from the saved state, or from the start, in a folder that is locked."""
    state = read_state(place / STATE) if (place / STATE).exists() else None
    step = 0 if state is None else state.step
    if state is not None:
        config.segmenter.check_shapes({name: tensor.shape for name, tensor in state.weights.items()})
    model = config.segmenter.build(seed=config.seed)
    if state is None:
        if config.init is not None:
            model.load_state_dict(load_file(place / INIT) if init is None else dict(init))
        if config.has_new_head:
            _fit_head(model, config, training)
    else:
        model.load_state_dict(state.weights)
    rows = [row for row in read_log(place / LOG) if row.step <= step]
    log = None
    if is_main_process():
        remove_unfinished(place)
        log = CsvLog(place / LOG, step)
    if not is_finished(rows, config):
        own = config.mask_encoding.ignore_index
        ignored = PADDING if own is None else own
        stream: Dataset[Any] = CropStream(
            _instances(training) if config.finds_objects else training, length=config.steps * config.batch_size,
            crop=config.crop, symmetry=config.symmetry, seed=config.seed, ignore_index=ignored,
            augment=config.augment,
            places=rare_places(training, ignore_index=own) if config.balance == "crops" else None,
        )  # fmt: skip
        weights = _class_weights(config, training) if config.balance == "weights" else None
        segmenter: Segmenter
        loss: nn.Module
        if config.finds_objects:
            stream = ObjectStream(stream, ignore_index=ignored)
            loss = ObjectLoss(ignored, class_weights=weights, boundary=config.boundary)
            segmenter = ObjectSegmenter(model, learning_rate=config.learning_rate, loss=loss, steps=config.steps)
        else:
            loss = CrossEntropyDice(ignored, class_weights=weights, boundary=config.boundary)
            segmenter = Segmenter(model, learning_rate=config.learning_rate, loss=loss, steps=config.steps)
        segmenter.steps_before = step
        with StopSignals() as signals:
            callback = RunCallback(place, config, state, rows, validation, log, report, signals)
            fit(
                segmenter, Subset(stream, range(step * config.batch_size, config.steps * config.batch_size)),
                batch_size=config.batch_size, machines=where, precision=config.precision, seed=config.seed,
                callbacks=[callback], logger=logger and logger(step),
            )  # fmt: skip
        rows = callback.rows
        if signals.received and not is_finished(rows, config):
            raise signals.error()
    if is_main_process():
        described = config.segmenter
        if config.finds_objects and (place / MODEL).exists():  # with the rules that were chosen at the last step
            described = load_checkpoint(place / MODEL).config
        save_checkpoint(place / MODEL, model, described, step=rows[-1].step)
        scores = [(row.step, row.score) for row in rows if row.score is not None]
        name = "mean AP" if config.finds_objects else "Dice"
        save_figure(learning_curves([(row.step, row.loss) for row in rows], scores, name), place / CURVES)
    return model.eval()


def _instances(images: PairDataset) -> PairDataset:
    """Return the images with the numbers of their objects in place of classes."""
    return PairDataset(images.pairs, images.normalization, None, images.reading)


def _files_of(pairs: Sequence[PairFiles], config: RunConfig, part: str) -> list[PairFiles]:
    """Return the files of a part of the split, in the order of their names."""
    files = {pair.name: pair for pair in pairs}
    missing = [name for name in config.names(part) if name not in files]
    if missing:
        raise invalid("pairs", f"all files of the split, {missing[0]!r} among them", sorted(files))
    return [files[name] for name in config.names(part)]


def _record_config(folder: Path, config: RunConfig, init: Mapping[str, Tensor] | None) -> None:
    """Write the configuration of a new run, after its initial weights, or of a run that is extended.

    Raises:
        ValueError: The folder holds a run that this configuration neither equals nor extends, or the weights do not
            fit the configuration.
    """
    if (folder / CONFIG).exists():
        recorded = read_run(folder)
        if recorded == config:
            return
        if replace(recorded, steps=config.steps) != config or config.steps < recorded.steps:
            takes = f"that of the run in {folder}, or the same with more steps"
            raise invalid("config", takes, config, "take another folder")
    elif (init is None) != (config.init is None):
        takes = "None, as config.init is" if config.init is None else "the weights that config.init describes"
        raise invalid("init", takes, None if init is None else sorted(init))
    if is_main_process():
        if init is not None and not (folder / CONFIG).exists():
            write_atomically(folder / INIT, save(dict(init)))
        write_atomically(folder / CONFIG, (config.to_json() + "\n").encode())


def _fit_head(model: nn.Module, config: RunConfig, training: PairDataset) -> None:
    """Initialize the bias of a new head from the frequencies of the classes in the training images."""
    start_at_frequencies(model, _masks(config, training), ignore_index=config.mask_encoding.ignore_index)


def _class_weights(config: RunConfig, training: PairDataset) -> tuple[float, ...]:
    """Return the weights of the classes in the loss, from their frequencies in the training images."""
    classes = len(config.segmenter.classes)
    return class_weights(_masks(config, training), classes, ignore_index=config.mask_encoding.ignore_index)


def _masks(config: RunConfig, training: PairDataset) -> Iterator[Tensor]:
    for pair in training.pairs:
        yield from MaskFile(pair.mask, config.mask_encoding, training.reading).bands()


def _tensorboard(folder: Path, step: int) -> TensorBoardLogger:
    """Return a logger that discards what an interrupted run wrote after ``step``."""
    return TensorBoardLogger(folder, name="tensorboard", version="", purge_step=step + 1)


def is_finished(rows: Sequence[LogRow], config: RunConfig) -> bool:
    """Return True if a run has done all steps, or its score has not improved for ``patience`` validations in a row.

    Args:
        rows: Log of the run.
        config: Its configuration.
    """
    last = rows[-1].step if rows else 0
    if config.patience is None or last >= config.steps:
        return last >= config.steps
    best = best_row(rows)
    since = 0 if best is None else best.step
    return last // config.interval - since // config.interval >= config.patience


class RunCallback(pl.Callback):
    """Lightning callback of a run: restores the saved state at the start, logs every step, validates and saves.

    Each step draws from generators that are seeded by the seed of the run, the step and the process, so that dropout
    too is the same whether or not the run was interrupted.

    Args:
        folder: Folder of the run.
        config: Configuration of the run.
        state: State to resume from. None for a new run.
        rows: Log up to there.
        validation: Validation images, divided among the processes.
        log: Log of the main process. None in the others.
        report: As for `train_run`.
        signals: Signals that ask to stop.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        state: TrainingState | None,
        rows: Sequence[LogRow],
        validation: PairDataset,
        log: CsvLog | None,
        report: Callable[[int, float], Any] | None,
        signals: StopSignals,
    ) -> None:
        self.folder = folder
        self.config = config
        self.state = state
        self.rows = list(rows)
        self.validation = validation
        self.csv_log = log  # Lightning puts a function of its own under self.log
        self.report = report
        self.signals = signals
        self.steps_before = 0 if state is None else state.step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the saved state. Lightning has set handlers of its own by now, which would end the program."""
        self.signals.install()
        if self.state is not None:
            self.state.restore(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators for the step."""
        numbers = self.config.seed, self.steps_before + trainer.global_step, trainer.global_rank
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the step; validate and save if it is due, or if a signal asks to stop; stop if the run is finished."""
        step, loss = self.steps_before + trainer.global_step, float(outputs["loss"])
        assert isinstance(pl_module, Segmenter)
        is_due = step % self.config.interval == 0 or step == self.config.steps
        is_last = self.signals.reached_any(pl_module.device)
        if (is_due or is_last) and (name := not_finite(pl_module.model.state_dict())):
            raise FloatingPointError(f"after step {step} the weights {name} have NaN or infinity in them")
        rules, precision = self._choose_rules(pl_module) if is_due or is_last else (None, None)
        row = LogRow(step, loss, self._validate(pl_module, step), precision) if is_due else LogRow(step, loss, None)
        self.rows.append(row)
        if trainer.logger is not None:
            known = {"dice": row.dice, "average_precision": row.average_precision}
            scores = {name: score for name, score in known.items() if score is not None}
            trainer.logger.log_metrics({"loss": loss, **scores}, step)
        if self.csv_log is not None:
            self.csv_log.add(row)
            if is_due or is_last:
                self._save(row, rules, pl_module, trainer)
            if self.report is not None:
                self.report(step, loss)
        trainer.should_stop = trainer.should_stop or is_last or (is_due and is_finished(self.rows, self.config))

    def _save(self, row: LogRow, rules: Decoder | None, segmenter: Segmenter, trainer: pl.Trainer) -> None:
        """Save checkpoints and state. The state comes last: everything that it counts as done is then on disk."""
        described = replace(self.config.segmenter, decoder=rules)
        # While the learning rate is high the score of a few images is noise: benchmarks/README.md, selection. With
        # `patience` training may end there.
        after = self.config.steps / 2 if self.config.patience is None else 0
        for name in (BEST, MODEL) if row == best_row(self.rows, after) else (MODEL,):
            save_checkpoint(self.folder / name, segmenter.model, described, step=row.step)
        TrainingState.capture(row.step, segmenter.model, trainer).write(self.folder / STATE)

    def _choose_rules(self, segmenter: Segmenter) -> tuple[Decoder | None, float | None]:
        """Return the rules that find objects best in the validation images, and their average precision."""
        if not self.config.finds_objects:
            return self.config.segmenter.decoder, None
        own = range(process_rank(), len(self.validation), process_count())
        ignored, device = self.config.mask_encoding.ignore_index, segmenter.device
        images = _instances(self.validation)
        scores = candidate_scores(segmenter.model, images, own, ignore_index=ignored, device=device)
        chosen = best_rules(_sum_over_processes(scores, device))
        return (None, None) if chosen is None else chosen

    def _validate(self, segmenter: Segmenter, step: int) -> float | None:
        """Return the mean Dice score of the validation images; None if there are none, or they show no class.

        Raises:
            FloatingPointError: The network's output has NaN or infinity in it.
        """
        scores = torch.zeros(len(self.validation), dtype=torch.float64)
        ignored, classes = self.config.mask_encoding.ignore_index, len(self.config.segmenter.classes)
        for index in range(process_rank(), len(scores), process_count()):
            image, mask = self.validation[index]
            try:
                labels, _ = predict_image(segmenter.model, image, device=segmenter.device)
            except ValueError as error:
                if argument_of(error) != "image":
                    raise
                raise FloatingPointError(f"at the validation after step {step} its output is not finite") from None
            scores[index] = dice(labels[None], mask[None], classes=classes, ignore_index=ignored)
        scores = _sum_over_processes(scores, segmenter.device)
        return None if bool(scores.isnan().all()) else scores.nanmean().item()


def _sum_over_processes(scores: Tensor, device: torch.device) -> Tensor:
    """Return the scores of all processes; those of images that another process has evaluated are zero here."""
    if process_count() == 1:
        return scores
    everywhere = scores.to(device)
    dist.all_reduce(everywhere)
    return everywhere.cpu()
