"""The options of ``gconv-ga train`` as a file, to be used again."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._options import Source, mask_code, naming, refuse, scanned

if TYPE_CHECKING:  # these rooms take seconds to load
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ..images import Normalization, PairFiles, Scan
    from ..segmenter import Machines, SegmenterConfig
    from ..train import RunConfig


FILE = "config.json"
PATHS = ("images", "masks", "table", "colors", "split", "init")
APART = ("out", "config", "data", "resume", "debug")  # of one call, not of a training


def load_config(context: typer.Context, file: Path | None) -> Path | None:
    """Makes what is in the file the defaults of the command; what is typed goes before.

    Raises:
        typer.BadParameter: It is no JSON object, or a key is no option of this kind, or a value is no plain one.
    """
    if file is None:
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        refuse("--config", f"{file} cannot be read as JSON: {error}", error)
    if not isinstance(settings, dict):
        refuse("--config", f"{file} holds a {type(settings).__name__}; it takes an object of options")
    known = [str(option.name) for option in context.command.params if option.name not in APART]
    for name, value in settings.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            refuse("--config", f"{name!r} is no option" + (f"; did you mean {close[0]!r}?" if close else ""))
        if isinstance(value, list | dict):
            refuse("--config", f"{name} is {json.dumps(value)}; it takes one string, number or truth value")
    # Strings, so that they are checked as if they had been typed: 3.5 is no number of steps.
    context.default_map = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
        if value is not None
    }
    return file


def from_config(context: typer.Context, name: str) -> bool:
    """Whether the value of an option comes from the file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was typed."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def is_chosen(context: typer.Context, name: str) -> bool:
    """Whether the value of an option was typed, or comes from the file."""
    return is_typed(context, name) or from_config(context, name)


def place_files(context: typer.Context, data: Path) -> dict[str, Any]:
    """The options, those paths that come from the file taken from the folder ``data``.

    Raises:
        typer.BadParameter: Such a path is_main_process out of the folder.
    """
    options = dict(context.params)
    for name in PATHS:
        if not from_config(context, name):
            continue
        path = (data / options[name]).resolve()
        if not path.is_relative_to(data.resolve()):
            refuse(
                "--config", f"{name}, {options[name]}, is_main_process out of {data}; type --{name}, or another --data"
            )
        options[name] = data / options[name]
    return options


def write_config(folder: Path, options: dict[str, Any], data: Path) -> None:
    """Writes the options into a run. Paths are relative to the folder ``data``; those outside of it are left out."""
    settings = {name: value for name, value in options.items() if name not in APART}
    for name in PATHS:
        if settings[name] is not None:
            path = Path(settings[name]).resolve()
            inside = path.is_relative_to(data.resolve())
            settings[name] = path.relative_to(data.resolve()).as_posix() if inside else None
    beside = folder / f".{FILE}.part"
    beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    beside.replace(folder / FILE)


FORMS = "unet or smp:NAME:ENCODER"


def read_arch(text: str) -> tuple[str, ...]:
    """``("unet",)`` or ``("smp", NAME, ENCODER)``.

    Raises:
        typer.BadParameter: It is neither.
    """
    parts = tuple(text.split(":"))
    if parts != ("unet",) and not (len(parts) == 3 and parts[0] == "smp" and all(parts)):
        refuse("--arch", f"{text!r} is not of the form {FORMS}")
    return parts


def written_arch(config: "SegmenterConfig") -> str:
    """What is typed after ``--arch`` for such a network."""
    if config.architecture != "smp":
        return "unet"
    return f"smp:{config.arguments['name']}:{config.arguments['encoder']}"


def new_network(
    options: dict[str, Any], channels: int, classes: "Sequence[str]", normalization: "Normalization"
) -> "SegmenterConfig":
    """The network that the options describe; a converted one is compared with its group average.

    Args:
        options: Of the command.
        channels: Of the images.
        classes: Their names.
        normalization: Of the images.

    Raises:
        typer.BadParameter: There is no such network, or it cannot be converted.
    """
    from ..conversion import NotConvertible
    from ..segmenter import SegmenterConfig

    arch = read_arch(options["arch"])
    arguments: dict[str, Any] = {"in_channels": channels, "classes": len(classes), "group": options["group"]}
    if arch == ("unet",):
        if options["open_taps"]:
            refuse("--open-taps", "it is for --arch smp:NAME:ENCODER; the taps of a unet are open")
        if options["pretrained"] is not None:
            refuse("--pretrained", "it is for --arch smp:NAME:ENCODER")
        own = {name: options[name] for name in ("width", "depth", "pooling")}
        config = SegmenterConfig("EquivariantUNet", arguments | own, classes, normalization)
        with naming("--group"):
            config.build()
        return config
    _, name, encoder = arch
    arguments |= {"name": name, "encoder": encoder, "open_taps": options["open_taps"]}
    config = SegmenterConfig("smp", arguments, classes, normalization)
    try:
        config.build(verify=True)
    except ValueError as error:
        refuse("--group" if str(error).startswith("group ") else "--arch", str(error), error)
    except NotConvertible as error:
        refuse("--arch", str(error), error)
    return config


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
    from ..segmenter import Machines

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
    from ..train import initial_weights, pretrained_weights

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
    from ..images import Normalization, draw_split, measure_files, read_split
    from ..train import RunConfig

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
