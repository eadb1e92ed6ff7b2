"""From feature maps on the group to vector fields."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._validate import as_int, wrong_shape
from ..groups import Group, as_group
from ._tables import KeepsTables


class VectorHead(KeepsTables):
    """A linear map, pixel by pixel, from a feature map on the group to a vector field that rotates with the image.

    ``v(y) = sum_c sum_g s(y, c, g) R_g w_c``, where ``R_g`` is the 2 x 2 matrix of the group element and ``w_c`` is a
    free vector of the plane for each channel: the most general such map from the regular to the vector representation.
    There is no bias, since no vector is the same after a rotation. The components follow the pixel axes: x along the
    columns, y down the rows, as `gconv_ga.actions.VectorField` rotates them.

    Exact for every group wherever its elements move pixels to pixels: for all of C1, C2, C4, D1, D2 and D4, and for the
    rotations by multiples of 90 degrees and the reflections in the others.

    Args:
        in_channels: Number of channels, not counting group elements.
        group: The group or its name.
        device: Device of the weight.
        dtype: Data type of the weight.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, 2, H, W]``
        - weight: ``[C, 2]``

    Raises:
        ValueError: There is no such group, ``in_channels`` is not a positive int, or the shape of the input does not
            match.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import RegularField, VectorField
        >>> from gconv_ga.nn import VectorHead
        >>> head, maps = VectorHead(5, group="C4"), torch.randn(1, 5, 4, 9, 12)
        >>> of_rotated, rotated = head(RegularField()(maps, "C4", 1)), VectorField()(head(maps), "C4", 1)
        >>> of_rotated.shape, bool((of_rotated - rotated).abs().max() < 1e-5)
        (torch.Size([1, 2, 12, 9]), True)

    References:
        Weiler and Cesa, "General E(2)-equivariant steerable CNNs", NeurIPS 2019; this is their convolution with 1 x 1
        kernels.
    """

    matrices: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        group: Group | str,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = as_int("in_channels", in_channels, minimum=1)
        self.group = as_group(group)
        self.weight = nn.Parameter(torch.empty(self.in_channels, 2, device=device, dtype=dtype))
        self._fill_tables(self.weight.device, self.weight.dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, which keep the variance of an input of mean zero."""
        if not self.weight.is_meta:  # see _convolution.py
            nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_channels * self.group.order))

    def _make_tables(self) -> dict[str, Tensor]:
        """Return the matrices of the elements in pixel axes, y down, ``[|G|, 2, 2]``."""
        matrices = map(self.group.matrix, range(self.group.order))
        rows = [[[a, -b], [-c, d]] for (a, b), (c, d) in matrices]
        return {"matrices": torch.tensor(rows, dtype=torch.float64)}

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 5 or input.shape[1] != self.in_channels or input.shape[2] != self.group.order:
            raise wrong_shape("input", f"[B, C={self.in_channels}, |G|={self.group.order}, H, W]", input)
        matrices = self._tables_like(self.weight)["matrices"]
        kernel = torch.einsum("gij,cj->icg", matrices, self.weight).flatten(1)
        return F.conv2d(input.flatten(1, 2), kernel[..., None, None])

    def extra_repr(self) -> str:
        return f"{self.in_channels}, group={self.group.name!r}"
