"""Transposed group convolution: the adjoint of the group convolution, for learnt up-sampling."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .._validate import as_pair, invalid, wrong_shape
from ..filters import Filters
from ..groups import Group
from ._convolution import Convolution
from ._correlate import correlate_transposed, least_size
from ._kernels import with_all_planes


class GroupConvTranspose2d(Convolution):
    r"""Transposed group convolution, ``out(., h) = sum_g (L_g k)(., h) *^T f(., g)``: the adjoint of `GroupConv2d`.

    ``*^T`` is `torch.nn.functional.conv_transpose2d`. Under one padding rule for all orientations any
    ``output_padding`` breaks the symmetry, since torch adds it at the lower right. Here each orientation adds it at
    the edge it has turned to: exact for C1, C2, C4, D1, D2 and D4 with every argument. After a strided
    `GroupConv2d` it puts every orientation's samples back where they were taken.

    Args:
        in_channels: Fields of the input map, not counting elements.
        out_channels: Fields of the output map.
        kernel_size: Rows and columns, or one int for both.
        stride: As in `torch.nn.ConvTranspose2d`.
        padding: As in `torch.nn.ConvTranspose2d`.
        output_padding: As in `torch.nn.ConvTranspose2d`.
        groups: Blocks of fields that do not mix. The symmetry is ``group``.
        bias: Whether to add one learnt number for each field.
        dilation: As in `torch.nn.ConvTranspose2d`.
        padding_mode: "zeros" only, as in torch.
        device: Where the parameters are made.
        dtype: Of the parameters.
        group: The symmetry group or its name.
        group_kernel_size: How many elements the kernel has planes for; None for all.
        filters: As for `GroupConv2d`.
        sampling: As for `GroupConv2d`.

    Shape:
        - input: ``[B, C_in, |G|, H, W]``
        - output: ``[B, C_out, |G|, H', W']``, H' and W' as in `torch.nn.ConvTranspose2d`
        - weight: ``[C_in, C_out / groups, m, kh, kw]``; bias: ``[C_out]``

    Raises:
        ValueError: An argument is out of its range, a quarter turn would change the output's size, or the input has
            other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import GroupConvTranspose2d
        >>> up = GroupConvTranspose2d(16, 8, 2, stride=2, group="C4")
        >>> up(torch.randn(2, 16, 4, 8, 8)).shape
        torch.Size([2, 8, 4, 16, 16])
        >>> up(torch.randn(2, 16, 4, 8, 8), output_size=(17, 16)).shape
        torch.Size([2, 8, 4, 17, 16])

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, section 6 (the adjoint).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: Group | str,
        group_kernel_size: int | None = None,
        filters: Filters | str = "auto",
        sampling: str = "per_orientation",
    ) -> None:
        if padding_mode != "zeros":
            raise invalid("padding_mode", "'zeros' in a transposed convolution", padding_mode)
        if isinstance(padding, str):
            raise invalid("padding", "an int or a pair of ints in a transposed convolution", padding)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, group,
            group_kernel_size, filters, sampling,
        )  # fmt: skip
        self.output_padding = as_pair("output_padding", output_padding, minimum=0)
        for axis in (0, 1):
            most = max(self.stride[axis], self.dilation[axis]) - 1
            if self.output_padding[axis] > most:
                takes = f"from 0 to {most}, below the stride or the dilation"
                raise invalid("output_padding", takes, output_padding)
        # As in `GroupConv2d`, but adding up planes is dearer than choosing neighbours (benchmarks/layers.py).
        self._mixes_all = 4 * len(self.taps) > self.group.order
        self._make_parameters((self.in_channels, self.out_channels // self.groups, len(self.taps)), bias, device, dtype)

    sources: Tensor

    def _make_tables(self) -> dict[str, Tensor]:
        # out(., h) takes plane u from the input at g = h u^-1.
        inverses = [self.group.inverse(u) for u in self.taps]
        sources = [[self.group.product(h, u) for u in inverses] for h in range(self.group.order)]
        return super()._make_tables() | {"sources": torch.tensor(sources)}

    def _fan_in(self) -> tuple[float, bool]:
        # Only one in stride ** 2 taps of a kernel meets a given pixel.
        channels = self.in_channels // self.groups * len(self.taps)
        return channels / (self.stride[0] * self.stride[1]), True

    def _turn(self, weight: Tensor) -> Tensor:
        tables = dict(self.named_buffers())
        if self._mixes_all:
            return self.filters.turn_and_shift(with_all_planes(weight, self.taps, self.group), tables)
        return self.filters.turn(weight.flatten(1, 2), tables)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """The map, up-sampled.

        Args:
            input: The map.
            output_size: Rows and columns that are wanted, in place of ``output_padding``; they must be reachable.

        Shape:
            - input: ``[B, C_in, |G|, H, W]``
            - output: ``[B, C_out, |G|, H', W']``

        Raises:
            ValueError: The input has other axes, or ``output_size`` is out of reach.
        """
        if input.ndim != 5 or input.shape[1] != self.in_channels or input.shape[2] != self.group.order:
            axes = f"[B, C={self.in_channels}, |G|={self.group.order}, H, W]"
            raise wrong_shape("input", axes, input)
        least, extra = least_size(self.geometry, *input.shape[-2:]), self.output_padding
        if output_size is not None:
            extra = self._reach(least, output_size)
        if min(least[0] + extra[0], least[1] + extra[1]) < 1:
            raise wrong_shape("input", f"[B, C, |G|, H, W] larger than what padding={self.padding} crops", input)
        self._warn_if_broken(extra)
        sources = None if self._mixes_all else self.sources
        out = correlate_transposed(input, self.turned_kernels(), self.geometry, extra, self.groups, sources)
        # Under autocast the sum would be float32 otherwise.
        return out if self.bias is None else out + self.bias.to(out.dtype).view(-1, 1, 1, 1)

    def _warn_if_broken(self, extra: tuple[int, int]) -> None:
        if self.sampling != "shared" or torch.compiler.is_compiling():
            return
        if any(more and flips for more, flips in zip(extra, self.geometry.flipped_axes(), strict=True)):
            warnings.warn(
                f"sampling='shared' is not equivariant with output_padding {extra}, at any size. The default "
                "sampling='per_orientation' is exact.",
                stacklevel=3,
            )

    def _reach(self, least: tuple[int, int], output_size: Sequence[int]) -> tuple[int, int]:
        """The output padding that gives ``output_size``."""
        rows, columns = as_pair("output_size", output_size, minimum=1)
        extra = rows - least[0], columns - least[1]
        most = [max(pair) - 1 for pair in zip(self.stride, self.dilation, strict=True)]
        if not all(0 <= more <= limit for more, limit in zip(extra, most, strict=True)):
            takes = f"from {least} to {(least[0] + most[0], least[1] + most[1])}"
            raise invalid("output_size", takes, output_size)
        return extra

    def extra_repr(self) -> str:
        text = super().extra_repr()
        extra = f", output_padding={self.output_padding}" if self.output_padding != (0, 0) else ""
        return text.replace(", group='", f"{extra}, group='")
