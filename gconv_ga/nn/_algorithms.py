"""The algorithms of group convolution, and the choice between them."""

from contextlib import ContextDecorator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._validate import one_of
from ._fourier_kernel import FOURIER_IS_AVAILABLE, LIBRARY_STATUS, fourier_conv, fourier_mix

if TYPE_CHECKING:
    from ._convolution import GroupConv2d

ALGORITHMS = ("dense", "fourier")
_chosen = "dense"


class algorithm(ContextDecorator):  # noqa: N801  used as a function, like torch.no_grad
    """Context manager that chooses the algorithm of `GroupConv2d`.

    "dense", the default, expands the kernels and calls torch's convolution: n^2 k^2 multiplications per pixel and pair
    of fields. "fourier" computes the same function in the Fourier basis of the rotations, with (2 n - 2) J
    multiplications for J steerable functions, on CPUs; outputs and gradients agree to rounding (relative differences
    below 1e-12 in float64 and 1e-5 in float32). It is for C_n and D_n with n >= 3, square kernels of 1, 3, 5 or 7
    taps, stride and dilation 1, zero padding and all taps on the group; free taps on C4 and D4 too. Where it does not
    apply (other layers, devices and dtypes, autocast, functorch transforms, export), or its library is not available
    (see `algorithms`), the dense algorithm is used in any case. It pays with many rotations and fields: with C4 or few
    fields it can be slower than the dense algorithm.

    The choice holds for all threads.

    Args:
        name: "dense" or "fourier".

    Raises:
        ValueError: ``name`` is none of those.

    Example:
        >>> import torch
        >>> import gconv_ga.nn as gnn
        >>> conv = gnn.GroupConv2d(4, 4, 3, padding=1, group="C8")
        >>> x = torch.randn(1, 4, 8, 16, 16)
        >>> with gnn.algorithm("dense"):
        ...     dense = conv(x)
        >>> with gnn.algorithm("fourier"):
        ...     fourier = conv(x)
        >>> torch.allclose(dense, fourier, atol=1e-5)
        True
    """

    def __init__(self, name: str) -> None:
        self.name = one_of("name", name, ALGORITHMS)
        self._before: list[str] = []

    def __enter__(self) -> "algorithm":
        global _chosen
        self._before.append(_chosen)
        _chosen = self.name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _chosen
        _chosen = self._before.pop()


def algorithms() -> dict[str, str]:
    """Return the algorithms of group convolution and whether each is available here, and if not, why.

    Example:
        >>> import gconv_ga.nn as gnn
        >>> gnn.algorithms()["dense"]
        'available'
    """
    fourier = f"available ({LIBRARY_STATUS})" if FOURIER_IS_AVAILABLE else f"not available: {LIBRARY_STATUS}"
    return {"dense": "available", "fourier": fourier}


def uses_fourier(layer: "GroupConv2d", x: Tensor) -> bool:
    """Return whether a layer that has a plan computes in the Fourier basis for this input."""
    if _chosen != "fourier" or layer.fourier_key is None or not FOURIER_IS_AVAILABLE:
        return False
    weight = layer.weight
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.dtype != weight.dtype:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting() or not _is_plain(x, weight):
        return False
    # Of an image that is too small the dense algorithm says what is wrong.
    return min(x.shape[-2:]) + 2 * layer.fourier_padding >= layer.kernel_size[0]


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Return whether nothing but autograd and torch.compile looks on: no functorch transform, no forward mode."""
    if torch.compiler.is_compiling():
        return True
    transformed = torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001  torch has no public name
    level: Any = torch.autograd.forward_ad._current_level  # noqa: SLF001
    return not transformed and level < 0 and type(x) in (Tensor, torch.nn.Parameter) and not weight.is_meta


def fourier_group_conv(layer: "GroupConv2d", x: Tensor) -> Tensor:
    """Return the output of a layer, computed in the Fourier basis.

    Shape:
        - x: ``[B, C_in, |G|, H, W]``
        - output: ``[B, C_out, |G|, H', W']``
    """
    key, n, order = str(layer.fourier_key), layer.group.n, layer.group.order
    bias = None if layer.bias is None else layer.bias.repeat_interleave(order // n)
    maps = x.reshape(x.shape[0], layer.in_channels * order // n, n, *x.shape[3:])
    y = fourier_conv(maps, fourier_mix(layer.weight, key), bias, key, layer.fourier_padding)
    return y.view(y.shape[0], layer.out_channels, order, *y.shape[3:])
