"""The bridge for whole networks: a trained CNN becomes the G-CNN that equals its group average, and trains further.

Names: `convert`, `ConvertedNetwork`, `ConversionReport`, `NotConvertible`, `register` (teach `convert` a layer), `fold`
(plain torch layers, for export).

Example:
    >>> import torch
    >>> from gconv_ga.averaging import GroupAverage
    >>> from gconv_ga.conversion import convert
    >>> plain = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3))
    >>> x = torch.randn(1, 1, 32, 24)
    >>> net = convert(plain, "C4", x)
    >>> bool((net(x) - GroupAverage(plain, "C4")(x)).abs().max() < 1e-6)
    True
"""

from ._convert import convert, register
from ._fold import fold
from ._network import ConversionReport, ConvertedNetwork, NotConvertible

__all__ = ["ConversionReport", "ConvertedNetwork", "NotConvertible", "convert", "fold", "register"]
