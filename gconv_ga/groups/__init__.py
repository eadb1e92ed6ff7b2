"""Finite groups of rotations and reflections of the plane.

An element is an index ``0 .. |G| - 1``, and ``0`` is the identity. In ``C_n`` index ``i`` is the counter-clockwise
rotation by ``2 pi i / n``. In ``D_n`` (order ``2 n``) the indices ``0 .. n - 1`` are the rotations, and ``n + i`` is
"reflect the last image axis, then rotate by ``i``".

Names: `Group`, `CyclicGroup`, `DihedralGroup`, `as_group`, and the ready-made ``C1 C2 C3 C4 C6 C8 C12 C16`` and
``D1 D2 D3 D4 D6 D8``.

Example:
    >>> from gconv_ga.groups import C4, D4, as_group
    >>> C4.product(1, 3), C4.inverse(1), D4.order
    (0, 3, 8)
    >>> as_group("D4") == D4
    True
"""

from ._group import (
    C1,
    C2,
    C3,
    C4,
    C6,
    C8,
    C12,
    C16,
    D1,
    D2,
    D3,
    D4,
    D6,
    D8,
    CyclicGroup,
    DihedralGroup,
    Group,
    as_group,
)

__all__ = [
    "C1",
    "C2",
    "C3",
    "C4",
    "C6",
    "C8",
    "C12",
    "C16",
    "D1",
    "D2",
    "D3",
    "D4",
    "D6",
    "D8",
    "CyclicGroup",
    "DihedralGroup",
    "Group",
    "as_group",
]
