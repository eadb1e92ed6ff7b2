"""Transposed group convolution: upsampling with learned kernels."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .._validate import as_pair, invalid, wrong_shape
from ..filters import Filters
from ..groups import Group
from ._convolution import _Convolution
from ._correlate import correlate_transposed, least_size
from ._geometry import (
    source_table,
)


class GroupConvTranspose2d(_Convolution):
    r"""Transposed group convolution, ``out(., h) = sum_g (L_g k)(., h) *^T f(., g)``: the adjoint of `GroupConv2d`.

    ``*^T`` is `torch.nn.functional.conv_transpose2d`. With one padding rule for all orientations, any
    ``output_padding`` would break the symmetry, since torch adds it at the lower right. Here each orientation adds it
    at the edges that its group element moves the lower and right edges to, so the layer is exact for C1, C2, C4, D1,
    D2 and D4 with any arguments. After a strided `GroupConv2d`, it returns the samples of every orientation to the
    pixels they were taken from.

    Args:
        in_channels: Number of fields of the input, not counting group elements.
        out_channels: Number of fields of the output.
        kernel_size: Rows and columns, or one int for both.
        stride: As in `torch.nn.ConvTranspose2d`.
        padding: As in `torch.nn.ConvTranspose2d`.
        output_padding: As in `torch.nn.ConvTranspose2d`.
        groups: Number of blocks of fields that do not mix. The symmetry is ``group``.
        bias: Whether to add one learned number per field.
        dilation: As in `torch.nn.ConvTranspose2d`.
        padding_mode: "zeros" only, as in torch.
        device: Device of the parameters.
        dtype: Data type of the parameters.
        group: The symmetry group or its name.
        group_kernel_size: Number of group elements that the kernel has planes for. If None, all of them.
        filters: As for `GroupConv2d`.
        sampling: As for `GroupConv2d`.

    Shape:
        - input: ``[B, C_in, |G|, H, W]``
        - output: ``[B, C_out, |G|, H', W']``, H' and W' as in `torch.nn.ConvTranspose2d`
        - weight: ``[C_in, C_out / groups, m, kh, kw]``; bias: ``[C_out]``

    Raises:
        ValueError: An argument is out of its range, a rotation by 90 degrees would change the size of the output, or
            the shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import GroupConvTranspose2d
        >>> up = GroupConvTranspose2d(16, 8, 2, stride=2, group="C4")
        >>> up(torch.randn(2, 16, 4, 8, 8)).shape
        torch.Size([2, 8, 4, 16, 16])
        >>> up(torch.randn(2, 16, 4, 8, 8), output_size=(17, 16)).shape
        torch.Size([2, 8, 4, 17, 16])

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, appendix on gradients (the adjoint).
    """

    sources: Tensor

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
        # The choice of `GroupConv2d`, but adding up planes costs more than gathering neighbours (benchmarks/layers.py).
        self._mixes_all = 4 * len(self.taps) > self.group.order
        shape = self.in_channels, self.out_channels // self.groups, len(self.taps)
        self._register_parameters(shape, bias, device, dtype)

    def _fan_in(self) -> tuple[float, bool]:
        # Only one in stride ** 2 taps of a kernel reaches a given pixel.
        channels = self.in_channels // self.groups * len(self.taps)
        return channels / (self.stride[0] * self.stride[1]), True

    def _make_tables(self) -> dict[str, Tensor]:
        return super()._make_tables() | {"sources": torch.tensor(source_table(self.group, self.taps))}

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Compute the up-sampled feature map.

        Args:
            input: The feature map.
            output_size: Rows and columns of the output, instead of ``output_padding``. They must be within its reach.

        Shape:
            - input: ``[B, C_in, |G|, H, W]``
            - output: ``[B, C_out, |G|, H', W']``

        Raises:
            ValueError: The shape of the input does not match, or ``output_size`` is out of reach.
        """
        if input.ndim != 5 or input.shape[1] != self.in_channels or input.shape[2] != self.group.order:
            axes = f"[B, C={self.in_channels}, |G|={self.group.order}, H, W]"
            raise wrong_shape("input", axes, input)
        least, extra = least_size(self.geometry, *input.shape[-2:]), self.output_padding
        if output_size is not None:
            extra = self._output_padding_for(output_size, least)
        if min(least[0] + extra[0], least[1] + extra[1]) < 1:
            raise wrong_shape("input", f"[B, C, |G|, H, W] larger than what padding={self.padding} crops", input)
        self._warn_if_inexact(extra)
        sources = None if self._mixes_all else self._tables_like(self.weight)["sources"]
        out = correlate_transposed(input, self.rotated_kernels(), self.geometry, extra, self.groups, sources)
        # Under autocast the sum would be float32 otherwise.
        return out if self.bias is None else out + self.bias.to(out.dtype).view(-1, 1, 1, 1)

    def _output_padding_for(self, output_size: Sequence[int], least: tuple[int, int]) -> tuple[int, int]:
        rows, columns = as_pair("output_size", output_size, minimum=1)
        extra = rows - least[0], columns - least[1]
        most = [max(pair) - 1 for pair in zip(self.stride, self.dilation, strict=True)]
        if not all(0 <= more <= limit for more, limit in zip(extra, most, strict=True)):
            takes = f"from {least} to {(least[0] + most[0], least[1] + most[1])}"
            raise invalid("output_size", takes, output_size)
        return extra

    def _warn_if_inexact(self, extra: tuple[int, int]) -> None:
        if self.sampling != "shared" or torch.compiler.is_compiling():
            return
        if any(more and flips for more, flips in zip(extra, self.geometry.flipped_axes(), strict=True)):
            warnings.warn(
                f"sampling='shared' is not equivariant with output_padding {extra}, at any size. The default "
                "sampling='per_orientation' is exact.",
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        text = super().extra_repr()
        extra = f", output_padding={self.output_padding}" if self.output_padding != (0, 0) else ""
        return text.replace(", group='", f"{extra}, group='")
