"""Field types of escnn in terms of this package: the group, the fields, and the order of their elements."""

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
    if not hasattr(escnn, "__file__"):
        # In `without_escnn` the import finds stand-ins.
        raise missing_extra(ROOM, "escnn", ModuleNotFoundError("No module named 'escnn'", name="escnn"))
    return escnn


@dataclass(frozen=True)
class Fields:
    """An escnn field type in terms of this package.

    Args:
        group: The group. If it has no counterpart here, its largest subgroup that moves pixels to pixels.
        count: Number of fields.
        kind: "regular" for feature maps on the group, ``[B, count, |G|, H, W]``; "trivial" for images,
            ``[B, count, H, W]``; "other" for mixed fields, vectors, ..., with escnn's channels ``[B, C, H, W]``.
        channels: For regular fields: for each group element in our order, its channel in an escnn field.
        sizes: Number of channels of each field.
    """

    group: Group
    count: int
    kind: str
    channels: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def regular(self) -> bool:
        """True for feature maps on the group."""
        return self.kind == "regular"


def read_fields(kind: Any, path: str) -> Fields:
    """Read an escnn field type.

    Args:
        kind: The type.
        path: Path of the module that has it, for the message.

    Raises:
        ValueError: The fields are not on a plane.
    """
    space = kind.gspace
    group, channels = _read_group(space, path)
    found = set(kind.representations)
    sizes = tuple(field.size for field in kind.representations)
    name = "other"
    if found == {space.trivial_repr}:
        name = "trivial"
    elif channels and found == {space.regular_repr}:  # an infinite group has no such fields
        name = "regular"
    return Fields(group, len(kind), name, channels, sizes)


def _read_group(space: Any, path: str) -> tuple[Group, tuple[int, ...]]:
    """Return the group of an escnn plane, and for each of our elements its index among escnn's.

    If it is not a group of ours, there are no indices, and the group is the subgroup that moves pixels to pixels.
    """
    escnn = load_escnn()
    if not isinstance(space, escnn.gspaces.GSpace2D):
        advice = "convert networks for images; volumes and point clouds have no counterpart here"
        raise invalid(f"{path}'s space", "a plane", space.name, advice)
    if space.fibergroup.order() <= 0:
        mirrors = space.fibergroup.name.startswith("O")
        return DihedralGroup(4) if mirrors else CyclicGroup(4), ()
    matrices = torch.stack(
        [torch.as_tensor(space.basespace_action(g)).double().view(2, 2) for g in space.fibergroup.elements]
    )
    rotations = int((torch.linalg.det(matrices) > 0).sum())
    group: Group = CyclicGroup(rotations) if rotations == len(matrices) else DihedralGroup(rotations)
    # The matrices give the sense of rotation, the axis of the reflection and the order of the elements.
    distances = (group.matrices.unsqueeze(1) - matrices).abs().amax((2, 3))
    if float(distances.amin(1).max()) > 1e-6:
        # A tilted mirror moves no pixel to a pixel.
        return CyclicGroup(next(n for n in (4, 2, 1) if rotations % n == 0)), ()
    return group, tuple(distances.argmin(1).tolist())


def make_type(group: Group, count: int, regular: bool) -> Any:
    """Return the escnn type of ``count`` fields, whose elements are in our order."""
    gspaces, n = load_escnn().gspaces, group.n
    if isinstance(group, DihedralGroup):
        space = gspaces.flipRot2dOnR2(n) if n > 1 else gspaces.flip2dOnR2()
    else:
        space = gspaces.rot2dOnR2(n) if n > 1 else gspaces.trivialOnR2()
    return load_escnn().nn.FieldType(space, count * [space.regular_repr if regular else space.trivial_repr])
