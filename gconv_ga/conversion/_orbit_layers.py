"""What convolutions on an orbit in the batch share: the plain layer's parameters, turned kernels, taps."""

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import invalid
from ..filters import GridFilters
from ..groups import Group
from ..nn.authoring import (
    Geometry,
    KeepsKernels,
    correlate,
    correlate_transposed,
    least_size,
    make_geometry,
    nearest_elements,
)
from ._orbit import conjugate

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
        return self._cached(self._laid_out, *self._weights)

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


class OrbitConv2d(OrbitConvolution, nn.Conv2d):
    """`torch.nn.Conv2d` on an orbit: ``out_g = sum_u (L_g k_u) * x_(g u)``, each orientation on its own grid.

    At first the identity is the only ``u`` and orientations do not mix: the layer is the plain one, conjugated.
    `open` adds kernels ``k_u`` that start at zero.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
        - weight: ``[C_out, C_in / groups, kh, kw]``; taps: ``[(m - 1) C_out, C_in / groups, kh, kw]``
    """

    def _source(self, g: int, u: int) -> int:
        return self.group.product(g, u)

    def _laid_out(self) -> Tensor:
        if not self._mixes_all:
            return super()._laid_out()
        # The maps lie beside each other element by element: planes come before columns.
        stack = self.turned(True).unflatten(2, (-1, self.group.order))
        return stack.permute(1, 0, 3, 2, 4).flatten(2, 3).transpose(0, 1)

    def forward(self, input: Tensor) -> Tensor:
        if self.taps is None and self.kernel_size == self.stride == (1, 1):
            # A single tap is its own turn.
            return super().forward(input)
        if self._moves_maps(self._moved_numbers(input)):
            return self._upright(input)
        maps = input.unflatten(0, (-1, self.group.order))
        x = maps.flatten(1, 2) if self._mixes_all else self._gathered(maps)
        y = correlate(x, self._kernels(), self.bias, self.geometry, self.groups, self.padding_mode, elements_first=True)
        return y.flatten(0, 1)

    def _gathered(self, maps: Tensor) -> Tensor:
        """For each orientation the maps at its taps, ``[B, |G|, C m, H, W]``."""
        if self.taps is None:
            return maps
        return maps[:, self.neighbours].transpose(2, 3).flatten(2, 3)

    def _upright(self, input: Tensor) -> Tensor:
        maps = self._gathered(input.unflatten(0, (-1, self.group.order))).flatten(0, 1)
        kernel = self.planes().flatten(1, 2)
        y: Tensor = conjugate(lambda upright: self._conv_forward(upright, kernel, self.bias), maps, self.group)
        return y

    def _moved_numbers(self, input: Tensor) -> int:
        """How many numbers `_upright` moves."""
        height, width = self.geometry.output_size(input.shape[-2], input.shape[-1])
        return input.numel() * self.count + input.shape[0] * self.out_channels * height * width

    def extra_repr(self) -> str:
        return self._opened_repr(super().extra_repr())


class OrbitConvTranspose2d(OrbitConvolution, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` on an orbit, each orientation put back on its own grid; otherwise as `OrbitConv2d`.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
        - weight: ``[C_in, C_out / groups, kh, kw]``; taps: ``[(m - 1) C_in, C_out / groups, kh, kw]``
    """

    def _source(self, g: int, u: int) -> int:
        return self.group.product(g, self.group.inverse(u))

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        least = least_size(self.geometry, input.shape[-2], input.shape[-1])
        rows, columns = self.output_padding
        if output_size is not None:
            # torch's own check of what is within reach.
            stride, kernel, dilation = list(self.stride), list(self.kernel_size), list(self.dilation)
            padding = [self.geometry.rows.low, self.geometry.columns.low]
            rows, columns = self._output_padding(input, list(output_size), stride, padding, kernel, 2, dilation)
        extra = rows, columns
        size = (least[0] + rows) * (least[1] + columns)
        moved = input.numel() + input.shape[0] * self.out_channels * size
        if self.taps is None and rows == columns and self._moves_maps(moved):
            return self._upright(input, rows)
        maps = input.unflatten(0, (-1, self.group.order))
        sources = None if self._mixes_all else self.neighbours
        y = correlate_transposed(maps, self._kernels(), self.geometry, extra, self.groups, sources, True)
        y = y if self.bias is None else y + self.bias.view(-1, 1, 1)
        return y.flatten(0, 1)

    def _upright(self, input: Tensor, extra: int) -> Tensor:
        stride, dilation = tuple(self.stride), tuple(self.dilation)
        padding = self.geometry.rows.low, self.geometry.columns.low

        def transposed(upright: Tensor) -> Tensor:
            return F.conv_transpose2d(upright, self.weight, self.bias, stride, padding, extra, self.groups, dilation)

        y: Tensor = conjugate(transposed, input, self.group)
        return y

    def extra_repr(self) -> str:
        return self._opened_repr(super().extra_repr())
