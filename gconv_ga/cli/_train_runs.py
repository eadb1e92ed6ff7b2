"""Runs of ``gconv-ga train``: a new one from the options, or one to resume, with which the options are compared.

Nothing is written here except by `record`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from .._files import sha256_of
from .._validate import argument_of
from ..segmenter import Machines
from ..train import RunConfig
from ._options import checkpoint_file, naming, note, refuse
from ._sources import Source, choose_reading, list_classes, mask_encoding, scan_files
from ._train_options import (
    ARCH_FORMS,
    CONFIG_FILE,
    CallOptions,
    DataOptions,
    LogOptions,
    NetworkOptions,
    is_in_file,
    is_typed,
    option_fields,
    option_name,
    path_in,
    path_options,
    read_json,
    recorded_options,
    values_of,
    write_config,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..images import MaskEncoding, Normalization, PairFiles, Scan
    from ..segmenter import Checkpoint, SegmenterConfig

LARGEST_CROP = 128  # the default, if all images are that large
SOURCES = ("images", "masks", "instances", "table")
SOURCES_FILE = "sources.json"  # where images and masks were when the run was last started
# Options that a resumed run may have other values of: where its files are, what it runs on, what it logs.
COMPARED_APART = ("colors", "ignore_index", "channels", "names", "split", "init", "steps")  # not by their values
SHAPE = ("group", "width", "depth", "pooling")  # of a unet: what its weights were trained as
PLACES = (*SOURCES, "mask_suffix", "recursive")
FREE = (*PLACES, *(each.name for kind in (Machines, LogOptions) for each in option_fields(kind)))


class Plan(NamedTuple):
    """A run to train.

    Args:
        pairs: Image files with their masks.
        config: Configuration of the run.
        machines: Devices to train on.
        weights: Initial weights of a new run. None for random ones, and for a run that is resumed.
        values: Options by name, to be recorded in the run.
    """

    pairs: Sequence["PairFiles"]
    config: RunConfig
    machines: Machines
    weights: "Mapping[str, Tensor] | None"
    values: Mapping[str, Any]


def new_run(context: typer.Context, call: CallOptions) -> Plan:
    """Return the run that the options describe, after all files have been read once.

    Raises:
        typer.BadParameter: An option or a file is wrong.
    """
    from ..images import Normalization, Reading, common_pixel_size, measure_files

    values = {name: context.params[name] for name in recorded_options()}
    values |= {name: path_in(call.data, name, values[name]) for name in path_options() if is_in_file(context, name)}
    chosen = _merged(_typed_sources(context), {name: values[name] for name in SOURCES if is_in_file(context, name)})
    values |= dict.fromkeys(SOURCES) | chosen
    data = DataOptions(**values_of(DataOptions, values))
    _check_arch(context, values["arch"])
    network, origin = _as_in_checkpoint(context, NetworkOptions(**values_of(NetworkOptions, values)))
    network = network.resolved()
    values |= {name: getattr(network, name) for name in SHAPE}
    numbers = values_of(RunConfig, values)
    machines = _machines(values, numbers["precision"], numbers["batch_size"])
    with naming("--percentile"):
        Normalization([0.0], [1.0], data.percentile)
    with naming("--black"):
        Normalization([0.0], [1.0], data.percentile, data.black)
    source, encoding = _source(values), mask_encoding(data.colors, data.ignore_index)
    if data.instances is not None:
        if network.arch != "unet":
            refuse("--arch", "it is for --masks; with --instances the network is a unet with heads for objects")
        if data.classes not in (None, 2):
            refuse("--classes", "with --instances there are two, background and objects")
        with naming("--colors"):
            encoding = replace(encoding, instances=True)
    reading = choose_reading(Reading(), data.channels, data.page, data.other_numbers, data.max_pixels)
    names = _class_names(data.names, data.classes, encoding)
    pairs, problems, table = source.read()
    wanted = data.classes if names is None else len(names)
    scan = scan_files(pairs, problems, source.option, classes=wanted, encoding=encoding, reading=reading)
    reading, encoding = replace(reading, numbers=scan.numbers), scan.encoding
    split = _split(data, [pair.name for pair in pairs], table, seed=numbers["seed"])
    if numbers["patience"] is not None and "val" not in split.values():
        refuse("--patience", "no image is for validation")
    crop = _crop(data.crop, network.depth if network.arch == "unet" else 1, scan)
    with naming(source.option):
        training = [pair for pair in pairs if split[pair.name] == "train"]
        normalization = measure_files(training, data.percentile, reading, data.black)
    if constant := [str(channel) for channel, std in enumerate(normalization.std) if std == 0]:
        print(f"constant channels, which become 0: {', '.join(constant)}", file=sys.stderr)
    classes = encoding.names or names or ("background", *(f"class {index}" for index in range(1, scan.classes)))
    finds_objects = data.instances is not None
    segmenter = _segmenter(network, scan.channels, classes, normalization, finds_objects=finds_objects)
    with naming("--pixel-size"):
        pixel_size = (
            common_pixel_size([pair.image for pair in training]) if data.pixel_size is None else data.pixel_size
        )
        segmenter = replace(segmenter, reading=reading, pixel_size=pixel_size)
    list_classes(classes, split, scan.by_pair)
    init, weights = _initial_weights(network, segmenter, origin, seed=numbers["seed"])
    if origin is not None and (theirs := _scaling(origin.config.normalization)) != (ours := _scaling(normalization)):
        note(f"--init: its weights are of a training with {theirs}, this one has {ours}")
    with naming("--augment"):  # all others have been checked
        config = RunConfig(segmenter, split, crop=crop, mask_encoding=encoding, init=init, **numbers)
    return Plan(pairs, config, machines, weights, values)


def resumed_run(context: typer.Context, call: CallOptions, *, scan: bool) -> Plan:
    """Return the run in ``--out``.

    Its settings are those of the run: what is typed beside ``--resume`` must agree with them, except that there may be
    more steps; what the file of ``--config`` says about them is not used. What is not part of the settings (the place
    of the files, devices, TensorBoard) is what was typed, else that of the file of ``--config``, else that of the run.

    Args:
        context: Context of the command.
        call: Options of this call.
        scan: If True, all files are read once before.

    Raises:
        typer.BadParameter: There is no run, an option disagrees with it, or one of its files is missing.
    """
    from ..train import read_run

    with naming("--out"):
        config = read_run(call.out)
    _refuse_differences(context, config)
    if is_typed(context, "steps"):
        config = replace(config, steps=context.params["steps"])
    recorded = read_json(call.out / CONFIG_FILE)
    values = {
        name: recorded[name] if recorded.get(name) is not None and not _is_chosen(context, name) else default
        for name, default in context.params.items()
        if name in FREE
    }
    in_file = {name: path_in(call.data, name, context.params[name]) for name in SOURCES if is_in_file(context, name)}
    last = _last_sources(call, recorded, data_is_typed=is_typed(context, "data"))
    found = _merged(_typed_sources(context), in_file, last)
    for name, path in last.items():
        if found.get(name) is path and not path.exists():
            advice = "give --images and --masks, or --table, or with --data the folder that the run's paths begin at"
            refuse(option_name(name), f"{path} of the run is not there; {advice}")
    values |= dict.fromkeys(SOURCES) | found
    machines = _machines(values, config.precision, config.batch_size)
    pairs = _files_of_run(_source(values), config, scan=scan, table_is_typed=is_typed(context, "table"))
    return Plan(pairs, config, machines, None, values)


def record(out: Path, plan: Plan, data: Path) -> None:
    """Write the options of a new run into its folder; of a run that exists only the number of steps and the sources.

    Args:
        out: Folder of the run.
        plan: Run.
        data: Folder that the recorded paths are relative to.
    """
    if not (out / "run.json").exists():
        write_config(out, plan.values, data)
    elif recorded := read_json(out / CONFIG_FILE):
        write_json(out / CONFIG_FILE, {**recorded, "steps": plan.config.steps})
    places = {name: plan.values[name] for name in SOURCES}
    write_json(out / SOURCES_FILE, {name: path and str(Path(path).resolve()) for name, path in places.items()})


def _as_in_checkpoint(context: typer.Context, network: NetworkOptions) -> "tuple[NetworkOptions, Checkpoint | None]":
    """Return the options with the file of ``--init``, and what was not chosen about a unet as in that checkpoint.

    Also return that checkpoint; None if there is no ``--init``.

    Raises:
        typer.BadParameter: There is no such checkpoint.
    """
    if network.init is None:
        return network, None
    from ..segmenter import load_checkpoint

    file = checkpoint_file(network.init)
    with naming("--init"):
        origin = load_checkpoint(file)
    theirs = origin.config.arguments if network.arch == "unet" else {}
    shape = {name: theirs[name] for name in SHAPE if name in theirs and not _is_chosen(context, name)}
    return replace(network, init=file, **shape), origin


def _scaling(normalization: "Normalization") -> str:
    """Return the options by which images are scaled, as they are typed."""
    typed = [
        f"--{name} {value:g}" for name in ("percentile", "black") if (value := getattr(normalization, name)) is not None
    ]
    return " ".join(typed) or "no --percentile"


def _is_chosen(context: typer.Context, name: str) -> bool:
    return is_typed(context, name) or is_in_file(context, name)


def _typed_sources(context: typer.Context) -> dict[str, Path]:
    return {name: context.params[name] for name in SOURCES if is_typed(context, name)}


def _last_sources(call: CallOptions, recorded: Mapping[str, Any], *, data_is_typed: bool) -> dict[str, Path]:
    """Return the places of the run's images and masks, or of its table, when it was last started.

    They are absolute in one file; if ``--data`` is typed, or that file is missing or outdated, they are those of the
    recorded options, relative to ``--data``.
    """
    places = read_json(call.out / SOURCES_FILE)
    absolute = {name: Path(places[name]) for name in SOURCES if places.get(name)}
    if absolute and not data_is_typed and all(path.exists() for path in absolute.values()):
        return absolute
    relative = {name: path_in(call.data, name, recorded[name]) for name in SOURCES if recorded.get(name)}
    return relative or absolute


def _merged(*layers: Mapping[str, Path]) -> dict[str, Path]:
    """Return the sources of several layers. Earlier ones take precedence; a table and folders exclude each other.

    So do masks and instances.
    """
    merged: dict[str, Path] = {}
    for layer in layers:
        if "table" in merged:
            break
        others = {"table"} if merged else set[str]()
        others |= {other for name, other in (("masks", "instances"), ("instances", "masks")) if name in merged}
        merged = {**{name: path for name, path in layer.items() if name not in others}, **merged}
    return merged


def _source(values: Mapping[str, Any]) -> Source:
    images, masks, instances, table = (None if values[name] is None else Path(values[name]) for name in SOURCES)
    if instances is not None and (masks is not None or table is not None):
        refuse("--instances", "it replaces --masks, and --table; give one of them")
    option = "--masks" if instances is None else "--instances"
    return Source(images, masks or instances, table, values["mask_suffix"], values["recursive"], option)


def _machines(values: Mapping[str, Any], precision: str, batch_size: int) -> Machines:
    """Return the devices, checked against what is to be trained on them.

    Raises:
        typer.BadParameter: There are no such devices, or they do not support the precision or the size of the batch.
    """
    try:
        machines = Machines(**values_of(Machines, values))
        machines.trainer_options(precision)
        machines.share(batch_size)
    except ValueError as error:
        refuse(option_name(argument_of(error) or "device"), str(error), error)
    return machines


def _read_arch(text: str) -> tuple[str, ...]:
    """Return ``("unet",)`` or ``("smp", NAME, ENCODER)``.

    Raises:
        typer.BadParameter: The text has another form.
    """
    parts = tuple(text.split(":"))
    if parts != ("unet",) and not (len(parts) == 3 and parts[0] == "smp" and all(parts)):
        refuse("--arch", f"{text!r} does not have the form {ARCH_FORMS}")
    return parts


def _check_arch(context: typer.Context, arch: str) -> None:
    """Refuse options that were typed and do not apply to the network.

    Raises:
        typer.BadParameter: There is such an option, or no such form of ``--arch``.
    """
    if _read_arch(arch)[0] == "smp":
        for name in ("width", "depth", "pooling"):
            if is_typed(context, name):
                refuse(option_name(name), "it is for --arch unet; networks of smp have their own")
    elif context.params["open_taps"]:
        refuse("--open-taps", "it is for --arch smp:NAME:ENCODER; the taps of a unet are always open")
    elif context.params["pretrained"] is not None:
        refuse("--pretrained", "it is for --arch smp:NAME:ENCODER")


def _segmenter(
    network: NetworkOptions,
    channels: int,
    classes: Sequence[str],
    normalization: "Normalization",
    *,
    finds_objects: bool = False,
) -> "SegmenterConfig":
    """Return the configuration of the network; a converted one is compared with its group average.

    Raises:
        typer.BadParameter: There is no such network, or it cannot be converted.
    """
    from ..conversion import NotConvertible
    from ..segmenter import SegmenterConfig

    arguments: dict[str, Any] = {"in_channels": channels, "classes": len(classes), "group": network.group}
    if network.arch == "unet":
        arguments |= {"width": network.width, "depth": network.depth, "pooling": network.pooling}
        architecture = "ObjectUNet" if finds_objects else "EquivariantUNet"
        config = SegmenterConfig(architecture, arguments, classes, normalization)
        with naming("--group"):
            config.build()
        return config
    _, name, encoder = _read_arch(network.arch)
    arguments |= {"name": name, "encoder": encoder, "open_taps": network.open_taps}
    config = SegmenterConfig("smp", arguments, classes, normalization)
    try:
        config.build(verify=True)
    except (ValueError, NotConvertible) as error:
        refuse("--group" if argument_of(error) == "group" else "--arch", str(error), error)
    return config


def _initial_weights(
    network: NetworkOptions, segmenter: "SegmenterConfig", origin: "Checkpoint | None", *, seed: int
) -> "tuple[str | None, Mapping[str, Tensor] | None]":
    """Return the origin of the initial weights, as for `RunConfig`, and the weights; None and None for random ones.

    Raises:
        typer.BadParameter: There are no such weights, or they do not fit.
    """
    from ..train import initial_weights, pretrained_weights

    if network.init is not None and network.pretrained is not None:
        refuse("--init", "give --init or --pretrained")
    if network.init is not None:
        with naming("--init"):
            weights = initial_weights(segmenter, network.init, checkpoint=origin)
        return _hash_of(network.init), weights
    if network.pretrained is not None:
        with naming("--pretrained"):
            return f"pretrained:{network.pretrained}", pretrained_weights(segmenter, network.pretrained, seed=seed)
    return None, None


def _hash_of(file: Path) -> str:
    """Return the origin of weights from a checkpoint, as for `RunConfig`.

    Raises:
        typer.BadParameter: The file cannot be read.
    """
    try:
        return f"sha256:{sha256_of(file)}"
    except OSError as error:
        refuse("--init", f"{file} cannot be read: {error.strerror}", error)


def _class_names(text: str | None, classes: int | None, encoding: "MaskEncoding") -> tuple[str, ...] | None:
    """Return the names in the value of ``--names``.

    Raises:
        typer.BadParameter: They are fewer than two, empty, alike, not as many as there are classes, or colours name the
            classes.
    """
    if text is None:
        return None
    names = _read_names(text)
    if encoding.colors is not None:
        refuse("--names", "the colours of --colors name the classes")
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        refuse("--names", f"{text!r} is not a list of different names such as background,nucleus")
    if classes not in (None, len(names)):
        refuse("--names", f"there are {len(names)} names, but {classes} classes (--classes)")
    return names


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _split(data: DataOptions, names: Sequence[str], table: Any, *, seed: int) -> dict[str, str]:
    """Return the part of the split by the name of each image.

    Raises:
        typer.BadParameter: The split is wrong, is given twice, or has no image for training.
    """
    from ..images import draw_split, read_split

    if table is not None and data.split is not None:
        refuse("--split", "the table of --table gives the split, in a column named split")
    option = "--split" if table is None else "--table"
    with naming(option):
        if data.split is not None:
            split = read_split(data.split, names, note=note)
        elif table is not None and table.split is not None:
            split = dict(table.split)
        else:
            split = draw_split(names, seed=seed, together=None if table is None else table.together)
    if "train" not in split.values():
        refuse(option, "no image is for training")
    return split


def _crop(crop: int | None, depth: int, scan: "Scan") -> int:
    """Return the side of the crops, and say what it means for smaller images.

    Raises:
        typer.BadParameter: The crops or an image are too small for the network.
    """
    side = min(LARGEST_CROP, scan.smallest) if crop is None else crop
    least = min(side, scan.smallest)
    if least < 2 ** (depth - 1):
        refuse("--depth", f"{depth} levels need crops and images of {2 ** (depth - 1)} pixels, but there are {least}")
    if crop is None and side < LARGEST_CROP:
        note(f"crops of {side} x {side} pixels: {scan.smallest_file} is no larger; with --crop {LARGEST_CROP} smaller "
             "images are padded by reflection, and the padded pixels ignored")  # fmt: skip
    elif side > scan.smallest:
        note(f"images smaller than {side} x {side} pixels, such as {scan.smallest_file}, are padded by reflection, and "
             "the padded pixels ignored")  # fmt: skip
    return side


def _files_of_run(source: Source, config: RunConfig, *, scan: bool, table_is_typed: bool) -> list["PairFiles"]:
    """Return the files of a run that is resumed, after reading them once if ``scan`` is True.

    Raises:
        typer.BadParameter: Something is wrong with a file, one of the run is missing, or a table that was typed gives
            another split.
    """
    arguments = config.segmenter.arguments
    pairs, problems, table = source.read()
    if scan:
        scan_files(
            pairs, problems, source.option, classes=arguments["classes"], channels=arguments["in_channels"],
            encoding=config.mask_encoding, reading=config.segmenter.reading,
        )  # fmt: skip
    missing = sorted(config.split.keys() - {pair.name for pair in pairs})
    if missing:
        refuse(source.option, f"{missing[0]} and its mask belong to the run and are missing")
    other = table.split if table_is_typed and table is not None else None
    if other is not None and {name: other[name] for name in config.split} != config.split:
        refuse("--table", "its column split differs from the split of the run")
    return list(pairs)


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return the options that a run was started with, for those that are compared by value; None where one has none."""
    arguments, is_unet = config.segmenter.arguments, config.segmenter.architecture != "smp"
    pretrained = config.init is not None and config.init.startswith("pretrained:")
    return {
        **{each.name: getattr(config, each.name) for each in option_fields(RunConfig)},
        **{name: arguments.get(name) for name in ("group", "classes", "width", "depth")},
        "arch": "unet" if is_unet else f"smp:{arguments['name']}:{arguments['encoder']}",
        "pooling": arguments.get("pooling", "max") if is_unet else None,
        "open_taps": arguments.get("open_taps", False),
        "pretrained": str(config.init).partition(":")[2] if pretrained else None,
        **{name: getattr(config.segmenter.normalization, name) for name in ("percentile", "black")},
        **{name: getattr(config.segmenter.reading, name) for name in ("page", "other_numbers", "max_pixels")},
        "crop": config.crop,
        "pixel_size": config.segmenter.pixel_size,
    }


def _refuse_differences(context: typer.Context, config: RunConfig) -> None:
    """Compare what is typed with the settings of the run.

    Raises:
        typer.BadParameter: An option differs.
    """
    typed = {name: context.params[name] for name in recorded_options() if is_typed(context, name) and name not in FREE}
    settings = _settings(config)
    _refuse_other_classes(typed, config)
    if "channels" in typed:
        reading = config.segmenter.reading
        chosen = choose_reading(reading, typed["channels"], None, None, reading.max_pixels).channels
        if chosen != reading.channels:
            _refuse_difference("channels", "all" if reading.channels is None else reading.channels)
    if "init" in typed and _hash_of(typed["init"]) != config.init:
        _refuse_difference("init", "other initial weights")
    if "steps" in typed and typed["steps"] < config.steps:
        refuse("--steps", f"the run has {config.steps}; it can be extended, not shortened")
    for name, value in typed.items():
        if name not in COMPARED_APART and value != settings[name]:
            _refuse_difference(name, settings[name])


def _refuse_other_classes(typed: Mapping[str, Any], config: RunConfig) -> None:
    """Compare what is typed about classes and the split with the run.

    Raises:
        typer.BadParameter: An option differs.
    """
    from ..images import read_split

    if typed.keys() & {"colors", "ignore_index"}:
        encoding = mask_encoding(typed.get("colors"), typed.get("ignore_index"), config.mask_encoding)
        if encoding.colors != config.mask_encoding.colors:
            _refuse_difference("colors", config.mask_encoding.colors)
        if encoding.ignore_index != config.mask_encoding.ignore_index:
            _refuse_difference("ignore_index", config.mask_encoding.ignore_index)
    if "names" in typed and _read_names(typed["names"]) != tuple(config.segmenter.classes):
        _refuse_difference("names", ",".join(config.segmenter.classes))
    if "split" in typed:
        with naming("--split"):
            split = read_split(typed["split"], sorted(config.split))
        if split != config.split:
            _refuse_difference("split", "another split")


def _refuse_difference(name: str, value: Any) -> None:
    refuse(option_name(name), f"the run has {value}; omit the option to resume with it")
