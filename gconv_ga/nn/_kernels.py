"""Which elements a group kernel has taps for: the dial between averaging and convolution."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from .._validate import as_int, invalid
from ..groups import DihedralGroup, Group


@lru_cache(maxsize=256)
def nearest_elements(group: Group, count: int | None) -> tuple[int, ...]:
    """The ``count`` elements nearest the identity: by angle, counter-clockwise first, rotations before mirrors.

    Args:
        group: The group.
        count: How many, ``1 .. |G|``; None for all, in the group's order.

    Raises:
        ValueError: ``count`` is out of range.

    Example:
        >>> from gconv_ga.nn.authoring import nearest_elements
        >>> from gconv_ga.groups import C8, D4
        >>> nearest_elements(C8, 3), nearest_elements(D4, 5)
        ((0, 1, 7), (0, 1, 3, 2, 4))
    """
    if count is None:
        return tuple(range(group.order))
    number = as_int("group_kernel_size", count, minimum=1)
    if number > group.order:
        raise invalid("group_kernel_size", f"an int from 1 to |G|={group.order}, or None for all", count)
    if number == group.order:
        return tuple(range(group.order))
    by_angle = sorted(range(group.n), key=lambda i: (min(i, group.n - i), i))
    mirrors = [group.n + i for i in by_angle] if isinstance(group, DihedralGroup) else []
    return tuple((by_angle + mirrors)[:number])


def worth_gathering(taps: int, order: int, fields: int) -> bool:
    """Whether few taps are faster as a small convolution for each orientation than as one large one with zeros.

    The small ones do ``taps / order`` of the work, but reach their speed only with many output channels, in eights:
    measured on a CPU (benchmarks/layers.py, "taps") with 4 to 32 fields, they are that much slower for each multiply.

    Args:
        taps: The elements that a kernel has planes for.
        order: The elements of the group.
        fields: Output fields of a block of channels.

    Example:
        >>> from gconv_ga.nn._kernels import worth_gathering
        >>> [worth_gathering(2, 4, fields) for fields in (8, 11, 32)]
        [False, False, True]
    """
    slowness = (1 + 16 / fields) * (1.8 if fields % 8 else 1.0)
    return taps * slowness < order


def with_all_planes(weight: Tensor, taps: tuple[int, ...], group: Group) -> Tensor:
    """The kernel with a plane for each element: zeros where it has none.

    Args:
        weight: The free kernels.
        taps: The elements that they have planes for.
        group: The group.

    Shape:
        - weight: ``[C_out, C_in, m, ...]``
        - output: ``[C_out, C_in, |G|, ...]``
    """
    if len(taps) == group.order:
        return weight
    planes = dict(zip(taps, weight.unbind(2), strict=True))
    nothing = torch.zeros_like(weight[:, :, 0])
    return torch.stack([planes.get(u, nothing) for u in range(group.order)], dim=2)


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
        >>> from gconv_ga.nn.authoring import KeepsKernels
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
