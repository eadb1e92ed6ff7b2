"""Up-sampling of maps on the group, exact to every size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import as_int, as_pair, invalid, one_of, wrong_shape
from ..groups import Group, as_group
from ._geometry import element_moves, per_orientation


class Upsample(nn.Module):
    """Maps made ``scale_factor`` times as large, then fitted to the size that is wanted.

    The undoing of `MaxPool2d` and `AvgPool2d` of the same window: after up-sampling, a map that pooling had cut short
    is continued by its last row or column, at the edge where that orientation's windows left it over. So the skip
    connections of a U-Net fit at every size, and stay exact. Without ``output_size`` it is `torch.nn.Upsample`.

    Args:
        scale_factor: An int, at least 1.
        mode: "nearest", "bilinear" (``align_corners=False``) or "bicubic".
        group: The group or its name.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H * scale_factor, W * scale_factor]``, or ``output_size``

    Raises:
        ValueError: ``scale_factor`` is no positive int, the mode is none of those listed, the input has other axes,
            or ``output_size`` is no size that a pool of this window can come from.

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
        self._moves = element_moves(self.group)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if input.ndim != 5 or input.shape[2] != self.group.order:
            raise wrong_shape("input", f"[B, C, |G|={self.group.order}, H, W]", input)
        least = [n * self.scale_factor for n in input.shape[-2:]]
        size = least if output_size is None else list(as_pair("output_size", output_size, minimum=1))
        short = [size[axis] - least[axis] for axis in (0, 1)]
        if not all(0 <= n < self.scale_factor for n in short):
            most = [n + self.scale_factor - 1 for n in least]
            raise invalid("output_size", f"from {tuple(least)} to {tuple(most)}", output_size)

        def enlarge(x: Tensor) -> Tensor:
            y = F.interpolate(x, scale_factor=self.scale_factor, mode=self.mode)
            return F.pad(y, (0, short[1], 0, short[0]), mode="replicate") if any(short) else y

        return per_orientation(enlarge, input, self._moves, False, short[0] > 0, short[1] > 0)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}, group={self.group.name!r}"
