"""The commands, and what is said when one of them fails."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ._check_command import check
from ._demo_command import demo
from ._evaluate_command import evaluate
from ._export_command import export
from ._options import Debug
from ._predict_command import predict
from ._sample_command import sample
from ._train_command import train


class OneLineErrors(TyperGroup):
    """A command that fails says so in one line; the traceback is for who asks for it with ``--debug``."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        """Runs the command and ends the program with its exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(arguments, prog_name, **{**extra, "standalone_mode": False})
        except Exception as error:
            if "--debug" in arguments:
                raise
            text, code = describe(error)
            print(f"gconv-ga: {text}", file=sys.stderr)
        sys.exit(code if isinstance(code, int) else 0)


def describe(error: Exception) -> tuple[str, int]:
    """One line about an error, and the exit code."""
    if isinstance(error, typer.TyperException):
        return " ".join(error.format_message().split()), error.exit_code
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        return text, 2
    return f"{type(error).__name__}: {text} (--debug shows where)", 1


app = typer.Typer(
    cls=OneLineErrors,
    name="gconv-ga",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(sample)
app.command()(train)
app.command()(predict)
app.command()(evaluate)
app.command()(check)
app.command()(export)


def show_version(value: bool) -> None:
    """Prints the version and ends."""
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
    """Rotation-equivariant segmenters: turn the image, and the answer turns with it.

    Exit codes: 0 done, 1 something went wrong, 2 wrong input, 130 stopped by Ctrl-C.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
