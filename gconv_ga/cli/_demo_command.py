"""``gconv-ga demo``: an equivariant U-Net and its plain twin, trained on real images before your eyes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._options import Debug, Device, GroupName, Seed, make_folder


def demo(
    group: GroupName = "C4",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each network.")] = 300,
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the picture, numbers and weights go.")] = Path("demo"),
    data: Annotated[
        Literal["nuclei", "histology"], typer.Option(help="Which of the images of the package.")
    ] = "nuclei",
    debug: Debug = False,
) -> None:
    """Train an equivariant U-Net and its plain twin on real images, then turn the images.

    Takes two minutes of one core; groups off the grid, such as C8, take twice as long. Writes demo.png,
    results.json and three checkpoints.

    Example: [bold]gconv-ga demo --group D4 --data histology --out demo-D4[/bold]
    """
    # Not above: these rooms take seconds to load, and `--help` needs none of them.
    from ..segmenter import as_device
    from ._demo import prepare, report, run

    try:
        where = as_device(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--device'") from None
    try:
        contest = prepare(group, data, steps=steps, seed=seed, device=where, folder=out)
    except NotImplementedError as error:
        raise typer.BadParameter(str(error), param_hint="'--group'") from None
    make_folder(out, "'--out'")
    report(contest, run(contest))
