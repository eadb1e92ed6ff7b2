"""The options of ``gconv-ga train``: made from the fields of dataclasses, read from a file and written to one.

An option is a field of `RunConfig`, of `Machines`, or of a dataclass below. Its metadata holds what the command line
needs: ``help``, and where they apply ``metavar``, ``minimum``, ``maximum``, ``above`` (an exclusive lower bound),
``choices``, ``check`` (a function that raises ValueError), ``callback``, and ``default`` and ``type`` if those of the
option differ from those of the field. Options that several commands share are fields whose type is
``Annotated[..., typer.Option(...)]``.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from .._files import write_atomically
from .._validate import one_of
from ..groups import as_group
from ..images import MAX_PIXELS
from ..segmenter import Machines
from ..train import RunConfig
from ._options import Debug, group_name, refuse
from ._sources import (
    KINDS,
    Channels,
    Colors,
    IgnoreIndex,
    MaskSuffix,
    MaxPixels,
    OtherNumbers,
    Page,
    Recursive,
    SplitFile,
    TableFile,
)

CONFIG_FILE = "config.json"
ARCH_FORMS = "unet or smp:NAME:ENCODER"
CHANNELS = 32  # of a unet at the finest level, all group elements counted


def load_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the options in a file the defaults of the command; what is typed takes precedence.

    Raises:
        typer.BadParameter: The file is not a JSON object, a key is not an option, or a value is a list or an object.
    """
    if file is None:
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        refuse("--config", f"{file} cannot be read as JSON: {error}", error)
    if not isinstance(settings, dict):
        refuse("--config", f"{file} holds a {type(settings).__name__}; it takes an object of options")
    known = recorded_options()
    for name, value in settings.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            refuse("--config", f"{name!r} is not an option" + (f"; did you mean {close[0]!r}?" if close else ""))
        if isinstance(value, list | dict):
            refuse("--config", f"{name} is {json.dumps(value)}; it takes one string, number or truth value")
    # Strings, so that they are checked as if they had been typed: 3.5 is not a number of steps.
    context.default_map = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
        if value is not None
    }
    return file


@dataclass(frozen=True)
class DataOptions:
    """The images and masks, and how they are read."""

    images: Path | None = field(
        default=None, metadata={"metavar": "DIR", "help": f"Images: {KINDS}; grey, RGB or any number of channels."}
    )
    masks: Path | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "Masks of class indices 0, 1, ..., with the names of the images."},
    )
    mask_suffix: MaskSuffix = None
    recursive: Recursive = False
    instances: Path | None = field(
        default=None,
        metadata={
            "metavar": "DIR",
            "help": "In place of --masks: numbered objects, 0 for background; trains heads for objects, see above.",
        },
    )
    table: TableFile = None
    colors: Colors = None
    ignore_index: IgnoreIndex = None
    classes: int | None = field(
        default=None,
        metadata={"help": "Number of classes, background included. If omitted, they are counted.", "minimum": 2},
    )
    names: str | None = field(
        default=None,
        metadata={"metavar": "A,B,...", "help": "Names of the classes in the order of their indices."},
    )
    split: SplitFile = None
    channels: Channels = None
    page: Page = None
    other_numbers: OtherNumbers = None
    max_pixels: MaxPixels = MAX_PIXELS
    percentile: float | None = field(
        default=None, metadata={"help": "Divide each image by this percentile of its own pixels, such as 99.8."}
    )
    black: float | None = field(
        default=None,
        metadata={"help": "With --percentile: first subtract this percentile, the level of the background, such as 1."},
    )
    pixel_size: float | None = field(
        default=None,
        metadata={
            "metavar": "MICROMETRES",
            "help": "Side of a pixel, to which predict scales slides. If omitted: as the images state it.",
        },
    )
    crop: int | None = field(
        default=None,
        metadata={"help": "Side of a crop. If omitted: 128, or the smallest side of an image.", "minimum": 1},
    )


@dataclass(frozen=True)
class NetworkOptions:
    """The network and its initial weights."""

    arch: str = field(default="unet", metadata={"metavar": "ARCH", "help": f"The network: {ARCH_FORMS}; see above."})
    group: str | None = field(
        default=None,
        metadata={
            "metavar": "NAME",
            "help": "Symmetry of the network: C4 (rotations by 90 degrees), D4 (reflections too), C8 (by 45 degrees) "
            "...; C1 for a baseline without symmetry. If omitted: C8, which contains the rotations of C4; for smp, C4.",
            "callback": group_name,
        },
    )
    width: int | None = field(
        default=None,
        metadata={
            "help": f"Number of fields at the finest level. If omitted: {CHANNELS} over the number of group elements, "
            "so that all groups cost the same: 4 for C8, 8 for C4.",
            "minimum": 1,
        },
    )
    depth: int = field(
        default=4, metadata={"help": "Number of levels; the image is halved depth - 1 times.", "minimum": 1}
    )
    pooling: Literal["max", "max_blur"] = field(
        default="max",
        metadata={"help": "Pooling between levels; max_blur changes fewer labels between multiples of 90 degrees."},
    )
    open_taps: bool = field(
        default=False, metadata={"help": "For smp: let orientations mix, beyond the group average."}
    )
    pretrained: str | None = field(
        default=None,
        metadata={"metavar": "WEIGHTS", "help": "For smp: weights of the encoder, such as imagenet; downloaded."},
    )
    init: Path | None = field(
        default=None,
        metadata={
            "metavar": "RUN",
            "help": "Start from the weights of a run, of a checkpoint (safetensors), or, with --instances, of nuclei "
            "or histology. Group, width, depth and pooling are theirs if omitted.",
        },
    )

    def resolved(self) -> "NetworkOptions":
        """Return the options with a group and, for a unet, a width."""
        if self.arch != "unet":
            return replace(self, group=self.group or "C4")
        group = self.group or "C8"  # the best of C4, D4 and C8 at equal cost: benchmarks/README.md, study
        width = max(1, CHANNELS // as_group(group).order) if self.width is None else self.width
        return replace(self, group=group, width=width)


@dataclass(frozen=True)
class LogOptions:
    """Logs beyond the files of every run."""

    tensorboard: bool = field(default=False, metadata={"help": "Log for TensorBoard too; needs the extra tensorboard."})


@dataclass(frozen=True)
class CallOptions:
    """Options of one call of the command, not of the run."""

    out: Path = field(metadata={"metavar": "RUN", "help": "Folder of the run: settings, weights, log, curves."})
    config: Path | None = field(
        default=None,
        metadata={
            "metavar": "FILE",
            "help": f"Read options that are not typed from a file such as RUN/{CONFIG_FILE}.",
            "callback": load_config,
        },
    )
    data: Path = field(
        default=Path(),
        metadata={"metavar": "DIR", "help": "Folder that paths in --config are relative to and must lie in."},
    )
    resume: bool = field(default=False, metadata={"help": "Resume the run in --out, which may have more --steps now."})
    debug: Debug = False


RECORDED = (DataOptions, NetworkOptions, RunConfig, Machines, LogOptions)  # in the order of the help


def option_fields(kind: type) -> list[Field[Any]]:
    """Return the fields of a dataclass that are options."""
    return [each for each in fields(kind) if "help" in each.metadata or get_origin(each.type) is Annotated]


def values_of(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are fields of a dataclass."""
    return {each.name: values[each.name] for each in option_fields(kind)}


def recorded_options() -> list[str]:
    """Return the names of the options that RUN/config.json holds, in their order."""
    return [each.name for kind in RECORDED for each in option_fields(kind)]


def path_options() -> list[str]:
    """Return the names of the recorded options that are paths."""
    return [each.name for kind in RECORDED for each in option_fields(kind) if Path in get_args(_value_type(each))]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``context`` and keywords the signature that Typer makes its options from."""
    options = [_parameter(each) for kind in (*RECORDED, CallOptions) for each in option_fields(kind)]
    options.sort(key=lambda option: option.default is not inspect.Parameter.empty)  # required ones first
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    vars(command)["__signature__"] = inspect.Signature([context, *options])  # refuses a name that is there twice
    return command


def option_name(field_name: str) -> str:
    """Return an option as it is typed."""
    return f"--{field_name.replace('_', '-')}"


def _value_type(option: Field[Any]) -> Any:
    """Return the type of an option's value on the command line."""
    annotation = option.metadata.get("type", option.type)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _parameter(option: Field[Any]) -> inspect.Parameter:
    """Return the parameter that Typer makes an option from."""
    about = option.metadata
    default = about.get("default", option.default)
    annotation: Any = option.type
    if get_origin(annotation) is not Annotated:
        info = typer.Option(
            option_name(option.name),  # alone, or Typer would add a --no- form to a flag
            help=about["help"],
            metavar=about.get("metavar"),
            min=about.get("minimum"),
            max=about.get("maximum"),
            callback=about.get("callback", _limits(option)),
            is_eager="callback" in about,  # the file is read before other options take their defaults
        )
        annotation = Annotated[_value_type(option), info]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(
        option.name, kind, default=inspect.Parameter.empty if default is MISSING else default, annotation=annotation
    )


def _limits(option: Field[Any]) -> Callable[[Any], Any] | None:
    """Return the callback that checks what Typer does not: choices with our message, and exclusive bounds."""
    about = option.metadata
    if not {"choices", "above", "check"} & about.keys():
        return None

    def check(value: Any) -> Any:
        if "above" in about and not value > about["above"]:
            raise typer.BadParameter(f"{value} is not above {about['above']}")
        try:
            if "choices" in about:
                one_of(option.name, value, about["choices"])
            if "check" in about:
                about["check"](value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return value

    return check


def is_typed(context: typer.Context, name: str) -> bool:
    """Return True if an option was typed."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def is_in_file(context: typer.Context, name: str) -> bool:
    """Return True if the value of an option comes from the file of ``--config``."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


def path_in(data: Path, name: str, path: str | Path) -> Path:
    """Return a path of a file of options, relative to the folder ``data``.

    Raises:
        typer.BadParameter: The path leads out of the folder.
    """
    if not (data / path).resolve().is_relative_to(data.resolve()):
        refuse("--config", f"{name}, {path}, leads out of {data}; type {option_name(name)}, or another --data")
    return data / path


def write_config(folder: Path, values: Mapping[str, Any], data: Path) -> None:
    """Write the options into a run. Paths are relative to the folder ``data``; those outside of it are left out.

    Args:
        folder: Folder of the run.
        values: Options by name.
        data: Folder that paths are relative to.
    """
    settings = {name: values[name] for name in recorded_options()}
    for name in path_options():
        if settings[name] is not None:
            path = Path(settings[name]).resolve()
            inside = path.is_relative_to(data.resolve())
            settings[name] = path.relative_to(data.resolve()).as_posix() if inside else None
    write_json(folder / CONFIG_FILE, settings)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object of the run; empty if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, unless the file holds it already."""
    if read_json(path) != content:
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
