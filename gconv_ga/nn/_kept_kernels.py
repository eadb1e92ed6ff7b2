"""Turned kernels made once and kept, for as long as that is right."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


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

    _turned: tuple[tuple[Any, ...], list[Tensor], Tensor] | None = None

    def _kept(self, make: Callable[[], Tensor], *weights: Tensor) -> Tensor:
        """What ``make`` returns, or what it returned when the weights were last as they are now."""
        learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if torch.compiler.is_compiling() or self.training or learning or not all(_is_real(w) for w in weights):
            self._turned = None
            return make()
        # torch has no public name for the count of a tensor's in-place edits.
        versions = (weight._version for weight in weights)  # noqa: SLF001
        key = (*versions, *((id(w), w.data_ptr(), w.device, w.dtype) for w in weights))
        if self._turned is not None and self._turned[0] == key:
            _, copies, turned = self._turned
            # An edit through `.data` leaves no version behind, so on the CPU the numbers are compared as well.
            if all(w.device.type != "cpu" or torch.equal(copy, w) for copy, w in zip(copies, weights, strict=True)):
                return turned
        # What is kept must not depend on where it was made: inference tensors, for one, cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(weights[0].device.type, enabled=False):
            turned = make()
            if type(turned) is Tensor:
                self._turned = (key, [weight.detach().clone() for weight in weights], turned)
        return turned

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._turned = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_turned"}


def _is_real(weight: Tensor) -> bool:
    """Whether a weight has numbers of its own; fake, functional and traced ones are of other types."""
    return type(weight) is nn.Parameter and not (weight.is_meta or weight.is_inference())
