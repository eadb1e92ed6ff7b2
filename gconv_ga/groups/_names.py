"""Groups by name: the ready-made ones, and whatever a user typed."""

import re
from typing import Any

from .._validate import invalid
from ._cyclic import CyclicGroup
from ._dihedral import DihedralGroup
from ._group import Group

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
