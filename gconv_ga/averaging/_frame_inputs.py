"""The inputs of a frame average: what the frame is made from, and how they look from an element of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._validate import invalid, message, wrong_shape
from ._frame import FrameElements
from ._frame_actions import FrameAction, ImageAction, MaskAction, PointAction, VectorAction


class FrameInput(NamedTuple):
    """One leaf of the inputs: what the user calls it, its value and its action."""

    name: str
    value: Any
    action: FrameAction

    @property
    def has_batch(self) -> bool:
        """Whether the leaf is moved: a tensor with at least one axis."""
        return isinstance(self.value, Tensor) and self.value.ndim > 0

    def seen_from(self, elements: FrameElements, mask: Tensor | None) -> Any:
        """``rho_1(g)^-1 x`` for each element, of the dtype of ``x``, with zeros in the padding.

        Raises:
            TypeError: It has components to turn, and they are integers.
            ValueError: The action does not take this tensor.
        """
        if not self.has_batch:
            return self.value
        value = self.value[elements.sample]
        turns = self.action.rank > 0
        if turns and not value.is_floating_point():
            raise TypeError(message(self.name, "floating point", self.value, "a rotation does not keep integers"))
        padding = None
        if turns and mask is not None and value.shape[1] == mask.shape[1]:
            padding = ~mask[elements.sample].view(-1, mask.shape[1], *(1,) * (value.ndim - 2))
            # Before: the gradient of a rotation would take NaN from the padding, times zero.
            value = value.masked_fill(padding, 0)
        rotations, translations = elements.rotations, elements.translations
        if value.is_floating_point():
            dtype = torch.promote_types(value.dtype, rotations.dtype)
            value, rotations, translations = value.to(dtype), rotations.to(dtype), translations.to(dtype)
        try:
            moved = self.action.inverse(value, rotations, translations).to(self.value.dtype)
        except ValueError as error:
            raise ValueError(f"{self.name} does not fit its action {self.action}: {error}") from error
        if padding is not None:
            # After: zeros seen from the frame move with the cloud, as what lay in the padding does not.
            moved = moved.masked_fill(padding, 0)
        return moved


class FrameDomain(NamedTuple):
    """What a frame is made from: the arguments of its call."""

    x: Tensor
    mask: Tensor | None
    vectors: tuple[Tensor, ...]


def frame_sources(actions: Sequence[FrameAction]) -> list[int]:
    """Which inputs a frame can be made from: those that are points, or else those that are images."""
    points = [i for i, action in enumerate(actions) if isinstance(action, PointAction)]
    return points or [i for i, action in enumerate(actions) if isinstance(action, ImageAction)]


def frame_domain(inputs: Sequence[FrameInput]) -> FrameDomain:
    """The points or the first image, the mask, and every vector.

    Raises:
        ValueError: There is no tensor to make a frame from, or more than one cloud or mask; or batches differ.
    """
    sources = [inputs[i] for i in frame_sources([leaf.action for leaf in inputs])]
    source = sources[0]
    if not source.has_batch:
        raise invalid(source.name, "a tensor: the frame is made from it", source.value)
    if isinstance(source.action, PointAction) and len(sources) > 1:
        advice = "join them along the points, and split them in the module"
        raise invalid("in_action", "actions of which exactly one is 'points'", [leaf.name for leaf in sources], advice)
    for leaf in inputs:
        if leaf.has_batch and len(leaf.value) != len(source.value):
            axes = f"[B={len(source.value)}, ...] like {source.name}"
            raise wrong_shape(leaf.name, axes, leaf.value, "batches come first")
    masks = [leaf for leaf in inputs if isinstance(leaf.action, MaskAction) and leaf.value is not None]
    if len(masks) > 1:
        raise invalid("in_action", "actions of which at most one is 'mask'", [leaf.name for leaf in masks])
    vectors: list[Tensor] = []
    for leaf in inputs:
        if isinstance(leaf.action, VectorAction) and leaf.has_batch:
            if leaf.value.ndim < 2:
                raise wrong_shape(leaf.name, "[B, ..., d]", leaf.value)
            # Several vectors for each point come one after another, so that each of them shares the points' mask.
            rows = leaf.value.unsqueeze(1) if leaf.value.ndim == 2 else leaf.value
            vectors += rows.flatten(2, -2).unbind(2) if rows.ndim > 3 else [rows]
    return FrameDomain(source.value, masks[0].value if masks else None, tuple(vectors))
