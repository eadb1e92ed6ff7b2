"""What every part of a module is called with, in one run."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..actions import nest_leaves, rebuild_nest

# Lists of modules have no forward of their own; to say that they were never called would be noise.
HOLDERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass
class Part:
    """A module inside another, and the inputs of each of its calls as ``{"args": ..., "kwargs": ...}``.

    Args:
        path: Its name in the whole; "" is the whole.
        module: The module.
        calls: The inputs, copied before the module could write into them.
    """

    path: str
    module: nn.Module
    calls: list[dict[str, Any]] = field(default_factory=list)


def record(module: nn.Module, inputs: tuple[Any, ...]) -> list[Part]:
    """Run ``module(*inputs)`` once and note what each part is called with, in the order of `named_modules`."""
    parts = [Part(path, part) for path, part in module.named_modules() if not isinstance(part, HOLDERS)]
    with ExitStack() as hooks:
        for part in parts:
            hook = _note(part.calls)
            hooks.enter_context(part.module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True))
        module(*copied(inputs))
    return parts


def _note(calls: list[dict[str, Any]]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(copied({"args": args, "kwargs": kwargs}))

    return hook


def copied(nest: Any) -> Any:
    """The same nest with copies of its tensors."""
    values = (value.clone() if isinstance(value, Tensor) else value for _, value in nest_leaves(nest, ""))
    return rebuild_nest(nest, values)
