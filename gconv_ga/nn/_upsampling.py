"""Up-sampling of feature maps on the group, exact to every size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import as_int, as_pair, invalid, one_of, wrong_shape
from ..groups import Group, as_group
from ._geometry import apply_per_orientation, sampling_moves


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
