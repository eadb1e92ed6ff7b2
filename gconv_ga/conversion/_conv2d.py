"""`torch.nn.Conv2d` on an orbit in the batch."""

from torch import Tensor, nn

from ..nn.authoring import correlate
from ._convolutions import OrbitConvolution
from ._orbit import conjugate


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
