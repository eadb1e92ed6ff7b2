"""The application: its commands, and how it reports errors."""

import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from .._files import printable
from ._check_command import check
from ._demo_command import demo
from ._evaluate_command import evaluate
from ._export_command import export
from ._models_command import models
from ._options import Debug
from ._play_command import play
from ._predict_command import predict
from ._sample_command import sample
from ._train_command import train


class OneLineErrors(TyperGroup):
    """Commands that report errors in one line. With ``--debug`` the traceback is shown instead."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command and end the program with its exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name that it cannot show must not end a command
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with terminated_by_exit():
                code = super().main(arguments, prog_name, **{**extra, "standalone_mode": False})
        except Exception as error:
            if "--debug" in arguments:
                raise
            text, code = describe(error)
            print(f"gconv-ga: {printable(text)}", file=sys.stderr)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and say so if it is stopped by Ctrl-C, where it has not said more itself."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("gconv-ga: stopped by Ctrl-C", file=sys.stderr)
            raise


@contextmanager
def terminated_by_exit() -> Iterator[None]:
    """End the program on SIGTERM as on an exception, so that what is half written is removed; exit code 143."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        print("gconv-ga: stopped by SIGTERM", file=sys.stderr)
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def describe(error: Exception) -> tuple[str, int]:
    """Return one line about an error, and the exit code."""
    if isinstance(error, typer.TyperException):
        text = error.format_message().replace("Value error, ", "", 1)  # of pydantic, by which typer tests choices
        return " ".join(text.split()), error.exit_code
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        return text, 2
    return f"{type(error).__name__}: {text} (--debug shows the traceback)", 1


app = typer.Typer(
    cls=OneLineErrors,
    name="gconv-ga",
    add_completion=False,
    rich_markup_mode=None,  # formatting by rich takes longer than the rest of the help
    context_settings={"help_option_names": ["-h", "--help"]},
)


def unwrapped(docstring: str) -> str:
    """Return the paragraphs of a docstring as one line each, for the terminal to wrap."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


for command in (demo, play, sample, models, train, predict, evaluate, check, export):
    app.command(help=unwrapped(str(command.__doc__)))(command)


def show_version(value: bool) -> None:
    """Print the version and end the program."""
    if value:
        from importlib.metadata import version

        print(f"gconv_ga {version('gconv_ga')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def gconv_ga(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Rotation-equivariant segmentation: rotate the image, and the prediction rotates with it.

    Exit codes: 0 done, 1 something went wrong, 2 wrong input, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
