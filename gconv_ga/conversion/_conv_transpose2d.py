"""`torch.nn.ConvTranspose2d` on an orbit in the batch."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.authoring import correlate_transposed, least_size
from ._convolutions import OrbitConvolution
from ._orbit import conjugate


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
