"""Turned kernels made once and kept, for as long as that is right."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class KeepsKernels(nn.Module):
    """A layer that derives kernels from its weights and keeps them between calls in eval mode.

    While the layer trains or gradients reach the weights, kernels are made anew at each call. Kept kernels are never
    saved, copied or moved, and are dropped when a weight changes. One change goes unseen, where looking would make an
    accelerator wait: an edit through ``weight.data`` (not ``weight`` under `torch.no_grad`) that is not on the CPU.
    A layer calls ``self._kept(make, *weights)``.

    Shape:
        - input and output: those of the layer

    Example:
        >>> import torch
        >>> class Symmetric(KeepsKernels, torch.nn.Conv2d):
        ...     def forward(self, input):
        ...         kernel = self._kept(lambda: (self.weight + self.weight.flip(-1)) / 2, self.weight)
        ...         return torch.nn.functional.conv2d(input, kernel, self.bias)
        >>> Symmetric(1, 2, 3)(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 6, 6])
    """

    _record: "_Record | None" = None

    def _kept(self, make: Callable[[], T], *weights: Tensor) -> T:
        """What ``make`` returns, a tensor or a tuple of them, or what it returned when the weights were as now."""
        if self.training or torch.compiler.is_compiling():
            return make()
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return make()
        record = self._record
        if record is None or not record.fits(weights):
            record = self._record = _Record.of(make, weights)
            if record is None:
                return make()
        made: T = record.made
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._record = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_record"}


class _Source(NamedTuple):
    """A weight as it was: the tensor, its count of in-place edits, its place, and on the CPU its numbers."""

    weight: Tensor
    edits: int
    place: int
    numbers: Tensor | None
    copy: Tensor | None


class _Record(NamedTuple):
    """What was made, and of which weights."""

    made: Any
    sources: tuple[_Source, ...]

    @classmethod
    def of(cls, make: Callable[[], Any], weights: tuple[Tensor, ...]) -> "_Record | None":
        """Make it and note the weights; None where nothing may be kept."""
        if not all(_is_real(weight) for weight in weights):
            return None
        # What is kept must not depend on where it was made: inference tensors, for one, cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
            made = make()
            tensors = made if isinstance(made, tuple) else (made,)
            if any(type(tensor) is not Tensor for tensor in tensors):
                return None
            return cls(made, tuple(_source(weight) for weight in weights))

    def fits(self, weights: tuple[Tensor, ...]) -> bool:
        """Whether the weights are those that it was made of, and as they were."""
        if len(weights) != len(self.sources):
            return False
        # A loop and no generators: this runs at every call, between convolutions that have emptied the caches.
        for now, (weight, edits, place, numbers, copy) in zip(weights, self.sources, strict=True):
            if now is not weight or now._version != edits or now.data_ptr() != place:  # noqa: SLF001
                return False
            if numbers is not None and copy is not None and not torch.equal(numbers, copy):
                return False
        return True


def _source(weight: Tensor) -> _Source:
    # An edit through `.data` leaves no mark, so on the CPU the numbers are compared as well. torch has no public name
    # for the count of a tensor's in-place edits.
    numbers = _bits(weight.detach()) if weight.device.type == "cpu" else None
    return _Source(weight, weight._version, weight.data_ptr(), numbers, None if numbers is None else numbers.clone())  # noqa: SLF001


def _bits(numbers: Tensor) -> Tensor:
    """The same memory as whole numbers of eight bytes, where that is possible: these compare twice as fast."""
    flat = numbers.flatten()
    whole = flat.nbytes % 8 == 0 and flat.data_ptr() % 8 == 0 and flat.data_ptr() == numbers.data_ptr()
    return flat.view(torch.int64) if whole else numbers


def _is_real(weight: Tensor) -> bool:
    """Whether a weight has numbers of its own; fake, functional and traced ones are of other types."""
    return type(weight) is nn.Parameter and not (weight.is_meta or weight.is_inference())
