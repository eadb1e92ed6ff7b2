"""What every action offers, and the one that does nothing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ..groups import Group, as_group


class Action(ABC):
    """How a group element moves a tensor, ``L_g x``.

    Actions are immutable, comparable and picklable. The law is ``act(g, act(h, x)) == act(g h, x)``: to the last
    bit for multiples of 90 degrees and mirrors (coordinates in an image, `Keypoints` and `Boxes`, are rounded when
    they are mirrored), up to interpolation for other angles.

    A subclass defines ``__call__``.
    """

    @abstractmethod
    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        """``L_g x`` for ``g = element``.

        Args:
            x: The tensor; each action says its axes.
            group: The group or its name.
            element: The element ``g``, ``0 .. |G| - 1``.

        Returns:
            The moved tensor, contiguous. It may share memory with ``x`` (for the identity, say).

        Raises:
            ValueError: ``x`` has not the axes that this action takes, or ``element`` is no element of ``group``.
        """

    def after(self, group: Group | str, element: int) -> "Action":
        """The action on what this action has moved by ``element``.

        The same, except for actions that know the image's size (`Keypoints`, `Boxes`): a quarter turn swaps it. So in
        full the law reads ``act.after(h)(act(x, h), g) == act(x, g h)``.
        """
        return self


@dataclass(frozen=True)
class Invariant(Action):
    """The trivial representation: ``L_g x = x``, for any tensor.

    For class scores, image-level statistics, and extra inputs that do not turn with the image.

    Shape:
        - x: any; the output is the same.

    Raises:
        ValueError: The element is no element of the group.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import Invariant
        >>> from gconv_ga.groups import C4
        >>> Invariant()(torch.arange(3), C4, 1)
        tensor([0, 1, 2])
    """

    def __call__(self, x: Tensor, group: Group | str, element: int) -> Tensor:
        as_group(group).matrix(element)  # refuses what is no element
        return x.contiguous()
