"""How an element ``g = (R, t)`` of a frame moves tensors, and its inverse."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape


class FrameAction(ABC):
    """How elements ``g = (R, t)`` move a tensor, one element for each entry of its first axis.

    A subclass defines ``__call__`` and, if it is more than a scalar, `rank`. The law is ``g (h x) = (g h) x`` with
    ``g h = (R_g R_h, R_g t_h + t_g)``.

    Example:
        Axial vectors (torques, magnetic fields) do not turn under a mirror as vectors do:

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
