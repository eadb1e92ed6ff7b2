"""Group convolution: from maps on the group to maps on the group."""

import torch
from torch import Tensor

from .._validate import wrong_shape
from ..filters import Filters
from ..groups import Group
from ._convolution import Convolution
from ._taps import with_all_planes, worth_gathering
from .functional import neighbours


class GroupConv2d(Convolution):
    r"""Group correlation of maps on the group: ``[k * f](g) = sum_h (L_g k)(., h) * f(., h)``.

    The kernel has one k x k plane for each element; all are turned and shifted by ``g``. With ``group_kernel_size=m``
    only the ``m`` planes nearest the identity are there: ``m=1`` never mixes orientations, so that a stack of such
    layers after a `LiftingConv2d`, pooled by the mean, is the group average of the plain network with the same
    kernels; ``m=|G|`` (the default) is the full group convolution.

    Exact for C1, C2, C4, D1, D2 and D4 at every size, also with a stride: see ``sampling``. In other groups that holds
    for the quarter turns and mirrors; at other angles the kernels turn to within `filters.describe`'s expected error.

    Args:
        in_channels: Fields of the input map, not counting elements.
        out_channels: Fields of the output map.
        kernel_size: Rows and columns, or one int for both.
        stride: As in `torch.nn.Conv2d`.
        padding: As in `torch.nn.Conv2d`; "same" and "valid" too.
        dilation: As in `torch.nn.Conv2d`.
        groups: Blocks of fields that do not mix, as in `torch.nn.Conv2d`. The symmetry is ``group``.
        bias: Whether to add one learnt number for each field, the same for every element.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: Where the parameters are made.
        dtype: Of the parameters.
        group: The symmetry group or its name.
        group_kernel_size: How many elements the kernel has planes for, nearest the identity first; None for all.
        filters: "grid" (every tap is free; groups of quarter turns and mirrors), "steerable" (any group), or "auto":
            "grid" where it is exact, "steerable" elsewhere; or an object such as
            ``SteerableFilters(C8, (5, 5), functions=12)``.
        sampling: "per_orientation" lets each orientation's windows start at the edge it has turned to, so that
            strides are exact at every size. "shared" is the one grid of other libraries, exact only for some sizes;
            at others it warns.

    Shape:
        - input: ``[B, C_in, |G|, H, W]``
        - output: ``[B, C_out, |G|, H', W']``, H' and W' as in `torch.nn.Conv2d`
        - weight: ``[C_out, C_in / groups, m, kh, kw]``, or ``[C_out, C_in / groups, m, F]`` with F steerable functions;
          bias: ``[C_out]``

    Raises:
        ValueError: An argument is out of its range, a quarter turn would change the output's size, or the input has
            other axes.

    Example:
        >>> import torch
        >>> conv = GroupConv2d(8, 16, 3, stride=2, padding=1, group="C4")
        >>> conv
        GroupConv2d(8, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), group='C4')
        >>> conv(torch.randn(2, 8, 4, 32, 32)).shape
        torch.Size([2, 16, 4, 16, 16])

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, equation 11.
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
        group_kernel_size: int | None = None,
        filters: Filters | str = "auto",
        sampling: str = "per_orientation",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode, group,
            group_kernel_size, filters, sampling,
        )  # fmt: skip
        # Either all maps are seen at once, and absent taps are zeros, or each orientation sees its neighbours only.
        self._mixes_all = not worth_gathering(len(self.taps), self.group.order, self.out_channels // self.groups)
        self._make_parameters((self.out_channels, self.in_channels // self.groups, len(self.taps)), bias, device, dtype)

    neighbours: Tensor

    def _fan_in(self) -> tuple[int, bool]:
        return self.in_channels // self.groups * len(self.taps), True

    def _make_tables(self) -> dict[str, Tensor]:
        neighbours = [[self.group.product(g, u) for u in self.taps] for g in range(self.group.order)]
        return super()._make_tables() | {"neighbours": torch.tensor(neighbours)}

    def _turn(self, weight: Tensor) -> Tensor:
        if self._mixes_all:
            weight = with_all_planes(weight, self.taps, self.group)
            return self.filters.turn_and_shift(weight, dict(self.named_buffers()))
        return self.filters.turn(weight.flatten(1, 2), dict(self.named_buffers()))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 5 or input.shape[1] != self.in_channels or input.shape[2] != self.group.order:
            axes = f"[B, C={self.in_channels}, |G|={self.group.order}, H, W]"
            advice = "an image goes through LiftingConv2d first" if input.ndim == 4 else ""
            raise wrong_shape("input", axes, input, advice)
        return self._correlate(input.flatten(1, 2) if self._mixes_all else neighbours(input, self.neighbours))
