"""The command line, ``gconv-ga``. Needs the extra ``train``.

Exit codes: 0 done, 1 something went wrong, 2 wrong input or a missing extra, 130 stopped by Ctrl-C.

Names: `main`.

Example:
    >>> from gconv_ga.cli import main
    >>> main(["--version"])
    Traceback (most recent call last):
        ...
    SystemExit: 0
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

from .._validate import missing_extra

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the program.

    Args:
        arguments: What follows the program's name; None for what the user typed.

    Raises:
        SystemExit: Always, with the exit code.

    Example:
        >>> from gconv_ga.cli import main
        >>> main(["demo", "--steps", "many"])
        Traceback (most recent call last):
            ...
        SystemExit: 2
    """
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        sys.exit(_refused(missing_extra(__name__, "train", error)))
    app(arguments, prog_name="gconv-ga")
    raise SystemExit(0)


def _refused(error: ModuleNotFoundError) -> int:
    print(f"gconv-ga: {error}", file=sys.stderr)
    return 2
