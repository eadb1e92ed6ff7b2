"""Argument checks and the one form of their messages.

Every message reads ``<argument> must be <what it takes>, but got <argument>=<value>. <what to do>.``
"""

import difflib
import operator
from collections.abc import Sequence
from typing import Any


def _show(value: Any) -> str:
    """A short text for a value in a message: a tensor by its shape and dtype, anything else by its repr."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def message(argument: str, takes: str, got: Any, advice: str = "") -> str:
    """The text of an error about ``argument``.

    Args:
        argument: The name the user typed.
        takes: What the argument takes, read after "must be".
        got: The value the user gave.
        advice: What to do, one sentence without its full stop.

    Example:
        >>> from gconv_ga._validate import message
        >>> message("stride", "a positive int", 0, "use stride=1 to keep the size")
        'stride must be a positive int, but got stride=0. Use stride=1 to keep the size.'
    """
    text = f"{argument} must be {takes}, but got {argument}={_show(got)}."
    if advice:
        text += f" {advice[0].upper()}{advice[1:]}."
    return text


def invalid(argument: str, takes: str, got: Any, advice: str = "") -> ValueError:
    """A `ValueError` with `message`, to be raised by the caller."""
    return ValueError(message(argument, takes, got, advice))


def wrong_shape(argument: str, axes: str, got: Any, advice: str = "") -> ValueError:
    """A `ValueError` about a tensor's shape.

    Args:
        argument: The name of the argument.
        axes: The axes it takes, such as ``"[B, C=8, |G|=4, H, W]"``.
        got: The tensor.
        advice: What to do, one sentence without its full stop.
    """
    text = f"{argument} must be a tensor {axes}, but got {tuple(got.shape)}."
    if advice:
        text += f" {advice[0].upper()}{advice[1:]}."
    return ValueError(text)


def as_int(argument: str, value: Any, *, minimum: int, advice: str = "") -> int:
    """``value`` as an int of at least ``minimum``; a bool, a float and a string are refused.

    Raises:
        ValueError: The value is no int, or it is too small.
    """
    takes = "a positive int" if minimum == 1 else f"an int of at least {minimum}"
    if isinstance(value, bool):
        raise invalid(argument, takes, value, advice)
    try:
        number = operator.index(value)
    except TypeError:
        raise invalid(argument, takes, value, advice) from None
    if number < minimum:
        raise invalid(argument, takes, value, advice)
    return number


def as_pair(argument: str, value: Any, *, minimum: int) -> tuple[int, int]:
    """``value`` as ``(rows, columns)``: an int stands for both.

    Raises:
        ValueError: Neither an int nor two ints of at least ``minimum``.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise invalid(argument, "an int or a pair of ints (rows, columns)", value)
        return as_int(argument, value[0], minimum=minimum), as_int(argument, value[1], minimum=minimum)
    number = as_int(argument, value, minimum=minimum)
    return number, number


def one_of(argument: str, value: Any, options: Sequence[str]) -> str:
    """``value`` if it is one of ``options``; the message lists them in their order and suggests the closest.

    Raises:
        ValueError: It is none of them.
    """
    if isinstance(value, str) and value in options:
        return value
    close = difflib.get_close_matches(str(value), options, n=1)
    advice = f"did you mean {close[0]!r}" if close else ""
    text = invalid(argument, "one of " + ", ".join(repr(option) for option in options), value, advice)
    raise ValueError(str(text)[:-1] + "?" if close else str(text))


def missing_extra(room: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """What a room raises that cannot be imported: an error of the same type that says what to install.

    An error about a module of our own is a fault in the package and comes back as it is.

    Args:
        room: The room's full name, ``__name__``.
        extra: The extra that brings the missing package.
        error: What the room's own imports raised.
    """
    if error.name is None or error.name.partition(".")[0] == __name__.partition(".")[0]:
        return error
    text = f'{room} needs {error.name}, which is not installed. Run: pip install "gconv_ga[{extra}]"'
    return ModuleNotFoundError(text, name=error.name)
