"""Commands that share their work out among several processes: their options, and how they end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._validate import argument_of
from ..segmenter import Machines
from ._options import note, refuse

if TYPE_CHECKING:
    from ..segmenter import Team

HELP: dict[str, Any] = {each.name: each.metadata["help"] for each in fields(Machines)}
Devices = Annotated[int, typer.Option("--devices", min=1, help=HELP["devices"])]
Nodes = Annotated[int, typer.Option("--nodes", min=1, help=HELP["nodes"])]
Strategy = Annotated[str, typer.Option("--strategy", help=f"As in train: {HELP['strategy']} Here they are the same.")]


def find_machines(device: str, devices: int, nodes: int, strategy: str) -> tuple[Machines, bool]:
    """Return the devices of a command, and True in the main one of the processes that work together.

    Raises:
        typer.BadParameter: There are no such devices, or another number of processes was started.
    """
    try:
        machines = Machines(device, devices=devices, nodes=nodes, strategy=strategy)
        is_main = machines.rank == 0
    except ValueError as error:
        refuse(f"--{argument_of(error) or 'device'}", str(error), error)
    if machines.processes == 1:
        for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
            if os.environ.get(name, "1") != "1":
                note(f"{name} is {os.environ[name]}, but each process does all; --devices and --nodes share the work")
    return machines, is_main


@contextmanager
def working(machines: Machines) -> "Iterator[Team]":
    """Work in all processes; exit code 1 if one is lost, which is said, and how to go on."""
    from ..segmenter import LostProcessError, together

    try:
        with together(machines, note) as team:
            yield team
    except LostProcessError as error:
        if machines.rank == 0:
            note(f"stopped: {error}. The same command does what is missing")
        raise typer.Exit(1) from None
