"""The cyclic groups: rotations."""

from dataclasses import dataclass

from ._group import Group


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
