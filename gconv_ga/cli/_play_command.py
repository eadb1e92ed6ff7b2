"""``gconv-ga play``: a page for a browser in which an image rotates and predictions do, or do not, rotate with it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .._files import write_atomically
from .._validate import argument_of
from ._options import Debug, checkpoint_file, load_run, make_folder, naming, refuse

LARGE = 2_000_000  # bytes; the page of the package has 0.4 MB


def play(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Page to write, such as play.html.")],
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Your own network in place of those of the package: the folder of a run, or a checkpoint. It must be "
            "a U-Net (--arch unet). A plain one is shown beside its group average.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Network to show beside an equivariant --run; the same images and classes."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a page to play with: rotate an image and watch the predictions of an equivariant network and a baseline.

    The page is one file that needs no other and no server; open it in a browser, where it computes everything itself.
    It shows how many labels change at each angle, the rotated kernels and the lifted maps, and what happens when the
    rule of the group convolution is broken. It has three images of the package, and takes your own, which do not leave
    the browser. Weights are part of the page, 5.3 bytes each: above 2 MB it is written with a warning, since a browser
    takes seconds for each angle of so large a network.

    Example: gconv-ga play --out play.html

    Example: gconv-ga play --out play.html --run demo/equivariant.safetensors --baseline demo/plain.safetensors
    """
    from ..play import play_page
    from ..segmenter import load_checkpoint

    own = None if run is None else load_run(run)
    other = None
    if baseline is not None:
        with naming("--baseline"):
            other = load_checkpoint(checkpoint_file(baseline))
    try:
        page = play_page(own, other).encode()
    except ValueError as error:
        refuse(f"--{argument_of(error) or 'run'}", str(error), error)
    make_folder(out.parent, "--out")
    if out.is_dir():
        refuse("--out", f"{out} is a folder; name a file, such as {out / 'play.html'}")
    write_atomically(out, page)
    print(f"{out}: {len(page) / 1e6:.1f} MB; open it in a browser")
    if len(page) > LARGE:
        print(
            f"gconv-ga: {out} has more than {LARGE / 1e6:.0f} MB, nearly all of it weights, and a browser may take "
            "seconds for each angle. Show a network of fewer weights: train with a smaller --width.",
            file=sys.stderr,
        )
