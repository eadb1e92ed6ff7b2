"""The device to compute on."""

from dataclasses import dataclass
from typing import Any

import torch

from .._validate import as_int, invalid, one_of


def as_device(device: str | torch.device) -> torch.device:
    """The device that ``device`` means.

    Args:
        device: "auto" (the accelerator if there is one, else the CPU), or a torch device such as "cpu" or "cuda:1".

    Raises:
        ValueError: It is no device, or not one of this machine.

    Example:
        >>> from gconv_ga.segmenter import as_device
        >>> as_device("cpu")
        device(type='cpu')
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    present = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
    if device == "auto":
        return torch.device(present[-1])
    takes = "'auto' or a device of this machine: " + ", ".join(present)
    try:
        found = torch.device(device)
    except RuntimeError:
        raise invalid("device", takes, device) from None
    count = 1 if found.type == "cpu" else torch.accelerator.device_count()
    if found.type not in present or (found.index or 0) >= count:
        raise invalid("device", takes, str(device))
    return found


PRECISIONS = ("32", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


@dataclass(frozen=True)
class Machines:
    """The processors of a training, and what they compute in; checked before anything begins.

    Args:
        device: As in `as_device`.
        devices: How many of them; on the CPU, processes.
        nodes: Machines, each with as many devices, on each of which the program is started as Lightning says.
        strategy: "auto", "ddp", or "ddp_find_unused_parameters_true" for networks some of whose weights are not used.
            Strategies that share out the weights are not among them: checkpoints hold the whole.
        precision: "32"; "bf16-mixed"; "16-mixed", on GPUs alone. Weights are float32 in any case.

    Raises:
        ValueError: There are no such devices, or an argument is none of those listed.

    Example:
        >>> from gconv_ga.segmenter import Machines
        >>> Machines("cpu", devices=2).processes
        2
    """

    device: str | torch.device = "cpu"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "32"

    def __post_init__(self) -> None:
        where = as_device(self.device)
        object.__setattr__(self, "device", where)
        as_int("devices", self.devices, minimum=1)
        as_int("nodes", self.nodes, minimum=1)
        if where.index is not None and self.devices > 1:
            raise invalid("device", f"without a number where devices={self.devices}", str(where))
        if where.type != "cpu" and self.devices > torch.accelerator.device_count():
            count = torch.accelerator.device_count()
            raise invalid("devices", f"at most {count}, as many as there are", self.devices)
        one_of("strategy", self.strategy, STRATEGIES)
        if one_of("precision", self.precision, PRECISIONS) == "16-mixed" and where.type == "cpu":
            raise invalid("precision", "'32' or 'bf16-mixed' on the CPU", self.precision)

    @property
    def processes(self) -> int:
        """How many train together."""
        return self.devices * self.nodes

    def share(self, batch_size: int) -> int:
        """How much of a batch each process has.

        Args:
            batch_size: The whole.

        Raises:
            ValueError: It cannot be shared out evenly.
        """
        if batch_size % self.processes:
            raise invalid("batch_size", f"a multiple of {self.processes}, the number of processes", batch_size)
        return batch_size // self.processes

    def trainer_options(self) -> dict[str, Any]:
        """What Lightning's trainer is told."""
        where = torch.device(self.device)
        return {
            "accelerator": "gpu" if where.type == "cuda" else where.type,
            "devices": self.devices if where.index is None else [where.index],
            "num_nodes": self.nodes,
            "strategy": self.strategy,
            "precision": self.precision,
        }
