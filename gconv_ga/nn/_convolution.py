"""Lifting and group convolution, and what equivariant convolutions share."""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from .._validate import as_int, as_pair, invalid, one_of, wrong_shape
from ..filters import Filters, as_filters
from ..groups import Group, as_group
from ._algorithms import FourierUse, uses_fourier
from ._correlate import correlate
from ._fourier import least_pixels, plan_key
from ._fourier_kernel import fourier_conv
from ._geometry import (
    SAMPLINGS,
    KeepsKernels,
    fill_absent_planes,
    gather_neighbours,
    gathering_is_faster,
    make_geometry,
    nearest_elements,
    neighbour_table,
)
from ._tables import KeepsTables

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Kernels(NamedTuple):
    """A stack of transformed kernels, the same stack as the weight of a plain convolution, and its bias.

    Shape:
        - stack: ``[C_out, |G|, J, kh * kw]``; weight: ``[C_out * |G|, J, kh, kw]``; bias: ``[C_out * |G|]``
    """

    stack: Tensor
    weight: Tensor
    bias: Tensor | None = None


class _Convolution(KeepsKernels, KeepsTables):
    """Base class of the convolutions: arguments, parameters, initialization, transformed kernels.

    Transformed kernels are computed at every call while gradients are on. In eval mode without gradients they are
    computed once and cached until the weight changes; they are never saved.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    # Of a layer that takes maps: whether all orientations are convolved at once (see `gathering_is_faster`).
    _mixes_all: bool

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

    def _register_parameters(
        self, shape: tuple[int, ...], bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        """Register the weight (``shape`` followed by the axes of one kernel) and the bias, and initialize them."""
        self.weight = nn.Parameter(torch.empty(*shape, *self.filters.shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self._fill_tables(self.weight.device, self.weight.dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights such that the variance of the activations is preserved; the bias is set to zero."""
        channels, rectified = self._fan_in()
        if self.weight.is_meta:
            return  # there is nothing to draw, and to do so torch would load its compiler, which takes two seconds
        with torch.no_grad(), torch.device("cpu"):
            deviation = self.filters.variance(channels, rectified=rectified) ** 0.5
            if isinstance(deviation, Tensor):
                self.weight.normal_()
                # A sharded weight takes no plain factor, but its shard does: axis 0 is the one that is split.
                own: Tensor = self.weight.to_local() if hasattr(self.weight, "to_local") else self.weight
                own.mul_(deviation.to(own.device, own.dtype))
            else:
                self.weight.normal_(0.0, deviation)
            if self.bias is not None:
                self.bias.zero_()

    def _fan_in(self) -> tuple[float, bool]:
        """Return the number of channels that an output sums over, and whether the input has passed a ReLU."""
        raise NotImplementedError

    def _make_tables(self) -> dict[str, Tensor]:
        return self.filters.tables()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def on_four_axes(t: Tensor) -> Tensor:
            # `.to(memory_format=torch.channels_last)` only takes tensors of four axes.
            return fn(t.flatten(1, 2)).unflatten(1, t.shape[1:3]) if t.ndim == 5 else fn(t)

        return super()._apply(on_four_axes, recurse)

    def rotated_kernels(self) -> Tensor:
        """Return the stack of transformed kernels, ``[C_out, |G|, J, kh * kw]``; cached in eval mode."""
        return self._kernels().stack

    def _kernels(self) -> _Kernels:
        weight, bias = self.weight, self.bias
        if bias is None:
            return _Kernels(*self._cached(lambda: self._compute_kernels(weight, None), weight))
        return _Kernels(*self._cached(lambda: self._compute_kernels(weight, bias), weight, bias))

    def _compute_kernels(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        stack, order = self._transform(weight), self.group.order
        kernels = stack, stack.reshape(-1, stack.shape[2], *self.kernel_size)
        return kernels if bias is None else (*kernels, bias.repeat_interleave(order))

    def _transform(self, weight: Tensor) -> Tensor:
        """Return the stack of transformed kernels for the free weight; here, for a weight with planes."""
        tables = self._tables_like(weight)
        if self._mixes_all:
            return self.filters.rotate_and_shift(fill_absent_planes(weight, self.taps, self.group), tables)
        return self.filters.rotate(weight.flatten(1, 2), tables)

    def _correlate(self, x: Tensor) -> Tensor:
        """Compute `correlate`; if one plain convolution suffices, call it directly, which saves time in eval mode."""
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


class LiftingConv2d(_Convolution):
    r"""Lifting correlation, from an image to a feature map on the group: ``[k * f](g) = (L_g k) * f``.

    One free kernel, transformed by every group element, is correlated with the image. If the image is transformed by
    ``h``, the feature map is transformed in the plane and permuted along the element axis: ``L_h f`` gives
    ``y -> out(h^-1 y, h^-1 g)``.

    Exact for C1, C2, C4, D1, D2 and D4 at every image size, also with a stride (see ``sampling``). In other groups,
    rotations by multiples of 90 degrees and reflections are exact; at other angles kernels are rotated with the
    expected error that `filters.describe` states.

    Args:
        in_channels: Number of channels of the image.
        out_channels: Number of fields of the feature map.
        kernel_size: Rows and columns, or one int for both.
        stride: As in `torch.nn.Conv2d`.
        padding: As in `torch.nn.Conv2d`, "same" and "valid" included.
        dilation: As in `torch.nn.Conv2d`.
        groups: Number of blocks of channels that do not mix, as in `torch.nn.Conv2d`. The symmetry is ``group``.
        bias: Whether to add one learned number per field.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: Device of the parameters.
        dtype: Data type of the parameters.
        group: The symmetry group or its name.
        filters: "grid" (every tap is free; rotations by multiples of 90 degrees and reflections only), "steerable"
            (any group), or "auto", which is "grid" where it is exact and "steerable" elsewhere; or an object such as
            ``SteerableFilters(C8, (5, 5), functions=12)``.
        sampling: With "per_orientation", each orientation samples its own grid, transformed like its kernel, so that
            strides are exact at every image size. "shared" is the single grid of other libraries, which is exact at
            some sizes only; at others the layer warns.

    Shape:
        - input: ``[B, C_in, H, W]``
        - output: ``[B, C_out, |G|, H', W']``, H' and W' as in `torch.nn.Conv2d`
        - weight: ``[C_out, C_in / groups, kh, kw]``, or ``[C_out, C_in / groups, F]`` with F steerable functions;
          bias: ``[C_out]``

    Raises:
        ValueError: An argument is out of its range, a rotation by 90 degrees would change the size of the output, or
            the shape of the input does not match.

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
        self._register_parameters((self.out_channels, self.in_channels // self.groups), bias, device, dtype)

    def _fan_in(self) -> tuple[int, bool]:
        # An image has not passed a ReLU.
        return self.in_channels // self.groups, False

    def _transform(self, weight: Tensor) -> Tensor:
        return self.filters.rotate(weight, self._tables_like(weight))

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            raise wrong_shape("input", f"[B, C={self.in_channels}, H, W]", input)
        return self._correlate(input)


class GroupConv2d(_Convolution):
    r"""Group correlation of feature maps on the group: ``[k * f](g) = sum_h (L_g k)(., h) * f(., h)``.

    The kernel has one k x k plane per group element; all planes are transformed and permuted by ``g``. With
    ``group_kernel_size=m`` it only has the ``m`` planes nearest the identity. ``m=1`` never mixes orientations: a
    stack of such layers after a `LiftingConv2d`, pooled by the mean, is the group average of the plain network with
    the same kernels. ``m=|G|`` (the default) is the full group convolution.

    Exact for C1, C2, C4, D1, D2 and D4 at every image size, also with a stride (see ``sampling``). In other groups,
    rotations by multiples of 90 degrees and reflections are exact; at other angles kernels are rotated with the
    expected error that `filters.describe` states.

    Args:
        in_channels: Number of fields of the input, not counting group elements.
        out_channels: Number of fields of the output.
        kernel_size: Rows and columns, or one int for both.
        stride: As in `torch.nn.Conv2d`.
        padding: As in `torch.nn.Conv2d`, "same" and "valid" included.
        dilation: As in `torch.nn.Conv2d`.
        groups: Number of blocks of fields that do not mix, as in `torch.nn.Conv2d`. The symmetry is ``group``.
        bias: Whether to add one learned number per field, the same for every group element.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: Device of the parameters.
        dtype: Data type of the parameters.
        group: The symmetry group or its name.
        group_kernel_size: Number of group elements that the kernel has planes for, nearest the identity first. If
            None, all of them.
        filters: "grid" (every tap is free; rotations by multiples of 90 degrees and reflections only), "steerable"
            (any group), or "auto", which is "grid" where it is exact and "steerable" elsewhere; or an object such as
            ``SteerableFilters(C8, (5, 5), functions=12)``.
        sampling: With "per_orientation", each orientation samples its own grid, transformed like its kernel, so that
            strides are exact at every image size. "shared" is the single grid of other libraries, which is exact at
            some sizes only; at others the layer warns.

    Shape:
        - input: ``[B, C_in, |G|, H, W]``
        - output: ``[B, C_out, |G|, H', W']``, H' and W' as in `torch.nn.Conv2d`
        - weight: ``[C_out, C_in / groups, m, kh, kw]``, or ``[C_out, C_in / groups, m, F]`` with F steerable functions;
          bias: ``[C_out]``

    Raises:
        ValueError: An argument is out of its range, a rotation by 90 degrees would change the size of the output, or
            the shape of the input does not match.

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

    neighbours: Tensor

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
        self._mixes_all = not gathering_is_faster(len(self.taps), self.group.order, self.out_channels // self.groups)
        shape = self.out_channels, self.in_channels // self.groups, len(self.taps)
        self._register_parameters(shape, bias, device, dtype)
        self.fourier = self._fourier_use()

    def _fourier_use(self) -> FourierUse | None:
        """Return what the Fourier algorithm has to know of the layer, None if it does not apply."""
        rows, columns = self.geometry.rows, self.geometry.columns
        applies = (
            self.stride == self.dilation == (1, 1)
            and self.padding_mode == "zeros"
            and self.groups == 1
            and len(self.taps) == self.group.order
            and rows.low == rows.high == columns.low == columns.high
        )
        key = plan_key(self.filters) if applies else None
        if key is None:
            return None
        return FourierUse(key, self.kernel_size[0], rows.low, least_pixels(key, self.in_channels, self.out_channels))

    def uses_fourier(self, input: Tensor) -> bool:
        """Return whether a feature map would be convolved in the Fourier basis now; see `algorithm`.

        Shape:
            - input: ``[B, C_in, |G|, H, W]``

        Example:
            >>> import torch
            >>> import gconv_ga.nn as gnn
            >>> with gnn.algorithm("dense"):
            ...     gnn.GroupConv2d(4, 4, 3, padding=1, group="C8").uses_fourier(torch.randn(1, 4, 8, 16, 16))
            False
        """
        return self.fourier is not None and uses_fourier(self.fourier, input, self.weight)

    def convolve_with(self, input: Tensor, weight: Tensor, taps: Tensor | None, bias: Tensor | None) -> Tensor:
        """Convolve in the Fourier basis with other weights than the layer's own.

        It is for inputs of which `uses_fourier` says so. The output lies in memory as the input does: by field and
        element, or by element and field.

        Shape:
            - input: ``[B, C_in, |G|, H, W]``
            - weight: of the layer's shape, or, if there are taps, the planes of the identity, ``[C_out, C_in, kh, kw]``
            - taps: planes of the other elements, in the group's order, ``[(|G| - 1) C_out, C_in, kh, kw]``
            - bias: ``[C_out]``
            - output: ``[B, C_out, |G|, H', W']``

        Raises:
            ValueError: The Fourier algorithm does not apply to this layer.

        Example:
            >>> import torch
            >>> import gconv_ga.nn as gnn
            >>> conv, f = gnn.GroupConv2d(2, 3, 3, padding=1, group="C4"), torch.randn(1, 2, 4, 16, 16)
            >>> with gnn.algorithm("fourier"):
            ...     found = conv.uses_fourier(f) and conv.convolve_with(f, conv.weight, None, conv.bias)
            ...     found is False or torch.equal(found, conv(f))
            True
        """
        use = self._fourier_or_refuse()
        y: Tensor = fourier_conv(input, weight, taps, bias, use.key, use.padding)
        return y

    def _fourier_or_refuse(self) -> FourierUse:
        if self.fourier is None:
            takes = "a convolution of stride 1 with all taps on C_n or D_n, n >= 3, and square kernels of 1, 3, 5 or 7"
            raise invalid("layer", takes, self, "see gconv_ga.nn.algorithm")
        return self.fourier

    def _fan_in(self) -> tuple[int, bool]:
        return self.in_channels // self.groups * len(self.taps), True

    def _make_tables(self) -> dict[str, Tensor]:
        return super()._make_tables() | {"neighbours": torch.tensor(neighbour_table(self.group, self.taps))}

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 5 or input.shape[1] != self.in_channels or input.shape[2] != self.group.order:
            axes = f"[B, C={self.in_channels}, |G|={self.group.order}, H, W]"
            advice = "an image goes through LiftingConv2d first" if input.ndim == 4 else ""
            raise wrong_shape("input", axes, input, advice)
        if self.uses_fourier(input):
            return self.convolve_with(input, self.weight, None, self.bias)
        if self._mixes_all:
            return self._correlate(input.flatten(1, 2))
        return self._correlate(gather_neighbours(input, self._tables_like(self.weight)["neighbours"]))
