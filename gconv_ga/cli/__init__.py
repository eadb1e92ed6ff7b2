"""The command line, ``gconv-ga``. Needs the extra ``train``.

Exit codes: 0 done, 1 something went wrong, 2 wrong input or a missing extra, 130 stopped by Ctrl-C, 143 by SIGTERM.

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
    """Run the command line and end the program.

    Args:
        arguments: Arguments after the name of the program. If None, those of the process.

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
        print(f"gconv-ga: {missing_extra(__name__, 'train', error)}", file=sys.stderr)
        sys.exit(2)
    app(arguments, prog_name="gconv-ga")
    raise SystemExit(0)
