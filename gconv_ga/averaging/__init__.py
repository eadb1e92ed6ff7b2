"""Road 2: any network made equivariant by averaging over a group.

Nothing is asked of the network: it may have strides, position embeddings or a fixed input size. The price is one pass
through it for every element.

Names: `GroupAverage`.

Example:
    >>> import torch
    >>> from gconv_ga.averaging import GroupAverage
    >>> segmenter = torch.nn.Conv2d(3, 1, 3, padding=1)
    >>> net = GroupAverage(segmenter, "D4")
    >>> net(torch.randn(2, 3, 31, 45)).shape
    torch.Size([2, 1, 31, 45])
"""

from ._group_average import GroupAverage

__all__ = ["GroupAverage"]
