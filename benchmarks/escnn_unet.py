"""The U-Net of gconv_ga.models built from escnn layers, for networks.py and any_angle.py."""

from types import SimpleNamespace
from typing import Any

import torch
from escnn import gspaces
from escnn import nn as enn
from torch import Tensor, nn


class EscnnUNet(nn.Module):
    """U-Net of escnn with as many regular fields as `EquivariantUNet`, and two convolutions per level; H and W even.

    Kernels and the maximum over the group are escnn's defaults. The mean (``reduction="mean"``) is implemented here,
    since escnn has none.

    Args:
        in_channels: Number of image channels.
        classes: Number of classes.
        group: Name of the group, such as "C4" or "D4".
        width: Number of fields at the finest level.
        depth: Number of levels.
        kernel_size: Size of the kernels.
        reduction: Pooling over the group, "max" or "mean".
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
        outputs = [self._field_type(fields) for fields in widths]
        inputs = [self.image, *outputs]
        self.encoder = nn.ModuleList(self._block(inputs[level], outputs[level]) for level in range(depth))
        self.down = nn.ModuleList(enn.PointwiseMaxPool2D(field_type, 2) for field_type in outputs[:-1])
        self.up = nn.ModuleList(enn.R2Upsampling(field_type, 2, align_corners=False) for field_type in outputs[:0:-1])
        self.decoder = nn.ModuleList(
            self._block(self._field_type(fine + coarse), self._field_type(fine))
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.pool = enn.GroupPooling(outputs[0]) if reduction == "max" else _Mean(width)
        self.head = nn.Conv2d(width, classes, 1)

    def _field_type(self, fields: int) -> Any:
        return enn.FieldType(self.space, fields * [self.space.regular_repr])

    def _block(self, in_type: Any, out_type: Any) -> nn.Module:
        size, layers = self.kernel_size, []
        for layer_in in (in_type, out_type):
            layers += [
                enn.R2Conv(layer_in, out_type, size, padding=size // 2, bias=False),
                enn.InnerBatchNorm(out_type),
                enn.ReLU(out_type, inplace=True),
            ]
        return enn.SequentialModule(*layers)

    def forward(self, x: Tensor) -> Tensor:
        f, levels = self.image(x), []
        for level, block in enumerate(self.encoder):
            f = block(self.down[level - 1](f) if level else f)
            levels.append(f)
        for up, block, skip in zip(self.up, self.decoder, levels[-2::-1], strict=True):
            # The concatenation is given the block's own type: a sum of field types has another name, so is not equal.
            f = block(block.in_type(torch.cat((skip.tensor, up(f).tensor), dim=1)))
        logits: Tensor = self.head(self.pool(f).tensor)
        return logits


class _Mean(nn.Module):
    """Mean over the group."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.fields = fields

    def forward(self, f: Any) -> Any:
        return SimpleNamespace(tensor=f.tensor.unflatten(1, (self.fields, -1)).mean(2))
