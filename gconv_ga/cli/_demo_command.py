"""``gconv-ga demo``: an equivariant U-Net and its baselines, trained on real images and compared under rotations."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._options import Debug, Device, GroupName, Seed, make_folder, naming, refuse


def demo(
    group: GroupName = "C4",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each network.")] = 300,
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the picture, the numbers and the trained networks.")
    ] = Path("demo"),
    data: Annotated[Literal["nuclei", "histology"], typer.Option(help="Images of the package to train on.")] = "nuclei",
    debug: Debug = False,
) -> None:
    """Train an equivariant U-Net and two baselines on real images, then rotate the test images and compare.

    The baselines are ordinary U-Nets with as many multiply-adds; one is trained on rotated and reflected images too
    (augmented). Takes two minutes on one core, and twice as long for groups such as C8 that rotate by less than 90
    degrees. Writes demo.png, results.json and three checkpoints.

    Example: gconv-ga demo --group D4 --data histology --out demo-D4
    """
    from ..segmenter import as_device
    from ._demo import prepare, report, train_networks

    with naming("--device"):
        where = as_device(device)
    try:
        comparison = prepare(group, data, steps=steps, seed=seed, device=where, folder=out)
    except NotImplementedError as error:
        refuse("--group", str(error), error)
    make_folder(out, "--out")
    report(comparison, train_networks(comparison))
