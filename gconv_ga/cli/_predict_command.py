"""``gconv-ga predict``: the class of every pixel, for images of any size."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .._files import write_atomically
from ..images import MAX_PIXELS, Reading
from ._options import (
    Debug,
    Device,
    Run,
    Tile,
    check_group,
    checkpoint_file,
    load_run,
    make_folder,
    naming,
    progress_bars,
    refuse,
    refuse_files,
    run_encoding,
)
from ._sources import Channels, MaxPixels, OtherNumbers, Page, choose_reading

SETTINGS = "predict.json"


def predict(
    run: Run,
    images: Annotated[Path, typer.Option(metavar="FILE_OR_DIR", help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the predictions, NAME.png for each image.")],
    tile: Tile = 256,
    average: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=check_group,
            help="Average the predictions over a group, such as D4.",
        ),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Also write NAME.npy: the probability of each class, float32 (classes, H, W)."
        ),
    ] = False,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="Also write NAME_overlay.png: the image, coloured by predicted class."),
    ] = False,
    channels: Channels = None,
    page: Page = None,
    other_numbers: OtherNumbers = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Predict the class of every pixel and write it as NAME.png in the folder --out.

    The pixel values of NAME.png are class indices; viewers show them in the colours of its colour map. Images are cut
    into tiles symmetrically, so the prediction for a rotated image is the rotated prediction, whatever its size. Images
    that have their NAME.png already are skipped: repeat an interrupted command to continue it.

    Memory grows with the network and with --tile, not with the image. Large PNG and JPEG files are decoded row by row
    into a temporary file (in the folder TMPDIR), and of TIFF files only the tiles or strips in use are read. Held in
    memory as a whole are PNG and JPEG of up to 4 million pixels, and TIFF with a compression other than deflate and
    PackBits; of larger PNG and JPEG about 512 rows, while they are decoded. Meanwhile an interlaced PNG takes as much
    as all its pixels, and a progressive JPEG two bytes for each value.

    Example: gconv-ga predict --run run --images slides --out predictions --average D4

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (other images are done), 130 stopped by Ctrl-C.
    """
    from ..averaging import GroupAverage
    from ..images import find_images
    from ..segmenter import as_device

    with naming("--device"):
        where = as_device(device)
    model, config, _ = load_run(run)
    reading = choose_reading(config.reading, channels, page, other_numbers, max_pixels)
    with naming("--images"):
        files = find_images(images)
    _refuse_same_names(files, overlay=overlay)
    if out.exists() and any(out.samefile(file.parent) for file in files):
        refuse("--out", f"{out} is the folder of the images; predictions would overwrite them")
    make_folder(out, "--out")
    checkpoint = hashlib.sha256(checkpoint_file(run).read_bytes()).hexdigest()
    kinds = {"probabilities": probabilities, "overlay": overlay}
    _keep_settings(
        out,
        {"checkpoint": checkpoint, "tile": tile, "average": average, **kinds, **_differences(reading, config.reading)},
    )
    network = model if average is None else GroupAverage(model, average, chunk_size=1)
    encoding = run_encoding(run)
    colors = None if encoding is None or encoding.colors is None else [encoding.colors[name] for name in encoding.names]
    _predict(network, config.normalization, reading, files, out, tile=tile, device=where, colors=colors, **kinds)


def _differences(reading: Reading, trained: Reading) -> dict[str, Any]:
    """Return what decides which pixels are read and is not as in the training."""
    names = ("channels", "page", "other_numbers")
    return {name: getattr(reading, name) for name in names if getattr(reading, name) != getattr(trained, name)}


def _refuse_same_names(files: Sequence[Path], *, overlay: bool) -> None:
    """Refuse images two of which would write the same file."""
    written = Counter(f"{file.stem}.png" for file in files)
    if overlay:
        written.update(f"{file.stem}_overlay.png" for file in files)
    name, count = written.most_common(1)[0]
    if count > 1:
        refuse("--images", f"{count} of the images would write the same {name}")


def _keep_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings into the folder, or refuse it if it holds predictions made with other settings."""
    file, content = out / SETTINGS, (json.dumps(settings, indent=2) + "\n").encode()
    if not file.exists():
        write_atomically(file, content)
    elif file.read_bytes() != content:
        refuse("--out", f"{out} holds predictions of another checkpoint or with other options; use another folder")


def _predict(
    network: Any, normalization: Any, reading: Reading, files: Sequence[Path], out: Path, *, tile: int, device: Any,
    **options: Any,
) -> None:  # fmt: skip
    """Predict the images that are not done; list those that cannot be read at the end."""
    from ..images import ImageFile, Problem
    from ..predict import predict_to_file

    waiting = [file for file in files if not (out / f"{file.stem}.png").exists()]
    problems = []
    with progress_bars() as bars:
        task = bars.add_task("images", total=len(files), completed=len(files) - len(waiting), note="")
        tiles = bars.add_task("tiles", total=None, note="")
        for file in waiting:
            bars.update(task, note=file.name)
            try:
                image = ImageFile(file, normalization, reading)
                predict_to_file(
                    network, image, out / f"{file.stem}.png", tile=tile, device=device,
                    progress=lambda done, total: bars.update(tiles, completed=done, total=total), **options,
                )  # fmt: skip
            except ValueError as error:
                problems.append(Problem(file.name, str(error)))
                continue
            bars.advance(task)
    refuse_files("--images", problems, f"the other images are done, in {out}")
    skipped = len(files) - len(waiting)
    done = f"{len(waiting)} image{'' if len(waiting) == 1 else 's'} done"
    print(f"{out}: {done}" + (f", {skipped} skipped" if skipped else ""))
