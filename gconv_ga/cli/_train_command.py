"""``gconv-ga train``: a segmenter from a folder of images and a folder of masks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._files import KINDS, Colors, IgnoreIndex, Source, TableFile, mask_code, scanned
from ._options import Debug, Device, GroupName, Seed, make_folder
from ._refusals import naming, refuse

if TYPE_CHECKING:  # these rooms take seconds to load
    from ..data import PairFiles, Scan
    from ..training import RunConfig

SOURCES = ("images", "masks", "table")
LEAST_CROP = 128  # the default, where the images are as large


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the run: settings, weights, log, curves.")],
    images: Annotated[Path | None, typer.Option(metavar="DIR", help=f"Images: {KINDS}; grey, RGB, n channels.")] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Masks of class indices 0, 1, ..., named as the images.")
    ] = None,
    table: TableFile = None,
    colors: Colors = None,
    ignore_index: IgnoreIndex = None,
    group: GroupName = "C4",
    classes: Annotated[int | None, typer.Option(min=2, help="How many, background included; else counted.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1000,
    width: Annotated[int, typer.Option(min=1, help="Fields of the finest level.")] = 8,
    depth: Annotated[int, typer.Option(min=1, help="Levels; the image is halved depth - 1 times.")] = 4,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Side of a crop; else 128, or the smallest image's smaller side.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="The highest of the cycle.")] = 0.01,
    percentile: Annotated[
        float | None, typer.Option(help="Scale each image by this percentile of its own, such as 99.8.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns file, split (train, val, test); else 1 of 5 validates.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its settings.")] = False,
    debug: Debug = False,
) -> None:
    """Train an equivariant U-Net on your images.

    Every file is read once before; if anything is wrong with one, a table says what, and nothing is written. A run
    that was stopped, in whatever way, goes on with --resume and ends with the same weights.

    A CSV in place of the folders (--table) may hold the split, or a patient or slide, whose images then stay in one
    part of it; its paths are relative to its own folder and may not lead out of it.

    Example: [bold]gconv-ga train --images images --masks masks --out run --steps 2000[/bold]

    Example: [bold]gconv-ga train --table data/table.csv --colors colors.json --ignore-index 255 --out run[/bold]
    """
    from ..training import as_device, read_run

    with naming("--device"):
        where = as_device(device)
    if resume:
        with naming("--out"):
            config = read_run(out)
        _refuse_other_settings(context, config)
        pairs = _known_files(Source(images, masks, table), config)
    else:
        if (out / "run.json").exists():
            refuse("--out", f"{out} holds a run; --resume goes on with it")
        pairs, config = _new_run(context.params)
    make_folder(out, "'--out'")
    _train(out, config, pairs, where)


def _new_run(typed: dict[str, Any]) -> tuple[Any, "RunConfig"]:
    """The files and the settings of a new run; nothing is written."""
    from ..data import Normalization, draw_split, measure_files, read_split
    from ..training import RunConfig, SegmenterConfig

    with naming("--percentile"):
        Normalization([0.0], [1.0], typed["percentile"])
    if not typed["learning_rate"] > 0:
        refuse("--learning-rate", f"{typed['learning_rate']} is not above 0")
    source, code = Source(*(typed[name] for name in SOURCES)), mask_code(typed["colors"], typed["ignore_index"])
    pairs, problems, table = source.read()
    scan = scanned(pairs, problems, source.option, classes=typed["classes"], code=code)
    names = [pair.name for pair in pairs]
    if table is not None and typed["split"] is not None:
        refuse("--split", "a table says its split in a column of its own, split")
    option = "--split" if table is None else "--table"
    with naming(option):
        if typed["split"] is not None:
            split = read_split(typed["split"], names)
        elif table is not None and table.split is not None:
            split = dict(table.split)
        else:
            split = draw_split(names, seed=typed["seed"], together=None if table is None else table.together)
    if "train" not in split.values():
        refuse(option, "no image is for training")
    crop = _crop(typed["crop"], typed["depth"], scan)
    with naming("--percentile"):
        normalization = measure_files([pair for pair in pairs if split[pair.name] == "train"], typed["percentile"])
    arguments = {
        "in_channels": scan.channels,
        "classes": scan.classes,
        "group": typed["group"],
        "width": typed["width"],
        "depth": typed["depth"],
    }
    titles = code.names or ("background", *(f"class {index}" for index in range(1, scan.classes)))
    segmenter = SegmenterConfig("EquivariantUNet", arguments, titles, normalization)
    with naming("--group"):
        segmenter.build()
    numbers = {name: typed[name] for name in ("steps", "batch_size", "learning_rate", "seed")}
    return pairs, RunConfig(segmenter, split, crop=crop, mask_code=code, **numbers)


def _crop(typed: int | None, depth: int, scan: "Scan") -> int:
    """The side of the crops: what was typed, if every image has room for it."""
    crop = min(LEAST_CROP, scan.smallest) if typed is None else typed
    if crop > scan.smallest:
        refuse("--crop", f"{crop} is more than {scan.smallest}, the smaller side of the smallest image")
    if crop < 2 ** (depth - 1):
        refuse("--depth", f"{depth} levels need crops and images of {2 ** (depth - 1)} pixels, and there are {crop}")
    return crop


def _known_files(source: Source, config: "RunConfig") -> list["PairFiles"]:
    """The files of a run that goes on."""
    arguments = config.segmenter.arguments
    pairs, problems, _ = source.read()
    scanned(
        pairs, problems, source.option, classes=arguments["classes"], channels=arguments["in_channels"],
        code=config.mask_code,
    )  # fmt: skip
    missing = sorted(config.split.keys() - {pair.name for pair in pairs})
    if missing:
        refuse(source.option, f"{missing[0]} and its mask belong to the run and are not there")
    return list(pairs)


def _refuse_other_settings(context: typer.Context, config: "RunConfig") -> None:
    """What is typed beside --resume must be what the run has."""
    arguments = config.segmenter.arguments
    settings = {
        **{name: arguments[name] for name in ("group", "classes", "width", "depth")},
        **{name: getattr(config, name) for name in ("steps", "crop", "batch_size", "learning_rate", "seed")},
        "percentile": config.segmenter.normalization.percentile,
    }
    if context.params["colors"] is not None or context.params["ignore_index"] is not None:
        code = mask_code(context.params["colors"], context.params["ignore_index"], config.mask_code)
        if code != config.mask_code:
            option = "--ignore-index" if code.colors == config.mask_code.colors else "--colors"
            refuse(option, f"the run has {config.mask_code}; leave the option out to go on with it")
    for name, value in settings.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and context.params[name] != value:
            refuse(f"--{name.replace('_', '-')}", f"the run has {value}; leave the option out to go on with it")


def _train(out: Path, config: "RunConfig", pairs: Any, device: Any) -> None:
    from ..training import train_run
    from ._progress import progress_bars

    try:
        with progress_bars() as bars:
            task = bars.add_task("training", total=config.steps, note="")
            train_run(
                out, config, pairs, device=device,
                report=lambda step, loss: bars.update(task, completed=step, note=f"loss {loss:.3f}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"gconv-ga: stopped; --resume goes on from the last saved step in {out}", err=True)
        raise typer.Exit(130) from None
    print(f"{out}: model.safetensors after {config.steps} steps, log.csv, curves.png")
