"""Plain convolutions on an orbit in the batch: kernels turn, images do not."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import torch
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
)  # fmt: skip
from ._conjugated import outside_modes


class OrbitConvolution(KeepsKernels):
    """What both convolutions on an orbit share: the plain layer's parameters, the tables, the taps."""

    turn_index: Tensor
    turn_and_shift_index: Tensor
    neighbours: Tensor
    weight: Tensor
    groups: int
    taps: nn.Parameter | None
    group: Group
    geometry: Geometry
    filters: GridFilters

    @classmethod
    def of(cls, plain: Any, group: Group) -> Self:
        """The layer that shares ``plain``'s parameters.

        Raises:
            ValueError: A quarter turn would change the output's size.
        """
        geometry = make_geometry(group, plain.kernel_size, plain.stride, plain.padding, plain.dilation)
        new = copy(plain)
        # The plain layer itself stays as it was: only what is held by name is shared.
        for holder in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            setattr(new, holder, copy(getattr(plain, holder)))
        new.__class__ = cls
        new.group, new.geometry, new.filters = group, geometry, GridFilters(group, plain.kernel_size)
        for name, table in new.filters.tables().items():
            new.register_buffer(name, table.to(plain.weight.device), persistent=False)
        new.register_parameter("taps", None)
        return new

    @property
    def count(self) -> int:
        """How many elements the kernel has planes for."""
        return 1 if self.taps is None else 1 + self.taps.shape[0] // self.weight.shape[0]

    def open(self, count: int) -> None:
        """Add planes, as zeros, for the ``count`` elements nearest the identity; planes that are there stay.

        Raises:
            ValueError: ``count`` is not within ``1 .. |G|``, or fewer than there are.
        """
        elements = nearest_elements(self.group, count)
        if count < self.count:
            raise invalid("group_kernel_size", f"at least {self.count}, the planes that are open", count)
        if count == self.count:
            return
        index = torch.tensor([[self._source(g, u) for u in elements] for g in range(self.group.order)])
        self.register_buffer("neighbours", index.to(self.weight.device), persistent=False)
        # Four axes: `.to(memory_format=torch.channels_last)` takes no more.
        taps = self.weight.new_zeros(((count - 1) * self.weight.shape[0], *self.weight.shape[1:]))
        if self.taps is not None:
            taps[: self.taps.shape[0]] = self.taps.detach()
        self.taps = nn.Parameter(taps)

    def _source(self, g: int, u: int) -> int:
        """Which orientation plane ``u`` of orientation ``g`` has to do with."""
        raise NotImplementedError

    def _turn(self) -> Tensor:
        """The stack of turned kernels, ``[rows, |G|, J, kh kw]``, J = (column, plane)."""
        tables = {"turn_index": self.turn_index, "turn_and_shift_index": self.turn_and_shift_index}
        if self.taps is None:
            return self.filters.turn(self.weight, tables)
        planes = torch.cat((self.weight, self.taps)).unflatten(0, (self.count, -1)).permute(1, 2, 0, 3, 4)
        return (
            self.filters.turn_and_shift(planes, tables)
            if self._mixes_all
            else self.filters.turn(planes.flatten(1, 2), tables)
        )

    @property
    def _mixes_all(self) -> bool:
        return self.count == self.group.order and self.groups == 1

    def _kernels(self) -> Tensor:
        weights = (self.weight,) if self.taps is None else (self.weight, self.taps)
        return self._kept(self._turn, *weights)

    def _opened_repr(self, plain: str) -> str:
        text = f"{plain}, group={self.group.name!r}"
        return text if self.taps is None else f"{text}, taps={self.count}"


class OrbitConv2d(OrbitConvolution, nn.Conv2d):
    """`torch.nn.Conv2d` on an orbit: ``out_g = sum_u (L_g k_u) * x_(g u)``, each orientation on its own grid.

    It has the plain layer's parameters under the plain layer's names. At first the identity is the only ``u`` and
    orientations do not mix: the layer is the plain one, conjugated. `open` adds kernels ``k_u`` that start at zero.

    Shape:
        - input: ``[B |G|, C_in, H, W]``
        - output: ``[B |G|, C_out, H', W']``
        - weight: ``[C_out, C_in / groups, kh, kw]``; taps: ``[(m - 1) C_out, C_in / groups, kh, kw]``
    """

    # Whether the input is the same for all orientations, as the image is.
    lifts = False

    def _source(self, g: int, u: int) -> int:
        return self.group.product(g, u)

    def _turn(self) -> Tensor:
        kernels = super()._turn()
        if not self._mixes_all or self.taps is None:
            return kernels
        # The maps lie beside each other element by element: planes come before columns.
        return kernels.unflatten(2, (-1, self.group.order)).transpose(2, 3).flatten(2, 3)

    def forward(self, input: Tensor) -> Tensor:
        maps = input.unflatten(0, (-1, self.group.order))
        if self.taps is None:
            x = maps[:, 0] if self.lifts else maps
        elif self._mixes_all:
            x = maps.flatten(1, 2)
        else:
            x = maps[:, self.neighbours].transpose(2, 3).flatten(2, 3)
        y = outside_modes(correlate, x, self._kernels(), self.bias, self.geometry, self.groups, self.padding_mode, True)
        return y.flatten(0, 1)

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
        maps = input.unflatten(0, (-1, self.group.order))
        extra = self.output_padding[0], self.output_padding[1]
        if output_size is not None:
            least = least_size(self.geometry, input.shape[-2], input.shape[-1])
            extra = output_size[-2] - least[0], output_size[-1] - least[1]
        sources = self.neighbours if self.taps is not None else self.identity
        y = outside_modes(
            correlate_transposed,
            maps,
            self._kernels(),
            self.geometry,
            extra,
            self.groups,
            None if self._mixes_all else sources,
            True,
        )
        y = y if self.bias is None else y + self.bias.view(-1, 1, 1)
        return y.flatten(0, 1)

    @property
    def identity(self) -> Tensor:
        """One plane: every orientation finds it in itself."""
        return torch.arange(self.group.order, device=self.weight.device).unsqueeze(1)

    def extra_repr(self) -> str:
        return self._opened_repr(super().extra_repr())
