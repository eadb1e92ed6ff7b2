"""The algorithms of group convolution, and the choice between them."""

from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._validate import one_of
from ._fourier_kernel import FOURIER_IS_AVAILABLE, LIBRARY_STATUS

ALGORITHMS = ("auto", "dense", "fourier")
LEAST_SIDE = 4  # smaller images were not measured
_chosen = "auto"


class algorithm(ContextDecorator):  # noqa: N801  used as a function, like torch.no_grad
    """Context manager that chooses the algorithm of `GroupConv2d`.

    "dense" expands the kernels and calls torch's convolution: n^2 k^2 multiplications per pixel and pair of fields for
    C_n, 4 n^2 k^2 for D_n. "fourier" computes the same function in the Fourier basis of the group, on CPUs, with
    (3 n / 2 - 1) J multiplications for J steerable functions (for even n; for D_n 2 (2 n - 2) J); outputs and gradients
    agree to rounding (relative differences below 1e-12 in float64 and 1e-5 in float32). "auto", the default, takes the
    one that is expected to be faster: "fourier" with many rotations or fields.

    "fourier" is for C_n and D_n with n >= 3, square kernels of 1, 3, 5 or 7 taps, stride and dilation 1, zero padding
    and all taps on the group; free taps on C4 and D4 too. Where it does not apply (other layers, devices and dtypes,
    autocast, functorch transforms, export, `torch.jit.trace`), or its library is not available (see `algorithms`), the
    dense algorithm is used in any case. A second derivative is computed by a slow form of it in plain torch.

    The choice holds for all threads.

    Args:
        name: "auto", "dense" or "fourier".

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


class FourierUse(NamedTuple):
    """Facts about a layer to which the Fourier algorithm applies.

    Args:
        key: Key of its plan.
        kernel_size: Rows and columns of its kernels.
        padding: Zeros on each side.
        least_pixels: Number of output pixels in a batch from which it is the faster one.
    """

    key: str
    kernel_size: int
    padding: int
    least_pixels: float


def uses_fourier(use: FourierUse, x: Tensor, weight: Tensor) -> bool:
    """Return whether a layer computes in the Fourier basis for this input."""
    if _chosen == "dense" or not FOURIER_IS_AVAILABLE:
        return False
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or x.dtype != weight.dtype:
        return False
    if torch.is_autocast_enabled("cpu") or _leaves_this_process() or not _is_plain(x, weight):
        return False
    more = 2 * use.padding + 1 - use.kernel_size
    height, width = x.shape[3] + more, x.shape[4] + more
    # Of an image that is too small the dense algorithm says what is wrong.
    if height < 1 or width < 1:
        return False
    return _chosen == "fourier" or (
        x.shape[0] * height * width >= use.least_pixels and min(height, width) >= LEAST_SIDE
    )


def _leaves_this_process() -> bool:
    """Return whether a program is being recorded that will run where our operators are not known."""
    return torch.compiler.is_exporting() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Return whether nothing but autograd and torch.compile looks on: no functorch transform, no forward mode."""
    if torch.compiler.is_compiling():
        return True
    transformed = torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001  torch has no public name
    level: Any = torch.autograd.forward_ad._current_level  # noqa: SLF001
    return not transformed and level < 0 and type(x) in (Tensor, torch.nn.Parameter) and not weight.is_meta
