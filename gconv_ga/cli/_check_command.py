"""``gconv-ga check``: is it equivariant, and if not, which part breaks it?"""

import importlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .._validate import one_of
from ._options import Debug, check_group, load_run, naming, progress_bars, refuse

MANY = 10_000_000  # weights above which not every part is tested, if nothing is said


def _check_group(name: str | None) -> str | None:
    return None if name is None else check_group(name)


def check(
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Folder of a run, or a checkpoint (safetensors; no pickle).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="PACKAGE.MODULE:FACTORY", help="Called without arguments, gives the network.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="NAME", callback=_check_group, help="C2, C4, D4 ...; else that of the network, or C4."),
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Of the image that is turned.")] = "64x48",
    channels: Annotated[
        int | None, typer.Option(min=1, help="Of the image; else the network's in_channels, or 3.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the image, which is noise.")] = 0,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="all|suspect",
            help="Suspect: none inside equivariant ones; same verdict. Else suspect from 10 million weights.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn an image, compare, and print a table of the network's parts: which one breaks the symmetry, and why.

    Computes in float64. Exit code 1 if the network is not equivariant, so that a script can tell.

    Example: [bold]gconv-ga check --model torchvision.models:resnet18 --group D4 --size 64x64[/bold]
    """
    import torch

    from ..checks import equivariance_report

    height, width = _size(size)
    if (run is None) == (model is None):
        refuse("--run", "give one of --run and --model")
    option = "--run" if model is None else "--model"
    checkpoint = None if run is None else load_run(run)
    network = _made(str(model)) if checkpoint is None else checkpoint.model
    name = str(getattr(getattr(network, "group", None), "name", "C4")) if group is None else group
    own = getattr(network, "in_channels", 3) if checkpoint is None else checkpoint.config.arguments["in_channels"]
    depth = int(own) if channels is None else channels
    image = torch.randn(
        1, depth, height, width, dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    with naming("--parts"):
        chosen = _parts(parts, network)
    bars = progress_bars()
    bars.disable = not bars.console.is_terminal
    try:
        with bars:
            task = bars.add_task("parts", total=None, note="")
            report = equivariance_report(
                network.double().eval(), name, image, parts=chosen,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        refuse(option, f"the network does not take an image {tuple(image.shape)} (--size, --channels): {error}", error)
    print(report)
    if chosen != "all":
        print("Parts inside an equivariant part do no harm and are not listed; --parts all tests them too.")
    if not report.ok:
        raise typer.Exit(1)


def _parts(said: str | None, network: Any) -> str:
    """Which parts are tested: of a large network those that may be to blame."""
    if said is not None:
        return one_of("parts", said, ("all", "suspect"))
    return "suspect" if sum(weights.numel() for weights in network.parameters()) >= MANY else "all"


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text)
    if found is None:
        refuse("--size", f"{text!r} is not of the form HEIGHTxWIDTH, such as 64x48")
    return int(found[1]), int(found[2])


def _made(place: str) -> Any:
    """What the factory gives. Its package is looked for where Python looks, and in the current folder."""
    import torch

    module, colon, factory = place.partition(":")
    if not (module and colon and factory):
        refuse("--model", f"{place!r} is not of the form package.module:factory")
    sys.path.append(str(Path.cwd()))
    try:
        with naming("--model"):
            made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, TypeError) as error:
        refuse("--model", f"{place} gives no network: {error}", error)
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(made, torch.nn.Module):
        refuse("--model", f"{place} gives a {type(made).__name__}, no torch.nn.Module")
    return made
