"""Argument checks and the one form of their messages.

Every message reads ``<argument> must be <what it takes>, but got <argument>=<value>. <what to do>.``

Every error made here is a `ValueError` with an attribute ``argument``, the name of the argument. Code that needs to
know which argument was wrong reads it with `argument_of`, never from the text.
"""

import difflib
import operator
from collections.abc import Mapping, Sequence
from typing import Any


def _show(value: Any) -> str:
    """Describe a value in a message: a tensor by its shape and dtype, anything else by its repr, cut if long."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def message(argument: str, takes: str, got: Any, advice: str = "") -> str:
    """Return the text of an error about ``argument``.

    Args:
        argument: Name of the argument.
        takes: What the argument takes, read after "must be".
        got: Value that was passed.
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


def error_about(argument: str, text: str) -> ValueError:
    """Return a `ValueError` whose attribute ``argument`` names the argument it is about; pickling keeps the attribute.

    It is not a subclass, so that tracebacks show a plain ``ValueError``.

    Args:
        argument: Name of the argument.
        text: Message.

    Example:
        >>> from gconv_ga._validate import argument_of, error_about
        >>> argument_of(error_about("stride", "stride must be 1 here."))
        'stride'
    """
    error = ValueError(text)
    vars(error)["argument"] = argument
    return error


def argument_of(error: BaseException) -> str | None:
    """Return the name of the argument that an error is about, or None if it does not carry one.

    Args:
        error: Error made by `invalid`, `wrong_shape`, `as_int`, ... or any other.

    Example:
        >>> from gconv_ga._validate import argument_of, as_int
        >>> try:
        ...     as_int("stride", 0, minimum=1)
        ... except ValueError as error:
        ...     print(argument_of(error))
        stride
        >>> argument_of(ValueError("something else")) is None
        True
    """
    return getattr(error, "argument", None)


def invalid(argument: str, takes: str, got: Any, advice: str = "") -> ValueError:
    """Return a `ValueError` with the text of `message`, for the caller to raise."""
    return error_about(argument, message(argument, takes, got, advice))


def wrong_shape(argument: str, axes: str, got: Any, advice: str = "") -> ValueError:
    """Return a `ValueError` about the shape of a tensor, for the caller to raise.

    Args:
        argument: Name of the argument.
        axes: Axes it takes, such as ``"[B, C=8, |G|=4, H, W]"``.
        got: Tensor that was passed.
        advice: What to do, one sentence without its full stop.
    """
    text = f"{argument} must be a tensor {axes}, but got {tuple(got.shape)}."
    if advice:
        text += f" {advice[0].upper()}{advice[1:]}."
    return error_about(argument, text)


def as_int(argument: str, value: Any, *, minimum: int, advice: str = "") -> int:
    """Return ``value`` as an int of at least ``minimum``; a bool, a float and a string are refused.

    Raises:
        ValueError: The value is not an int, or it is too small.
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
    """Return ``value`` as ``(rows, columns)``; an int stands for both.

    Raises:
        ValueError: The value is neither an int nor a pair of ints of at least ``minimum``.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2:
            raise invalid(argument, "an int or a pair of ints (rows, columns)", value)
        return as_int(argument, value[0], minimum=minimum), as_int(argument, value[1], minimum=minimum)
    number = as_int(argument, value, minimum=minimum)
    return number, number


def one_of(argument: str, value: Any, options: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``options``; the message lists them in their order and suggests the closest.

    Raises:
        ValueError: The value is none of them.
    """
    if isinstance(value, str) and value in options:
        return value
    text = message(argument, "one of " + ", ".join(repr(option) for option in options), value)
    close = difflib.get_close_matches(str(value), options, n=1)
    if close:
        text += f" Did you mean {close[0]!r}?"
    raise error_about(argument, text)


def not_finite(tensors: Mapping[str, Any]) -> str | None:
    """Return the name of the first tensor with a value that is NaN or infinite; None if there is none.

    Args:
        tensors: Tensors by name.
    """
    return next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)


def missing_extra(room: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error for a room that cannot be imported: of the same type, with the extra to install.

    An error about a module of this package is a bug and is returned as it is.

    Args:
        room: Full name of the room, ``__name__``.
        extra: Extra that brings the missing package.
        error: Error raised by the imports of the room.
    """
    if error.name is None or error.name.partition(".")[0] == __name__.partition(".")[0]:
        return error
    text = f'{room} needs {error.name}, which is not installed. Run: pip install "gconv_ga[{extra}]"'
    return ModuleNotFoundError(text, name=error.name)
