"""The catalogue of the public layers of gconv_ga.nn: one entry for each, from which their common tests are made.

A new layer is a new entry. Its uses are compared with a slow reference, checked for equivariance, gradients, state,
compilers and dtypes; its refusals, small inputs, texts and behaviour at other angles are checked as the entry says.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pytest
import slow_layers as slow
import torch
import torch.nn.functional as F
from slow_average import EXACT, elements
from torch import Tensor, nn

import gconv_ga.nn as gnn
from gconv_ga.groups import C4

GROUPS = list(EXACT)
# Square and not, odd and even, and large enough for every use.
SIZES = [(9, 9), (8, 8), (8, 11)]


@dataclass(frozen=True)
class Use:
    """One way to use a layer.

    Args:
        layer: The class.
        reference: Slow function ``(layer, input, group)`` that returns the output.
        arguments: Positional arguments.
        options: Keyword arguments.
        image_in: Whether the input is an image; otherwise it is a feature map on the group.
        out: "map", "image", "vectors", or "subgroup" for a feature map on `slow_layers.SUBGROUPS`.
        channels: Number of channels of the input.
        grouped: Whether the constructor takes ``group``.
        count: ``group_kernel_size``, if there is one; at most ``|G|`` is passed.
        bf16: Whether autocast computes the layer in bfloat16, as it does torch's own layer of this kind.
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
        return self.bf16 and self.out != "vectors"

    def make(self, group: str, **factory: Any) -> nn.Module:
        """Return the layer; ``device`` and ``dtype`` are passed to layers with parameters."""
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
        """Return the shape of the input."""
        return (batch, self.channels, *(() if self.image_in else (len(elements(group)),)), *size)

    def input(self, group: str, size: tuple[int, int], batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return normal numbers from torch's global generator."""
        return torch.randn(self.shape(group, size, batch), dtype=dtype)

    def act_in(self, x: Tensor, group: str, g: int) -> Tensor:
        return slow.act_on_image(x, group, g) if self.image_in else slow.act_on_map(x, group, g)

    def act_out(self, y: Tensor, group: str, g: int) -> Tensor:
        """Transform the output; on images, ``g`` of `symmetry` acts as the same element of the whole group."""
        acts = {"image": slow.act_on_image, "vectors": slow.act_on_vectors}
        return acts.get(self.out, slow.act_on_map)(y, group, g)

    def symmetry(self, group: str) -> list[tuple[str, int, int]]:
        """Return the elements of the symmetry, as ``(group of the output, element there, element of group)``."""
        if self.out != "subgroup":
            return [(group, g, g) for g in range(len(elements(group)))]
        subgroup, inside, _ = slow.SUBGROUPS[group]
        return [(subgroup, h, g) for h, g in enumerate(inside)]


class Arguments(NamedTuple):
    """Arguments of a constructor."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    def make(self, layer: type[nn.Module], group: str | None = "C4") -> nn.Module:
        """Return the layer, for the group unless the arguments name one or the layer takes none."""
        grouped = "group" in inspect.signature(layer).parameters
        return layer(*self.positional, **({"group": group} if grouped else {}) | self.named)


def arguments(*positional: Any, **named: Any) -> Arguments:
    return Arguments(positional, named)


class Refusal(NamedTuple):
    """Arguments that a constructor refuses, and a regular expression for the message."""

    match: str
    arguments: Arguments


def refused(match: str, *positional: Any, **named: Any) -> Refusal:
    return Refusal(match, arguments(*positional, **named))


class RefusedInput(NamedTuple):
    """A shape that a layer refuses, and a part of the message."""

    text: str
    shape: tuple[int, ...]
    arguments: Arguments


def refused_input(text: str, shape: tuple[int, ...], *positional: Any, **named: Any) -> RefusedInput:
    return RefusedInput(text, shape, arguments(*positional, **named))


class TakenInput(NamedTuple):
    """A shape that a layer takes."""

    shape: tuple[int, ...]
    arguments: Arguments


def taken_input(shape: tuple[int, ...], *positional: Any, **named: Any) -> TakenInput:
    return TakenInput(shape, arguments(*positional, **named))


class Text(NamedTuple):
    """What ``repr`` prints between the parentheses."""

    text: str
    arguments: Arguments


def printed(text: str, *positional: Any, **named: Any) -> Text:
    return Text(text, arguments(*positional, **named))


@dataclass(frozen=True)
class Entry:
    """A public layer and what its tests need; groups are C4 unless the arguments name another.

    Args:
        uses: Ways to use it, by name.
        refused: Arguments that the constructor refuses.
        refused_inputs: Inputs that ``forward`` refuses.
        smallest_inputs: The smallest inputs that are taken, for refusals that name a size.
        texts: Texts of ``repr``.
        any_angle: Arguments for groups of other angles, by name: their rotations by multiples of 90 degrees and their
            reflections must be exact. One channel goes in.
        resizing: Arguments for a layer with ``output_size``: it makes one field of 8 x 8 pixels 16 x 16, or up to
            17 x 17.
        representatives: Names of uses that the expensive tests run on too, for layers with parameters.
    """

    uses: dict[str, Use]
    refused: list[Refusal] = field(default_factory=list)
    refused_inputs: list[RefusedInput] = field(default_factory=list)
    smallest_inputs: list[TakenInput] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    any_angle: dict[str, Arguments] = field(default_factory=dict)
    resizing: Arguments | None = None
    representatives: tuple[str, ...] = ()

    @property
    def layer(self) -> type[nn.Module]:
        return next(iter(self.uses.values())).layer

    @property
    def grouped(self) -> bool:
        return "group" in inspect.signature(self.layer).parameters

    @property
    def image_in(self) -> bool:
        return next(iter(self.uses.values())).image_in

    @property
    def vectors_out(self) -> bool:
        return next(iter(self.uses.values())).out == "vectors"


def lacking(entry: Entry) -> list[str]:
    """Return the fields of an entry that must not be empty, and are."""
    learns = any(list(use.make("C4").parameters()) for use in entry.uses.values())
    resizes = "output_size" in inspect.signature(entry.layer.forward).parameters
    needed = {
        "refused": entry.grouped,
        "refused_inputs": True,
        "texts": entry.grouped,
        "any_angle": entry.grouped,
        "resizing": resizes,
        "representatives": learns,
    }
    return [name for name, is_needed in needed.items() if is_needed and not getattr(entry, name)]


def _lifting(*positional: Any, **named: Any) -> Use:
    return Use(
        gnn.LiftingConv2d, lambda layer, x, group: slow.lifting(layer, x, group), positional, named, image_in=True,
        channels=positional[0], bf16=True,
    )  # fmt: skip


def _group(*positional: Any, count: int | None = None, **named: Any) -> Use:
    return Use(
        gnn.GroupConv2d, lambda layer, f, group: slow.group_convolution(layer, f, group, count), positional, named,
        channels=positional[0], count=count, bf16=True,
    )  # fmt: skip


def _transposed(*positional: Any, count: int | None = None, **named: Any) -> Use:
    return Use(
        gnn.GroupConvTranspose2d, lambda layer, f, group: slow.transposed_convolution(layer, f, group, count),
        positional, named, channels=positional[0], count=count, bf16=True,
    )  # fmt: skip


def _each(layer: type[nn.Module], plain: Callable[[Tensor], Tensor], *positional: Any, **named: Any) -> Use:
    return Use(layer, lambda layer, f, group: slow.each(plain, f, group), positional, named)


REFUSED_BY_CONVOLUTIONS = [
    refused(r"group must be .*but got group=4\. .*'C4'.*groups=4", 2, 4, 3, group=4),
    refused(r"group must be a group or its name.*but got group='G4'", 2, 4, 3, group="G4"),
    refused(r"groups must be .*but got groups='C4'\. The symmetry is group='C4'", 2, 4, 3, groups="C4"),
    refused(r"groups must be .*but got groups=CyclicGroup\(4\)\. The symmetry is group=", 2, 4, 3, groups=C4),
    refused("in_channels must be a multiple of groups=3, but got in_channels=2", 2, 4, 3, groups=3),
    refused("out_channels must be a multiple of groups=3, but got out_channels=4", 3, 4, 3, groups=3),
    refused("in_channels must be a positive int, but got in_channels=0", 0, 4, 3),
    refused("out_channels must be a positive int, but got out_channels=True", 2, True, 3),
    refused("kernel_size must be a positive int, but got kernel_size=3.0", 2, 4, 3.0),
    refused(r"kernel_size must be an int or a pair of ints.*\(3, 3, 3\)", 2, 4, (3, 3, 3)),
    refused(r"kernel_size must be such that .* the same for rows and columns under C4, .*\(3, 5\)", 2, 4, (3, 5)),
    refused("stride must be a positive int, but got stride=0", 2, 4, 3, stride=0),
    refused(r"stride must be the same for rows and columns under C4, .*C2, D1 and D2 have", 2, 4, 3, stride=(2, 1)),
    refused("padding must be an int of at least 0, but got padding=-1", 2, 4, 3, padding=-1),
    refused("dilation must be a positive int, but got dilation=1.5", 2, 4, 3, dilation=1.5),
    refused("sampling must be one of 'per_orientation', 'shared', but got sampling='own'", 2, 4, 3, sampling="own"),
    refused("filters must be .*but got filters='gird'.*'grid'", 2, 4, 3, filters="gird"),
    refused("group must be one of C1, C2, C4, D1, D2, D4 for filters='grid'", 2, 4, 3, group="C8", filters="grid"),
]
IMAGE, MAP = "input must be a tensor [B, C=2, H, W], but got", "input must be a tensor [B, C=2, |G|=4, H, W], but got"
ANY_MAP, FIELDS = "input must be a tensor [B, C, |G|=4, H, W], but got", "a tensor [B, C=2, |G|, H, W], but got"

CATALOGUE = {
    "LiftingConv2d": Entry(
        uses={
            "LiftingConv2d": _lifting(2, 2, 3, padding=1),
            "LiftingConv2d, stride 2": _lifting(2, 4, 3, 2, 1),
            "LiftingConv2d, blocks, dilation": _lifting(2, 4, 3, 3, 2, 2, 2, False),
            "LiftingConv2d, same, reflect": _lifting(2, 2, 4, padding="same", padding_mode="reflect"),
            "LiftingConv2d, steerable": _lifting(2, 2, 5, 2, 2, filters="steerable"),
        },
        representatives=("LiftingConv2d", "LiftingConv2d, stride 2"),
        refused=[
            *REFUSED_BY_CONVOLUTIONS,
            refused(
                "padding must be one of 'valid', 'same', but got padding='sane'. Did you mean", 2, 4, 3, padding="sane"
            ),
            refused(
                "padding must be .*but got padding='same'. 'same' needs stride=1", 2, 4, 3, padding="same", stride=2
            ),
        ],
        refused_inputs=[
            refused_input(IMAGE, (2, 8, 8), 2, 4, 3),
            refused_input(IMAGE, (1, 3, 8, 8), 2, 4, 3),
            refused_input("[..., H >= 3, W >= 3]", (1, 1, 9, 2), 1, 1, 5, padding=1),
            refused_input("[..., H >= 4, W >= 4]", (1, 1, 3, 9), 1, 1, 7, padding=3, padding_mode="reflect"),
            refused_input("[..., H >= 3, W >= 3]", (1, 1, 2, 9), 1, 1, 7, padding=3, padding_mode="circular"),
        ],
        smallest_inputs=[
            taken_input((1, 1, 3, 3), 1, 1, 5, padding=1),
            taken_input((1, 1, 4, 4), 1, 1, 7, padding=3, padding_mode="reflect"),
            taken_input((1, 1, 3, 3), 1, 1, 7, padding=3, padding_mode="circular"),
        ],
        texts=[printed("3, 8, kernel_size=(3, 3), stride=(1, 1), group='C4'", 3, 8, 3)],
        any_angle={"LiftingConv2d": arguments(1, 1, 5, 2, 2)},
    ),
    "GroupConv2d": Entry(
        uses={
            "GroupConv2d": _group(2, 2, 3, padding=1),
            "GroupConv2d, stride 2": _group(2, 4, 3, 2, 1),
            "GroupConv2d, stride 2, wide": _group(2, 34, 3, 2, 1),
            "GroupConv2d, blocks, dilation, circular": _group(4, 2, 3, 2, 2, 2, 2, False, padding_mode="circular"),
            "GroupConv2d, one tap, stride 2": _group(2, 2, 3, 2, 1, count=1),
            "GroupConv2d, two taps, blocks": _group(4, 4, 2, 2, groups=2, count=2),
            "GroupConv2d, one tap, gathered": _group(2, 16, 3, 2, 1, count=1),
            "GroupConv2d, two taps, blocks, gathered": _group(4, 48, 2, 2, groups=2, count=2),
            "GroupConv2d, three taps, same": _group(2, 2, 2, padding="same", count=3),
            "GroupConv2d, steerable": _group(2, 2, 3, 2, 1, filters="steerable"),
            "GroupConv2d, steerable, two taps": _group(2, 2, 3, padding=1, filters="steerable", count=2),
            "GroupConv2d, steerable, one tap, gathered": _group(2, 16, 3, padding=1, filters="steerable", count=1),
        },
        representatives=("GroupConv2d", "GroupConv2d, stride 2", "GroupConv2d, one tap, stride 2"),
        refused=[
            *REFUSED_BY_CONVOLUTIONS,
            refused(
                "padding_mode must be one of 'zeros'.*Did you mean 'reflect'", 2, 4, 3, padding_mode="reflected"
            ),
            refused("group_kernel_size must be a positive int", 2, 4, 3, group_kernel_size=0),
            refused(r"group_kernel_size must be an int from 1 to \|G\|=4.*=5", 2, 4, 3, group_kernel_size=5),
        ],
        refused_inputs=[
            refused_input(f"{MAP} (1, 2, 8, 8). An image goes through LiftingConv2d", (1, 2, 8, 8), 2, 4, 3),
            refused_input(MAP, (1, 2, 8, 8, 8), 2, 4, 3),
            refused_input(MAP, (1, 4, 4, 8, 8), 2, 4, 3),
            refused_input("[..., H >= 7, W >= 7]", (1, 1, 4, 6, 9), 1, 1, 3, dilation=3),
        ],
        smallest_inputs=[taken_input((1, 1, 4, 7, 7), 1, 1, 3, dilation=3)],
        texts=[
            printed(
                "4, 8, kernel_size=(3, 3), stride=(2, 2), dilation=(2, 2), groups=4, bias=False, "
                "padding_mode='reflect', sampling='shared', group='D2', group_kernel_size=3",
                4, 8, 3, 2, 0, 2, 4, False, "reflect", group="D2", group_kernel_size=3, sampling="shared",
            ),
        ],
        any_angle={
            "GroupConv2d": arguments(1, 1, 3, 2, 1),
            "GroupConv2d, stride 3": arguments(1, 20, 5, 3),
            "GroupConv2d, three taps": arguments(1, 1, 3, 2, 1, group_kernel_size=3),
            "GroupConv2d, one tap, gathered": arguments(1, 48, 3, 2, 1, group_kernel_size=1),
        },
    ),
    "GroupConvTranspose2d": Entry(
        uses={
            "GroupConvTranspose2d": _transposed(2, 2, 3, 2, 1, 1),
            "GroupConvTranspose2d, blocks": _transposed(4, 2, 4, 2, 1, groups=2, dilation=2),
            "GroupConvTranspose2d, one tap": _transposed(2, 2, 2, 3, 0, 2, count=1),
            "GroupConvTranspose2d, two taps": _transposed(2, 2, 3, 2, 0, 1, bias=False, count=2),
            "GroupConvTranspose2d, steerable": _transposed(2, 2, 3, 2, 1, 1, filters="steerable"),
        },
        representatives=("GroupConvTranspose2d", "GroupConvTranspose2d, two taps"),
        refused=[
            *REFUSED_BY_CONVOLUTIONS,
            refused("padding must be an int or a pair of ints in a transposed convolution", 2, 4, 3, padding="same"),
            refused("padding_mode must be 'zeros' in a transposed convolution", 2, 4, 3, padding_mode="reflect"),
            refused("output_padding must be from 0 to 0, below the stride or the dilation", 2, 4, 3, output_padding=1),
            refused("output_padding must be from 0 to 1.*output_padding=2", 2, 4, 3, stride=2, output_padding=2),
        ],
        refused_inputs=[
            refused_input(MAP, (1, 4, 4, 8, 8), 2, 4, 3),
            refused_input("larger than what padding=(3, 3)", (1, 1, 4, 3, 9), 1, 1, 3, padding=3),
        ],
        smallest_inputs=[taken_input((1, 1, 4, 5, 5), 1, 1, 3, padding=3)],
        texts=[
            printed(
                "4, 2, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1), group='C4'",
                4, 2, 3, 2, 1, 1,
            ),
        ],
        any_angle={
            "GroupConvTranspose2d": arguments(1, 1, 3, 2, 1, 1),
            "GroupConvTranspose2d, one tap": arguments(1, 1, 3, 2, 0, 1, group_kernel_size=1),
        },
        resizing=arguments(1, 1, 2, 2),
    ),
    "GroupPool": Entry(
        uses={
            "GroupPool, mean": Use(
                gnn.GroupPool, lambda layer, f, group: slow.pooled(f, "mean"), (), {"reduction": "mean"}, out="image"
            ),
            "GroupPool, max": Use(
                gnn.GroupPool, lambda layer, f, group: slow.pooled(f, "max"), (), {"reduction": "max"}, out="image"
            ),
            "GroupPool, subgroup": Use(
                gnn.GroupPool, lambda layer, f, group: slow.pooled_to_subgroup(f, group), out="subgroup"
            ),
        },
        refused=[
            refused("reduction must be one of 'mean', 'max', but got reduction='sum'", group="D4", reduction="sum"),
            refused("to must be a subgroup of C4, but got to=CyclicGroup", to="C8"),
            refused("to must be a group or its name", to=2),
        ],
        refused_inputs=[
            refused_input(ANY_MAP, (1, 2, 8, 8)),
            refused_input(ANY_MAP, (1, 2, 2, 8, 8), to="C2"),
        ],
        texts=[printed("'D4', reduction='max', to='C4'", group="D4", reduction="max", to="C4")],
        any_angle={"GroupPool": arguments()},
    ),
    "VectorHead": Entry(
        uses={"VectorHead": Use(gnn.VectorHead, slow.vector_head, (2,), out="vectors", bf16=True)},
        representatives=("VectorHead",),
        refused=[
            refused("in_channels must be a positive int, but got in_channels=0", 0),
            refused("group must be a group or its name", 2, group="G4"),
        ],
        refused_inputs=[
            refused_input(f"{MAP} (1, 2, 8, 8)", (1, 2, 8, 8), 2),
            refused_input(MAP, (1, 3, 4, 8, 8), 2),
            refused_input(MAP, (1, 2, 8, 8, 8), 2),
        ],
        texts=[printed("2, group='D4'", 2, group="D4")],
        any_angle={"VectorHead": arguments(1)},
    ),
    "BatchNorm2d": Entry(
        uses={
            "BatchNorm2d": Use(
                gnn.BatchNorm2d, lambda layer, f, group: slow.batch_norm(layer, f), (2,), grouped=False
            ),
        },
        representatives=("BatchNorm2d",),
        refused_inputs=[
            refused_input(FIELDS, (1, 2, 8, 8), 2),
            refused_input(FIELDS, (1, 3, 4, 8, 8), 2),
        ],
    ),
    "InstanceNorm2d": Entry(
        uses={
            "InstanceNorm2d": Use(
                gnn.InstanceNorm2d, lambda layer, f, group: slow.instance_norm(layer, f), (2,), {"affine": True},
                grouped=False,
            ),
        },
        representatives=("InstanceNorm2d",),
        refused_inputs=[refused_input(FIELDS, (2, 4, 8, 8), 2)],
    ),
    "Dropout2d": Entry(
        uses={"Dropout2d": Use(gnn.Dropout2d, lambda layer, f, group: f, (0.4,), grouped=False)},
        refused=[refused("probability .*between 0 and 1, but got 1.5", 1.5)],
        refused_inputs=[refused_input("input must be a tensor [B, C, |G|, H, W], but got", (2, 4, 8, 8))],
    ),
    "MaxPool2d": Entry(
        uses={
            "MaxPool2d": _each(gnn.MaxPool2d, partial(F.max_pool2d, kernel_size=2), 2),
            "MaxPool2d, overlapping": _each(
                gnn.MaxPool2d, partial(F.max_pool2d, kernel_size=3, stride=2, padding=1, ceil_mode=True), 3, 2, 1,
                ceil_mode=True,
            ),
        },
        refused=[
            refused("kernel_size must be a positive int, but got kernel_size=0", 0),
            refused("stride must be a positive int, but got stride=0", 2, 0),
            refused("padding must be at most half of .*but got padding=2", 2, padding=2),
            refused("stride must be the same for rows and columns under C4", (2, 3)),
            refused("kernel_size must be such that", (2, 3), 2),
        ],
        refused_inputs=[
            refused_input(ANY_MAP, (1, 2, 8, 8, 8), 2),
            refused_input("[B, C, |G|, H >= 2, W >= 2]", (1, 1, 4, 9, 1), 4, padding=1),
        ],
        smallest_inputs=[
            taken_input((1, 1, 4, 2, 2), 4, padding=1),
            taken_input((1, 1, 4, 1, 1), 4, padding=1, ceil_mode=True),
        ],
        texts=[
            printed(
                "kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), ceil_mode=True, group='C4', "
                "sampling='shared'",
                3, 2, 1, 2, True, sampling="shared",
            ),
        ],
        any_angle={"MaxPool2d": arguments(3, 2, 1)},
    ),
    "AvgPool2d": Entry(
        uses={
            "AvgPool2d": _each(
                gnn.AvgPool2d, partial(F.avg_pool2d, kernel_size=3, stride=2, padding=1, count_include_pad=False), 3, 2,
                1, count_include_pad=False,
            ),
        },
        refused=[
            refused(r"padding must be at most half of .*\(1, 2\)", 3, padding=(1, 2), group="C2"),
            refused("sampling must be one of", 2, sampling="mine"),
        ],
        refused_inputs=[refused_input(ANY_MAP, (1, 2, 8, 8, 8), 2)],
        texts=[
            printed(
                "kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), count_include_pad=False, group='C4'",
                3, 2, 1, count_include_pad=False,
            ),
        ],
        any_angle={"AvgPool2d": arguments(2)},
    ),
    "MaxBlurPool2d": Entry(
        uses={"MaxBlurPool2d": _each(gnn.MaxBlurPool2d, slow.max_blur)},
        refused=[refused("group must be a group or its name", group="G4")],
        refused_inputs=[refused_input(ANY_MAP, (1, 2, 8, 8, 8))],
        texts=[printed("'C4'")],
        any_angle={"MaxBlurPool2d": arguments()},
    ),
    "Upsample": Entry(
        uses={
            "Upsample, nearest": _each(gnn.Upsample, slow.upsampling(2, "nearest"), 2),
            "Upsample, bilinear": _each(gnn.Upsample, slow.upsampling(3, "bilinear"), 3, mode="bilinear"),
            "Upsample, bicubic": _each(gnn.Upsample, slow.upsampling(2, "bicubic"), 2, mode="bicubic"),
        },
        refused=[
            refused("scale_factor must be a positive int, but got scale_factor=1.5", 1.5),
            refused("mode must be one of 'nearest', 'bilinear', 'bicubic'", 2, "trilinear"),
            refused("group must be a group or its name", 2, group=None),
        ],
        refused_inputs=[refused_input(ANY_MAP, (1, 2, 8, 8), 2)],
        texts=[printed("scale_factor=2, mode='bilinear', group='C4'", 2, "bilinear")],
        any_angle={"Upsample": arguments(2, "bilinear")},
        resizing=arguments(2),
    ),
}  # fmt: skip

USES = {name: use for entry in CATALOGUE.values() for name, use in entry.uses.items()}
CONVOLUTIONS = [name for name, use in USES.items() if use.is_convolution]
LEARNING = [name for name, use in USES.items() if list(use.make("C4").parameters())]
REPRESENTATIVES = [name for entry in CATALOGUE.values() for name in entry.representatives]


def each_item(name: str) -> list[Any]:
    """Return all pairs of a layer and an item of that field of its entry, as parameters of a test."""
    return [
        pytest.param(entry.layer, item, id=f"{layer}-{number}")
        for layer, entry in CATALOGUE.items()
        for number, item in enumerate(getattr(entry, name))
    ]


def scrambled(layer: nn.Module) -> nn.Module:
    """Return the layer in float64 and eval mode, with biases and statistics that no initialisation gives."""
    layer = layer.double().eval()
    with torch.no_grad():
        for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
            if name == "running_var":
                tensor.copy_(0.5 + torch.rand(tensor.shape, dtype=tensor.dtype))
            elif name in ("weight", "bias", "running_mean"):
                tensor.copy_(torch.randn(tensor.shape, dtype=tensor.dtype))
    return layer
