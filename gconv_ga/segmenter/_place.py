"""The place of a process among those of a job, which is in the environment, and the processes that it has to start."""

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from .._validate import invalid

if TYPE_CHECKING:
    from ._devices import Machines

SCHEDULERS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class Place(NamedTuple):
    """The place of a process among those that work together.

    Args:
        rank: Number of the process, from 0. The one of rank 0 is the main process.
        local_rank: Its number among those of the same machine.
        address: Name or address of the machine of the main process.
        port: Port of the main process, through which all find each other; 0 for any free one.
        starts: Whether this process has to start the others of its machine.
    """

    rank: int
    local_rank: int
    address: str
    port: int
    starts: bool


def find_place(machines: "Machines") -> Place:
    """Return the place of this process, from the environment variables that Lightning reads too.

    Slurm (``srun``), torchrun, LSF and MPI start all processes. Otherwise the command is started once on each machine,
    with ``MASTER_ADDR``, ``MASTER_PORT`` and ``NODE_RANK``, and starts the other processes of its machine; or for each
    process, with ``LOCAL_RANK`` too.

    Args:
        machines: Devices of the job.

    Raises:
        ValueError: Another number of processes was started, or a variable is missing.
    """
    if machines.processes == 1:
        return Place(0, 0, "127.0.0.1", 0, starts=False)
    if any(name in os.environ for name in SCHEDULERS) and (scheduler := _scheduler()) is not None:
        count = scheduler.world_size()
        if count != machines.processes:
            takes = f"such that devices * nodes is {count}, the number of processes that were started"
            raise invalid("devices", takes, machines.devices, f"nodes is {machines.nodes}")
        rank, local_rank = scheduler.global_rank(), scheduler.local_rank()
        return Place(rank, local_rank, scheduler.main_address, scheduler.main_port, starts=False)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))
    starts = "LOCAL_RANK" not in os.environ
    if starts and machines.nodes == 1:
        return Place(0, 0, "127.0.0.1", 0, starts=True)
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        advice = f"set {' and '.join(missing)}: the machine of node 0, and a free port on it"
        raise invalid("nodes", "a number of machines that find each other", machines.nodes, advice)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return Place(node * machines.devices + local_rank, local_rank, address, port, starts)


def _scheduler() -> Any:
    """Return Lightning's description of what has started the processes; None if nothing has that it knows."""
    from lightning_fabric.plugins import environments  # takes seconds

    kinds = ("TorchElasticEnvironment", "SLURMEnvironment", "LSFEnvironment", "MPIEnvironment")
    found = (getattr(environments, kind) for kind in kinds)
    return next((kind() for kind in found if kind.detect()), None)


def start_others(machines: "Machines", place: Place, port: int) -> "dict[int, subprocess.Popen[bytes]]":
    """Start this program again for each further process of the machine, and return the processes by rank.

    On the CPU each gets an equal share of the cores, unless ``OMP_NUM_THREADS`` says how many threads it has.

    Args:
        machines: Devices of the job.
        place: Place of this process.
        port: Port of the main process.
    """
    import torch

    import __main__

    module = getattr(__main__, "__spec__", None)
    program = [os.path.abspath(sys.argv[0])] if module is None else ["-m", module.name]  # noqa: PTH100  as it was typed
    if torch.device(machines.device).type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // machines.devices))
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found = {"MASTER_ADDR": place.address, "MASTER_PORT": str(port)}
    first = place.rank - place.local_rank
    return {
        first + local_rank: subprocess.Popen(
            [sys.executable, *program, *sys.argv[1:]], env={**os.environ, **found, "LOCAL_RANK": str(local_rank)}
        )
        for local_rank in range(1, machines.devices)
    }
