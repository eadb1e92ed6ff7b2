"""``gconv-ga sample``: the microscope images that come with the package, as files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._options import Debug, make_folder, naming


def sample(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the files: train and test, each with images and masks.")
    ],
    data: Annotated[Literal["nuclei", "histology"], typer.Option(help="Images to write.")] = "nuclei",
    debug: Debug = False,
) -> None:
    """Write the microscope images and masks that come with the package as files, for a first training.

    Example: gconv-ga sample --out nuclei
    """
    make_folder(out, "--out")
    from ..images import write_sample

    with naming("--out"):
        write_sample(data, out)
    counts = [f"{len(list((out / part / 'images').iterdir()))} in {out / part}" for part in ("train", "test")]
    print(f"images and masks: {', '.join(counts)}")
