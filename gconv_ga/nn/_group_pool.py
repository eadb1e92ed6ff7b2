"""Pooling over the element axis."""

from torch import Tensor, nn

from .._validate import one_of
from ..groups import Group, as_group
from .functional import group_pool, subgroup_elements


class GroupPool(nn.Module):
    """Mean or maximum over the elements: from a map on the group to an image, or to a map on a subgroup.

    ``out(y) = 1/|G| sum_g f(y, g)``, which turns with the input as an image does. To a subgroup ``H`` with the
    representatives ``t`` of its cosets ``H t``: ``out(y, h) = mean_t f(y, h t)``, a map on ``H``. From D_n to C_n, say,
    the two mirror images of each rotation are pooled.

    Args:
        group: The group of the input, or its name.
        reduction: "mean" or "max".
        to: A subgroup or its name; None pools over all elements.

    Shape:
        - input: ``[B, C, |G|, H, W]``
        - output: ``[B, C, H, W]``, or ``[B, C, |H|, H, W]`` with ``to``

    Raises:
        ValueError: ``to`` is no subgroup, ``reduction`` is neither, or the input has other axes.

    Example:
        >>> import torch
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
        # Not self.to: that is what moves a module to a device.
        self.subgroup = None if to is None else as_group(to, "to")
        if self.subgroup is not None:
            subgroup_elements(self.group, self.subgroup)

    def forward(self, input: Tensor) -> Tensor:
        return group_pool(input, self.group, self.reduction, to=self.subgroup)

    def extra_repr(self) -> str:
        text = f"{self.group.name!r}, reduction={self.reduction!r}"
        return text if self.subgroup is None else text + f", to={self.subgroup.name!r}"
