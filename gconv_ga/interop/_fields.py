"""escnn's field types and ours: which group, which fields, in which order their elements lie."""

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from .._validate import invalid, missing_extra
from ..groups import CyclicGroup, DihedralGroup, Group

ROOM = __name__.rpartition(".")[0]


def load_escnn() -> ModuleType:
    """escnn, with its rooms ``nn`` and ``gspaces``.

    Raises:
        ModuleNotFoundError: It is not installed.
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
    """What an escnn type says, in our words.

    Args:
        group: The group.
        count: How many fields there are.
        regular: Whether they are maps on the group, ``[B, count, |G|, H, W]``, or images, ``[B, count, H, W]``.
        channels: Where each of our elements lies among the channels of an escnn field.
    """

    group: Group
    count: int
    regular: bool
    channels: tuple[int, ...]


def read_fields(kind: Any, path: str) -> Fields:
    """An escnn type in our words.

    Args:
        kind: The type.
        path: The module that has it, for the message.

    Raises:
        ValueError: The group is no C_n or D_n that mirrors about the vertical axis, or the fields are neither all
            regular nor all trivial.
    """
    space = kind.gspace
    group, channels = _read_group(space, path)
    found = set(kind.representations)
    if found not in ({space.regular_repr}, {space.trivial_repr}):
        names = ", ".join(sorted({_plain(field.name) for field in found}))
        advice = "mixed and other fields have no counterpart here: split the layer, or keep to regular fields"
        raise invalid(f"{path}'s fields", "all regular or all trivial", names, advice)
    return Fields(group, len(kind), found == {space.regular_repr}, channels)


def _plain(name: str) -> str:
    return re.sub(r"\s+", " ", name)


def _read_group(space: Any, path: str) -> tuple[Group, tuple[int, ...]]:
    """The group of a plane of escnn's, and where each of our elements lies among escnn's."""
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
    # The matrices say it all: which way positive angles turn, what is mirrored, and in which order elements come.
    far = (group.matrices.unsqueeze(1) - matrices).abs().amax((2, 3))
    if float(far.amin(1).max()) > 1e-6:
        advice = f"in escnn that is flipRot2dOnR2({rotations}) as it comes, without an axis of your own"
        raise invalid(f"{path}'s mirror axis", "the vertical, or one that a rotation moves there", space.name, advice)
    return group, tuple(far.argmin(1).tolist())


def make_type(group: Group, count: int, regular: bool) -> Any:
    """The escnn type of ``count`` fields; its elements are in our order."""
    gspaces, n = load_escnn().gspaces, group.n
    if isinstance(group, DihedralGroup):
        space = gspaces.flipRot2dOnR2(n) if n > 1 else gspaces.flip2dOnR2()
    else:
        space = gspaces.rot2dOnR2(n) if n > 1 else gspaces.trivialOnR2()
    return load_escnn().nn.FieldType(space, count * [space.regular_repr if regular else space.trivial_repr])
