"""Road 2 for images: any network made equivariant by averaging over a finite group.

Nothing is asked of the network: it may have strides, position embeddings or a fixed input size. The price is one pass
for every element.

Names: `GroupAverage`, for images and whatever else a finite group moves; `PermutationAverage`, for sets, whose order
should not matter. Point clouds and infinite groups: `gconv_ga.frames`.

Example:
    >>> import torch
    >>> from gconv_ga.averaging import GroupAverage
    >>> segmenter = torch.nn.Conv2d(3, 1, 3, padding=1)
    >>> net = GroupAverage(segmenter, "D4")
    >>> net(torch.randn(2, 3, 31, 45)).shape
    torch.Size([2, 1, 31, 45])
"""

from ._group_average import GroupAverage
from ._permutations import PermutationAverage

__all__ = ["GroupAverage", "PermutationAverage"]
