"""Files of a run that are read again: the log, a CSV with a row for each step, and the state of the training."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from .._files import naming_file, write_atomically
from .._validate import invalid, not_finite

COLUMNS = ("step", "loss", "dice", "average_precision")


class LogRow(NamedTuple):
    """One step: its loss, and the scores on the validation images if they were evaluated then.

    They are Dice and, of a network for objects, the average precision of the objects at IoU 0.5 to 0.9.
    """

    step: int
    loss: float
    dice: float | None
    average_precision: float | None = None

    @property
    def score(self) -> float | None:
        """The score by which the best weights are chosen: of objects if there are any, else Dice."""
        return self.dice if self.average_precision is None else self.average_precision


def read_log(path: Path) -> list[LogRow]:
    """Return the rows of a log, none if there is no file. A last row that was cut off is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for cells in list(csv.reader(file))[1:]:
            try:
                step, loss, *scores = cells
                rows.append(LogRow(int(step), float(loss), *(float(score) if score else None for score in scores)))
            except (ValueError, TypeError):
                break
    return rows


def best_row(rows: Sequence[LogRow], after: float = 0) -> LogRow | None:
    """Return the first of the rows with the highest score; None if no row has a score.

    Args:
        rows: Log of a run.
        after: Step up to which rows do not count.
    """
    scored = [row for row in rows if row.score is not None and row.step > after]
    return max(scored, key=lambda row: row.score or 0.0, default=None)


class CsvLog:
    """Log that rows are appended to. Rows that an interrupted run wrote after its last saved step are removed first.

    Args:
        path: File of the log.
        step: Last step to keep.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [row for row in read_log(path) if row.step <= step]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *(_cells(row) for row in kept)])
        write_atomically(path, text.getvalue().encode())

    def add(self, row: LogRow) -> None:
        """Append a row to the file at once; on a full disk the file stays as it was."""
        size = self.path.stat().st_size
        try:
            with naming_file(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(_cells(row))
        except OSError:
            os.truncate(self.path, size)
            raise


def _cells(row: LogRow) -> tuple[object, ...]:
    return tuple("" if value is None else value for value in row)


class TrainingState(NamedTuple):
    """Everything a training needs to be resumed exactly; tensors and JSON only.

    Args:
        step: Number of steps done.
        weights: State of the network.
        moments: State of the optimizer by the index of each parameter.
        groups: Parameter groups of the optimizer: learning rates, weight decay.
        cycle: State of the learning-rate schedule.
        precision: State of mixed precision: the scale of the loss.
    """

    step: int
    weights: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]
    groups: list[dict[str, Any]]
    cycle: dict[str, Any]
    precision: dict[str, Any]

    @classmethod
    def capture(cls, step: int, model: nn.Module, trainer: pl.Trainer) -> "TrainingState":
        """Return the current state; its tensors are those of the training, not copies."""
        optimizer, scheduler = _optimizer_and_scheduler(trainer)
        state = optimizer.state_dict()
        return cls(
            step, model.state_dict(), state["state"], state["param_groups"], scheduler.state_dict(),
            trainer.precision_plugin.state_dict(),
        )  # fmt: skip

    def restore(self, trainer: pl.Trainer) -> None:
        """Restore optimizer and schedule; the caller loads the weights into the model.

        If the trainer's cycle has another length than the saved one, the run was extended: the optimizer keeps its
        moments, and learning rate and momentum become those of the trainer's cycle at the saved step.
        """
        optimizer, scheduler = _optimizer_and_scheduler(trainer)
        own = scheduler.state_dict()
        optimizer.load_state_dict({"state": self.moments, "param_groups": self.groups})
        scheduler.load_state_dict(self.cycle)
        if self.cycle["total_steps"] != own["total_steps"]:
            length = {name: own[name] for name in ("total_steps", "_schedule_phases")}
            scheduler.load_state_dict({**length, "last_epoch": self.step - 1})
            scheduler.step()  # to the saved step: sets the learning rates and momenta
            scheduler.load_state_dict({"_step_count": self.cycle["_step_count"]})
        trainer.precision_plugin.load_state_dict(self.precision)

    def write(self, path: Path) -> None:
        """Write the state; the file is the old one or the new one, whenever the program ends."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.items()}
        tensors |= {
            f"moments.{index}.{name}": tensor
            for index, entries in self.moments.items()
            for name, tensor in entries.items()
        }
        header = {"step": self.step, "groups": self.groups, "cycle": self.cycle, "precision": self.precision}
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(path, save(whole, {"gconv_ga_state": json.dumps(header)}))


def read_state(path: Path) -> TrainingState:
    """Return the state that `TrainingState.write` wrote.

    Raises:
        ValueError: The file is not such a state, it is damaged, or a number in it is NaN or infinite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["gconv_ga_state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        advice = f"it is not an intact safetensors file, or not of a training ({error})"
        raise invalid("path", "the state of a training", str(path), advice) from None
    if name := not_finite(tensors):
        raise invalid("path", "the state of a training", str(path), f"it has diverged: {name} has NaN or infinity")
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "weights":
            weights[rest] = tensor
        else:
            index, _, entry = rest.partition(".")
            moments.setdefault(int(index), {})[entry] = tensor
    return TrainingState(
        header["step"], weights, moments, header["groups"], header["cycle"], header.get("precision", {})
    )


def _optimizer_and_scheduler(trainer: pl.Trainer) -> tuple[Optimizer, Any]:
    return trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
