"""The files and the settings of a run, new or going on, looked at before anything is written."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._architecture import new_network, read_arch, written_arch
from ._config_file import is_chosen
from ._files import Source, mask_code, scanned
from ._refusals import naming, refuse

if TYPE_CHECKING:  # these rooms take seconds to load
    from collections.abc import Mapping

    from torch import Tensor

    from ..data import PairFiles, Scan
    from ..training import Machines, RunConfig, SegmenterConfig

SOURCES = ("images", "masks", "table")
LEAST_CROP = 128  # the default, where the images are as large


def source_of(options: dict[str, Any]) -> Source:
    """Where images and masks come from."""
    return Source(*(options[name] for name in SOURCES))


def named_machines(options: dict[str, Any], precision: str, batch_size: int) -> "Machines":
    """What is computed on.

    Raises:
        typer.BadParameter: There are no such devices, or an option is wrong.
    """
    from ..training import Machines

    try:
        machines = Machines(
            options["device"], options["devices"], options["nodes"], options["strategy"], precision
        )  # fmt: skip
        machines.share(batch_size)
    except ValueError as error:  # it begins with the argument's name
        refuse(f"--{str(error).partition(' ')[0].replace('_', '-')}", str(error), error)
    return machines


def first_weights(
    options: dict[str, Any], network: "SegmenterConfig"
) -> tuple[str | None, "Mapping[str, Tensor] | None"]:
    """Where the first weights come from, in words, and what they are; None for random ones.

    Raises:
        typer.BadParameter: There are none, or they do not fit.
    """
    from ..training import initial_weights, pretrained_weights

    file, name = options["init"], options["pretrained"]
    if file is not None and name is not None:
        refuse("--init", "give --init or --pretrained")
    if file is not None:
        with naming("--init"):
            weights = initial_weights(network, file)
        return f"sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}", weights
    if name is not None:
        with naming("--pretrained"):
            return f"pretrained:{name}", pretrained_weights(network, name, seed=options["seed"])
    return None, None


def new_run(typed: dict[str, Any]) -> tuple[Any, "RunConfig", "Mapping[str, Tensor] | None"]:
    """The files, the settings and the first weights of a new run; nothing is written."""
    from ..data import Normalization, draw_split, measure_files, read_split
    from ..training import RunConfig

    named_machines(typed, typed["precision"], typed["batch_size"])
    with naming("--percentile"):
        Normalization([0.0], [1.0], typed["percentile"])
    if not typed["learning_rate"] > 0:
        refuse("--learning-rate", f"{typed['learning_rate']} is not above 0")
    source, code = source_of(typed), mask_code(typed["colors"], typed["ignore_index"])
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
    if typed["patience"] is not None and "val" not in split.values():
        refuse("--patience", "no image is for validation")
    depth = typed["depth"] if read_arch(typed["arch"]) == ("unet",) else 1
    crop = _crop(typed["crop"], depth, scan)
    with naming("--percentile"):
        normalization = measure_files([pair for pair in pairs if split[pair.name] == "train"], typed["percentile"])
    titles = code.names or ("background", *(f"class {index}" for index in range(1, scan.classes)))
    network = new_network(typed, scan.channels, titles, normalization)
    origin, weights = first_weights(typed, network)
    kept = ("steps", "batch_size", "learning_rate", "seed", "every", "patience", "precision")
    numbers = {name: typed[name] for name in kept}
    return pairs, RunConfig(network, split, crop=crop, mask_code=code, init=origin, **numbers), weights


def _crop(typed: int | None, depth: int, scan: "Scan") -> int:
    """The side of the crops: what was typed, if every image has room for it."""
    crop = min(LEAST_CROP, scan.smallest) if typed is None else typed
    if crop > scan.smallest:
        refuse("--crop", f"{crop} is more than {scan.smallest}, the smaller side of the smallest image")
    if crop < 2 ** (depth - 1):
        refuse("--depth", f"{depth} levels need crops and images of {2 ** (depth - 1)} pixels, and there are {crop}")
    return crop


def known_files(source: Source, config: "RunConfig", *, scan: bool) -> list["PairFiles"]:
    """The files of a run that goes on; ``scan`` says whether to read them all before."""
    arguments = config.segmenter.arguments
    pairs, problems, _ = source.read()
    if scan:
        scanned(
            pairs, problems, source.option, classes=arguments["classes"], channels=arguments["in_channels"],
            code=config.mask_code,
        )  # fmt: skip
    missing = sorted(config.split.keys() - {pair.name for pair in pairs})
    if missing:
        refuse(source.option, f"{missing[0]} and its mask belong to the run and are not there")
    return list(pairs)


def refuse_other_settings(context: typer.Context, config: "RunConfig") -> None:
    """What is chosen beside --resume must be what the run has."""
    arguments = config.segmenter.arguments
    settings = {
        "arch": written_arch(config.segmenter),
        "pooling": arguments.get("pooling", "max"),
        **{name: arguments.get(name) for name in ("group", "classes", "width", "depth", "open_taps")},
        **{name: getattr(config, name) for name in ("steps", "crop", "batch_size", "learning_rate", "seed")},
        **{name: getattr(config, name) for name in ("every", "patience", "precision")},
        "percentile": config.segmenter.normalization.percentile,
    }
    if context.params["colors"] is not None or context.params["ignore_index"] is not None:
        code = mask_code(context.params["colors"], context.params["ignore_index"], config.mask_code)
        if code != config.mask_code:
            option = "--ignore-index" if code.colors == config.mask_code.colors else "--colors"
            refuse(option, f"the run has {config.mask_code}; leave the option out to go on with it")
    for name, value in settings.items():
        if is_chosen(context, name) and context.params[name] != value:
            refuse(f"--{name.replace('_', '-')}", f"the run has {value}; leave the option out to go on with it")
