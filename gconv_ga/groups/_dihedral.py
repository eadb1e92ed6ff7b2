"""The dihedral groups: rotations and mirrors."""

from dataclasses import dataclass

from ._cyclic import CyclicGroup
from ._group import Group


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
