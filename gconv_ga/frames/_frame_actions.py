"""Actions of the elements ``g = (R, t)`` of a frame on tensors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._validate import invalid, one_of, wrong_shape


class FrameAction(ABC):
    """Base class for the action of elements ``g = (R, t)`` on a tensor, one element for each entry of its first axis.

    Subclasses define ``__call__`` and, for anything but scalars, `rank`. An action satisfies ``g (h x) = (g h) x`` with
    ``g h = (R_g R_h, R_g t_h + t_g)``.

    Example:
        Axial vectors (torques, magnetic fields) change sign relative to vectors under a reflection:

        >>> import torch
        >>> from gconv_ga.frames import FrameAction
        >>> class AxialAction(FrameAction):
        ...     rank = 1
        ...     def __call__(self, x, rotations, translations):
        ...         sign = torch.linalg.det(rotations.detach()).round()
        ...         return sign[:, None] * (rotations @ x[..., None])[..., 0]
        >>> reflection = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).unsqueeze(0)
        >>> AxialAction()(torch.tensor([[1.0, 2.0, 3.0]]), reflection, torch.zeros(1, 3))
        tensor([[ 1., -2., -3.]])
    """

    rank: ClassVar[int] = 0
    """Rank of the tensors. Outputs of a higher rank than the frame's ``lmax`` are refused."""

    @abstractmethod
    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        """Return ``g x``.

        Shape:
            - x: ``[T, ...]``
            - rotations: ``[T, d, d]``
            - translations: ``[T, d]``
            - output: as x
        """

    def inverse(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        """Return ``g^-1 x``, where ``g^-1 = (R^T, -R^T t)``; shapes as in a call."""
        transposed = rotations.mT
        return self(x, transposed, -(transposed @ translations.unsqueeze(-1)).squeeze(-1))


@dataclass(frozen=True)
class InvariantAction(FrameAction):
    """The trivial action, for energies, class scores, charges and species: ``x -> x``."""

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class MaskAction(InvariantAction):
    """The trivial action, for the mask ``[B, N]`` of a padded batch, which is also passed to the frame."""


@dataclass(frozen=True)
class VectorAction(FrameAction):
    """The action on vectors (velocities, forces, dipoles): ``v -> R v``.

    Shape:
        - x: ``[T, ..., d]``
    """

    rank: ClassVar[int] = 1

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        d = rotations.shape[-1]
        _check_coordinates(x, d)
        rows = x.to(rotations.dtype).reshape(len(x), x[0].numel() // d if len(x) else 0, d)
        return (rows @ rotations.mT).reshape(x.shape)


@dataclass(frozen=True)
class PointAction(FrameAction):
    """The action on positions: ``x -> R x + t``.

    Shape:
        - x: ``[T, ..., d]``
    """

    rank: ClassVar[int] = 1

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        rotated = VectorAction()(x, rotations, translations)
        return rotated + _expanded(translations, rotated)

    def inverse(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        _check_coordinates(x, rotations.shape[-1])
        # The translation comes first: far from the origin R^T x - R^T t would lose digits.
        return VectorAction()(x - _expanded(translations, x), rotations.mT, translations)


@dataclass(frozen=True)
class TensorAction(FrameAction):
    """The action on tensors of rank 2 (polarizability, stress, Hessian blocks): ``A -> R A R^T``.

    Shape:
        - x: ``[T, ..., d, d]``
    """

    rank: ClassVar[int] = 2

    def __call__(self, x: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        d = rotations.shape[-1]
        if x.ndim < 3 or x.shape[-2:] != (d, d):
            raise wrong_shape("x", f"[T, ..., d={d}, d={d}]", x)
        expanded = rotations.reshape(len(x), *(1,) * (x.ndim - 3), d, d)
        return expanded @ x.to(rotations.dtype) @ expanded.mT


@dataclass(frozen=True)
class ImageAction(FrameAction):
    """The action of cyclic whole-pixel translations ``t = (columns to the right, rows down)`` on images.

    Rotations are ignored: the action is meant for frames of translations, such as `LandmarkFrame`.

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
        ones = (1,) * (x.ndim - 3)
        moved = x.gather(-2, rows.view(len(x), *ones, height, 1).expand(x.shape))
        return moved.gather(-1, columns.view(len(x), *ones, 1, width).expand(x.shape))


def _check_coordinates(x: Tensor, d: int) -> None:
    if x.ndim < 2 or x.shape[-1] != d:
        raise wrong_shape("x", f"[T, ..., d={d}]", x)


def _expanded(translations: Tensor, x: Tensor) -> Tensor:
    """Return the translations ``[T, d]`` as ``[T, 1, .., d]``, to be added to ``x``."""
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
    """Return ``actions`` with every name replaced by its action: a `FrameAction`, or a dict or tuple of them.

    Args:
        actions: A `FrameAction`, its name ("invariant" or "scalar", "vector", "points" or "point", "tensor", "mask",
            "image"), or a mapping or sequence of them.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: An entry is not an action.

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
    own = "for an action of your own derive a class from FrameAction"
    hint = "call the class" if isinstance(actions, type) else own
    raise invalid(argument, "a frame action or its name, such as 'points' or 'vector'", actions, hint)
