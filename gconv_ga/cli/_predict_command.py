"""``gconv-ga predict``: the class of every pixel, for images of any size."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._files import sha256_of
from ..images import MAX_PIXELS, Reading
from ._machines import Devices, Nodes, Strategy, find_machines, working
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
    note,
    refuse,
    run_encoding,
    silent,
)
from ._predict_files import OF_SLIDES, Predictions, endings, keep_settings
from ._predict_slides import ENDING, AllTiles, Level, Mpp, SlideOptions, Slides, open_job, slide_name
from ._sources import Channels, MaxPixels, OtherNumbers, Page, Recursive, choose_reading

if TYPE_CHECKING:
    from ..objects import Decoder
    from ..predict import ObjectFiles, SlideJob

NAME_BYTES = 255  # of a file, in the usual file systems


def predict(
    run: Run,
    images: Annotated[Path, typer.Option(metavar="FILE_OR_DIR", help="An image, or a folder of images.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the predictions, NAME.png for each image.")
    ] = Path("predictions"),
    recursive: Recursive = False,
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
    objects: Annotated[
        bool,
        typer.Option(
            "--objects",
            help="Also write NAME_objects.tif, the objects by number, and NAME_objects.csv, a row for each.",
        ),
    ] = False,
    rise: Annotated[
        float | None,
        typer.Option(
            metavar="PIXELS",
            help="With --objects: by how much a summit must rise to be an object; if omitted, as in the run, or 0.75.",
        ),
    ] = None,
    smallest: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", min=1, help="With --objects: drop objects of fewer pixels than this; 12 if omitted."
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            metavar="MICROMETRES", help="With --objects: side of a pixel. If omitted: as a TIFF states it, or unknown."
        ),
    ] = None,
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Write objects as NAME_objects.geojson too, for QuPath.")
    ] = False,
    rois: Annotated[bool, typer.Option("--rois", help="Write objects as NAME_rois.zip too, for ImageJ.")] = False,
    coco: Annotated[
        bool, typer.Option("--coco", help="Write objects as NAME_coco.json too, with run lengths.")
    ] = False,
    slides: Slides = None,
    level: Level = None,
    mpp: Mpp = None,
    all_tiles: AllTiles = False,
    channels: Channels = None,
    page: Page = None,
    other_numbers: OtherNumbers = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files in --out: predictions by another checkpoint or with other options, or what is of the "
            "same name and may be no prediction.",
        ),
    ] = False,
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    debug: Debug = False,
) -> None:
    """Predict the class of every pixel and write it as NAME.png in the folder --out.

    The pixel values of NAME.png are class indices; viewers show them in the colours of its colour map. Images are cut
    into tiles symmetrically, so the prediction for a rotated image is the rotated prediction, whatever its size.

    Repeat an interrupted command to continue it: it does what is missing. OUT/predict.json holds the checkpoint and the
    options, OUT/predict.jsonl size and date of each image that is done; an image that was replaced since, or whose
    NAME.png is gone, is predicted again. If the checkpoint or an option differs, the command is refused; with
    --overwrite, the old predictions are removed and made again. Devices may differ.

    With --devices and --nodes several processes share the images, and of a slide blocks of tiles. They write the same
    files as one process, to the byte if each has as many threads (OMP_NUM_THREADS). On several machines --out must be a
    folder that all of them see. If one of the processes dies, the others finish the image or the block they are at, and
    the command ends with an error that names it.

    Objects (--objects) are found by the rules that a run with heads for objects holds (train --instances; nuclei and
    histology), and of other runs in the region of each class by a watershed: the height of a pixel is its distance to
    the edge of the region, smoothed a little; summits that rise --rise above the pass to a higher one are seeds; a
    pixel joins the object of its highest neighbour, in a tie the larger one, and none if both are as large. No rule
    looks at the order of the pixels, so a rotated or reflected image has the rotated or reflected objects, to the last
    pixel, if the network or --average is equivariant. NAME_objects.csv has the class, area, centroid, axes,
    orientation, mean probability and mean intensities of each object, in micrometres too where the side of a pixel is
    known. Objects are found in the whole image at once, with about 100 bytes of memory a pixel.

    Whole slides (SVS, NDPI, SCN, MRXS, VMS, BIF, OME-Zarr, TIFF of several levels) are read at the size of pixels of
    the training images, or at --mpp or --level. Where a slide in colours has no tissue, tiles are skipped and their
    class is 0; NAME_tissue.png shows where. The prediction is NAME.ome.tif, in tiles and levels, with NAME_preview.png;
    an interrupted command continues within the slide. Objects of slides are found by the same rules as those of images:
    NAME_objects.csv, NAME_objects.geojson and, with --rois, NAME_rois.zip are in pixels of the finest level;
    NAME_objects.ome.tif has the objects by number, in tiles and levels. Regions of touching objects longer than 2048
    pixels are left out, with a message; rules with a flow leave out nothing.

    With --recursive, NAME is the path of the image in the folder --images. Hidden files and files with other
    endings are skipped, and a message says how many. Without a terminal, as in the log of a job, progress is one line
    each half minute.

    Memory grows with the network and with --tile, and without --objects not with the image. Large PNG and JPEG files
    are decoded row by row into a temporary file (in the folder TMPDIR), and of TIFF files only the tiles or strips in
    use are read. Held in memory as a whole are PNG and JPEG of up to 4 million pixels, WebP, BMP and GIF; of larger PNG
    and JPEG about 512 rows, while they are decoded. To decode an interlaced PNG takes memory for all of its pixels,
    a progressive JPEG two bytes for each value.

    Example: gconv-ga predict --run nuclei --images images --objects

    Example: gconv-ga predict --run run --images slides --out predictions --average D4

    Example: gconv-ga predict --run run --images images --out predictions --objects --geojson --pixel-size 0.5

    Exit codes: 0 done, 1 something went wrong (images that fail are listed, the others are done), 2 wrong input
    (nothing is written), 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from ..averaging import GroupAverage
    from ..images import ImageFile, find_images, read_pixel_size
    from ..predict import predict_to_file

    machines, is_main = find_machines(device, devices, nodes, strategy)
    say = note if is_main else silent
    model, config, _ = load_run(run, say=say)
    usual = config.decoder if average is None else None  # of the heads for objects; an average has none
    sought = _sought(
        usual, objects, rise, smallest, {"pixel_size": pixel_size, "geojson": geojson, "rois": rois, "coco": coco}
    )  # fmt: skip
    if sought is not None and sought.decoder.needs_maps and str(machines.device).startswith("mps"):
        machines = replace(machines, device="cpu")  # MPS has no float64
    reading = choose_reading(config.reading, channels, page, other_numbers, max_pixels)
    about_slides = SlideOptions(slides, level, mpp, all_tiles)
    with naming("--images"):
        files = find_images(images, recursive=recursive, slides=slides is not False, note=say)
    found_slides = set(about_slides.are_among(files))
    if found_slides:
        about_slides.check(config, probabilities=probabilities, overlay=overlay, coco=coco)
    root = images if recursive and images.is_dir() else None
    names = {file: file.stem if root is None else str(file.relative_to(root).with_suffix("")) for file in files}
    names |= {file: slide_name(names[file]) for file in found_slides}
    settings: dict[str, Any] = {
        "checkpoint": sha256_of(checkpoint_file(run)),
        "tile": tile, "average": average, "probabilities": probabilities, "overlay": overlay,
        **({} if sought is None else {"objects": asdict(sought)}),
        **_differences(reading, config.reading), **about_slides.differences(),
    }  # fmt: skip
    _refuse_names([(names[file], OF_SLIDES if file in found_slides else endings(settings)) for file in files])
    if out.exists() and any(out.samefile(file.parent) for file in files):
        refuse("--out", f"{out} is the folder of the images; predictions would overwrite them")
    if root is not None and out.resolve().is_relative_to(root.resolve()):
        refuse("--out", f"{out} lies in the folder of the images, and its files would be taken for images")
    make_folder(out, "--out")
    if is_main:
        targets = {name: f"{name}{ENDING if file in found_slides else '.png'}" for file, name in names.items()}
        keep_settings(out, settings, targets, overwrite=overwrite)
    network = model if average is None else GroupAverage(model, average, chunk_size=1)
    encoding = run_encoding(run)
    colors = None if encoding is None or encoding.colors is None else [encoding.colors[name] for name in encoding.names]
    named = None if sought is None else replace(sought, names=config.classes)

    def predict_image(file: Path, target: Path, *, device: Any, progress: Callable[[int, int], Any]) -> None:
        here = named
        if here is not None and here.pixel_size is None:
            here = replace(here, pixel_size=read_pixel_size(file))
        predict_to_file(
            network, ImageFile(file, config.normalization, reading), target, tile=tile, device=device,
            probabilities=probabilities, overlay=overlay, objects=here, colors=colors, progress=progress,
        )  # fmt: skip

    def open_slide(file: Path, target: Path, *, device: Any) -> "SlideJob":
        return open_job(
            about_slides, network, config, reading, file, target, tile=tile, device=device, colors=colors,
            objects=named, group=average or config.group,
        )  # fmt: skip

    predictions = Predictions(out, names, found_slides, settings, predict_image, open_slide)
    with working(machines) as team:
        predictions.predict_all(team)
    if is_main:
        predictions.print_outcome()


def _differences(reading: Reading, trained: Reading) -> dict[str, Any]:
    """Return what decides which pixels are read and is not as in the training."""
    names = ("channels", "page", "other_numbers")
    return {name: getattr(reading, name) for name in names if getattr(reading, name) != getattr(trained, name)}


def _sought(
    usual: "Decoder | None", objects: bool, rise: float | None, smallest: int | None, files: dict[str, Any]
) -> "ObjectFiles | None":
    """Return the files about objects that options ask for; None if there are none.

    Args:
        usual: Rules of the run.
        objects: Value of ``--objects``.
        rise: Value of ``--rise``.
        smallest: Value of ``--smallest``.
        files: Values of the other options, as for `ObjectFiles`.

    Raises:
        typer.BadParameter: An option is out of its range, or is about objects without asking for them.
    """
    from ..objects import Decoder
    from ..predict import ObjectFiles

    if not objects and not any(files[name] for name in ("geojson", "rois", "coco")):
        for name, value in (("rise", rise), ("smallest", smallest), ("pixel-size", files["pixel_size"])):
            if value is not None:
                refuse(f"--{name}", "it is for objects; give --objects too")
        return None
    given: dict[str, Any] = {
        name: value for name, value in (("rise", rise), ("smallest", smallest)) if value is not None
    }
    with naming("--rise"):
        rules = replace(Decoder() if usual is None else usual, **given)
    with naming("--pixel-size"):
        return ObjectFiles(rules, **files)


def _refuse_names(files: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Refuse images two of which would write the same file, and names that are too long for the files written.

    Args:
        files: Name of each image, and the endings of the files that are written about it.
    """
    written = Counter(unicodedata.normalize("NFC", name + ending) for name, each in files for ending in each)
    name, count = written.most_common(1)[0]
    if count > 1:
        refuse("--images", f"{count} of the images would write the same {name}")
    name, count = Counter(unicodedata.normalize("NFC", name) for name, _ in files).most_common(1)[0]
    if count > 1:
        refuse("--images", f"{count} of the images, slides or not, have the name {name!r}; rename or move one of them")
    for name, each in files:
        longest = max(each, key=len)
        if len(os.fsencode(Path(name + longest).name)) > NAME_BYTES:
            size = len(os.fsencode(Path(name).name))
            refuse("--images", f"the name {name!r} of {size} bytes is too long: with {longest} at the end it would "
                   f"have more than {NAME_BYTES}")  # fmt: skip
