"""A run: a folder in which a training lives, is interrupted, and goes on."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import TensorBoardLogger
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from .._validate import invalid, missing_extra
from ..data import CropStream, MaskFile, PairDataset, PairFiles
from ..plots import learning_curves, save_figure
from ._checkpoint import save_checkpoint, write_atomically
from ._devices import as_device
from ._fit import fit
from ._frequencies import start_at_frequencies
from ._keep_run import MODEL, STATE, KeepRun, enough
from ._log import Log, read_log
from ._losses import CrossEntropyDice
from ._processes import leads
from ._run_config import RunConfig
from ._segmenter import Segmenter
from ._state import read_state

CONFIG, INIT, LOG, CURVES = "run.json", "init.safetensors", "log.csv", "curves.png"


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
    if leads():
        for left in place.glob(".*.part"):  # by a program that was killed while it wrote
            left.unlink()
    journal = Log(place / LOG, step) if leads() else None
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
    if leads():
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
    if leads():
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
