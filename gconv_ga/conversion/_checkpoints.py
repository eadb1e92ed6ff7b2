"""Gradient checkpoints within a converted network: functions that are computed again run under the same mode."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import CheckpointFunction, _CheckpointFrame

from ._functions import OrbitMode
from ._layers import layout_of, mark


def keep_mode_in_checkpoints() -> None:
    """Let torch's gradient checkpoints restore the `OrbitMode` of the network in which they are.

    torch restores random numbers and autocast when it computes a block again, but no function modes. The pools and
    slices of the block would then be those of a plain network, and its gradients wrong without a word. torch has no
    public way to add a mode. Networks that are not converted are left as they are.
    """
    start_frame, start_function = _CheckpointFrame.__init__, CheckpointFunction.forward

    def start_frame_with_mode(self: Any, recompute_fn: Any, *rest: Any, **named: Any) -> None:
        start_frame(self, _with_mode(recompute_fn), *rest, **named)

    def start_function_with_mode(ctx: Any, run_function: Any, *rest: Any) -> Any:
        return start_function(ctx, _with_mode(run_function), *rest)

    _CheckpointFrame.__init__ = start_frame_with_mode  # type: ignore[method-assign]
    CheckpointFunction.forward = start_function_with_mode  # type: ignore[method-assign]


def _with_mode(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the mode that is active now, and with the layouts of its arguments in the first call."""
    mode = _active_mode()
    if mode is None:
        return function
    layouts: list[Any] = []

    def run(*args: Any, **kwargs: Any) -> Any:
        if _active_mode() is mode:
            layouts[:] = [layout_of(x) if isinstance(x, Tensor) else None for x in args]
            return function(*args, **kwargs)
        for x, layout in zip(args, layouts, strict=False):
            if layout is not None:
                mark(x, layout)
        with mode:
            return function(*args, **kwargs)

    return run


def _active_mode() -> OrbitMode | None:
    return next((mode for mode in _get_current_function_mode_stack() if isinstance(mode, OrbitMode)), None)
