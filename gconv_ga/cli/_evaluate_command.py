"""``gconv-ga evaluate``: scores by class, by image and by angle, as JSON and as a page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .._files import printable, write_atomically
from ..images import MAX_PIXELS
from ._options import (
    Debug,
    Device,
    Run,
    Tile,
    checkpoint_file,
    load_run,
    make_folder,
    naming,
    note,
    refuse,
    refuse_files,
    run_encoding,
)
from ._sources import (
    Channels,
    Colors,
    IgnoreIndex,
    MaskSuffix,
    MaxPixels,
    OtherNumbers,
    Page,
    Recursive,
    Source,
    TableFile,
    choose_reading,
    mask_encoding,
    scan_files,
)

if TYPE_CHECKING:
    from ..images import PairFiles, Problem


def evaluate(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for report.json and report.html.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of images that the network was not trained on.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of their masks, with the same file names.")
    ] = None,
    mask_suffix: MaskSuffix = None,
    recursive: Recursive = False,
    table: TableFile = None,
    split: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file, split (train, val, test), for --part.")
    ] = None,
    part: Annotated[
        Literal["train", "val", "test", "all"],
        typer.Option(help="Images to score if there is --split, or a column split in the table."),
    ] = "test",
    colors: Colors = None,
    ignore_index: IgnoreIndex = None,
    channels: Channels = None,
    page: Page = None,
    other_numbers: OtherNumbers = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    tile: Tile = 256,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Compare predictions with masks, for the images as they are and rotated by multiples of 45 degrees.

    Reports Dice, IoU and the distance between predicted and true outlines (mean and 95th percentile, in pixels) for
    each class and image, Dice at 8 angles, the share of pixels whose label changes when the image is rotated, and the
    worst image. Without --colors and --ignore-index, masks are read as they were for the training.

    Example: gconv-ga evaluate --run run --images images --masks masks --out report

    Example: gconv-ga evaluate --run run --table data/table.csv --part test --out report

    Example: gconv-ga evaluate --run run --images data --masks data --mask-suffix _mask --split split.csv --out report

    Exit codes: 0 done, 1 something went wrong, 2 wrong input (nothing is written), 130 stopped by Ctrl-C, 143 by
    SIGTERM.
    """
    source = Source(images, masks, table, mask_suffix, recursive)
    from ..evaluate import evaluate_image, evaluation_report
    from ..evaluate import page as page_of
    from ..images import PairDataset, Problem
    from ..segmenter import as_device
    from ._progress import progress_bars

    with naming("--device"):
        where = as_device(device)
    model, config, step = load_run(run)
    classes, encoding = len(config.classes), mask_encoding(colors, ignore_index, run_encoding(run))
    reading = choose_reading(config.reading, channels, page, other_numbers, max_pixels)
    pairs, problems = _part(source, part, split)
    if encoding.colors is not None and len(encoding.names) != classes:
        refuse("--colors", f"the network has {classes} classes, but {len(encoding.names)} have a colour")
    scan_files(
        pairs, problems, source.option, classes=classes, channels=config.arguments["in_channels"], encoding=encoding,
        reading=reading, absent_classes=True,
    )  # fmt: skip
    make_folder(out, "--out")
    dataset, scores = PairDataset(pairs, config.normalization, encoding, reading), {}
    options: dict[str, Any] = {"tile": tile, "device": where, "ignore_index": encoding.ignore_index}
    with progress_bars() as bars:
        task = bars.add_task("images", total=len(pairs), note="")
        for index, pair in enumerate(pairs):
            bars.update(task, note=pair.name)
            try:
                scores[printable(pair.name)] = evaluate_image(model, *dataset[index], classes=classes, **options)
            except ValueError as error:
                refuse_files(source.option, [Problem(pair.image.name, str(error))])
            bars.advance(task)
    report = evaluation_report(scores, config.classes, run=printable(checkpoint_file(run)), step=step)
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    worst = next(index for index, pair in enumerate(pairs) if printable(pair.name) == report["worst_image"])
    write_atomically(out / "report.html", page_of(report, model, *dataset[worst], **options).encode())
    upright, rotated = (_number(score) for score in (report["dice_by_angle"]["0"], report["dice_turned"]))
    changed = f"rotations by 90 degrees change {100 * report['changed']:.3f} % of the labels"
    print(f"Dice {upright} upright, {rotated} rotated; {changed}.")
    print(f"Worst image: {report['worst_image']}. {out}: report.json, report.html")


def _part(source: Source, part: str, split_file: Path | None) -> tuple[list["PairFiles"], list["Problem"]]:
    """Return the pairs to score, and the problems with their names."""
    from ..images import read_split

    pairs, problems, table = source.read()
    split = None if table is None else table.split
    if split_file is not None:
        if table is not None:
            refuse("--split", "the table of --table gives the split, in a column named split")
        with naming("--split"):
            split = read_split(split_file, [pair.name for pair in pairs], note=note)
    if split is None or part == "all":
        return list(pairs), list(problems)
    chosen = [pair for pair in pairs if split[pair.name] == part]
    if not chosen and not problems:
        refuse("--part", f"{split_file or source.table} has no row of the part {part}")
    return chosen, list(problems)


def _number(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"
