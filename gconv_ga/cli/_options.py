"""Options that commands share, and their checks."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..groups import as_group


def check_group(name: str) -> str:
    """The name of a group of more than the identity, or a refusal."""
    try:
        group = as_group(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if group.order == 1:
        raise typer.BadParameter(f"{group.name} turns nothing; take C4 (quarter turns) or D4 (mirrors too)")
    return group.name


def make_folder(folder: Path, option: str) -> Path:
    """Makes the folder that an option names; it may be there already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be made a folder: {error.strerror}", param_hint=option) from None
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"{folder} is a folder that may not be written to", param_hint=option)
    return folder


GroupName = Annotated[
    str, typer.Option(metavar="NAME", callback=check_group, help="Symmetry of the first network: C2, C4, D2, D4 ...")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the initial weights, crops and turns.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes the accelerator if there is one.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
