"""The options of ``gconv-ga train`` as a file, to be used again."""

import difflib
import json
from pathlib import Path
from typing import Any

import typer

from ._refusals import refuse

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
        typer.BadParameter: Such a path leads out of the folder.
    """
    options = dict(context.params)
    for name in PATHS:
        if not from_config(context, name):
            continue
        path = (data / options[name]).resolve()
        if not path.is_relative_to(data.resolve()):
            refuse("--config", f"{name}, {options[name]}, leads out of {data}; type --{name}, or another --data")
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
