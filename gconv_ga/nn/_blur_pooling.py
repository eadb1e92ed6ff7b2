"""Pooling that does not alias."""

from torch import Tensor, nn

from ..groups import Group, as_group
from ._pooling import AvgPool2d, MaxPool2d


class MaxBlurPool2d(nn.Module):
    """Halves maps on the group as ``MaxPool2d(2)`` does, with a blur between maximum and sub-sampling.

    The maximum over 2 x 2 pixels is taken at every place, smoothed by the binomial ``[1, 2, 1] / 4`` along both axes
    (border values repeated), and every second value is kept. ``MaxPool2d(2)`` does not smooth: what is too fine for the
    coarser grid then comes out differently where the image lies differently on it, most of all at angles that are no
    quarter turns. Exact at every size, as `MaxPool2d` is.

    Args:
        group: The group or its name.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, |G|, H // 2, W // 2]``

    Raises:
        ValueError: There is no such group, or the input has other axes.

    Example:
        >>> import torch
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
        # Twice a mean of two is the binomial; the second one leaves out every second place.
        self.smooth = AvgPool2d(2, 1, group=self.group)
        self.halve = AvgPool2d(2, group=self.group)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.halve(self.smooth(self.extend(self.maximum(input))))
        return output

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group.name!r})"
