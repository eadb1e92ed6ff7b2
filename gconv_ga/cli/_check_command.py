"""``gconv-ga check``: is a network equivariant, and if it is not, which of its parts is to blame?"""

import importlib
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._validate import argument_of, one_of
from ..groups import Group, as_group
from ._options import RUN, Debug, check_group, load_run, naming, refuse

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = ("all", "suspect")
LARGE = 10_000_000  # number of weights above which only suspect parts are tested by default


def _check_parts(parts: str | None) -> str | None:
    with naming("--parts"):
        return None if parts is None else one_of("parts", parts, PARTS)


def check(
    run: Annotated[Path | None, RUN] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE.MODULE:FACTORY", help="Function that returns the network; it is called without arguments."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=check_group,
            help="Group to test: C4, D4 ... If omitted: that of the network (of C8 the rotations by 90 degrees, which "
            "permute pixels), or C4.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Largest error that is allowed, relative to the largest output. Needed for groups such as C8, at "
            "whose other angles the test image is interpolated.",
        ),
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of the test image.")] = "64x48",
    channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of the test image. If omitted: those of the network, or 3.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the test image, which is noise.")] = 0,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PARTS),
            callback=_check_parts,
            help="Parts to test: all, or suspect, which skips those inside equivariant parts. The verdict is the same. "
            "If omitted: all, but suspect for networks of more than 10 million weights.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Rotate a test image, compare the outputs, and list the parts of the network with their equivariance errors.

    Says whether the network is equivariant and, if not, which part breaks the symmetry, and why. Computes in float64.
    Exit code 1 if the network is not equivariant, for use in scripts.

    Example: gconv-ga check --model torchvision.models:resnet18 --group D4 --size 64x64
    """
    height, width = _read_size(size)
    if (run is None) == (model is None):
        refuse("--run", "give one of --run and --model")
    import torch

    from ..checks import equivariance_report
    from ._progress import progress_bars

    option = "--run" if model is None else "--model"
    checkpoint = None if run is None else load_run(run)
    network = _build(str(model)) if checkpoint is None else checkpoint.model
    name = _group_to_test(network) if group is None else group
    own = getattr(network, "in_channels", 3) if checkpoint is None else checkpoint.config.arguments["in_channels"]
    depth = int(own) if channels is None else channels
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, depth, height, width, dtype=torch.float64, generator=generator)
    tested = parts or ("suspect" if sum(weights.numel() for weights in network.parameters()) >= LARGE else "all")
    if tolerance is None and not as_group(name).is_exact():
        refuse(
            "--tolerance", f"{name} has angles at which the test image is interpolated; give the largest error allowed"
        )
    try:
        with progress_bars() as bars:
            task = bars.add_task("parts", total=None, note="")
            report = equivariance_report(
                network.double().eval(), name, image, tolerance=tolerance, parts=tested,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        argument = argument_of(error)
        if argument == "tolerance":
            refuse("--tolerance", str(error), error)
        if argument in ("module", "inputs", "out_action"):  # it takes the image, but no verdict is possible
            refuse(option, str(error), error)
        refuse(option, f"the network does not take an image {tuple(image.shape)} (--size, --channels): {error}", error)
    print(report)
    own = getattr(network, "group", None)
    if group is None and isinstance(own, Group) and not own.is_exact():
        print(
            f"Of {own.name} the elements that permute pixels were tested. --group {own.name} --tolerance 0.1 tests all."
        )
    if tested != "all":
        print("Parts inside an equivariant part do no harm and are not listed. --parts all tests them too.")
    if not (report.ok and _maps_are_equivariant(network, name, image, tolerance)):
        raise typer.Exit(1)


def _maps_are_equivariant(network: "nn.Module", name: str, image: "Tensor", tolerance: float | None) -> bool:
    """Return whether the maps of a network for objects, which its forward does not return, are equivariant; say so."""
    from ..checks import assert_equivariant
    from ..models import ObjectUNet

    if not isinstance(network, ObjectUNet):
        return True

    def maps(x: "Tensor") -> "tuple[Tensor, Tensor]":
        found = network.maps(x)
        return found[:, :-2], found[:, -2:]

    try:
        assert_equivariant(maps, name, image, out_action=("scalar", "vector"), tolerance=tolerance)
    except AssertionError as error:
        print(f"Its maps (distance and flow) are not equivariant: {error}")
        return False
    print("Its maps (distance and flow) are equivariant too.")
    return True


def _group_to_test(network: "nn.Module") -> str:
    """Return the name of the part of a network's group that permutes pixels; C4 for a network without symmetry.

    Raises:
        typer.BadParameter: No element but the identity does.
    """
    own = getattr(network, "group", None)
    if not isinstance(own, Group) or own.order == 1:
        return "C4"
    exact = f"{own.name[0]}{math.gcd(own.n, 4)}"
    if exact == "C1":
        refuse("--group", f"no rotation of {own.name} permutes pixels; give --group {own.name} and --tolerance")
    return exact


def _read_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text)
    if found is None:
        refuse("--size", f"{text!r} is not of the form HEIGHTxWIDTH, such as 64x48")
    return int(found[1]), int(found[2])


def _build(place: str) -> "nn.Module":
    """Return the network of a factory, which is looked for where Python looks and in the current folder."""
    from torch import nn

    module, colon, factory = place.partition(":")
    if not (module and colon and factory):
        refuse("--model", f"{place!r} is not of the form package.module:factory")
    sys.path.append(str(Path.cwd()))
    try:
        with naming("--model"):
            network: Any = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError, TypeError) as error:
        refuse("--model", f"{place} returns no network: {error}", error)
    finally:
        sys.path.remove(str(Path.cwd()))
    if not isinstance(network, nn.Module):
        refuse("--model", f"{place} returns a {type(network).__name__}, not a torch.nn.Module")
    return network
