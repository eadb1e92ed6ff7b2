"""The orbit of the input, laid along the batch axis, in as few passes as its shapes allow."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._validate import invalid, wrong_shape
from ..actions import Leaf
from ..groups import Group


class Pass(NamedTuple):
    """Elements that go through the module together, and the inputs' leaves turned back by each, one after another."""

    elements: list[int]
    values: list[Any]


def has_batch(leaf: Leaf) -> bool:
    """Whether the leaf is moved and joins the orbit: a tensor with at least one axis."""
    return isinstance(leaf.value, Tensor) and leaf.value.ndim > 0


def common_batch(inputs: Sequence[Leaf]) -> int:
    """The size of the batch axis that all tensors share.

    Raises:
        ValueError: There is no tensor, or two of them differ.
    """
    tensors = [leaf for leaf in inputs if has_batch(leaf)]
    if not tensors:
        values = [leaf.value for leaf in inputs]
        raise invalid("inputs", "tensors with a batch axis, or nests with at least one", values)
    batch: int = tensors[0].value.shape[0]  # not int(...): a traced batch may be a symbol
    for leaf in tensors[1:]:
        if leaf.value.shape[0] != batch:
            raise wrong_shape(leaf.name, f"[B={batch}, ...] like {tensors[0].name}", leaf.value, "batches come first")
    return batch


def passes(inputs: Sequence[Leaf], group: Group, elements: Sequence[int], chunk_size: int | None) -> Iterator[Pass]:
    """``rho_1(g)^-1 x`` for all elements, those of the same shape side by side along the batch axis.

    A quarter turn of ``H x W`` is ``W x H``, so an image that is not square takes two passes. Inputs are turned when
    they are needed, so ``chunk_size`` bounds their memory too.

    Args:
        inputs: The leaves.
        group: The group.
        elements: The elements ``g``.
        chunk_size: How many elements a pass has at most; None for no bound.
    """
    waiting: list[_Queue] = []
    for element in elements:
        moved = [leaf.moved(group, group.inverse(element)) for leaf in inputs if has_batch(leaf)]
        shapes = [x.shape[1:] for x in moved]
        queue = next((queue for queue in waiting if queue.shapes == shapes), None)
        if queue is None:
            queue = _Queue(shapes, [], [])
            waiting.append(queue)
        queue.elements.append(element)
        queue.orbit.append(moved)
        if len(queue.elements) == chunk_size:
            yield _fold(inputs, queue)
    for queue in waiting:
        if queue.elements:
            yield _fold(inputs, queue)


class _Queue(NamedTuple):
    """Elements that wait for their pass, with the inputs' tensors turned back by each."""

    shapes: list[torch.Size]
    elements: list[int]
    orbit: list[list[Tensor]]


def _fold(inputs: Sequence[Leaf], queue: _Queue) -> Pass:
    """The queue as one pass; the queue is empty afterwards, so that its tensors are kept once only."""
    # Every tensor here is a copy: a module may write into its input, and the caller's tensor must not change.
    folded = iter([torch.cat(column) for column in zip(*queue.orbit, strict=True)])
    values = [
        next(folded) if has_batch(leaf) else leaf.value.clone() if isinstance(leaf.value, Tensor) else leaf.value
        for leaf in inputs
    ]
    elements = list(queue.elements)
    queue.elements.clear()
    queue.orbit.clear()
    return Pass(elements, values)
