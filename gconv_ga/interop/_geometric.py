"""Light stand-ins for escnn's geometric tensors and their types, with which a user's forward runs as it is.

They hold names and sizes only, so that a saved network holds nothing of escnn. Where escnn is installed they pass for
instances of its classes, and its own functions, such as ``tensor_directsum``, take them.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor

from .._validate import invalid, wrong_shape


def _passes_for(name: str) -> property:
    """Return a property ``__class__`` with which ``isinstance`` holds for the class of ``escnn.nn`` of that name."""

    def of(self: Any) -> type:
        # Only if somebody has imported escnn: nobody else can ask.
        found = getattr(sys.modules.get("escnn.nn"), name, None)
        return found if isinstance(found, type) else type(self)

    return property(of)


class _StandIn:
    """Base class: says what is missing where code asks for more than names and sizes."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        kind = type(self).__name__
        raise AttributeError(
            f"{kind} has no {name!r}: in a converted network it stands in for escnn's {kind}, with names and sizes "
            "only. Compute what you need of it before conversion and keep that as an attribute."
        )


@dataclass(frozen=True)
class Group(_StandIn):
    """Stand-in for an escnn group.

    Args:
        name: Its name.
        size: Number of elements; -1 if infinite.
    """

    name: str
    size: int

    def order(self) -> int:
        """Return the number of elements; -1 if infinite."""
        return self.size


@dataclass(frozen=True)
class Representation(_StandIn):
    """Stand-in for an escnn representation.

    Args:
        name: Its name.
        size: Number of channels.
        group: Its group.
    """

    name: str
    size: int
    group: Group


@dataclass(frozen=True)
class GSpace2D(_StandIn):
    """Stand-in for an escnn plane.

    Args:
        name: Its name.
        fibergroup: Its group.
        trivial_repr: The representation of scalars.
        regular_repr: The representation of feature maps on the group, None for an infinite one.
    """

    name: str
    fibergroup: Group
    trivial_repr: Representation
    regular_repr: Representation | None
    dimensionality: int = 2


class FieldType(_StandIn):
    """Stand-in for an escnn field type: called with a tensor, it returns a `GeometricTensor`.

    Args:
        gspace: The plane.
        representations: One for each field.
    """

    __class__ = _passes_for("FieldType")

    def __init__(self, gspace: Any, representations: Sequence[Any]) -> None:
        self.gspace, self.representations = gspace, tuple(representations)
        self.size: int = sum(field.size for field in self.representations)

    @property
    def fibergroup(self) -> Any:
        """The group."""
        return self.gspace.fibergroup

    @property
    def uniform(self) -> bool:
        """True if all fields are of one kind."""
        return len(set(self.representations)) == 1

    @property
    def fields_names(self) -> list[str]:
        """Name of the representation of each field."""
        return [field.name for field in self.representations]

    @property
    def fields_end(self) -> list[int]:
        """For each field, the first channel after it."""
        return list(accumulate(field.size for field in self.representations))

    @property
    def fields_start(self) -> list[int]:
        """For each field, its first channel."""
        return [0, *self.fields_end[:-1]]

    def index_select(self, index: Sequence[int]) -> "FieldType":
        """Return the type of some of the fields."""
        return FieldType(self.gspace, [self.representations[i] for i in index])

    def __call__(self, tensor: Tensor, coords: None = None) -> "GeometricTensor":
        return GeometricTensor(tensor, self, coords)

    def __add__(self, other: Any) -> "FieldType":
        return FieldType(self.gspace, self.representations + tuple(other.representations))

    def __len__(self) -> int:
        return len(self.representations)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.representations)

    def __eq__(self, other: object) -> bool:
        return _names(self) == _names(other)

    def __hash__(self) -> int:
        return hash(_names(self))

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling would otherwise ask for the class that this one passes for.
        return FieldType, (self.gspace, self.representations)

    def __repr__(self) -> str:
        runs = ((name, len(list(run))) for name, run in groupby(field.name for field in self.representations))
        return f"[{self.gspace.name}: {{{', '.join(f'{name} (x{count})' for name, count in runs)}}}({self.size})]"


def _names(kind: Any) -> Any:
    """Return what tells types apart, of escnn's types and of stand-ins."""
    if not hasattr(kind, "representations") or not hasattr(kind, "gspace"):
        return kind
    return kind.gspace.name, tuple(field.name for field in kind.representations)


class GeometricTensor(_StandIn):
    """Stand-in for an escnn geometric tensor: a tensor with a type.

    Args:
        tensor: The tensor.
        type: Its type.
        coords: None, as for every image.

    Shape:
        - tensor: ``[B, C, H, W]``, with escnn's channels

    Raises:
        ValueError: The tensor has other axes than its type, or points have coordinates.
    """

    __class__ = _passes_for("GeometricTensor")

    def __init__(self, tensor: Tensor, type: Any, coords: None = None) -> None:
        if coords is not None:
            raise invalid("coords", "None", coords, "networks on point clouds are not converted")
        if tensor.ndim != 4 or tensor.shape[1] != type.size:
            raise wrong_shape("tensor", f"[B, C={type.size}, H, W] of the type {type}", tensor)
        self.tensor, self.type, self.coords = tensor, type, None

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.tensor.shape

    def size(self) -> torch.Size:
        """Return the shape of the tensor."""
        return self.tensor.size()

    def to(self, *args: Any, **kwargs: Any) -> "GeometricTensor":
        """Return the tensor in another dtype or on another device."""
        return GeometricTensor(self.tensor.to(*args, **kwargs), self.type)

    def split(self, breaks: Sequence[int] | None) -> list["GeometricTensor"]:
        """Return pieces that end before the fields ``breaks``, then the rest; if None, one for each field."""
        fields = self.type.representations
        ends = [*(range(1, len(fields)) if breaks is None else breaks), len(fields)]
        kinds = [FieldType(self.type.gspace, fields[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        parts = self.tensor.split([kind.size for kind in kinds], dim=1)
        return [GeometricTensor(part, kind) for part, kind in zip(parts, kinds, strict=True)]

    def has_same_coords(self, other: Any) -> bool:
        """Return whether the other tensor is an image too."""
        return other.coords is None

    def is_compatible(self, other: Any) -> bool:
        """Return whether the other tensor has the same type."""
        return self.type == other.type and self.has_same_coords(other)

    def _check(self, other: Any) -> None:
        if not hasattr(other, "type") or not self.type == other.type:
            raise invalid("other", f"a geometric tensor of the type {self.type}", getattr(other, "type", other))

    def __add__(self, other: Any) -> "GeometricTensor":
        self._check(other)
        return GeometricTensor(self.tensor + other.tensor, self.type)

    def __sub__(self, other: Any) -> "GeometricTensor":
        self._check(other)
        return GeometricTensor(self.tensor - other.tensor, self.type)

    def __iadd__(self, other: Any) -> "GeometricTensor":
        self._check(other)
        self.tensor += other.tensor
        return self

    def __isub__(self, other: Any) -> "GeometricTensor":
        self._check(other)
        self.tensor -= other.tensor
        return self

    def __mul__(self, factor: Any) -> "GeometricTensor":
        return GeometricTensor(self.tensor * _scalar(factor), self.type)

    __rmul__ = __mul__

    def __imul__(self, factor: Any) -> "GeometricTensor":
        self.tensor *= _scalar(factor)
        return self

    def __getitem__(self, index: Any) -> "GeometricTensor":
        picked = self.tensor[index]
        if picked.ndim != 4 or picked.shape[1] != self.type.size:
            raise invalid("index", "such that all four axes and all channels stay", index, "index .tensor instead")
        return GeometricTensor(picked, self.type)

    def __repr__(self) -> str:
        return f"GeometricTensor(shape={tuple(self.shape)}, type={self.type})"

    def __reduce__(self) -> tuple[Any, ...]:
        return GeometricTensor, (self.tensor, self.type)


def _scalar(factor: Any) -> Any:
    if isinstance(factor, Tensor) and factor.numel() != 1:
        raise invalid("factor", "a number", factor, "another factor for each channel would break the equivariance")
    return factor


def tensor_directsum(tensors: Sequence[Any]) -> GeometricTensor:
    """Concatenate geometric tensors along their channels; the stand-in for escnn's function of that name."""
    first, *others = tensors
    kind = FieldType(first.type.gspace, [field for tensor in tensors for field in tensor.type.representations])
    data = torch.cat([tensor.tensor for tensor in (first, *others)], dim=1)
    return GeometricTensor(data, kind)


def stand_in(thing: Any, escnn: ModuleType) -> Any:
    """Return the stand-in for a field type, a plane, a representation or a group.

    Args:
        thing: The object of escnn.
        escnn: The package.
    """
    if isinstance(thing, escnn.nn.FieldType):
        return FieldType(stand_in(thing.gspace, escnn), [_representation(field) for field in thing.representations])
    if isinstance(thing, escnn.gspaces.GSpace):
        group = thing.fibergroup
        regular = _representation(thing.regular_repr) if group.order() > 0 else None
        return GSpace2D(thing.name, _group(group), _representation(thing.trivial_repr), regular)
    return _representation(thing) if isinstance(thing, escnn.group.Representation) else _group(thing)


def _representation(thing: Any) -> Representation:
    return Representation(thing.name, thing.size, _group(thing.group))


def _group(thing: Any) -> Group:
    return Group(thing.name, thing.order())
