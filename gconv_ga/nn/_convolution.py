"""What lifting, group and transposed group convolution share: arguments, parameters, turned kernels."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from .._validate import as_int, as_pair, invalid, one_of, wrong_shape
from ..filters import Filters, as_filters
from ..groups import Group, as_group
from ._correlate import correlate
from ._geometry import make_geometry
from ._kernels import KeepsKernels, nearest_elements, with_all_planes, worth_gathering
from .functional import neighbours

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
SAMPLINGS = ("per_orientation", "shared")


class Convolution(KeepsKernels):
    """The base of the equivariant convolutions; not a layer by itself.

    Turned kernels are made anew at each call while gradients are on. In eval mode without gradients they are made
    once and kept until the weight changes; they are never saved.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: str | int | tuple[int, int],
        dilation: int | tuple[int, int],
        groups: int,
        padding_mode: str,
        group: Group | str,
        group_kernel_size: int | None,
        filters: Filters | str,
        sampling: str,
    ) -> None:
        super().__init__()
        self.group = as_group(group)
        self.in_channels = as_int("in_channels", in_channels, minimum=1)
        self.out_channels = as_int("out_channels", out_channels, minimum=1)
        advice = f"the symmetry is group={groups!r}, while groups counts blocks of channels"
        self.groups = as_int("groups", groups, minimum=1, advice=advice if isinstance(groups, str | Group) else "")
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % self.groups:
                raise invalid(name, f"a multiple of groups={self.groups}", channels)
        self.kernel_size = as_pair("kernel_size", kernel_size, minimum=1)
        self.stride = as_pair("stride", stride, minimum=1)
        self.dilation = as_pair("dilation", dilation, minimum=1)
        self.padding_mode = one_of("padding_mode", padding_mode, PADDING_MODES)
        self.sampling = one_of("sampling", sampling, SAMPLINGS)
        self.taps = nearest_elements(self.group, group_kernel_size)
        self.geometry = make_geometry(
            self.group, self.kernel_size, self.stride, padding, self.dilation, self.sampling == "shared"
        )
        self.padding = padding if isinstance(padding, str) else as_pair("padding", padding, minimum=0)
        self.filters = as_filters(filters, self.group, self.kernel_size)

    def _make_tables(self) -> dict[str, Tensor]:
        """What the filters look up, by buffer name; new tensors on the CPU."""
        return self.filters.tables()

    def _make_parameters(
        self, shape: tuple[int, ...], bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        """Register weight (``shape`` and the kernel's own axes) and bias, then initialise them."""
        self.weight = nn.Parameter(torch.empty(*shape, *self.filters.shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        # Not saved: they follow from the arguments.
        for name, table in self._make_tables().items():
            self.register_buffer(name, table.to(self.weight.device, self._table_dtype(table)), persistent=False)
        self.reset_parameters()

    def _table_dtype(self, table: Tensor) -> torch.dtype:
        return self.weight.dtype if table.is_floating_point() else table.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.weight.dtype

        def on_four_axes(t: Tensor) -> Tensor:
            # `.to(memory_format=torch.channels_last)` takes no more.
            return fn(t.flatten(1, 2)).unflatten(1, t.shape[1:3]) if t.ndim == 5 else fn(t)

        super()._apply(on_four_axes, recurse)
        # A finer dtype deserves the tables' own digits, not those that a coarser one has left.
        if self.weight.dtype != before and not self.weight.is_meta:
            self._fill_tables()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # A layer made on the meta device and loaded has never had tables.
        self._fill_tables()

    def _fill_tables(self) -> None:
        for name, table in self._make_tables().items():
            setattr(self, name, table.to(self.weight.device, self._table_dtype(table)))

    def _fan_in(self) -> tuple[float, bool]:
        """How many channels an output sums over, and whether they have passed a ReLU."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw the weights anew, so that the variance of what passes through is kept; the bias becomes zero."""
        channels, rectified = self._fan_in()
        # After `to_empty` the tables are as empty as the weights.
        self._fill_tables()
        with torch.no_grad():
            spread = self.filters.variance(channels, rectified=rectified) ** 0.5
            if isinstance(spread, Tensor):
                self.weight.normal_().mul_(spread.to(self.weight))
            else:
                self.weight.normal_(0.0, spread)
            if self.bias is not None:
                self.bias.zero_()

    def _turn(self, weight: Tensor) -> Tensor:
        """The free weight to the stack of turned kernels."""
        raise NotImplementedError

    def turned_kernels(self) -> Tensor:
        """The stack of turned kernels, ``[C_out, |G|, J, kh * kw]``; kept between calls in eval mode."""
        return self._kernels().stack

    def _kernels(self) -> "_Kernels":
        weight, bias = self.weight, self.bias
        if bias is None:
            return _Kernels(*self._kept(lambda: self._lay_out(weight, None), weight))
        return _Kernels(*self._kept(lambda: self._lay_out(weight, bias), weight, bias))

    def _lay_out(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        stack, order = self._turn(weight), self.group.order
        laid_out = stack, stack.reshape(-1, stack.shape[2], *self.kernel_size)
        return laid_out if bias is None else (*laid_out, bias.repeat_interleave(order))

    def _correlate(self, x: Tensor) -> Tensor:
        """`correlate`, and where a plain convolution does just that, nothing around it: in eval that would be felt."""
        kernels, geometry = self._kernels(), self.geometry
        padding = None if geometry.shared or x.ndim == 5 else geometry.plan(*x.shape[-2:]).padding
        if padding is None or self.padding_mode != "zeros" or has_torch_function((x,)):
            biases = None if kernels.bias is None else kernels.bias.view(-1, self.group.order)
            return correlate(x, kernels.stack, biases, geometry, self.groups, self.padding_mode)
        y = F.conv2d(x, kernels.weight, kernels.bias, self.stride, padding, self.dilation, self.groups)
        return y.view(y.shape[0], self.out_channels, self.group.order, *y.shape[2:])

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding not in ((0, 0), "valid"):
            text += f", padding={self.padding!r}"
        for name, value, default in (
            ("dilation", self.dilation, (1, 1)),
            ("groups", self.groups, 1),
            ("bias", self.bias is not None, True),
            ("padding_mode", self.padding_mode, "zeros"),
            ("sampling", self.sampling, "per_orientation"),
        ):
            if value != default:
                text += f", {name}={value!r}"
        text += f", group={self.group.name!r}"
        if len(self.taps) != self.group.order:
            text += f", group_kernel_size={len(self.taps)}"
        return text + f", functions={self.filters.shape[0]}" if len(self.filters.shape) == 1 else text


class _Kernels(NamedTuple):
    """A stack of turned kernels, the same as a plain convolution takes it, and its bias.

    Shape:
        - stack: ``[C_out, |G|, J, kh * kw]``; weight: ``[C_out * |G|, J, kh, kw]``; bias: ``[C_out * |G|]``
    """

    stack: Tensor
    weight: Tensor
    bias: Tensor | None = None


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
        >>> from gconv_ga.nn import LiftingConv2d
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
        >>> from gconv_ga.nn import GroupConv2d
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
