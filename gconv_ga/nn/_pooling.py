"""Spatial pooling of maps on the group, exact at every size."""

import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import as_pair, invalid, one_of, wrong_shape
from ..groups import Group, as_group
from ._convolution import SAMPLINGS
from ._geometry import make_geometry
from ._orientations import per_orientation


class _Pool2d(nn.Module):
    """The windows that both pools share."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None,
        padding: int | tuple[int, int],
        dilation: int | tuple[int, int],
        ceil_mode: bool,
        group: Group | str,
        sampling: str,
    ) -> None:
        super().__init__()
        self.kernel_size = as_pair("kernel_size", kernel_size, minimum=1)
        self.stride = self.kernel_size if stride is None else as_pair("stride", stride, minimum=1)
        self.padding = as_pair("padding", padding, minimum=0)
        self.dilation = as_pair("dilation", dilation, minimum=1)
        for kernel, pad, apart in zip(self.kernel_size, self.padding, self.dilation, strict=True):
            if pad > (apart * (kernel - 1) + 1) // 2:
                raise invalid("padding", f"at most half of the window kernel_size={self.kernel_size}", padding)
        self.ceil_mode = bool(ceil_mode)
        self.group = as_group(group)
        self.sampling = one_of("sampling", sampling, SAMPLINGS)
        self.geometry = make_geometry(
            self.group, self.kernel_size, self.stride, self.padding, self.dilation, self.sampling == "shared"
        )

    def _pool(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 5 or input.shape[2] != self.group.order:
            raise wrong_shape("input", f"[B, C, |G|={self.group.order}, H, W]", input)
        rows, columns = self.geometry.rows, self.geometry.columns
        height, width = input.shape[-2:]
        partial = self.stride if self.ceil_mode else (1, 1)
        if min(self.geometry.output_size(height + partial[0] - 1, width + partial[1] - 1)) < 1:
            axes = f"[B, C, |G|, H >= {rows.shrink + 2 - partial[0]}, W >= {columns.shrink + 2 - partial[1]}]"
            raise wrong_shape("input", axes, input, "the window is larger than the padded image")
        self.geometry.warn_if_misaligned(height, width)
        own = not self.geometry.shared
        # Where nothing is left over, all orientations agree and one call does.
        flips = own and rows.leftover(height) > 0, own and columns.leftover(width) > 0
        return per_orientation(self._pool, input, self.geometry.moves, rows != columns, *flips)

    def extra_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        for name, value, default in (("dilation", self.dilation, (1, 1)), ("ceil_mode", self.ceil_mode, False)):
            if value != default:
                text += f", {name}={value}"
        text += f", group={self.group.name!r}"
        return text if self.sampling == "per_orientation" else text + f", sampling={self.sampling!r}"


class MaxPool2d(_Pool2d):
    """Maximum over windows of each map: `torch.nn.MaxPool2d` for ``[B, C, |G|, H, W]``, exact at every size.

    Each orientation's windows start at the edge it has turned to. (One grid for all, ``sampling="shared"``, is exact
    only at some sizes: even ones for ``kernel_size=2``, odd ones for ``kernel_size=3, stride=2, padding=1``.)

    Args:
        kernel_size: As in `torch.nn.MaxPool2d`.
        stride: As in `torch.nn.MaxPool2d`; None for ``kernel_size``.
        padding: As in `torch.nn.MaxPool2d`.
        dilation: As in `torch.nn.MaxPool2d`.
        ceil_mode: As in `torch.nn.MaxPool2d`.
        group: The group or its name.
        sampling: "per_orientation" or "shared", as for `LiftingConv2d`.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H', W']``

    Raises:
        ValueError: An argument is out of its range, a quarter turn would change the output's size, or the input has
            other axes.

    Example:
        >>> import torch
        >>> MaxPool2d(2, group="C4")(torch.randn(1, 8, 4, 33, 32)).shape
        torch.Size([1, 8, 4, 16, 16])
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
        *,
        group: Group | str,
        sampling: str = "per_orientation",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, group, sampling)

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool2d(_Pool2d):
    """Mean over windows of each map: `torch.nn.AvgPool2d` for ``[B, C, |G|, H, W]``, exact at every size.

    Args:
        kernel_size: As in `torch.nn.AvgPool2d`.
        stride: As in `torch.nn.AvgPool2d`; None for ``kernel_size``.
        padding: As in `torch.nn.AvgPool2d`.
        ceil_mode: As in `torch.nn.AvgPool2d`.
        count_include_pad: As in `torch.nn.AvgPool2d`.
        group: The group or its name.
        sampling: "per_orientation" or "shared", as for `LiftingConv2d`.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H', W']``

    Raises:
        ValueError: As for `MaxPool2d`.

    Example:
        >>> import torch
        >>> AvgPool2d(3, 2, 1, group="D4")(torch.randn(1, 8, 8, 32, 48)).shape
        torch.Size([1, 8, 8, 16, 24])
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        group: Group | str,
        sampling: str = "per_orientation",
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode, group, sampling)
        self.count_include_pad = bool(count_include_pad)

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.count_include_pad else text.replace(", group=", ", count_include_pad=False, group=")
