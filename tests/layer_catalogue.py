"""Every public layer of gconv_ga.nn: how it is made, what goes in, how its ends turn, and what it must compute."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import slow_layers as slow
import torch
import torch.nn.functional as F
from slow_average import EXACT, elements
from torch import Tensor, nn

import gconv_ga.nn as gnn

GROUPS = list(EXACT)
# Square and not, odd and even, and large enough for every entry.
SIZES = [(9, 9), (8, 8), (8, 11)]


@dataclass(frozen=True)
class Entry:
    """One way to use a layer.

    Args:
        layer: The class.
        reference: ``(layer, input, group)`` to the output, slowly.
        arguments: Positional arguments.
        options: Keyword arguments.
        image_in: Whether an image goes in; a map on the group else.
        out: "map", "image", or "subgroup" for a map on `slow_layers.SUBGROUPS`.
        channels: Of the input.
        grouped: Whether the constructor takes ``group``.
        count: ``group_kernel_size``, if there is one; no more than ``|G|`` is asked for.
        bf16: Whether autocast computes it in bfloat16, as it does torch's own layer of this kind.
    """

    layer: type[nn.Module]
    reference: Callable[[nn.Module, Tensor, str], Tensor]
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    image_in: bool = False
    out: str = "map"
    channels: int = 2
    grouped: bool = True
    count: int | None = None
    bf16: bool = False

    @property
    def is_convolution(self) -> bool:
        return self.bf16

    def make(self, group: str, **factory: Any) -> nn.Module:
        """The layer; ``device`` and ``dtype`` go to those that have parameters."""
        options = dict(self.options)
        if self.grouped:
            options["group"] = group
        if self.count is not None:
            options["group_kernel_size"] = min(self.count, len(elements(group)))
        if self.out == "subgroup":
            options["to"] = slow.SUBGROUPS[group][0]
        takes_factory = "device" in inspect.signature(self.layer).parameters
        return self.layer(*self.arguments, **options, **(factory if takes_factory else {}))

    def shape(self, group: str, size: tuple[int, int], batch: int = 2) -> tuple[int, ...]:
        """Of the input."""
        return (batch, self.channels, *(() if self.image_in else (len(elements(group)),)), *size)

    def input(self, group: str, size: tuple[int, int], batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
        """Normal numbers, from torch's global generator."""
        return torch.randn(self.shape(group, size, batch), dtype=dtype)

    def act_in(self, x: Tensor, group: str, g: int) -> Tensor:
        return slow.act_on_image(x, group, g) if self.image_in else slow.act_on_map(x, group, g)

    def act_out(self, y: Tensor, group: str, g: int) -> Tensor:
        """``g`` is an element of `symmetry`; it acts on images as the same element of the whole group does."""
        return slow.act_on_image(y, group, g) if self.out == "image" else slow.act_on_map(y, group, g)

    def symmetry(self, group: str) -> list[tuple[str, int, int]]:
        """The elements under which the output turns, as ``(group of the output, element there, element of group)``."""
        if self.out != "subgroup":
            return [(group, g, g) for g in range(len(elements(group)))]
        subgroup, inside, _ = slow.SUBGROUPS[group]
        return [(subgroup, h, g) for h, g in enumerate(inside)]


def _convolution(name: str, *arguments: Any, count: int | None = None, **options: Any) -> Entry:
    references = {
        "LiftingConv2d": lambda layer, x, group: slow.lifting(layer, x, group),
        "GroupConv2d": lambda layer, f, group: slow.group_convolution(layer, f, group, count),
        "GroupConvTranspose2d": lambda layer, f, group: slow.transposed_convolution(layer, f, group, count),
    }
    return Entry(
        getattr(gnn, name), references[name], arguments, options, image_in=name == "LiftingConv2d",
        channels=arguments[0], count=count, bf16=True,
    )  # fmt: skip


def _each(layer: type[nn.Module], plain: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> Entry:
    return Entry(layer, lambda layer, f, group: slow.each(plain, f, group), arguments, options)


CATALOGUE = {
    "LiftingConv2d": _convolution("LiftingConv2d", 2, 2, 3, padding=1),
    "LiftingConv2d, stride 2": _convolution("LiftingConv2d", 2, 4, 3, 2, 1),
    "LiftingConv2d, blocks, dilation": _convolution("LiftingConv2d", 2, 4, 3, 3, 2, 2, 2, False),
    "LiftingConv2d, same, reflect": _convolution("LiftingConv2d", 2, 2, 4, padding="same", padding_mode="reflect"),
    "GroupConv2d": _convolution("GroupConv2d", 2, 2, 3, padding=1),
    "GroupConv2d, stride 2": _convolution("GroupConv2d", 2, 4, 3, 2, 1),
    "GroupConv2d, stride 2, wide": _convolution("GroupConv2d", 2, 34, 3, 2, 1),
    "GroupConv2d, blocks, dilation, circular": _convolution(
        "GroupConv2d", 4, 2, 3, 2, 2, 2, 2, False, padding_mode="circular"
    ),
    "GroupConv2d, one tap, stride 2": _convolution("GroupConv2d", 2, 2, 3, 2, 1, count=1),
    "GroupConv2d, two taps, blocks": _convolution("GroupConv2d", 4, 4, 2, 2, groups=2, count=2),
    "GroupConv2d, one tap, gathered": _convolution("GroupConv2d", 2, 16, 3, 2, 1, count=1),
    "GroupConv2d, two taps, blocks, gathered": _convolution("GroupConv2d", 4, 48, 2, 2, groups=2, count=2),
    "GroupConv2d, steerable, one tap, gathered": _convolution(
        "GroupConv2d", 2, 16, 3, padding=1, filters="steerable", count=1
    ),
    "GroupConv2d, three taps, same": _convolution("GroupConv2d", 2, 2, 2, padding="same", count=3),
    "GroupConvTranspose2d": _convolution("GroupConvTranspose2d", 2, 2, 3, 2, 1, 1),
    "GroupConvTranspose2d, blocks": _convolution("GroupConvTranspose2d", 4, 2, 4, 2, 1, groups=2, dilation=2),
    "GroupConvTranspose2d, one tap": _convolution("GroupConvTranspose2d", 2, 2, 2, 3, 0, 2, count=1),
    "GroupConvTranspose2d, two taps": _convolution("GroupConvTranspose2d", 2, 2, 3, 2, 0, 1, bias=False, count=2),
    "LiftingConv2d, steerable": _convolution("LiftingConv2d", 2, 2, 5, 2, 2, filters="steerable"),
    "GroupConv2d, steerable": _convolution("GroupConv2d", 2, 2, 3, 2, 1, filters="steerable"),
    "GroupConv2d, steerable, two taps": _convolution("GroupConv2d", 2, 2, 3, padding=1, filters="steerable", count=2),
    "GroupConvTranspose2d, steerable": _convolution("GroupConvTranspose2d", 2, 2, 3, 2, 1, 1, filters="steerable"),
    "GroupPool, mean": Entry(
        gnn.GroupPool, lambda layer, f, group: slow.pooled(f, "mean"), (), {"reduction": "mean"}, out="image"
    ),
    "GroupPool, max": Entry(
        gnn.GroupPool, lambda layer, f, group: slow.pooled(f, "max"), (), {"reduction": "max"}, out="image"
    ),
    "GroupPool, subgroup": Entry(
        gnn.GroupPool, lambda layer, f, group: slow.pooled_to_subgroup(f, group), out="subgroup"
    ),
    "BatchNorm2d": Entry(gnn.BatchNorm2d, lambda layer, f, group: slow.batch_norm(layer, f), (2,), grouped=False),
    "InstanceNorm2d": Entry(
        gnn.InstanceNorm2d, lambda layer, f, group: slow.instance_norm(layer, f), (2,), {"affine": True}, grouped=False
    ),
    "Dropout2d": Entry(gnn.Dropout2d, lambda layer, f, group: f, (0.4,), grouped=False),
    "MaxPool2d": _each(gnn.MaxPool2d, partial(F.max_pool2d, kernel_size=2), 2),
    "MaxPool2d, overlapping": _each(
        gnn.MaxPool2d, partial(F.max_pool2d, kernel_size=3, stride=2, padding=1, ceil_mode=True), 3, 2, 1,
        ceil_mode=True,
    ),
    "MaxBlurPool2d": _each(gnn.MaxBlurPool2d, slow.max_blur),
    "AvgPool2d": _each(
        gnn.AvgPool2d, partial(F.avg_pool2d, kernel_size=3, stride=2, padding=1, count_include_pad=False), 3, 2, 1,
        count_include_pad=False,
    ),
    "Upsample, nearest": _each(gnn.Upsample, slow.upsampling(2, "nearest"), 2),
    "Upsample, bilinear": _each(gnn.Upsample, slow.upsampling(3, "bilinear"), 3, mode="bilinear"),
    "Upsample, bicubic": _each(gnn.Upsample, slow.upsampling(2, "bicubic"), 2, mode="bicubic"),
}  # fmt: skip
CONVOLUTIONS = [name for name, entry in CATALOGUE.items() if entry.is_convolution]


def scrambled(layer: nn.Module) -> nn.Module:
    """The layer in float64 and eval mode, with biases and statistics that no initialisation gives."""
    layer = layer.double().eval()
    with torch.no_grad():
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            if name == "running_var":
                tensor.copy_(0.5 + torch.rand(tensor.shape, dtype=tensor.dtype))
            elif name in ("weight", "bias", "running_mean"):
                tensor.copy_(torch.randn(tensor.shape, dtype=tensor.dtype))
    return layer
