"""A U-Net that is trained on objects: classes, distances to the edge, and flows towards the middle."""

import torch
from torch import Tensor, nn

from .. import nn as gnn
from .._validate import as_int
from ..groups import Group, as_group
from ._unet import EquivariantUNet, UNet


class ObjectUNet(nn.Module):
    """A U-Net with heads for classes, for the distance to the edge of an object, and for a flow towards its middle.

    Called as a function it returns logits, as every segmenter; `maps` returns the outputs of all heads. Logits and
    distances rotate and reflect with the image as scalars, the flow as vectors, whose components rotate too. Before the
    heads a convolution with kernels of one pixel widens the feature maps: pooled over the group, those of a narrow
    network are too few for several outputs.

    Exact as `EquivariantUNet` is. With ``group=None`` it is a plain network: the baseline.

    Args:
        in_channels: Number of channels of the image.
        classes: Number of classes, background included.
        group: The symmetry group or its name. If None, the network is plain.
        width: Number of fields of the finest level, of channels if the network is plain.
        depth: Number of levels. The image is halved ``depth - 1`` times.
        neck: Number of channels before the heads, all group elements counted.
        pooling: As for `EquivariantUNet`.

    Shape:
        - input: ``[B, C_in, H, W]``, any H and W from ``2 ** (depth - 1)`` up
        - output: ``[B, classes, H, W]``, logits

    Raises:
        ValueError: An argument is out of its range, or the input has other axes.

    Example:
        >>> import torch
        >>> from gconv_ga.actions import VectorField
        >>> from gconv_ga.models import ObjectUNet
        >>> net, x = ObjectUNet(1, 2, group="C4", width=2, depth=2).eval(), torch.randn(1, 1, 20, 24)
        >>> maps, of_rotated = net.maps(x), net.maps(x.rot90(1, (-2, -1)))
        >>> maps.shape, torch.allclose(of_rotated[:, 3:], VectorField()(maps[:, 3:], "C4", 1), atol=1e-5)
        (torch.Size([1, 5, 20, 24]), True)

    References:
        Stringer et al., "Cellpose", Nature Methods 18, 2021 (flows).
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        group: Group | str | None = "C4",
        width: int = 8,
        depth: int = 4,
        neck: int = 64,
        pooling: str = "max",
    ) -> None:
        super().__init__()
        channels = as_int("neck", neck, minimum=1)
        self.group = None if group is None else as_group(group)
        self.classes = as_int("classes", classes, minimum=2)
        self.body: EquivariantUNet | UNet
        self.pool: nn.Module
        self.flow_head: nn.Module
        widen: nn.Module
        norm: nn.Module
        if self.group is None:
            self.body = UNet(in_channels, classes, width=width, depth=depth, pooling=pooling)
            widen = nn.Conv2d(self.body.width, channels, 1, bias=False)
            norm = nn.BatchNorm2d(channels)
            self.pool, self.flow_head = nn.Identity(), nn.Conv2d(channels, 2, 1, bias=False)
        else:
            self.body = EquivariantUNet(
                in_channels, classes, group=self.group, width=width, depth=depth, pooling=pooling
            )
            channels = max(1, channels // self.group.order)
            widen = gnn.GroupConv2d(self.body.width, channels, 1, bias=False, group=self.group)
            norm = gnn.BatchNorm2d(channels)
            self.pool, self.flow_head = gnn.GroupPool(self.group), gnn.VectorHead(channels, group=self.group)
        # The body returns the feature map that the neck takes.
        self.body.decoder.pool = nn.Identity()
        self.body.add_module("segmentation_head", nn.Identity())
        self.neck = nn.Sequential(widen, norm, nn.ReLU(inplace=True))
        self.segmentation_head = nn.Conv2d(channels, self.classes, 1)
        self.distance_head = nn.Conv2d(channels, 1, 1)

    @property
    def stride(self) -> int:
        """Number of pixels of the image between those of the coarsest feature map, along an axis."""
        return self.body.stride

    def maps(self, x: Tensor) -> Tensor:
        """Return the outputs of all heads: logits, the distance, and the flow, x along the columns, y down the rows.

        Shape:
            - x: ``[B, C_in, H, W]``
            - output: ``[B, classes + 3, H, W]``
        """
        features = self.neck(self.body(x))
        pooled = self.pool(features)
        return torch.cat((self.segmentation_head(pooled), self.distance_head(pooled), self.flow_head(features)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.segmentation_head(self.pool(self.neck(self.body(x))))
        return logits
