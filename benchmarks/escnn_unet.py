"""The U-Net of gconv_ga.models in escnn, layer for layer; for networks.py and any_angle.py."""

from types import SimpleNamespace
from typing import Any

import torch
from escnn import gspaces
from escnn import nn as enn
from torch import Tensor, nn


class EscnnUNet(nn.Module):
    """Twice convolution, batch norm and ReLU a level, as many regular fields as `EquivariantUNet` has; H and W even.

    Everything is escnn's default: its kernels, its maximum over the group. With ``reduction="mean"`` the mean is ours,
    for escnn has none.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        group: str,
        width: int,
        depth: int,
        kernel_size: int = 3,
        reduction: str = "max",
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        n = int(group[1:])
        self.space = gspaces.rot2dOnR2(n) if group[0] == "C" else gspaces.flipRot2dOnR2(n)
        self.image = enn.FieldType(self.space, in_channels * [self.space.trivial_repr])
        widths = [width * 2**level for level in range(depth)]
        maps = [self._maps(fields) for fields in widths]
        into = [self.image, *maps]
        self.encoder = nn.ModuleList(self._block(into[level], maps[level]) for level in range(depth))
        self.down = nn.ModuleList(enn.PointwiseMaxPool2D(each, 2) for each in maps[:-1])
        self.up = nn.ModuleList(enn.R2Upsampling(each, 2, align_corners=False) for each in maps[:0:-1])
        self.decoder = nn.ModuleList(
            self._block(self._maps(fine + coarse), self._maps(fine))
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.pool = enn.GroupPooling(maps[0]) if reduction == "max" else _Mean(width)
        self.head = nn.Conv2d(width, classes, 1)

    def _maps(self, fields: int) -> Any:
        return enn.FieldType(self.space, fields * [self.space.regular_repr])

    def _block(self, into: Any, out: Any) -> nn.Module:
        size, layers = self.kernel_size, []
        for before in (into, out):
            layers += [
                enn.R2Conv(before, out, size, padding=size // 2, bias=False),
                enn.InnerBatchNorm(out),
                enn.ReLU(out, inplace=True),
            ]
        return enn.SequentialModule(*layers)

    def forward(self, x: Tensor) -> Tensor:
        f, levels = self.image(x), []
        for level, block in enumerate(self.encoder):
            f = block(self.down[level - 1](f) if level else f)
            levels.append(f)
        for up, block, skip in zip(self.up, self.decoder, levels[-2::-1], strict=True):
            # The types are those of the block, which a sum of types would not be equal to in name.
            f = block(block.in_type(torch.cat((skip.tensor, up(f).tensor), dim=1)))
        logits: Tensor = self.head(self.pool(f).tensor)
        return logits


class _Mean(nn.Module):
    def __init__(self, fields: int) -> None:
        super().__init__()
        self.fields = fields

    def forward(self, f: Any) -> Any:
        return SimpleNamespace(tensor=f.tensor.unflatten(1, (self.fields, -1)).mean(2))
