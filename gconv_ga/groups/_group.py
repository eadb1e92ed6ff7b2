"""Finite groups of the plane: rotations and reflections, their products, matrices and names."""

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._validate import as_int, invalid

if TYPE_CHECKING:  # groups are numbers: the command line checks their names without loading torch
    from torch import Tensor


@dataclass(frozen=True, repr=False)
class Group(ABC):
    """A finite group of rotations and reflections of the plane, immutable, hashable and picklable.

    Use `CyclicGroup` or `DihedralGroup`; this class holds what they share.

    Args:
        n: The number of rotations.

    Raises:
        ValueError: ``n`` is no positive int.
    """

    n: int

    def __post_init__(self) -> None:
        # A frozen dataclass takes its checked value only this way.
        number = as_int("n", self.n, minimum=1, advice="a group of the plane has a whole number of rotations")
        object.__setattr__(self, "n", number)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n})"

    @property
    @abstractmethod
    def order(self) -> int:
        """The number of elements, ``|G|``."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The short name, such as ``"C4"``; wherever a group is taken, its name is taken too."""

    @abstractmethod
    def _rotation_and_mirror(self, element: int) -> tuple[int, bool]:
        """``(i, mirrored)`` of the element "mirror if mirrored, then rotate by i"."""

    @abstractmethod
    def _element(self, rotation: int, mirrored: bool) -> int:
        """The inverse of `_rotation_and_mirror`; the rotation is taken modulo ``n``."""

    @abstractmethod
    def _embed(self, other: "Group") -> tuple[int, ...] | None:
        """Where ``other``'s elements are in this group, in their order; None if it is no subgroup."""

    def _checked(self, argument: str, element: int) -> int:
        number = as_int(argument, element, minimum=0)
        if number >= self.order:
            raise invalid(argument, f"an element 0 .. {self.order - 1} of {self.name}", element)
        return number

    def product(self, g: int, h: int) -> int:
        """The element ``g h``: first ``h`` acts, then ``g``.

        Args:
            g: An element, ``0 .. |G| - 1``.
            h: An element.

        Raises:
            ValueError: ``g`` or ``h`` is no element.

        Example:
            >>> from gconv_ga.groups import D4
            >>> D4.product(1, 4), D4.product(4, 1)  # r m is not m r
            (5, 7)
        """
        i, p = self._rotation_and_mirror(self._checked("g", g))
        j, q = self._rotation_and_mirror(self._checked("h", h))
        # r^i m r^j = r^(i - j) m
        return self._element(i - j if p else i + j, p != q)

    def inverse(self, g: int) -> int:
        """The element ``h`` with ``g h = h g = 0``.

        Raises:
            ValueError: ``g`` is no element.
        """
        i, mirrored = self._rotation_and_mirror(self._checked("g", g))
        return self._element(i, True) if mirrored else self._element(-i, False)

    @property
    def products(self) -> tuple[tuple[int, ...], ...]:
        """The Cayley table as rows of ints, ``products[g][h] = product(g, h)``; computed once for each group.

        Example:
            >>> from gconv_ga.groups import C3
            >>> C3.products
            ((0, 1, 2), (1, 2, 0), (2, 0, 1))
        """
        return _cayley(self)

    @property
    def cayley_table(self) -> "Tensor":
        """The products, ``table[g, h] = product(g, h)``: a new int64 tensor ``[|G|, |G|]`` at each call."""
        import torch

        return torch.tensor(self.products)

    @property
    def matrices(self) -> "Tensor":
        """The 2 x 2 matrices, a homomorphism: a new float64 tensor ``[|G|, 2, 2]`` at each call.

        They act on columns ``(x, y)`` with x to the right and y **up**, so that index 1 of ``C_n`` rotates
        counter-clockwise by ``2 pi / n``. Entries at multiples of 90 degrees are exactly -1, 0 and 1.
        """
        import torch

        return torch.tensor([self.matrix(g) for g in range(self.order)], dtype=torch.float64)

    def matrix(self, element: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """One of the `matrices`, as rows of floats: for code that decides by its entries, or is traced.

        Args:
            element: An element.

        Raises:
            ValueError: ``element`` is no element.

        Example:
            >>> from gconv_ga.groups import D4
            >>> D4.matrix(4)  # the mirror: x to -x
            ((-1.0, 0.0), (0.0, 1.0))
        """
        i, mirrored = self._rotation_and_mirror(self._checked("element", element))
        quarters, rest = divmod(4 * i, self.n)
        if rest == 0:
            cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[quarters]
        else:
            cos, sin = math.cos(2 * math.pi * i / self.n), math.sin(2 * math.pi * i / self.n)
        # The mirror sends x to -x and acts first, so it changes the sign of the first column.
        sign = -1.0 if mirrored else 1.0
        # "+ 0.0" turns the -0.0 of a mirrored zero into 0.0.
        return ((sign * cos + 0.0, -sin + 0.0), (sign * sin + 0.0, cos))

    def is_exact(self, element: int | None = None) -> bool:
        """Whether an element moves pixels to pixels: a multiple of 90 degrees, mirrored or not.

        Args:
            element: An element; None asks for all of them.

        Raises:
            ValueError: ``element`` is no element.

        Example:
            >>> from gconv_ga.groups import C4, C8
            >>> C4.is_exact(), C8.is_exact(), C8.is_exact(2)
            (True, False, True)
        """
        if element is None:
            return 4 % self.n == 0
        i, _ = self._rotation_and_mirror(self._checked("element", element))
        return 4 * i % self.n == 0

    def subgroup(self, of: "Group | str | Iterable[int]") -> tuple[int, ...]:
        """Where a subgroup's elements are in this group.

        Args:
            of: A group or its name (its elements are listed in its own order), or element indices (they must be closed
                under the product; they are listed in ascending order).

        Returns:
            The indices in this group; the identity is first.

        Raises:
            ValueError: It is no subgroup. "Half of the rotations" is one only if it is closed.

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
            found = self._embed(of)
            if found is None:
                raise invalid("of", f"a subgroup of {self.name}", of)
            return found
        if not isinstance(of, Iterable):
            raise invalid("of", f"a group, its name or a list of elements of {self.name}", of)
        elements = sorted({self._checked("of", g) for g in of})
        closed = bool(elements) and all(self.products[g][h] in elements for g in elements for h in elements)
        if not closed:
            raise invalid("of", f"closed under the product of {self.name}", elements, "add the missing products")
        return tuple(elements)


@functools.cache
def _cayley(group: Group) -> tuple[tuple[int, ...], ...]:
    elements = range(group.order)
    return tuple(tuple(group.product(g, h) for h in elements) for g in elements)


@dataclass(frozen=True, repr=False)
class CyclicGroup(Group):
    """The cyclic group ``C_n`` of the rotations by multiples of ``360 / n`` degrees.

    Index ``i`` is the counter-clockwise rotation by ``2 pi i / n`` radians; for ``n = 4`` it does to an image what
    ``torch.rot90(image, i, (-2, -1))`` does.

    Args:
        n: The number of rotations, at least 1.

    Raises:
        ValueError: ``n`` is no positive int.

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

    def _rotation_and_mirror(self, element: int) -> tuple[int, bool]:
        return element, False

    def _element(self, rotation: int, mirrored: bool) -> int:
        return rotation % self.n

    def _embed(self, other: Group) -> tuple[int, ...] | None:
        if not isinstance(other, CyclicGroup) or self.n % other.n:
            return None
        return tuple(range(0, self.n, self.n // other.n))


@dataclass(frozen=True, repr=False)
class DihedralGroup(Group):
    """The dihedral group ``D_n`` of ``n`` rotations and ``n`` mirrors, of order ``2 n``.

    Indices ``0 .. n - 1`` are the rotations of `CyclicGroup`; index ``n + i`` is "mirror the last image axis
    (``torch.flip(image, (-1,))``), then rotate by ``i``". So ``r^i m r^j = r^(i - j) m``.

    Args:
        n: The number of rotations, at least 1; the order is twice that.

    Raises:
        ValueError: ``n`` is no positive int.

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

    def _rotation_and_mirror(self, element: int) -> tuple[int, bool]:
        return element % self.n, element >= self.n

    def _element(self, rotation: int, mirrored: bool) -> int:
        return rotation % self.n + (self.n if mirrored else 0)

    def _embed(self, other: Group) -> tuple[int, ...] | None:
        if not isinstance(other, CyclicGroup | DihedralGroup) or self.n % other.n:
            return None
        rotations = tuple(range(0, self.n, self.n // other.n))
        return rotations if isinstance(other, CyclicGroup) else rotations + tuple(self.n + i for i in rotations)


C1, C2, C3, C4 = CyclicGroup(1), CyclicGroup(2), CyclicGroup(3), CyclicGroup(4)
C6, C8, C12, C16 = CyclicGroup(6), CyclicGroup(8), CyclicGroup(12), CyclicGroup(16)
D1, D2, D3, D4 = DihedralGroup(1), DihedralGroup(2), DihedralGroup(3), DihedralGroup(4)
D6, D8 = DihedralGroup(6), DihedralGroup(8)


def as_group(group: Any, argument: str = "group") -> Group:
    """The group that ``group`` means: itself, or the one with that name.

    Args:
        group: A `Group` or a name such as ``"C4"`` or ``"D4"`` (small letters too).
        argument: The argument's name, for the message.

    Raises:
        ValueError: It is neither. A number is refused: is ``4`` ``C4``, or four blocks of channels
            (``groups=4``)?

    Example:
        >>> from gconv_ga.groups import DihedralGroup, as_group
        >>> as_group("c8"), as_group(DihedralGroup(2))
        (CyclicGroup(8), DihedralGroup(2))
    """
    if isinstance(group, Group):
        return group
    if isinstance(group, str):
        found = re.fullmatch(r"([CcDd])([1-9][0-9]{0,5})", group.strip())
        if found:
            return (CyclicGroup if found[1] in "Cc" else DihedralGroup)(int(found[2]))
    is_number = isinstance(group, int) and group is not True and group > 0
    advice = f"for the group of {group} rotations say 'C{group}'; for blocks of channels say groups={group}"
    raise invalid(argument, "a group or its name, such as C4, 'C4' or 'D4'", group, advice if is_number else "")
