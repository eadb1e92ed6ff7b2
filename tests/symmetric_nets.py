"""Networks that are equivariant by construction, in plain torch, without anything of the package."""

import torch
import torch.nn.functional as F
from torch import nn


def turn(x, g, mirrors=False):
    """Element g of C_4, or of D_4 if ``mirrors``, with torch alone: flip the last axis if g >= 4, then rotate."""
    return torch.rot90(x.flip(-1) if mirrors and g >= 4 else x, g % 4, (-2, -1))


def randomise(net):
    """Random norms and biases: at their start values some faults cancel."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)  # more would kill some narrow nets behind the ReLU
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2.0)
    return net


@torch.no_grad()
def symmetrise(net):
    """Replace every kernel by the mean over its eight rotations and reflections, with He's variance, in float64.

    In float32 the mean would be symmetric to 1e-8 only.
    """
    net.double()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            mean = sum(turn(module.weight, g, mirrors=True) for g in range(8)) / 8
            scale = (2 / module.weight[0].numel()) ** 0.5 / mean.std() if mean.numel() > 1 else 1.0
            module.weight.copy_(mean * scale)
    return randomise(net)


def block(inputs, outputs, **options):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, **options), nn.BatchNorm2d(outputs), nn.ReLU())


def symmetric_net(channels=1, layers=2, width=4):
    """Images to images, equivariant under D_4 at every size."""
    hidden = (block(width, width) for _ in range(layers))
    return symmetrise(nn.Sequential(block(channels, width), *hidden, nn.Conv2d(width, 2, 1)))


class SmallUNet(nn.Module):
    """Pool, up-sample, concatenate: equivariant under D_4 at even sizes."""

    def __init__(self):
        super().__init__()
        self.down, self.deep, self.up = block(1, 4), block(4, 4), block(8, 4)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        skip = self.down(x)
        deep = F.interpolate(self.deep(self.pool(skip)), scale_factor=2, mode="bilinear")
        return self.head(self.up(torch.cat((skip, deep), 1)))


def classifier():
    """Images to class scores, invariant under D_4."""
    body = [block(1, 4), block(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return symmetrise(nn.Sequential(*body))


class Lifting(nn.Module):
    """Images to feature maps on C4: the kernel rotated by torch, once for each element, ``steps`` times 90 degrees."""

    def __init__(self, steps=(0, 1, 2, 3)):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 1, 3, 3))
        self.steps = steps

    def forward(self, x):
        return torch.stack([F.conv2d(x, turn(self.weight, step), padding=1) for step in self.steps], dim=2)


def gradient(x):
    """An image to the field of its gradient, x component first, by central differences inside the image."""
    down, right = torch.gradient(x, dim=(-2, -1))
    return torch.cat((right, down), dim=-3)


def image(*shape, dtype=torch.float64):
    """A random image, the same in every test."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)).to(dtype)
