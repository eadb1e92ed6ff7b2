"""What convolutions on an orbit in the batch share: the plain layer's parameters, turned kernels, taps."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from .._validate import invalid
from ..filters import GridFilters
from ..groups import Group
from ..nn.authoring import Geometry, KeepsKernels, make_geometry, nearest_elements

# A layer turns its maps instead of its kernels where there are fewer numbers to move than so many for each number of
# its kernel. Measured on a CPU with benchmarks/conversion.py: kept kernels need no turning, only more memory traffic.
MAPS_FOR_A_KERNEL = {"kept": 4.0, "turned": 8.0}


class OrbitConvolution(KeepsKernels):
    """A plain convolution, changed in place into one on orbits; the parameters stay, under their names.

    The maps of orientation ``g`` meet ``L_g k``. Where kernels are large and maps are small the same is computed the
    other way round: the maps are turned upright, meet the kernel as it is, and are turned back.
    """

    turn_index: Tensor
    turn_and_shift_index: Tensor
    neighbours: Tensor
    weight: Tensor
    stride: tuple[int, ...]
    kernel_size: tuple[int, ...]
    groups: int
    taps: nn.Parameter | None
    group: Group
    geometry: Geometry
    filters: GridFilters
    # Whether the input is the same for all orientations on the example, as the image is.
    lifts: bool = False

    @classmethod
    def of(cls, plain: Any, group: Group) -> Self:
        """``plain`` itself, made a layer on orbits: whoever holds it, by whatever name, holds the new one.

        Raises:
            ValueError: A quarter turn would change the output's size.
        """
        geometry = make_geometry(group, plain.kernel_size, plain.stride, plain.padding, plain.dilation)
        filters = GridFilters(group, plain.kernel_size)
        plain.__class__ = cls
        plain.group, plain.geometry, plain.filters = group, geometry, filters
        for name, table in filters.tables().items():
            plain.register_buffer(name, table.to(plain.weight.device), persistent=False)
        plain.register_parameter("taps", None)
        plain.register_buffer("neighbours", plain._neighbours(1), persistent=False)  # noqa: SLF001  it is one of us
        return plain

    @property
    def count(self) -> int:
        """How many elements the kernel has planes for."""
        return 1 if self.taps is None else 1 + self.taps.shape[0] // self.weight.shape[0]

    def open(self, count: int) -> None:
        """Add planes, as zeros, for the ``count`` elements nearest the identity; planes that are there stay.

        Raises:
            ValueError: ``count`` is not within ``1 .. |G|``, or fewer than there are.
        """
        neighbours = self._neighbours(count)
        if count < self.count:
            raise invalid("group_kernel_size", f"at least {self.count}, the planes that are open", count)
        if count == self.count:
            return
        self.neighbours = neighbours
        # Four axes: `.to(memory_format=torch.channels_last)` takes no more.
        taps = self.weight.new_zeros(((count - 1) * self.weight.shape[0], *self.weight.shape[1:]))
        if self.taps is not None:
            taps[: self.taps.shape[0]] = self.taps.detach()
        self.taps = nn.Parameter(taps)

    def _neighbours(self, count: int) -> Tensor:
        """For each orientation the one that plane ``u`` has to do with, ``[|G|, count]``."""
        elements = nearest_elements(self.group, count)
        index = [[self._source(g, u) for u in elements] for g in range(self.group.order)]
        return torch.tensor(index, device=self.weight.device)

    def _source(self, g: int, u: int) -> int:
        raise NotImplementedError

    def planes(self) -> Tensor:
        """The kernel with all its planes, ``[rows, columns, m, kh, kw]``."""
        weights = self.weight if self.taps is None else torch.cat((self.weight, self.taps))
        return weights.unflatten(0, (self.count, -1)).permute(1, 2, 0, 3, 4)

    def turned(self, shifted: bool) -> Tensor:
        """The stack of turned kernels, ``[rows, |G|, J, kh kw]``, J = (column, plane).

        Args:
            shifted: Whether plane ``h`` belongs to orientation ``h`` of the input, ``k_(g^-1 h)``, and not to ``g u``;
                that takes a plane for every element.
        """
        tables = {"turn_index": self.turn_index, "turn_and_shift_index": self.turn_and_shift_index}
        if shifted:
            return self.filters.turn_and_shift(self.planes(), tables)
        return self.filters.turn(self.planes().flatten(1, 2), tables)

    @property
    def _mixes_all(self) -> bool:
        return self.taps is not None and self.count == self.group.order and self.groups == 1

    def _laid_out(self) -> Tensor:
        """`turned`, with elements first in memory: the order in which a convolution reads it."""
        return self.turned(self._mixes_all).transpose(0, 1).contiguous().transpose(0, 1)

    def _kernels(self) -> Tensor:
        return self._kept(self._laid_out, *self._weights)

    @property
    def _weights(self) -> tuple[Tensor, ...]:
        return (self.weight,) if self.taps is None else (self.weight, self.taps)

    def _moves_maps(self, maps: int) -> bool:
        """Whether turning so many numbers of maps costs less than turning the kernel.

        An exported program always turns the maps of a layer whose orientations have windows of their own: it is to run
        at other sizes than the example's.
        """
        if torch.compiler.is_exporting():
            rows, columns = self.geometry.rows, self.geometry.columns
            return max(self.stride) > 1 or rows != columns or rows.low != rows.high
        learning = torch.is_grad_enabled() and any(weight.requires_grad for weight in self._weights)
        kernel = sum(weight.numel() for weight in self._weights)
        return maps < kernel * MAPS_FOR_A_KERNEL["turned" if self.training or learning else "kept"]

    def _opened_repr(self, plain: str) -> str:
        text = f"{plain}, group={self.group.name!r}"
        return text if self.taps is None else f"{text}, taps={self.count}"
