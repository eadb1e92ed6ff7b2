"""Layers without a kernel of their own: pooling, norms, dropout and upsampling of feature maps on the group."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import as_int, as_pair, invalid, one_of, wrong_shape
from ..groups import Group, as_group
from ._geometry import SAMPLINGS, apply_per_orientation, make_geometry, sampling_moves, select_elements


class _Pool2d(nn.Module):
    """Base class of the pools over windows: arguments, windows, one pool for each orientation."""

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
        """Pool images, channel by channel."""
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
        # Where no pixel is left over, all orientations have the same windows and one call is enough.
        flips = own and rows.leftover(height) > 0, own and columns.leftover(width) > 0
        return apply_per_orientation(self._pool, input, self.geometry.moves, rows != columns, *flips)

    def extra_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        for name, value, default in (("dilation", self.dilation, (1, 1)), ("ceil_mode", self.ceil_mode, False)):
            if value != default:
                text += f", {name}={value}"
        text += f", group={self.group.name!r}"
        return text if self.sampling == "per_orientation" else text + f", sampling={self.sampling!r}"


class MaxPool2d(_Pool2d):
    """Max pooling of feature maps on the group: `torch.nn.MaxPool2d` for ``[B, C, |G|, H, W]``, exact at every size.

    Each orientation samples its own grid. (A single grid for all orientations, ``sampling="shared"``, is exact only at
    some sizes: even ones for ``kernel_size=2``, odd ones for ``kernel_size=3, stride=2, padding=1``.)

    Args:
        kernel_size: As in `torch.nn.MaxPool2d`.
        stride: As in `torch.nn.MaxPool2d`. If None, ``kernel_size``.
        padding: As in `torch.nn.MaxPool2d`.
        dilation: As in `torch.nn.MaxPool2d`.
        ceil_mode: As in `torch.nn.MaxPool2d`.
        group: The group or its name.
        sampling: "per_orientation" or "shared", as for `LiftingConv2d`.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H', W']``

    Raises:
        ValueError: An argument is out of its range, a rotation by 90 degrees would change the size of the output, or
            the shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import MaxPool2d
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
    """Average pooling of feature maps on the group: `torch.nn.AvgPool2d` for five axes, exact at every size.

    Args:
        kernel_size: As in `torch.nn.AvgPool2d`.
        stride: As in `torch.nn.AvgPool2d`. If None, ``kernel_size``.
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
        >>> from gconv_ga.nn import AvgPool2d
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


class MaxBlurPool2d(nn.Module):
    """Max pooling with anti-aliasing: halves feature maps on the group like ``MaxPool2d(2)``, but blurs in between.

    The maximum over 2 x 2 pixels is taken at every pixel and smoothed by the binomial ``[1, 2, 1] / 4`` along both axes
    (border values are repeated); then every second value is kept. ``MaxPool2d(2)`` does not smooth, so it aliases:
    detail that is too fine for the coarser grid makes the output depend on the position of the image on that grid, and
    thus on the angle, at angles other than multiples of 90 degrees. Exact at every size, like `MaxPool2d`.

    Args:
        group: The group or its name.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H // 2, W // 2]``

    Raises:
        ValueError: There is no such group, or the shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import MaxBlurPool2d
        >>> MaxBlurPool2d("C8")(torch.randn(1, 4, 8, 33, 32)).shape
        torch.Size([1, 4, 8, 16, 16])

    References:
        Zhang, "Making convolutional networks shift-invariant again", ICML 2019, section 3.
    """

    def __init__(self, group: Group | str) -> None:
        super().__init__()
        self.group = as_group(group)
        self.maximum = MaxPool2d(2, 1, group=self.group)
        self.extend = nn.ReplicationPad3d((1, 1, 1, 1, 0, 0))
        # Two means over two values make the binomial; the second one skips every second pixel.
        self.smooth = AvgPool2d(2, 1, group=self.group)
        self.halve = AvgPool2d(2, group=self.group)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.halve(self.smooth(self.extend(self.maximum(input))))
        return output

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group.name!r})"


class GroupPool(nn.Module):
    """Mean or maximum over group elements, from a feature map on the group to an image or to a map on a subgroup.

    ``out(y) = 1/|G| sum_g f(y, g)``, which transforms like an image. For a subgroup ``H`` with representatives ``t`` of
    its cosets ``H t``: ``out(y, h) = mean_t f(y, h t)``, a feature map on ``H``. From D_n to C_n, for example, each
    rotation is pooled with its reflection.

    Args:
        group: The group of the input, or its name.
        reduction: "mean" or "max".
        to: A subgroup or its name. If None, pool over all elements.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, H, W]``, or ``[B, C, |H|, H, W]`` with ``to``

    Raises:
        ValueError: ``to`` is not a subgroup, ``reduction`` is neither "mean" nor "max", or the shape of the input does
            not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import GroupPool
        >>> GroupPool("D4")(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
        >>> GroupPool("D4", "max", to="C4")(torch.randn(2, 8, 8, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])

    References:
        Cohen and Welling, "Group equivariant convolutional networks", ICML 2016, section 6.3 (coset pooling).
    """

    def __init__(self, group: Group | str, reduction: str = "mean", *, to: Group | str | None = None) -> None:
        super().__init__()
        self.group = as_group(group)
        self.reduction = one_of("reduction", reduction, ("mean", "max"))
        # Not self.to, which moves a module to a device.
        self.subgroup = None if to is None else as_group(to, "to")
        self._cosets = None if self.subgroup is None else cosets(self.group, self.subgroup)

    def forward(self, input: Tensor) -> Tensor:
        return pool_cosets(input, self.group, self._cosets, self.reduction)

    def extra_repr(self) -> str:
        text = f"{self.group.name!r}, reduction={self.reduction!r}"
        return text if self.subgroup is None else text + f", to={self.subgroup.name!r}"


def pool_cosets(f: Tensor, group: Group, members: tuple[tuple[int, ...], ...] | None, reduction: str) -> Tensor:
    """Pool over the `cosets` of a subgroup, or over all elements if ``members`` is None."""
    if f.ndim != 5 or f.shape[2] != group.order:
        raise wrong_shape("input", f"[B, C, |G|={group.order}, H, W]", f)
    if members is not None:
        # [B, C, coset, |H|, H, W]: the axis of the cosets is pooled.
        f = torch.stack([select_elements(f, coset, 2) for coset in members], dim=2)
    return f.mean(2) if reduction == "mean" else f.amax(2)


def cosets(group: Group, to: Group | str) -> tuple[tuple[int, ...], ...]:
    """Return the cosets ``H t`` of a subgroup, each in the subgroup's order; ``t`` is the first element of each.

    Raises:
        ValueError: ``to`` is not a group, or not a subgroup.
    """
    subgroup = as_group(to, "to")
    try:
        members = group.subgroup(subgroup)
    except ValueError:
        raise invalid("to", f"a subgroup of {group.name}", to) from None
    return _cosets(group, members)


@cache
def _cosets(group: Group, subgroup: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for t in range(group.order):
        if t not in seen:
            found.append(tuple(group.products[h][t] for h in subgroup))
            seen.update(found[-1])
    return tuple(found)


class BatchNorm2d(nn.BatchNorm3d):
    """Batch normalization of feature maps on the group; statistics and affine parameters are shared by all elements.

    Equivariance asks for the statistics of `torch.nn.BatchNorm3d`, which are taken over the last three axes of
    ``[B, C, |G|, H, W]``: separate statistics would tell the orientations apart. To synchronize them between devices,
    use `torch.nn.SyncBatchNorm.convert_sync_batchnorm`.

    Args:
        num_features: C, not counting group elements.
        eps: As in torch.
        momentum: As in torch.
        affine: As in torch.
        track_running_stats: As in torch.
        bias: As in torch.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import BatchNorm2d
        >>> BatchNorm2d(8)(torch.randn(2, 8, 4, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])
    """

    def _check_input_dim(self, input: Tensor) -> None:
        _check_axes(input, self.num_features)


class InstanceNorm2d(nn.InstanceNorm3d):
    """Instance normalization of feature maps on the group, with statistics over group elements and pixels.

    Args:
        num_features: C, not counting group elements.
        eps: As in torch.
        momentum: As in torch.
        affine: As in torch.
        track_running_stats: As in torch.
        bias: As in torch.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import InstanceNorm2d
        >>> InstanceNorm2d(8)(torch.randn(2, 8, 4, 16, 16)).shape
        torch.Size([2, 8, 4, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        # torch looks at the first sample without checking that there is one.
        return super().forward(input) if input.shape[0] else input.clone()

    def _check_input_dim(self, input: Tensor) -> None:
        _check_axes(input, self.num_features)


class Dropout2d(nn.Dropout3d):
    """Dropout of whole fields: all orientations of a field are dropped together, so that training is equivariant too.

    Args:
        p: Probability that a field is set to zero.
        inplace: As in torch.

    Shape:
        - input and output: ``[B, C, |G|, H, W]``

    Raises:
        ValueError: The shape of the input does not match.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import Dropout2d
        >>> Dropout2d(0.5)(torch.ones(1, 8, 4, 16, 16)).shape
        torch.Size([1, 8, 4, 16, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        _check_axes(input, None)
        return super().forward(input)


def _check_axes(input: Tensor, fields: int | None) -> None:
    if input.ndim != 5 or (fields is not None and input.shape[1] != fields):
        raise wrong_shape("input", f"[B, C{'' if fields is None else f'={fields}'}, |G|, H, W]", input)


class Upsample(nn.Module):
    """Up-sampling by an integer factor, extended to the requested size.

    Reverses the size change of `MaxPool2d` and `AvgPool2d` with the same window. Where such a pool has left pixels
    over, the up-sampled map is extended by repeating its last row or column, at the edge where that orientation's
    windows left them. So the skip connections of a U-Net fit at every size and stay exact. Without ``output_size`` it
    is `torch.nn.Upsample`.

    Args:
        scale_factor: An int of at least 1.
        mode: "nearest", "bilinear" (``align_corners=False``) or "bicubic".
        group: The group or its name.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H * scale_factor, W * scale_factor]``, or ``output_size``

    Raises:
        ValueError: ``scale_factor`` is not a positive int, the mode is not one of those listed, the shape of the input
            does not match, or no pool with this window makes the input from ``output_size``.

    Example:
        >>> import torch
        >>> from gconv_ga.nn import Upsample
        >>> up = Upsample(2, mode="bilinear", group="C4")
        >>> up(torch.randn(1, 8, 4, 16, 16)).shape
        torch.Size([1, 8, 4, 32, 32])
        >>> up(torch.randn(1, 8, 4, 16, 16), output_size=(33, 32)).shape
        torch.Size([1, 8, 4, 33, 32])
    """

    def __init__(self, scale_factor: int, mode: str = "nearest", *, group: Group | str) -> None:
        super().__init__()
        self.scale_factor = as_int("scale_factor", scale_factor, minimum=1)
        self.mode = one_of("mode", mode, ("nearest", "bilinear", "bicubic"))
        self.group = as_group(group)
        self._moves = sampling_moves(self.group)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if input.ndim != 5 or input.shape[2] != self.group.order:
            raise wrong_shape("input", f"[B, C, |G|={self.group.order}, H, W]", input)
        least = [n * self.scale_factor for n in input.shape[-2:]]
        size = least if output_size is None else list(as_pair("output_size", output_size, minimum=1))
        missing = [size[axis] - least[axis] for axis in (0, 1)]
        if not all(0 <= n < self.scale_factor for n in missing):
            most = [n + self.scale_factor - 1 for n in least]
            raise invalid("output_size", f"from {tuple(least)} to {tuple(most)}", output_size)

        def enlarge(x: Tensor) -> Tensor:
            y = F.interpolate(x, scale_factor=self.scale_factor, mode=self.mode)
            return F.pad(y, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else y

        return apply_per_orientation(enlarge, input, self._moves, False, missing[0] > 0, missing[1] > 0)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}, group={self.group.name!r}"
