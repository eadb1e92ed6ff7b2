"""The state of a training between two steps, so that it can go on as if it had never been interrupted."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from .._validate import invalid
from ._checkpoint import write_atomically


class TrainingState(NamedTuple):
    """Weights, the optimiser's moments, the place in the cycle of the learning rate; tensors and JSON only.

    ``precision`` is what half precision adds: the scale of the loss.
    """

    step: int
    weights: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]
    groups: list[dict[str, Any]]  # of the optimiser: rates, decay
    cycle: dict[str, Any]
    precision: dict[str, Any]

    @classmethod
    def take(cls, step: int, model: nn.Module, trainer: pl.Trainer) -> "TrainingState":
        """The state as it is now; its tensors are those of the training, not copies."""
        optimizer, scheduler = _parts(trainer)
        state = optimizer.state_dict()
        return cls(
            step, model.state_dict(), state["state"], state["param_groups"], scheduler.state_dict(),
            trainer.precision_plugin.state_dict(),
        )  # fmt: skip

    def restore(self, trainer: pl.Trainer) -> None:
        """Puts optimiser and scheduler back; the weights are loaded into the model by the caller."""
        optimizer, scheduler = _parts(trainer)
        scheduler.load_state_dict(self.cycle)
        optimizer.load_state_dict({"state": self.moments, "param_groups": self.groups})
        trainer.precision_plugin.load_state_dict(self.precision)

    def write(self, path: Path) -> None:
        """Writes the state; the file is the old one or the new one, whenever the program ends."""
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
    """The state that `TrainingState.write` wrote.

    Raises:
        ValueError: The file is no such state, or it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["gconv_ga_state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        advice = f"it is no intact safetensors file, or not of a training ({error})"
        raise invalid("path", "the state of a training", str(path), advice) from None
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


def _parts(trainer: pl.Trainer) -> tuple[Optimizer, Any]:
    return trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
