"""``gconv-ga predict``: the classes of images of any size."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Debug, Device, check_group, make_folder
from ._refusals import naming, refuse, refuse_files
from ._runs import Run, checkpoint_file, load_run

SETTINGS = "predict.json"


def _check_average(name: str | None) -> str | None:
    return None if name is None else check_group(name)


def predict(
    run: Run,
    images: Annotated[Path, typer.Option(metavar="FILE_OR_DIR", help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME.png goes, class indices, for each image.")],
    tile: Annotated[int, typer.Option(min=8, help="Side of the tiles that larger images are cut into.")] = 512,
    average: Annotated[
        str | None,
        typer.Option(metavar="NAME", callback=_check_average, help="Average over this group, such as D4."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write NAME.npy too: float32 [classes, H, W].")
    ] = False,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Predict the class of every pixel, as NAME.png in the folder --out.

    Tiles and their weights are symmetric, so the prediction of a turned image is the turned prediction, whatever its
    size. Images whose NAME.png is there already are skipped: typed again, an interrupted command goes on.

    Example: [bold]gconv-ga predict --run run --images slides --out predictions --average D4[/bold]
    """
    from ..averaging import GroupAverage
    from ..data import find_images
    from ..training import as_device

    with naming("--device"):
        where = as_device(device)
    model, config, _ = load_run(run)
    with naming("--images"):
        files = find_images(images)
    _refuse_twins(files)
    make_folder(out, "'--out'")
    checkpoint = hashlib.sha256(checkpoint_file(run).read_bytes()).hexdigest()
    _settle(out, {"checkpoint": checkpoint, "tile": tile, "average": average, "probabilities": probabilities})
    network = model if average is None else GroupAverage(model, average, chunk_size=1)
    _predict(network, config, files, out, tile=tile, device=where, probabilities=probabilities)


def _refuse_twins(files: Sequence[Path]) -> None:
    from collections import Counter

    name, count = Counter(file.stem for file in files).most_common(1)[0]
    if count > 1:
        refuse("--images", f"{count} images are called {name}; they would write the same {name}.png")


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
    network: Any, config: Any, files: Sequence[Path], out: Path, *, tile: int, device: Any, probabilities: bool
) -> None:
    from ..data import Problem, read_image
    from ..training import predict_image, save_prediction
    from ._progress import progress_bars

    waiting = [file for file in files if not (out / f"{file.stem}.png").exists()]
    problems = []
    with progress_bars() as bars:
        task = bars.add_task("images", total=len(files), completed=len(files) - len(waiting), note="")
        tiles = bars.add_task("tiles", total=None, note="")
        for file in waiting:
            bars.update(task, note=file.name)
            try:
                image = config.normalization(read_image(file))
            except ValueError as error:
                problems.append(Problem(file.name, str(error)))
                continue
            prediction = predict_image(
                network, image, tile=tile, device=device, probabilities=probabilities,
                progress=lambda done, total: bars.update(tiles, completed=done, total=total),
            )  # fmt: skip
            save_prediction(prediction, out / f"{file.stem}.png")
            bars.advance(task)
    refuse_files("--images", problems, f"the other images are done, in {out}")
    skipped = len(files) - len(waiting)
    print(f"{out}: {len(waiting)} images done" + (f", {skipped} were there" if skipped else ""))
