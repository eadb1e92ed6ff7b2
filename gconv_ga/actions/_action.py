"""The base class of actions, the trivial action, and the arithmetic that vectors and coordinates share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .._validate import invalid
from ..groups import Group, as_group


class Action(ABC):
    """Base class for the action of a group on a kind of tensor, ``L_g x``.

    Actions are immutable, comparable and picklable. They satisfy ``act(g, act(h, x)) == act(g h, x)``: to the last
    bit for multiples of 90 degrees and reflections (except that coordinates in an image, `Keypoints` and `Boxes`, are
    rounded when they are reflected), up to interpolation for other angles.

    Subclasses define ``__call__``.
    """

    @abstractmethod
    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        """Return ``L_g x`` for ``g = element``.

        Args:
            x: The tensor. Each action documents its axes.
            group: The group or its name.
            element: Index of the group element ``g``, ``0 .. |G| - 1``.

        Returns:
            The moved tensor, contiguous. It may share memory with ``x`` (for the identity, for example).

        Raises:
            ValueError: ``x`` does not have the axes that this action takes, or ``element`` is not an element of
                ``group``.
        """

    def after(self, group: Group | str, element: int) -> "Action":
        """Return the action for tensors that this action has already moved by ``element``.

        This is the same action, except for actions that hold the size of the image (`Keypoints`, `Boxes`): a rotation
        by 90 degrees swaps height and width. In full, the composition law therefore reads
        ``act.after(h)(act(x, h), g) == act(x, g h)``.
        """
        return self


@dataclass(frozen=True)
class Invariant(Action):
    """The trivial representation: ``L_g x = x``, for any tensor.

    Use it for class scores, image-level statistics, and extra inputs that do not rotate with the image.

    Shape:
        - x: any; the output is the same.

    Raises:
        ValueError: The element is not an element of the group.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Invariant
        >>> from gconv_ga.groups import C4
        >>> Invariant()(torch.arange(3), C4, 1)
        tensor([0, 1, 2])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        as_group(group).matrix(element)  # raises if there is no such element
        return x.contiguous()


def linear_combination(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """Return ``a x + b y`` without multiplying by 0, 1 or -1.

    Rotations by 90 degrees therefore keep integers, infinities and every bit.
    """
    if b == 0:
        return _scaled(a, x)
    return _scaled(b, y) if a == 0 else a * x + b * y


def _scaled(a: float, x: Tensor) -> Tensor:
    if a == 1:
        return x
    return -x if a == -1 else a * x


def require_signed(x: Tensor) -> None:
    """Refuse vectors and coordinates whose type cannot hold negative numbers.

    Raises:
        ValueError: ``x`` has an unsigned integer type or is bool.
    """
    if not x.dtype.is_signed:
        raise invalid("x", "of a type with negative numbers", x, "convert it to floating point")
