"""Finite groups of rotations and reflections of the plane."""

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._validate import as_int, invalid

if TYPE_CHECKING:  # a group is a few ints: the command line checks its name without loading torch
    from torch import Tensor


@dataclass(frozen=True, repr=False)
class Group(ABC):
    """A finite group of rotations and reflections of the plane, immutable, hashable and picklable.

    This is the common base of `CyclicGroup` and `DihedralGroup`; use one of these.

    Args:
        n: Number of rotations.

    Raises:
        ValueError: ``n`` is not a positive int.
    """

    n: int

    def __post_init__(self) -> None:
        number = as_int("n", self.n, minimum=1, advice="a group of the plane has a whole number of rotations")
        object.__setattr__(self, "n", number)  # the way to set a field of a frozen dataclass

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n})"

    @property
    @abstractmethod
    def order(self) -> int:
        """The number of elements, ``|G|``."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The short name, such as ``"C4"``. Wherever a group is accepted, its name is too."""

    def product(self, g: int, h: int) -> int:
        """Return the element ``g h``, which applies ``h`` first and then ``g``.

        Args:
            g: Index of an element, ``0 .. |G| - 1``.
            h: Index of an element.

        Raises:
            ValueError: ``g`` or ``h`` is not an element of the group.

        Example:
            >>> from gconv_ga.groups import D4
            >>> D4.product(1, 4), D4.product(4, 1)  # r m is not m r
            (5, 7)
        """
        i, g_reflects = self._as_rotation_and_reflection(self._checked_element("g", g))
        j, h_reflects = self._as_rotation_and_reflection(self._checked_element("h", h))
        # r^i m r^j = r^(i - j) m
        return self._as_element(i - j if g_reflects else i + j, g_reflects != h_reflects)

    def inverse(self, g: int) -> int:
        """Return the element ``h`` with ``g h = h g = 0``, the identity.

        Args:
            g: Index of an element.

        Raises:
            ValueError: ``g`` is not an element of the group.
        """
        i, reflects = self._as_rotation_and_reflection(self._checked_element("g", g))
        return self._as_element(i, True) if reflects else self._as_element(-i, False)

    @property
    def products(self) -> tuple[tuple[int, ...], ...]:
        """The Cayley table as rows of ints, ``products[g][h] = product(g, h)``. It is computed once for each group.

        Example:
            >>> from gconv_ga.groups import C3
            >>> C3.products
            ((0, 1, 2), (1, 2, 0), (2, 0, 1))
        """
        return _multiplication_table(self)

    @property
    def cayley_table(self) -> "Tensor":
        """The Cayley table, ``table[g, h] = product(g, h)``, as a new int64 tensor ``[|G|, |G|]``."""
        import torch

        return torch.tensor(self.products)

    @property
    def matrices(self) -> "Tensor":
        """The 2 x 2 matrices of all elements, a homomorphism, as a new float64 tensor ``[|G|, 2, 2]``.

        They act on columns ``(x, y)`` with x to the right and y **up**, so that index 1 of ``C_n`` rotates
        counter-clockwise by ``2 pi / n``. Entries at multiples of 90 degrees are exactly -1, 0 and 1.
        """
        import torch

        return torch.tensor([self.matrix(g) for g in range(self.order)], dtype=torch.float64)

    def matrix(self, element: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return one of the `matrices` as rows of floats, for code that branches on its entries or is traced.

        Args:
            element: Index of the element.

        Raises:
            ValueError: ``element`` is not an element of the group.

        Example:
            >>> from gconv_ga.groups import D4
            >>> D4.matrix(4)  # the reflection x -> -x
            ((-1.0, 0.0), (0.0, 1.0))
        """
        i, reflects = self._as_rotation_and_reflection(self._checked_element("element", element))
        quarters, rest = divmod(4 * i, self.n)
        if rest == 0:
            cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[quarters]
        else:
            cos, sin = math.cos(2 * math.pi * i / self.n), math.sin(2 * math.pi * i / self.n)
        # The reflection sends x to -x and acts first, so it changes the sign of the first column.
        sign = -1.0 if reflects else 1.0
        # Adding 0.0 replaces -0.0 by 0.0.
        return ((sign * cos + 0.0, -sin + 0.0), (sign * sin + 0.0, cos))

    def is_exact(self, element: int | None = None) -> bool:
        """Return True if an element maps the pixel grid to itself: a multiple of 90 degrees, reflected or not.

        Args:
            element: Index of the element. If None, all elements must do so.

        Raises:
            ValueError: ``element`` is not an element of the group.

        Example:
            >>> from gconv_ga.groups import C4, C8
            >>> C4.is_exact(), C8.is_exact(), C8.is_exact(2)
            (True, False, True)
        """
        if element is None:
            return 4 % self.n == 0
        i, _ = self._as_rotation_and_reflection(self._checked_element("element", element))
        return 4 * i % self.n == 0

    def subgroup(self, of: "Group | str | Iterable[int]") -> tuple[int, ...]:
        """Return the indices that the elements of a subgroup have in this group.

        Args:
            of: The subgroup: a group or its name (its elements are listed in its own order), or element indices, which
                must be closed under the product (they are listed in ascending order).

        Returns:
            The indices in this group, the identity first.

        Raises:
            ValueError: ``of`` is not a subgroup. Half of the rotations, for example, need not be closed.

        Example:
            >>> from gconv_ga.groups import C8, C4, D4
            >>> C8.subgroup(C4)
            (0, 2, 4, 6)
            >>> D4.subgroup([4, 0])
            (0, 4)
        """
        if isinstance(of, str):
            of = as_group(of, "of")
        if isinstance(of, Group):
            indices = self._indices_of(of)
            if indices is None:
                raise invalid("of", f"a subgroup of {self.name}", of)
            return indices
        if not isinstance(of, Iterable):
            raise invalid("of", f"a group, its name or a list of elements of {self.name}", of)
        elements = sorted({self._checked_element("of", g) for g in of})
        is_closed = bool(elements) and all(self.products[g][h] in elements for g in elements for h in elements)
        if not is_closed:
            raise invalid("of", f"closed under the product of {self.name}", elements, "add the missing products")
        return tuple(elements)

    @abstractmethod
    def _as_rotation_and_reflection(self, element: int) -> tuple[int, bool]:
        """Return ``(i, reflects)`` for the element "reflect if ``reflects``, then rotate by ``i``"."""

    @abstractmethod
    def _as_element(self, rotation: int, reflects: bool) -> int:
        """Invert `_as_rotation_and_reflection`; the rotation is taken modulo ``n``."""

    @abstractmethod
    def _indices_of(self, other: "Group") -> tuple[int, ...] | None:
        """Return the indices of ``other``'s elements in this group, or None if it is not a subgroup."""

    def _checked_element(self, argument: str, element: int) -> int:
        number = as_int(argument, element, minimum=0)
        if number >= self.order:
            raise invalid(argument, f"an element 0 .. {self.order - 1} of {self.name}", element)
        return number


@functools.cache
def _multiplication_table(group: Group) -> tuple[tuple[int, ...], ...]:
    elements = range(group.order)
    return tuple(tuple(group.product(g, h) for h in elements) for g in elements)


@dataclass(frozen=True, repr=False)
class CyclicGroup(Group):
    """The cyclic group ``C_n`` of the rotations by multiples of ``360 / n`` degrees.

    Index ``i`` is the counter-clockwise rotation by ``2 pi i / n`` radians. For ``n = 4`` it acts on an image as
    ``torch.rot90(image, i, (-2, -1))`` does.

    Args:
        n: Number of rotations, at least 1.

    Raises:
        ValueError: ``n`` is not a positive int.

    Example:
        >>> from gconv_ga.groups import CyclicGroup
        >>> CyclicGroup(4), CyclicGroup(4).name, CyclicGroup(4).order
        (CyclicGroup(4), 'C4', 4)
        >>> CyclicGroup(4).matrices[1].tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """

    @property
    def order(self) -> int:
        return self.n

    @property
    def name(self) -> str:
        return f"C{self.n}"

    def _as_rotation_and_reflection(self, element: int) -> tuple[int, bool]:
        return element, False

    def _as_element(self, rotation: int, reflects: bool) -> int:
        return rotation % self.n

    def _indices_of(self, other: Group) -> tuple[int, ...] | None:
        if not isinstance(other, CyclicGroup) or self.n % other.n:
            return None
        return tuple(range(0, self.n, self.n // other.n))


@dataclass(frozen=True, repr=False)
class DihedralGroup(Group):
    """The dihedral group ``D_n`` of ``n`` rotations and ``n`` reflections, of order ``2 n``.

    Indices ``0 .. n - 1`` are the rotations of `CyclicGroup`. Index ``n + i`` is "reflect the last image axis
    (``torch.flip(image, (-1,))``), then rotate by ``i``". So ``r^i m r^j = r^(i - j) m``.

    Args:
        n: Number of rotations, at least 1. The order is twice that.

    Raises:
        ValueError: ``n`` is not a positive int.

    Example:
        >>> from gconv_ga.groups import DihedralGroup
        >>> DihedralGroup(4), DihedralGroup(4).name, DihedralGroup(4).order
        (DihedralGroup(4), 'D4', 8)
        >>> DihedralGroup(4).subgroup(DihedralGroup(2))
        (0, 2, 4, 6)
    """

    @property
    def order(self) -> int:
        return 2 * self.n

    @property
    def name(self) -> str:
        return f"D{self.n}"

    def _as_rotation_and_reflection(self, element: int) -> tuple[int, bool]:
        return element % self.n, element >= self.n

    def _as_element(self, rotation: int, reflects: bool) -> int:
        return rotation % self.n + (self.n if reflects else 0)

    def _indices_of(self, other: Group) -> tuple[int, ...] | None:
        if not isinstance(other, CyclicGroup | DihedralGroup) or self.n % other.n:
            return None
        rotations = tuple(range(0, self.n, self.n // other.n))
        return rotations if isinstance(other, CyclicGroup) else rotations + tuple(self.n + i for i in rotations)


C1, C2, C3, C4 = CyclicGroup(1), CyclicGroup(2), CyclicGroup(3), CyclicGroup(4)
C6, C8, C12, C16 = CyclicGroup(6), CyclicGroup(8), CyclicGroup(12), CyclicGroup(16)
D1, D2, D3, D4 = DihedralGroup(1), DihedralGroup(2), DihedralGroup(3), DihedralGroup(4)
D6, D8 = DihedralGroup(6), DihedralGroup(8)


def as_group(group: Any, argument: str = "group") -> Group:
    """Return ``group`` itself, or the group of that name.

    Args:
        group: A `Group` or its name, such as ``"C4"`` or ``"D4"`` (lower case works too).
        argument: Name of the argument in the error message.

    Raises:
        ValueError: ``group`` is neither. Numbers are refused, since ``4`` could mean ``C4`` or four blocks of channels
            (``groups=4``).

    Example:
        >>> from gconv_ga.groups import DihedralGroup, as_group
        >>> as_group("c8"), as_group(DihedralGroup(2))
        (CyclicGroup(8), DihedralGroup(2))
    """
    if isinstance(group, Group):
        return group
    if isinstance(group, str):
        match = re.fullmatch(r"([CcDd])([1-9][0-9]{0,5})", group.strip())
        if match:
            return (CyclicGroup if match[1] in "Cc" else DihedralGroup)(int(match[2]))
    is_number = isinstance(group, int) and group is not True and group > 0
    advice = f"for the group of {group} rotations write 'C{group}'; for blocks of channels write groups={group}"
    raise invalid(argument, "a group or its name, such as C4, 'C4' or 'D4'", group, advice if is_number else "")
