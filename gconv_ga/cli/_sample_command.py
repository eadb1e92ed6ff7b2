"""``gconv-ga sample``: the images that come with the package, as files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._options import Debug, make_folder, naming


def sample(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where train and test go, each with images and masks.")],
    data: Annotated[Literal["nuclei", "histology"], typer.Option(help="Which of them.")] = "nuclei",
    debug: Debug = False,
) -> None:
    """Write the package's microscope images and masks as files, to train on.

    Example: [bold]gconv-ga sample --out nuclei[/bold]
    """
    from ..images import write_sample

    make_folder(out, "'--out'")
    with naming("--out"):
        write_sample(data, out)
    counts = [f"{len(list((out / part / 'images').iterdir()))} in {out / part}" for part in ("train", "test")]
    print(f"images and masks: {', '.join(counts)}")
