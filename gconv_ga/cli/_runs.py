"""The checkpoint that ``--run`` names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._refusals import naming

if TYPE_CHECKING:  # these rooms take seconds to load
    from ..data import MaskCode
    from ..training import Checkpoint

Run = Annotated[Path, typer.Option(metavar="RUN", help="Folder of a run, or a checkpoint (safetensors; no pickle).")]


def checkpoint_file(run: Path) -> Path:
    """The checkpoint of a run; a file stands for itself."""
    return run / "model.safetensors" if run.is_dir() else run


def load_run(run: Path) -> "Checkpoint":
    """The network of a run.

    Raises:
        typer.BadParameter: There is none, or it is no checkpoint of ours.
    """
    from ..training import load_checkpoint

    with naming("--run"):
        return load_checkpoint(checkpoint_file(run))


def run_code(run: Path) -> "MaskCode":
    """How the masks say their classes that a run was trained on; by indices if the run is a checkpoint alone.

    Raises:
        typer.BadParameter: The run's configuration is damaged.
    """
    from ..data import MaskCode
    from ..training import read_run

    if not (run / "run.json").is_file():
        return MaskCode()
    with naming("--run"):
        return read_run(run).mask_code
