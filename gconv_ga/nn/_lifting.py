"""Lifting: from an image to a map on the group."""

import torch
from torch import Tensor

from .._validate import wrong_shape
from ..filters import Filters
from ..groups import Group
from ._convolution import Convolution


class LiftingConv2d(Convolution):
    r"""Lifting correlation, from an image to a map on the group: ``[k * f](g) = (L_g k) * f``.

    One free kernel, turned by every element, meets the image. Turning the image turns the maps and shifts them along
    the element axis: ``L_u f`` gives ``y -> out(u^-1 y, u^-1 g)``.

    Exact for C1, C2, C4, D1, D2 and D4 at every size, also with a stride: see ``sampling``. In other groups that holds
    for the quarter turns and mirrors; at other angles the kernels turn to within `filters.describe`'s expected error.

    Args:
        in_channels: Channels of the image.
        out_channels: Fields of the map.
        kernel_size: Rows and columns, or one int for both.
        stride: As in `torch.nn.Conv2d`.
        padding: As in `torch.nn.Conv2d`; "same" and "valid" too.
        dilation: As in `torch.nn.Conv2d`.
        groups: Blocks of channels that do not mix, as in `torch.nn.Conv2d`. The symmetry is ``group``.
        bias: Whether to add one learnt number for each field.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: Where the parameters are made.
        dtype: Of the parameters.
        group: The symmetry group or its name.
        filters: "grid" (every tap is free; groups of quarter turns and mirrors), "steerable" (any group), or "auto":
            "grid" where it is exact, "steerable" elsewhere; or an object such as
            ``SteerableFilters(C8, (5, 5), functions=12)``.
        sampling: "per_orientation" lets each orientation's windows start at the edge it has turned to, so that
            strides are exact at every size. "shared" is the one grid of other libraries, exact only for some sizes;
            at others it warns.

    Shape:
        - input: ``[B, C_in, H, W]``
        - output: ``[B, C_out, |G|, H', W']``, H' and W' as in `torch.nn.Conv2d`
        - weight: ``[C_out, C_in / groups, kh, kw]``, or ``[C_out, C_in / groups, F]`` with F steerable functions;
          bias: ``[C_out]``

    Raises:
        ValueError: An argument is out of its range, a quarter turn would change the output's size, or the input has
            other axes.

    Example:
        >>> import torch
        >>> lift = LiftingConv2d(3, 8, 3, padding=1, group="C4")
        >>> lift
        LiftingConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), group='C4')
        >>> lift(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 8, 4, 32, 32])

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, equation 10.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: Group | str,
        filters: Filters | str = "auto",
        sampling: str = "per_orientation",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, group, None,
            filters, sampling,
        )  # fmt: skip
        self._make_parameters((self.out_channels, self.in_channels // self.groups), bias, device, dtype)

    def _fan_in(self) -> tuple[int, bool]:
        # An image has not been rectified.
        return self.in_channels // self.groups, False

    def _turn(self, weight: Tensor) -> Tensor:
        return self.filters.turn(weight, dict(self.named_buffers()))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            raise wrong_shape("input", f"[B, C={self.in_channels}, H, W]", input)
        return self._correlate(input)
