"""Plain networks to convert, made so that they hide no fault."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slow_average import elements, turn, turn_back
from torch import Tensor, nn

# Seeds and sizes are fixed: a case that fails fails again.
SEED = 3


def randomised(model: nn.Module, *example: Tensor) -> nn.Module:
    """Random norms, biases, scales and statistics, in float64: zeros and ones hide what they multiply.

    Statistics are near those of the example, or else an image would hardly make a difference to a deep network.
    """
    generator = torch.Generator().manual_seed(SEED)
    model = model.double().eval()
    for parameter in model.parameters():
        if parameter.ndim <= 1:
            parameter.data.uniform_(0.5, 1.5, generator=generator)

    def jitter(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], [i for i in range(inputs[0].ndim) if i != 1], correction=0)
        norm.running_mean.copy_(mean + 0.1 * torch.randn(mean.shape, generator=generator))
        norm.running_var.copy_((variance + 1e-2) * (0.5 + torch.rand(mean.shape, generator=generator)))

    norms = [module for module in model.modules() if getattr(module, "running_var", None) is not None]
    hooks = [norm.register_forward_pre_hook(jitter) for norm in norms]
    with torch.no_grad():
        model(*example)
    for hook in hooks:
        hook.remove()
    return model


def image(*shape: int, seed: int = SEED) -> Tensor:
    """Random images in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orbit_of(x: Tensor, group: str) -> Tensor:
    """``[|G| B, ...]``: every element's ``L_g^-1 x``, written with torch.rot90 and flip; for square images."""
    return torch.cat([turn_back(x, g) for g in elements(group)])


def mean_over_orbit(y: Tensor, group: str) -> Tensor:
    """The mean of a module's output on `orbit_of`, rotated back to the image's frame."""
    parts = y.chunk(len(elements(group)))
    turned = [turn(part, g) if part.ndim == 4 else part for part, g in zip(parts, elements(group), strict=True)]
    return sum(turned[1:], turned[0]) / len(turned)


class Busy(nn.Module):
    """A bit of everything: strides, even kernels, depthwise, dilated and transposed convolutions, a norm, pools."""

    def __init__(self, channels: int = 3, out: int = 2, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.down = nn.Conv2d(width, width, 2, stride=2)
        self.wide = nn.Conv2d(width, width, 3, padding=2, dilation=2, padding_mode="reflect")
        self.point = nn.Conv2d(width, width, 1, stride=2, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.up = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.same = nn.Conv2d(width, width, 4, padding="same")
        self.line = nn.Conv2d(width, width, (1, 5), padding=(0, 2))
        self.head = nn.Conv2d(2 * width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.norm(self.stem(x)), inplace=True)
        y = self.point(self.wide(self.down(self.deep(fine))))
        coarse = F.avg_pool2d(self.pool(fine), 3, 2, 1)
        y = torch.tanh(y + F.interpolate(coarse, size=y.shape[-2:], mode="bilinear"))
        y = self.line(self.same(self.up(y)))
        y = F.interpolate(y, size=fine.shape[-2:], mode="nearest")
        return self.head(torch.cat((fine, y), dim=1))


class Classifier(nn.Module):
    """Convolutions, adaptive pooling to 3 x 3, and linear layers on the flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2), nn.BatchNorm2d(6), nn.LeakyReLU(0.1, inplace=True), nn.MaxPool2d(2)
        )
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.head = nn.Sequential(nn.Linear(54, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


def of_torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A classifier of torchvision's."""
    return lambda: getattr(pytest.importorskip("torchvision").models, name)(num_classes=5, **options)


def segmenter_of_torchvision(name: str) -> Callable[[], nn.Module]:
    """A segmenter of torchvision's."""
    empty = {"weights": None, "weights_backbone": None, "num_classes": 3}
    return lambda: getattr(pytest.importorskip("torchvision").models.segmentation, name)(**empty)


def of_smp(name: str, encoder: str = "resnet18", **options: Any) -> Callable[[], nn.Module]:
    """A segmenter of segmentation_models_pytorch."""
    return lambda: getattr(pytest.importorskip("segmentation_models_pytorch"), name)(
        encoder, encoder_weights=None, classes=2, **options
    )


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of timm's."""
    return lambda: pytest.importorskip("timm").create_model(name, **options)
