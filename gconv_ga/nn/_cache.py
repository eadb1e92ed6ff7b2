"""A cache for kernels that a layer derives from its weights."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class KeepsKernels(nn.Module):
    """Base class of layers that derive kernels from their weights, and cache them in eval mode.

    While the layer is in train mode or gradients flow to the weights, kernels are computed at every call. Cached
    kernels are never saved, copied or moved, and they are dropped when a weight changes. One change goes unnoticed,
    because detecting it would make an accelerator wait: an edit through ``weight.data`` (rather than of ``weight``
    under `torch.no_grad`) on a device other than the CPU. Subclasses call ``self._cached(compute, *weights)``.

    Shape:
        - input and output: those of the layer

    Example:
        >>> import torch
        >>> from gconv_ga.nn.authoring import KeepsKernels
        >>> class Symmetric(KeepsKernels, torch.nn.Conv2d):
        ...     def forward(self, input):
        ...         kernel = self._cached(lambda: (self.weight + self.weight.flip(-1)) / 2, self.weight)
        ...         return torch.nn.functional.conv2d(input, kernel, self.bias)
        >>> Symmetric(1, 2, 3)(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 6, 6])
    """

    _cache_entry: "_CacheEntry | None" = None

    def _cached(self, compute: Callable[[], T], *weights: Tensor) -> T:
        """Return ``compute()``, a tensor or a tuple of tensors, or its earlier result for the same weights."""
        if self.training or torch.compiler.is_compiling():
            return compute()
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return compute()
        entry = self._cache_entry
        if entry is None or not entry.is_valid(weights):
            entry = self._cache_entry = _CacheEntry.of(compute, weights)
            if entry is None:
                return compute()
        result: T = entry.result
        return result

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._cache_entry = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_cache_entry"}


class _WeightState(NamedTuple):
    """State of a weight: the tensor, its count of in-place edits, its address, and on the CPU a copy of its numbers."""

    weight: Tensor
    edits: int
    address: int
    numbers: Tensor | None
    copy: Tensor | None

    @classmethod
    def of(cls, weight: Tensor) -> "_WeightState":
        # An edit through `.data` leaves no mark, so on the CPU the numbers are compared as well. torch has no public
        # name for the count of a tensor's in-place edits.
        numbers = _as_int64(weight.detach()) if weight.device.type == "cpu" else None
        copy = None if numbers is None else numbers.clone()
        return cls(weight, weight._version, weight.data_ptr(), numbers, copy)  # noqa: SLF001


class _CacheEntry(NamedTuple):
    """A result, and the state of the weights that it was computed from."""

    result: Any
    states: tuple[_WeightState, ...]

    @classmethod
    def of(cls, compute: Callable[[], Any], weights: tuple[Tensor, ...]) -> "_CacheEntry | None":
        """Compute the result and record the weights; None if nothing may be cached."""
        if not all(_is_cacheable(weight) for weight in weights):
            return None
        # The result must not depend on the caller's modes: inference tensors, for one, cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
            result = compute()
            tensors = result if isinstance(result, tuple) else (result,)
            if any(type(tensor) is not Tensor for tensor in tensors):
                return None
            return cls(result, tuple(_WeightState.of(weight) for weight in weights))

    def is_valid(self, weights: tuple[Tensor, ...]) -> bool:
        """Return whether these are the recorded weights, unchanged."""
        if len(weights) != len(self.states):
            return False
        # A plain loop is faster than generators, and this runs at every call.
        for now, (weight, edits, address, numbers, copy) in zip(weights, self.states, strict=True):
            if now is not weight or now._version != edits or now.data_ptr() != address:  # noqa: SLF001
                return False
            if numbers is not None and copy is not None and not torch.equal(numbers, copy):
                return False
        return True


def _as_int64(numbers: Tensor) -> Tensor:
    """Return a view of the same memory as int64 where that is possible: such tensors compare twice as fast."""
    flat = numbers.flatten()
    viewable = flat.nbytes % 8 == 0 and flat.data_ptr() % 8 == 0 and flat.data_ptr() == numbers.data_ptr()
    return flat.view(torch.int64) if viewable else numbers


def _is_cacheable(weight: Tensor) -> bool:
    """Return whether a weight is an ordinary parameter: fake, functional and traced tensors have other types."""
    return type(weight) is nn.Parameter and not (weight.is_meta or weight.is_inference())
