"""Turned kernels made once and kept, for as long as that is right."""

import operator
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
        if torch.compiler.is_compiling() or self.training:
            return make()
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return make()
        if self._record is None or not self._record.fits(weights):
            self._record = _Record.of(make, weights)
            if self._record is None:
                return make()
        made: T = self._record.made
        return made

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._record = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_record"}


class _Record(NamedTuple):
    """What was made, and of which weights: the tensors, their counts of in-place edits, places and numbers."""

    made: Any
    weights: tuple[Tensor, ...]
    marks: tuple[tuple[int, int], ...]
    numbers: tuple[tuple[Tensor, Tensor], ...]

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
            # An edit through `.data` leaves no mark, so on the CPU the numbers are compared as well.
            numbers = [_bits(weight.detach()) for weight in weights if weight.device.type == "cpu"]
            return cls(made, weights, _marks(weights), tuple((n, n.clone()) for n in numbers))

    def fits(self, weights: tuple[Tensor, ...]) -> bool:
        """Whether the weights are those that it was made of, and as they were."""
        same = len(weights) == len(self.weights) and all(map(operator.is_, weights, self.weights))
        return same and self.marks == _marks(weights) and all(torch.equal(now, then) for now, then in self.numbers)


def _marks(weights: tuple[Tensor, ...]) -> tuple[tuple[int, int], ...]:
    # torch has no public name for the count of a tensor's in-place edits.
    return tuple((weight._version, weight.data_ptr()) for weight in weights)  # noqa: SLF001


def _bits(numbers: Tensor) -> Tensor:
    """The same memory as whole numbers of eight bytes, where that is possible: these compare twice as fast."""
    flat = numbers.flatten()
    whole = flat.nbytes % 8 == 0 and flat.data_ptr() % 8 == 0 and flat.data_ptr() == numbers.data_ptr()
    return flat.view(torch.int64) if whole else numbers


def _is_real(weight: Tensor) -> bool:
    """Whether a weight has numbers of its own; fake, functional and traced ones are of other types."""
    return type(weight) is nn.Parameter and not (weight.is_meta or weight.is_inference())
