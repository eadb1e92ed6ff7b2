"""``gconv-ga predict``: the classes of images of any size."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import (
    Debug,
    Device,
    Run,
    check_group,
    checkpoint_file,
    load_run,
    make_folder,
    naming,
    refuse,
    refuse_files,
    run_code,
)

SETTINGS = "predict.json"


def _check_average(name: str | None) -> str | None:
    return None if name is None else check_group(name)


def predict(
    run: Run,
    images: Annotated[Path, typer.Option(metavar="FILE_OR_DIR", help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME.png goes, class indices, for each image.")],
    tile: Annotated[int, typer.Option(min=8, help="Side of the tiles that larger images are cut into.")] = 256,
    average: Annotated[
        str | None,
        typer.Option(metavar="NAME", callback=_check_average, help="Average over this group, such as D4."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write NAME.npy too: float32 [classes, H, W].")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write NAME_overlay.png too: the image with its classes laid over it.")
    ] = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Predict the class of every pixel, as NAME.png in the folder --out.

    The values of NAME.png are class indices; it carries a colour map for viewers. Tiles and their weights are
    symmetric, so the prediction of a turned image is the turned prediction, whatever its size. Images whose NAME.png
    is there already are skipped: typed again, an interrupted command goes on.

    Memory grows with the network and with --tile, not with the image: files are read by window or row by row, written
    row by row, and rows of tiles beyond some megabytes wait on disk (TMPDIR). Of JPEG some 512 rows are held. Held as
    a whole are small files, interlaced PNG, JPEG of CMYK (of every kind without pyvips), TIFF of other compressions
    than deflate and PackBits; of a progressive JPEG two bytes a value.

    Example: [bold]gconv-ga predict --run run --images slides --out predictions --average D4[/bold]

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (good images are done), 130 stopped by Ctrl-C.
    """
    from ..averaging import GroupAverage
    from ..images import find_images
    from ..segmenter import as_device

    with naming("--device"):
        where = as_device(device)
    model, config, _ = load_run(run)
    with naming("--images"):
        files = find_images(images)
    _refuse_twins(files, overlay=overlay)
    if out.exists() and any(out.samefile(file.parent) for file in files):
        refuse("--out", f"{out} is the folder of the images; predictions would take their names")
    make_folder(out, "'--out'")
    checkpoint = hashlib.sha256(checkpoint_file(run).read_bytes()).hexdigest()
    kinds = {"probabilities": probabilities, "overlay": overlay}
    _settle(out, {"checkpoint": checkpoint, "tile": tile, "average": average, **kinds})
    network = model if average is None else GroupAverage(model, average, chunk_size=1)
    code = run_code(run)
    colors = None if code.colors is None else [code.colors[name] for name in code.names]
    _predict(network, config.normalization, files, out, tile=tile, device=where, colors=colors, **kinds)


def _refuse_twins(files: Sequence[Path], *, overlay: bool) -> None:
    """No two images may write the same file."""
    from collections import Counter

    written = Counter(f"{file.stem}.png" for file in files)
    if overlay:
        written.update(f"{file.stem}_overlay.png" for file in files)
    name, count = written.most_common(1)[0]
    if count > 1:
        refuse("--images", f"{count} of the images would write the same {name}")


def _settle(out: Path, settings: dict[str, Any]) -> None:
    """What is in the folder already must have come from the same settings."""
    file = out / SETTINGS
    text = json.dumps(settings, indent=2) + "\n"
    if not file.exists():
        beside = file.with_suffix(".part")
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    elif file.read_text(encoding="utf-8") != text:
        refuse("--out", f"{out} holds predictions of another checkpoint or with other options; take another folder")


def _predict(
    network: Any, normalization: Any, files: Sequence[Path], out: Path, *, tile: int, device: Any, **options: Any
) -> None:
    from ..images import ImageFile, Problem
    from ..predict import predict_to_file
    from ._options import progress_bars

    waiting = [file for file in files if not (out / f"{file.stem}.png").exists()]
    problems = []
    with progress_bars() as bars:
        task = bars.add_task("images", total=len(files), completed=len(files) - len(waiting), note="")
        tiles = bars.add_task("tiles", total=None, note="")
        for file in waiting:
            bars.update(task, note=file.name)
            try:
                predict_to_file(
                    network, ImageFile(file, normalization), out / f"{file.stem}.png", tile=tile, device=device,
                    progress=lambda done, total: bars.update(tiles, completed=done, total=total), **options,
                )  # fmt: skip
            except ValueError as error:
                problems.append(Problem(file.name, str(error)))
                continue
            bars.advance(task)
    refuse_files("--images", problems, f"the other images are done, in {out}")
    skipped = len(files) - len(waiting)
    print(f"{out}: {len(waiting)} images done" + (f", {skipped} were there" if skipped else ""))
