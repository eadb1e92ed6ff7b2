"""Field types of escnn in terms of this package: the group, the fields, and the order of their elements."""

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from .._validate import invalid, missing_extra
from ..groups import CyclicGroup, DihedralGroup, Group

ROOM = __name__.rpartition(".")[0]


def load_escnn() -> ModuleType:
    """Import escnn with its modules ``nn`` and ``gspaces``.

    Raises:
        ModuleNotFoundError: escnn is not installed.
    """
    try:
        import escnn
        import escnn.gspaces
        import escnn.nn
    except ModuleNotFoundError as error:
        raise missing_extra(ROOM, "escnn", error) from error
    return escnn


@dataclass(frozen=True)
class Fields:
    """An escnn field type in terms of this package.

    Args:
        group: The group.
        count: Number of fields.
        regular: Whether they are feature maps on the group, ``[B, count, |G|, H, W]``, or images, ``[B, count, H, W]``.
        channels: For each group element in our order, its channel in an escnn field.
    """

    group: Group
    count: int
    regular: bool
    channels: tuple[int, ...]


def read_fields(kind: Any, path: str) -> Fields:
    """Read an escnn field type.

    Args:
        kind: The type.
        path: Path of the module that has it, for the message.

    Raises:
        ValueError: The group is not a C_n, nor a D_n that reflects about the vertical axis, or the fields are neither
            all regular nor all trivial.
    """
    space = kind.gspace
    group, channels = _read_group(space, path)
    found = set(kind.representations)
    if found not in ({space.regular_repr}, {space.trivial_repr}):
        names = ", ".join(sorted({_single_spaced(field.name) for field in found}))
        advice = "mixed and other fields have no counterpart here: split the layer, or keep to regular fields"
        raise invalid(f"{path}'s fields", "all regular or all trivial", names, advice)
    return Fields(group, len(kind), found == {space.regular_repr}, channels)


def _single_spaced(name: str) -> str:
    return re.sub(r"\s+", " ", name)


def _read_group(space: Any, path: str) -> tuple[Group, tuple[int, ...]]:
    """Return the group of an escnn plane, and for each of our elements its index among escnn's."""
    escnn = load_escnn()
    finite = isinstance(space, escnn.gspaces.GSpace2D) and space.fibergroup.order() > 0
    if not finite:
        advice = "infinite groups and other spaces have no counterpart here"
        raise invalid(f"{path}'s space", "a plane with a group C_n or D_n", space.name, advice)
    matrices = torch.stack(
        [torch.as_tensor(space.basespace_action(g)).double().view(2, 2) for g in space.fibergroup.elements]
    )
    rotations = int((torch.linalg.det(matrices) > 0).sum())
    group = CyclicGroup(rotations) if rotations == len(matrices) else DihedralGroup(rotations)
    # The matrices give the sense of rotation, the axis of the reflection and the order of the elements.
    distances = (group.matrices.unsqueeze(1) - matrices).abs().amax((2, 3))
    if float(distances.amin(1).max()) > 1e-6:
        advice = f"in escnn that is flipRot2dOnR2({rotations}) with its default axis"
        raise invalid(f"{path}'s mirror axis", "the vertical, or one that a rotation moves there", space.name, advice)
    return group, tuple(distances.argmin(1).tolist())


def make_type(group: Group, count: int, regular: bool) -> Any:
    """Return the escnn type of ``count`` fields, whose elements are in our order."""
    gspaces, n = load_escnn().gspaces, group.n
    if isinstance(group, DihedralGroup):
        space = gspaces.flipRot2dOnR2(n) if n > 1 else gspaces.flip2dOnR2()
    else:
        space = gspaces.rot2dOnR2(n) if n > 1 else gspaces.trivialOnR2()
    return load_escnn().nn.FieldType(space, count * [space.regular_repr if regular else space.trivial_repr])
