"""Devices to compute on. Torch is imported only to look one up, so that the command line can read the options."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .._validate import as_int, invalid, one_of

if TYPE_CHECKING:
    import torch

PRECISIONS = ("32", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


def as_device(device: "str | torch.device") -> "torch.device":
    """Return the torch device that ``device`` names.

    Args:
        device: "auto" (the accelerator if there is one, else the CPU), or a torch device such as "cpu" or "cuda:1".

    Raises:
        ValueError: It is not a device, or this machine does not have it.

    Example:
        >>> from gconv_ga.segmenter import as_device
        >>> as_device("cpu")
        device(type='cpu')
    """
    import torch

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


@dataclass(frozen=True)
class Machines:
    """The devices that a training, a prediction or an evaluation runs on; checked before anything begins.

    The metadata of each field describes it as an option of the command line.

    Args:
        device: As in `as_device`.
        devices: Number of devices on each node; on the CPU, the number of processes.
        nodes: Number of machines, each with as many devices. The program is started on each of them, with the
            environment variables that Lightning documents.
        strategy: "auto", "ddp", or "ddp_find_unused_parameters_true" for networks some of whose weights are not used;
            they differ in training alone. Strategies that shard the weights are not supported: checkpoints hold all
            weights.

    Raises:
        ValueError: There are no such devices, or an argument is not among its options.

    Example:
        >>> from gconv_ga.segmenter import Machines
        >>> Machines("cpu", devices=2).processes
        2
    """

    device: "str | torch.device" = field(
        default="cpu",
        metadata={
            "help": "cpu, cuda, cuda:1, mps; auto takes the accelerator if there is one.",
            "type": str,
            "default": "auto",
        },
    )
    devices: int = field(
        default=1,
        metadata={"help": "Number of devices (on the CPU: processes), which share the work.", "minimum": 1},
    )
    nodes: int = field(
        default=1, metadata={"help": "Number of machines; start this command on each of them.", "minimum": 1}
    )
    strategy: str = field(
        default="auto", metadata={"help": "auto, ddp, or ddp_find_unused_parameters_true.", "choices": STRATEGIES}
    )

    def __post_init__(self) -> None:
        import torch

        where = as_device(self.device)
        object.__setattr__(self, "device", where)
        for each in fields(self):
            if "minimum" in each.metadata:
                as_int(each.name, getattr(self, each.name), minimum=each.metadata["minimum"])
        if where.index is not None and self.devices > 1:
            raise invalid("device", f"without a number where devices={self.devices}", str(where))
        if where.type != "cpu" and self.devices > torch.accelerator.device_count():
            count = torch.accelerator.device_count()
            raise invalid("devices", f"at most {count}, as many as there are", self.devices)
        one_of("strategy", self.strategy, STRATEGIES)

    @property
    def processes(self) -> int:
        """Number of processes that work together."""
        return self.devices * self.nodes

    @property
    def rank(self) -> int:
        """Number of this process among them, from 0, as the environment variables that Lightning reads have it.

        Raises:
            ValueError: Another number of processes was started, or a variable is missing.
        """
        from ._place import find_place

        return find_place(self).rank

    def share(self, batch_size: int) -> int:
        """Return the number of examples of a batch that each process takes.

        Args:
            batch_size: Number of examples in the batch of all processes.

        Raises:
            ValueError: The batch cannot be divided evenly.
        """
        if batch_size % self.processes:
            raise invalid("batch_size", f"a multiple of {self.processes}, the number of processes", batch_size)
        return batch_size // self.processes

    def trainer_options(self, precision: str = "32") -> dict[str, Any]:
        """Return the arguments of Lightning's trainer for these devices.

        Args:
            precision: Precision of the forward pass: "32", "bf16-mixed", or on a GPU "16-mixed". Weights are float32
                in any case.

        Raises:
            ValueError: ``precision`` is none of these, or the device does not support it.
        """
        import torch

        where = torch.device(self.device)
        if one_of("precision", precision, PRECISIONS) == "16-mixed" and where.type == "cpu":
            raise invalid("precision", "'32' or 'bf16-mixed' on the CPU", precision)
        return {
            "accelerator": "gpu" if where.type == "cuda" else where.type,
            "devices": self.devices if where.index is None else [where.index],
            "num_nodes": self.nodes,
            "strategy": self.strategy,
            "precision": precision,
        }
