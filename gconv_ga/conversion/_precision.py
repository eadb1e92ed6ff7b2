"""Float64 throughout, in networks that compute parts of themselves in float32."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ._layers import run_as_one

_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16}
_LESS = (torch.float32, torch.float16, torch.bfloat16)


class StaysDouble(TorchFunctionMode):
    """Ignores casts of float64 tensors to less, so that rounding hides no difference and makes none.

    Example:
        >>> import torch
        >>> from gconv_ga.conversion._precision import StaysDouble
        >>> with StaysDouble():
        ...     torch.zeros(1, dtype=torch.float64).float().dtype
        torch.float64
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is run_as_one:
            # What runs as one is left alone by other modes, not by this one.
            x, function, *rest = args
            return func(x, self._within(function), *rest, **kwargs)
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func in _CASTS:
                return args[0]
            if func in (Tensor.to, Tensor.type):
                args = tuple(torch.float64 if _is_less(value) else value for value in args)
                kwargs = {name: torch.float64 if _is_less(value) else value for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch._C._EnableTorchFunction(), self:  # noqa: SLF001  torch has no public name
                return function(*args, **kwargs)

        return run


def _is_less(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value in _LESS
