"""Road 2 for images: make any network equivariant by averaging over a finite group.

The network needs no special layers: it may have strides, position embeddings or a fixed input size. The price is one
pass for each group element.

Names: `GroupAverage`, for images and everything else that a finite group of rotations and reflections acts on;
`PermutationAverage`, for sets. For point clouds and infinite groups see `gconv_ga.frames`.

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
