"""How an element ``g = (R, t)`` of a frame moves tensors, and its inverse."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from .._validate import invalid, message, one_of, wrong_shape
from ._frame import FrameElements


class FrameAction(ABC):
    """How elements ``g = (R, t)`` move a tensor, one element for each entry of its first axis.

    A subclass defines ``__call__`` and, if it is more than a scalar, `rank`. The law is ``g (h x) = (g h) x`` with
    ``g h = (R_g R_h, R_g t_h + t_g)``.

    Example:
        Axial vectors (torques, magnetic fields) do not turn under a mirror as vectors do:

        >>> import torch
        >>> from gconv_ga.frames import FrameAction
        >>> class AxialAction(FrameAction):
        ...     rank = 1
        ...     def __call__(self, x, rotations, translations):
        ...         sign = torch.linalg.det(rotations.detach()).round()
        ...         return sign[:, None] * (rotations @ x[..., None])[..., 0]
        >>> mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).unsqueeze(0)
        >>> AxialAction()(torch.tensor([[1.0, 2.0, 3.0]]), mirror, torch.zeros(1, 3))
        tensor([[ 1., -2., -3.]])
    """

    rank: ClassVar[int] = 0
    """The rank of the tensors it moves. An output of higher rank than the frame's ``lmax`` is refused."""

    @abstractmethod
    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        """``g x``.

        Shape:
            - x: ``[T, ...]``
            - rotations: ``[T, d, d]``
            - translations: ``[T, d]``
            - output: as x
        """

    def inverse(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        """``g^-1 x`` with ``g^-1 = (R^T, -R^T t)``; shapes as in a call."""
        back = rotations.mT
        return self(x, back, -(back @ translations.unsqueeze(-1)).squeeze(-1))


@dataclass(frozen=True)
class InvariantAction(FrameAction):
    """What no element moves: energies, class scores, charges, species."""

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class MaskAction(InvariantAction):
    """The mask of padded batches, ``[B, N]``: unmoved, and read by the frame."""


@dataclass(frozen=True)
class VectorAction(FrameAction):
    """Vectors (velocities, forces, dipoles): ``v -> R v``.

    Shape:
        - x: ``[T, ..., d]``
    """

    rank: ClassVar[int] = 1

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        d = rotations.shape[-1]
        if x.ndim < 2 or x.shape[-1] != d:
            raise wrong_shape("x", f"[T, ..., d={d}]", x)
        rows = x.to(rotations.dtype).reshape(len(x), x[0].numel() // d if len(x) else 0, d)
        return (rows @ rotations.mT).reshape(x.shape)


@dataclass(frozen=True)
class PointAction(FrameAction):
    """Positions: ``x -> R x + t``.

    Shape:
        - x: ``[T, ..., d]``
    """

    rank: ClassVar[int] = 1

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        moved = VectorAction()(x, rotations, translations)
        return moved + _beside(translations, moved)

    def inverse(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        # First the translation: far from the origin R^T x - R^T t would lose digits.
        return VectorAction()(x - _beside(translations, x), rotations.mT, translations)


@dataclass(frozen=True)
class TensorAction(FrameAction):
    """Tensors of rank 2 (polarizability, stress, Hessian blocks): ``A -> R A R^T``.

    Shape:
        - x: ``[T, ..., d, d]``
    """

    rank: ClassVar[int] = 2

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        d = rotations.shape[-1]
        if x.ndim < 3 or x.shape[-2:] != (d, d):
            raise wrong_shape("x", f"[T, ..., d={d}, d={d}]", x)
        middle = (1,) * (x.ndim - 3)
        turn = rotations.reshape(len(x), *middle, d, d)
        return turn @ x.to(rotations.dtype) @ turn.mT


@dataclass(frozen=True)
class ImageAction(FrameAction):
    """Images under whole-pixel translations ``t = (columns to the right, rows down)``; what leaves comes in opposite.

    Rotations are not applied: it is for frames of translations such as `LandmarkFrame`.

    Shape:
        - x: ``[T, ..., H, W]``
    """

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        if x.ndim < 3 or translations.shape[-1] != 2:
            raise wrong_shape("x", "[T, ..., H, W] with a frame of the plane", x)
        height, width = x.shape[-2:]
        right, down = translations.round().long().unbind(-1)
        rows = (torch.arange(height, device=x.device) - down.unsqueeze(-1)) % height
        columns = (torch.arange(width, device=x.device) - right.unsqueeze(-1)) % width
        middle = (1,) * (x.ndim - 3)
        moved = x.gather(-2, rows.view(len(x), *middle, height, 1).expand(x.shape))
        return moved.gather(-1, columns.view(len(x), *middle, 1, width).expand(x.shape))


def _beside(translations: Tensor, x: Tensor) -> Tensor:
    """``[T, d]`` as ``[T, 1, .., d]``."""
    return translations.view(len(translations), *(1,) * (x.ndim - 2), translations.shape[-1])


_BY_NAME: dict[str, type[FrameAction]] = {
    "invariant": InvariantAction,
    "scalar": InvariantAction,
    "vector": VectorAction,
    "points": PointAction,
    "point": PointAction,
    "tensor": TensorAction,
    "mask": MaskAction,
    "image": ImageAction,
}


def as_frame_actions(actions: Any, argument: str) -> Any:
    """``actions`` with every name replaced by its action: a `FrameAction`, a dict or a tuple of such.

    Args:
        actions: A `FrameAction`, its name ("invariant" or "scalar", "vector", "points" or "point", "tensor", "mask",
            "image"), or a mapping or sequence of them.
        argument: The argument's name, for the message.

    Raises:
        ValueError: Something in it is no action.

    Example:
        >>> from gconv_ga.frames._frame_actions import as_frame_actions
        >>> as_frame_actions({"energy": "scalar", "forces": "vector"}, "out_action")
        {'energy': InvariantAction(), 'forces': VectorAction()}
    """
    if isinstance(actions, FrameAction):
        return actions
    if isinstance(actions, Mapping):
        return {key: as_frame_actions(part, f"{argument}[{key!r}]") for key, part in actions.items()}
    if isinstance(actions, tuple | list):
        return tuple(as_frame_actions(part, f"{argument}[{index}]") for index, part in enumerate(actions))
    if isinstance(actions, str):
        return _BY_NAME[one_of(argument, actions, tuple(_BY_NAME))]()
    raise invalid(argument, "an action of frames, such as 'points' or VectorAction()", actions)


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
