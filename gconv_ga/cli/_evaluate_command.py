"""``gconv-ga evaluate``: scores by class, by image and by angle, as JSON and as a page."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .._files import printable, sha256_of, write_atomically
from .._journal import Journal
from ..images import MAX_PIXELS
from ._evaluate_scores import Scorer, whole_mask
from ._machines import Devices, Nodes, Strategy, find_machines, working
from ._options import (
    Debug,
    Device,
    Run,
    Tile,
    alone,
    checkpoint_file,
    list_problems,
    load_run,
    make_folder,
    naming,
    note,
    refuse,
    refuse_files,
    run_encoding,
    silent,
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
    name_in,
    scan_files,
)

if TYPE_CHECKING:
    from ..images import MaskFile, PairFiles, Problem, Reading
    from ..segmenter import Checkpoint

JOURNAL = "evaluate.jsonl"  # scores of the images that are done, until the report is written


def evaluate(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for report.json and report.html.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of images that the network was not trained on.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of their masks, with the same file names.")
    ] = None,
    instances: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the true objects, numbered images with the names of the images; also in place of --masks.",
        ),
    ] = None,
    mask_suffix: MaskSuffix = None,
    recursive: Recursive = False,
    table: TableFile = None,
    split: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file, split (train, val, test), for --part.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Another run, to be evaluated on the same images and shown beside this one."),
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
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = "auto",
    debug: Debug = False,
) -> None:
    """Compare predictions with masks, for the images as they are and rotated by multiples of 45 degrees.

    Reports Dice, IoU, precision, recall and the distance between predicted and true outlines (mean and 95th percentile,
    in pixels) for each class and image, Dice at 8 angles, the share of pixels whose label changes when the image is
    rotated, and pictures of the worst, the median and the best images.

    With --instances it also compares objects, found as by predict --objects, with the true ones: average precision at
    IoU 0.5, 0.55, ..., 0.9, panoptic quality, the error of the count with its sign; and with those of the image rotated
    by 90, 180 and 270 degrees, and reflected if the group of a network is D4 or D8: the share of objects without a
    partner, and of pixels in another object. Objects of all classes are compared together. Without --masks, the class
    of all objects is 1.

    Without --colors and --ignore-index, masks are read as they were for the training.

    Until the report is written, OUT/evaluate.jsonl holds the scores of the images that are done, and the same command,
    after it was interrupted, does what is missing: also images or masks that were replaced since, and everything if a
    checkpoint or an option differs. Devices may differ.

    With --devices and --nodes several processes share the images, and the report is that of one, to the byte if each
    has as many threads (OMP_NUM_THREADS). On several machines --out must be a folder that all of them see. If one of
    the processes dies, the others finish the image they are at, and the command ends with an error that names it.

    Example: gconv-ga evaluate --run run --images images --masks masks --out report

    Example: gconv-ga evaluate --run run --table data/table.csv --part test --out report

    Example: gconv-ga evaluate --run run --images data --masks data --mask-suffix _mask --split split.csv --out report

    Example: gconv-ga evaluate --run run --images images --instances instances --against plain --out report

    Exit codes: 0 done, 1 something went wrong (images that cannot be predicted, such as those too small for the
    network, are listed; the others are in the report), 2 wrong input (nothing is written), 130 stopped by Ctrl-C, 143
    by SIGTERM.
    """
    mask_option = "--instances" if masks is None and instances is not None else "--masks"
    source = Source(images, instances if masks is None else masks, table, mask_suffix, recursive, mask_option)
    from ..evaluate import Picture, evaluation_report
    from ..evaluate import page as page_of

    machines, is_main = find_machines(device, devices, nodes, strategy)
    say = note if is_main else silent
    first = load_run(run, say=say)
    second = None if against is None else load_run(against, "--against", say=say)
    classes, encoding = len(first.config.classes), mask_encoding(colors, ignore_index, run_encoding(run))
    if table is None:
        own = {"colors": None, "values": None} if masks is None else {}
        encoding = replace(encoding, instances=masks is None, **own)
    pairs, problems = _part(source, part, split, say)
    if encoding.colors is not None and len(encoding.names) != classes:
        refuse("--colors", f"the network has {classes} classes, but {len(encoding.names)} have a colour")
    if encoding.instances and classes != 2:
        refuse("--instances", f"the network has {classes} classes; give --masks too")
    if second is not None:
        _refuse_other_task(first, second)
    runs = {name: found for name, found in (("against", second), ("run", first)) if found is not None}
    readings = {
        name: choose_reading(found.config.reading, channels, page, other_numbers, max_pixels)
        for name, found in runs.items()
    }
    reading = readings["run"]
    scan: dict[str, Any] = {
        "classes": classes, "channels": first.config.arguments["in_channels"], "reading": reading,
        "absent_classes": True,
    }  # fmt: skip
    if is_main:  # the other processes need not read all files
        encoding = scan_files(pairs, problems, source.option, encoding=encoding, **scan).encoding
    true = (
        None
        if instances is None
        else _true_objects(
            source, pairs, instances, reading, scan if is_main else None, scanned=encoding.instances, say=say
        )
    )
    options: dict[str, Any] = {"tile": tile, "ignore_index": encoding.ignore_index}
    scorer = Scorer(runs, pairs, true, encoding, readings, options)
    with ExitStack() as held:
        with working(machines) as team:
            options["device"] = team.device
            if not team.is_main:
                team.serve(scorer.score)
                return
            held.enter_context(alone(make_folder(out, "--out"), "evaluation"))
            files = {"run": run, **({} if against is None else {"against": against})}
            settings = {
                "version": version("gconv_ga"), "tile": tile, "encoding": asdict(encoding),
                "readings": {name: asdict(each) for name, each in readings.items()},
                "objects": true is not None, "classes": first.config.classes,
                "checkpoints": {name: sha256_of(checkpoint_file(file)) for name, file in files.items()},
            }  # fmt: skip
            journal = Journal(out / JOURNAL, settings)
            scored = [(runs[name], files[name], *scorer.all_scores(name, team, journal)) for name in runs]
        failed = {name: problem for *_, found in scored for name, problem in found.items()}
        if len(failed) == len(pairs):
            journal.remove()
            refuse_files(source.option, list(failed.values()), "no image has a score")
        reports: list[dict[str, Any]] = []
        for checkpoint, name, scores, objects, _ in scored:
            report = evaluation_report(
                {each: scores[each] for each in scores if each not in failed},
                first.config.classes,
                run=printable(checkpoint_file(name)),
                step=checkpoint.step,
                objects=None if objects is None else {each: objects[each] for each in objects if each not in failed},
                against=reports[-1] if reports else None,
            )
            reports.append(report)
        report = reports[-1]
        write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
        places = {printable(pair.name): place for place, pair in enumerate(pairs)}
        pictures = {
            name: Picture(
                *scorer.datasets["run"][places[name]], None if true is None else whole_mask(true[places[name]])
            )
            for name in report["pictures"]
        }
        write_atomically(
            out / "report.html",
            page_of(report, first.model, pictures, decoder=first.config.decoder, **options).encode(),
        )
        journal.remove()
        for each in reversed(reports):  # that of --run first
            if len(reports) > 1:
                print(f"{each['run']}:")
            print(*_summary(each), sep="\n")
        print(f"Worst image: {report['worst_image']}. {out}: report.json, report.html")
        if failed:
            list_problems(list(failed.values()))
            note(f"{len(failed)} of {len(pairs)} images have no score, and are not in the report")
            raise typer.Exit(1)


def _refuse_other_task(first: "Checkpoint", second: "Checkpoint") -> None:
    """Refuse another run that cannot be compared on the same images and masks."""
    one, two = first.config, second.config
    if len(one.classes) != len(two.classes):
        refuse("--against", f"it has {len(two.classes)} classes, but --run has {len(one.classes)}")
    if one.classes != two.classes and sorted(one.classes) == sorted(two.classes):
        refuse("--against", f"it has the classes of --run in another order: {', '.join(two.classes)}")
    if one.arguments["in_channels"] != two.arguments["in_channels"]:
        channels = two.arguments["in_channels"], one.arguments["in_channels"]
        refuse("--against", "it is for images of {} channels, but --run for images of {}".format(*channels))


def _true_objects(
    source: Source,
    pairs: Sequence["PairFiles"],
    folder: Path,
    reading: "Reading",
    scan: dict[str, Any] | None,
    *,
    scanned: bool,
    say: Callable[[str], None],
) -> list["MaskFile"]:
    """Return the open files of the true objects of each image, checked with ``scan`` unless scanned as masks.

    Raises:
        typer.BadParameter: An image has none, or something is wrong with one.
    """
    from ..images import MaskEncoding, MaskFile, PairFiles, Problem, find_images

    if scanned:
        return [MaskFile(pair.mask, None, reading) for pair in pairs]
    with naming("--instances"):
        files = find_images(folder, recursive=source.recursive, note=say)
    root = source.images if source.recursive else None
    names = [name_in(pair.image, root) for pair in pairs]
    by_name = {name_in(file, None if root is None else folder): file for file in files}
    problems = [Problem(pair.image.name, "no objects of this name") for pair, name in zip(pairs, names, strict=True)
                if name not in by_name]  # fmt: skip
    problems += [Problem(name, f"the name of {count} images") for name, count in Counter(names).items() if count > 1]
    problems += [Problem(file.name, "the name of several files") for file in files if file not in by_name.values()]
    refuse_files("--instances", problems)
    found = [PairFiles(pair.image, by_name[name], pair.name) for pair, name in zip(pairs, names, strict=True)]
    if scan is not None:
        scan_files(found, [], "--instances", encoding=MaskEncoding(instances=True), **{**scan, "classes": 2})
    return [MaskFile(pair.mask, None, reading) for pair in found]


def _part(
    source: Source, part: str, split_file: Path | None, say: Callable[[str], None]
) -> tuple[list["PairFiles"], list["Problem"]]:
    """Return the pairs to score, and the problems with their names."""
    from ..images import read_split

    pairs, problems, table = source.read(say)
    split = None if table is None else table.split
    if split_file is not None:
        if table is not None:
            refuse("--split", "the table of --table gives the split, in a column named split")
        with naming("--split"):
            split = read_split(split_file, [pair.name for pair in pairs], note=say)
    if split is None or part == "all":
        return list(pairs), list(problems)
    chosen = [pair for pair in pairs if split[pair.name] == part]
    if not chosen and not problems:
        refuse("--part", f"{split_file or source.table} has no row of the part {part}")
    return chosen, list(problems)


def _summary(report: dict[str, Any]) -> list[str]:
    """Return the lines about one run."""
    upright, rotated = (_number(score) for score in (report["mean"]["dice"], report["dice_rotated"]))
    changed = f"rotations by 90 degrees change {100 * report['changed']:.3f} % of the labels"
    lines = [f"Dice {upright} upright, {rotated} rotated; {changed}."]
    if "objects" in report:
        about = report["objects"]
        precision = _number(about["average_precision"]["0.50"])
        partnerless = f"rotations by 90 degrees leave {100 * about['partnerless']:.3f} % without a partner"
        lines.append(
            f"Objects: {about['found']} found, {about['true']} true; AP at IoU 0.5 {precision}; {partnerless}."
        )
    return lines


def _number(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"
