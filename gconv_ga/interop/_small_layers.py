"""Two layers of escnn that have no counterpart elsewhere: a fixed blur, and a mask over the image."""

import torch
from torch import Tensor, nn

from .._validate import wrong_shape
from ..groups import C1, Group
from ..nn.authoring import correlate, make_geometry


class Blur(nn.Module):
    """Every map blurred by one fixed kernel, with a stride: the second half of an antialiased pool.

    Args:
        kernel: The kernel.
        stride: For rows and columns.
        padding: For rows and columns.
        group: The group of a map; None for images.
        sampling: "per_orientation" or "shared", as for `LiftingConv2d`.

    Shape:
        - kernel: ``[k, k]``
        - input: ``[B, C, H, W]``, or ``[B, C, |G|, H, W]`` with a group
        - output: ``[B, C, H', W']``, or ``[B, C, |G|, H', W']``

    Raises:
        ValueError: The input has other axes.
    """

    kernel: Tensor

    def __init__(
        self, kernel: Tensor, stride: tuple[int, int], padding: tuple[int, int], group: Group | None, sampling: str
    ) -> None:
        super().__init__()
        self.group, self.stride, self.padding, self.sampling = group, stride, padding, sampling
        size = (kernel.shape[0], kernel.shape[1])
        self.geometry = make_geometry(group or C1, size, stride, padding, (1, 1), sampling == "shared")
        self.register_buffer("kernel", kernel.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        order = 1 if self.group is None else self.group.order
        if self.group is None and input.ndim != 4:
            raise wrong_shape("input", "[B, C, H, W]", input)
        if self.group is not None and (input.ndim != 5 or input.shape[2] != order):
            raise wrong_shape("input", f"[B, C, |G|={order}, H, W]", input)
        maps = input.flatten(0, 1).reshape(-1, order, 1, *input.shape[-2:])
        kernels = self.kernel.flatten().expand(1, order, 1, -1)
        blurred = correlate(maps, kernels, None, self.geometry, 1, "zeros")
        return blurred.reshape(*input.shape[:-2], *blurred.shape[-2:])

    def extra_repr(self) -> str:
        size = tuple(self.kernel.shape)
        text = f"kernel_size={size}, stride={self.stride}, padding={self.padding}"
        return text if self.group is None else text + f", group={self.group.name!r}, sampling={self.sampling!r}"


class Mask(nn.Module):
    """The image or map times a fixed mask, of one size.

    Args:
        mask: The factors.

    Shape:
        - mask: ``[S, S]``
        - input and output: ``[..., S, S]``

    Raises:
        ValueError: The input is of another size.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-2:] != self.mask.shape:
            raise wrong_shape("input", f"[..., H={self.mask.shape[0]}, W={self.mask.shape[1]}]", input)
        return torch.mul(input, self.mask)

    def extra_repr(self) -> str:
        return f"size={tuple(self.mask.shape)}"
