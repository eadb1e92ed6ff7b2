"""The mean of what the module returned, every element's part turned upright first."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .._validate import invalid, wrong_shape
from ..actions import Leaf, nest_leaves, pair_leaves, rebuild_nest
from ..groups import Group

_PLAIN = bool | int | float | complex | str | bytes | None


class Mean:
    """``1/|G| sum_g rho_2(g) y_g``, added up pass by pass.

    Sums are kept in float32 at least, whatever the module's dtype: eight terms added in bfloat16 would lose two of its
    eight bits.

    Args:
        group: The group.
        actions: The resolved actions of the output.
        batch: The size of the batch axis.
        spread: Whether to keep track of how far the terms are from each other.
    """

    def __init__(self, group: Group, actions: Any, batch: int, spread: bool = False) -> None:
        self.group = group
        self.actions = actions
        self.batch = batch
        self.count = 0
        self.output: Any = None
        self.sums: list[Any] = []
        self.spreads: list[_Spread] | None = [] if spread else None

    def add(self, elements: Sequence[int], output: Any) -> None:
        """Add what the module returned for these elements.

        Args:
            elements: The elements ``g`` of the pass, in the order in which they lie along the batch axis.
            output: The module's output.

        Raises:
            ValueError: A leaf is neither a floating-point tensor with its batch axis nor a plain value, or it does not
                fit what came before.
        """
        found = pair_leaves(output, self.actions, "output", "out_action")
        if self.count == 0:
            self.output, self.sums = output, [None] * len(found)
            self.spreads = None if self.spreads is None else [_Spread() for _ in found]
        kinds = [_kind(leaf.name, leaf.value) for leaf in found]
        if self.count and kinds != [_kind(*leaf) for leaf in nest_leaves(self.output, "output")]:
            takes = "a module that returns the same leaves for every element and shape of input"
            raise invalid("module", takes, output, f"before it returned {self.output}")
        for index, leaf in enumerate(found):
            if isinstance(leaf.value, Tensor):
                self._check(leaf, elements)
                self._add(index, leaf, elements)
        self.count += len(elements)

    def _check(self, leaf: Leaf, elements: Sequence[int]) -> None:
        length = len(elements) * self.batch
        if leaf.value.ndim == 0 or leaf.value.shape[0] != length:
            axes = f"[{len(elements)} elements * B={self.batch} = {length}, ...]"
            advice = "the module must keep the batch axis, first; reduce over it outside of the average"
            raise wrong_shape(leaf.name, axes, leaf.value, advice)
        if not (leaf.value.is_floating_point() or leaf.value.is_complex()):
            advice = "return logits or probabilities and take the argmax or the threshold of their average"
            raise invalid(leaf.name, "floating point, since class indices and masks have no mean", leaf.value, advice)

    def _add(self, index: int, leaf: Leaf, elements: Sequence[int]) -> None:
        dtype = torch.promote_types(leaf.value.dtype, torch.float32)
        for element, part in zip(elements, leaf.value.unflatten(0, (len(elements), self.batch)), strict=True):
            # What the module saw was turned back by g: an action that knows the image's size starts from there.
            action = leaf.action.after(self.group, self.group.inverse(element))
            upright = Leaf(leaf.name, part.to(dtype), action).moved(self.group, element)
            total = self.sums[index]
            if total is not None and total.shape != upright.shape:
                takes = f"of shape {tuple(total.shape)} for every element, once it is upright"
                advice = f"either it has another action than {action}, or the module sizes rows and columns differently"
                raise wrong_shape(leaf.name, takes, upright, advice)
            # Not in place: the first term may be a tensor that the module keeps.
            self.sums[index] = upright if total is None else total + upright
            if self.spreads is not None:
                self.spreads[index].add(upright.detach())

    def result(self) -> Any:
        """The mean, nested as the output and of its dtypes."""
        means: Iterator[Any] = (
            (total / self.count).to(value.dtype) if isinstance(value, Tensor) else value
            for total, (_, value) in zip(self.sums, nest_leaves(self.output, "output"), strict=True)
        )
        return rebuild_nest(self.output, means)

    def stderr(self) -> Any:
        """The standard error of the mean of elements that were drawn without replacement, nested as the output."""
        part_left = 1 - self.count / self.group.order
        errors: Iterator[Any] = (
            spread.stderr(self.count, part_left).to(value.dtype) if isinstance(value, Tensor) else value
            for spread, (_, value) in zip(self.spreads or (), nest_leaves(self.output, "output"), strict=True)
        )
        return rebuild_nest(self.output, errors)


class _Spread:
    """The sum of squared distances from the mean, updated term by term (Welford): large means do not swallow it."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0
        self.squares: Any = 0

    def add(self, term: Tensor) -> None:
        self.count += 1
        step = term - self.mean
        self.mean = self.mean + step / self.count
        self.squares = self.squares + (step * (term - self.mean).conj()).real

    def stderr(self, count: int, part_left: float) -> Tensor:
        error: Tensor = (part_left * self.squares / max(1, count - 1) / count).clamp_min(0).sqrt()
        return error


def _kind(name: str, value: Any) -> tuple[str, str]:
    """What must be the same in every pass: for a tensor that it is one, for anything else its value.

    Raises:
        ValueError: The leaf can neither be averaged nor passed on.
    """
    if isinstance(value, Tensor):
        return name, "tensor"
    if not isinstance(value, _PLAIN):
        raise invalid(name, "a tensor, None, a number or a string", value, "return tensors in dicts, tuples and lists")
    return name, repr(value)
