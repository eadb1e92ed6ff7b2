"""What layers refuse, each with a ValueError that names the argument and says what to do."""

import re

import pytest
import torch

import gconv_ga.nn as gnn
from gconv_ga.groups import C4
from gconv_ga.nn.functional import group_conv2d, group_pool, lifting_conv2d

CONSTRUCTORS = {
    "lifting": lambda *a, **k: gnn.LiftingConv2d(*(a or (2, 4, 3)), **{"group": "C4", **k}),
    "group": lambda *a, **k: gnn.GroupConv2d(*(a or (2, 4, 3)), **{"group": "C4", **k}),
    "transposed": lambda *a, **k: gnn.GroupConvTranspose2d(*(a or (2, 4, 3)), **{"group": "C4", **k}),
}


@pytest.mark.parametrize("make", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((2, 4, 3), {"group": 4}, r"group must be .*but got group=4\. .*'C4'.*groups=4"),
        ((2, 4, 3), {"group": "G4"}, r"group must be a group or its name.*but got group='G4'"),
        ((2, 4, 3), {"groups": "C4"}, r"groups must be .*but got groups='C4'\. The symmetry is group='C4'"),
        ((2, 4, 3), {"groups": C4}, r"groups must be .*but got groups=CyclicGroup\(4\)\. The symmetry is group="),
        ((2, 4, 3), {"groups": 3}, "in_channels must be a multiple of groups=3, but got in_channels=2"),
        ((3, 4, 3), {"groups": 3}, "out_channels must be a multiple of groups=3, but got out_channels=4"),
        ((0, 4, 3), {}, "in_channels must be a positive int, but got in_channels=0"),
        ((2, True, 3), {}, "out_channels must be a positive int, but got out_channels=True"),
        ((2, 4, 3.0), {}, "kernel_size must be a positive int, but got kernel_size=3.0"),
        ((2, 4, (3, 3, 3)), {}, r"kernel_size must be an int or a pair of ints.*\(3, 3, 3\)"),
        ((2, 4, (3, 5)), {}, r"kernel_size must be such that .* the same for rows and columns under C4, .*\(3, 5\)"),
        ((2, 4, 3), {"stride": 0}, "stride must be a positive int, but got stride=0"),
        ((2, 4, 3), {"stride": (2, 1)}, r"stride must be the same for rows and columns under C4, .*C2, D1 and D2 have"),
        ((2, 4, 3), {"padding": -1}, "padding must be an int of at least 0, but got padding=-1"),
        ((2, 4, 3), {"dilation": 1.5}, "dilation must be a positive int, but got dilation=1.5"),
        ((2, 4, 3), {"sampling": "own"}, "sampling must be one of 'per_orientation', 'shared', but got sampling='own'"),
        ((2, 4, 3), {"filters": "gird"}, "filters must be .*but got filters='gird'.*'grid'"),
        (
            (2, 4, 3),
            {"group": "C8", "filters": "grid"},
            "group must be one of C1, C2, C4, D1, D2, D4 for filters='grid'",
        ),
    ],
)
def test_arguments_of_every_convolution(make, arguments, options, match):
    with pytest.raises(ValueError, match=match):
        make(*arguments, **options)


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (
            "lifting",
            {"padding": "sane"},
            "padding must be one of 'valid', 'same', but got padding='sane'. Did you mean",
        ),
        (
            "lifting",
            {"padding": "same", "stride": 2},
            "padding must be .*but got padding='same'. 'same' needs stride=1",
        ),
        ("group", {"padding_mode": "reflected"}, "padding_mode must be one of 'zeros'.*Did you mean 'reflect'"),
        ("group", {"group_kernel_size": 0}, "group_kernel_size must be a positive int"),
        ("group", {"group_kernel_size": 5}, r"group_kernel_size must be an int from 1 to \|G\|=4.*=5"),
        ("transposed", {"padding": "same"}, "padding must be an int or a pair of ints in a transposed convolution"),
        ("transposed", {"padding_mode": "reflect"}, "padding_mode must be 'zeros' in a transposed convolution"),
        ("transposed", {"output_padding": 1}, "output_padding must be from 0 to 0, below the stride or the dilation"),
        ("transposed", {"stride": 2, "output_padding": 2}, "output_padding must be from 0 to 1.*output_padding=2"),
    ],
)
def test_arguments_of_one_convolution(make, options, match):
    with pytest.raises(ValueError, match=match):
        CONSTRUCTORS[make](**options)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: gnn.GroupPool("D4", "sum"), "reduction must be one of 'mean', 'max', but got reduction='sum'"),
        (lambda: gnn.GroupPool("C4", to="C8"), "to must be a subgroup of C4, but got to=CyclicGroup"),
        (lambda: gnn.GroupPool("C4", to=2), "to must be a group or its name"),
        (lambda: gnn.MaxPool2d(0, group="C4"), "kernel_size must be a positive int, but got kernel_size=0"),
        (lambda: gnn.MaxPool2d(2, 0, group="C4"), "stride must be a positive int, but got stride=0"),
        (lambda: gnn.MaxPool2d(2, padding=2, group="C4"), "padding must be at most half of .*but got padding=2"),
        (lambda: gnn.AvgPool2d(3, padding=(1, 2), group="C2"), r"padding must be at most half of .*\(1, 2\)"),
        (lambda: gnn.MaxPool2d((2, 3), group="C4"), "stride must be the same for rows and columns under C4"),
        (lambda: gnn.MaxPool2d((2, 3), 2, group="C4"), "kernel_size must be such that"),
        (lambda: gnn.AvgPool2d(2, group="C4", sampling="mine"), "sampling must be one of"),
        (lambda: gnn.Upsample(1.5, group="C4"), "scale_factor must be a positive int, but got scale_factor=1.5"),
        (lambda: gnn.Upsample(2, "trilinear", group="C4"), "mode must be one of 'nearest', 'bilinear', 'bicubic'"),
        (lambda: gnn.Upsample(2, group=None), "group must be a group or its name"),
        (lambda: gnn.Dropout2d(1.5), "probability .*between 0 and 1, but got 1.5"),
    ],
)
def test_arguments_of_the_others(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "make", [gnn.LiftingConv2d, gnn.GroupConv2d, gnn.GroupConvTranspose2d], ids=lambda m: m.__name__
)
def test_the_group_must_be_said(make):
    with pytest.raises(TypeError, match="group"):
        make(2, 4, 3)


IMAGE, MAP = "input must be a tensor [B, C=2, H, W], but got", "input must be a tensor [B, C=2, |G|=4, H, W], but got"
ANY_MAP, FIELDS = "input must be a tensor [B, C, |G|=4, H, W], but got", "a tensor [B, C=2, |G|, H, W], but got"
WRONG_AXES = [
    (gnn.LiftingConv2d(2, 4, 3, group="C4"), (2, 8, 8), IMAGE),
    (gnn.LiftingConv2d(2, 4, 3, group="C4"), (1, 3, 8, 8), IMAGE),
    (gnn.GroupConv2d(2, 4, 3, group="C4"), (1, 2, 8, 8), f"{MAP} (1, 2, 8, 8). An image goes through LiftingConv2d"),
    (gnn.GroupConv2d(2, 4, 3, group="C4"), (1, 2, 8, 8, 8), MAP),
    (gnn.GroupConv2d(2, 4, 3, group="C4"), (1, 4, 4, 8, 8), MAP),
    (gnn.GroupConvTranspose2d(2, 4, 3, group="C4"), (1, 4, 4, 8, 8), MAP),
    (gnn.GroupPool("C4"), (1, 2, 8, 8), ANY_MAP),
    (gnn.GroupPool("C4", to="C2"), (1, 2, 2, 8, 8), ANY_MAP),
    (gnn.BatchNorm2d(2), (1, 2, 8, 8), FIELDS),
    (gnn.BatchNorm2d(2), (1, 3, 4, 8, 8), FIELDS),
    (gnn.InstanceNorm2d(2), (2, 4, 8, 8), FIELDS),
    (gnn.Dropout2d(), (2, 4, 8, 8), "input must be a tensor [B, C, |G|, H, W], but got"),
    (gnn.MaxPool2d(2, group="C4"), (1, 2, 8, 8, 8), ANY_MAP),
    (gnn.MaxBlurPool2d("C4"), (1, 2, 8, 8, 8), ANY_MAP),
    (gnn.Upsample(2, group="C4"), (1, 2, 8, 8), ANY_MAP),
]  # fmt: skip
# A layer, an input that is too small for it, and what the message says.
TOO_SMALL = [
    (gnn.LiftingConv2d(1, 1, 5, padding=1, group="C4"), (1, 1, 9, 2), "[..., H >= 3, W >= 3]"),
    (gnn.GroupConv2d(1, 1, 3, dilation=3, group="C4"), (1, 1, 4, 6, 9), "[..., H >= 7, W >= 7]"),
    (gnn.LiftingConv2d(1, 1, 7, 1, 3, padding_mode="reflect", group="C4"), (1, 1, 3, 9), "[..., H >= 4, W >= 4]"),
    (gnn.LiftingConv2d(1, 1, 7, 1, 3, padding_mode="circular", group="C4"), (1, 1, 2, 9), "[..., H >= 3, W >= 3]"),
    (gnn.MaxPool2d(4, padding=1, group="C4"), (1, 1, 4, 9, 1), "[B, C, |G|, H >= 2, W >= 2]"),
    (gnn.GroupConvTranspose2d(1, 1, 3, padding=3, group="C4"), (1, 1, 4, 3, 9), "larger than what padding=(3, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "text"), WRONG_AXES + TOO_SMALL)
def test_inputs_of_other_axes(layer, shape, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        layer(torch.zeros(shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (gnn.LiftingConv2d(1, 1, 5, padding=1, group="C4"), (1, 1, 3, 3)),
        (gnn.GroupConv2d(1, 1, 3, dilation=3, group="C4"), (1, 1, 4, 7, 7)),
        (gnn.LiftingConv2d(1, 1, 7, padding=3, padding_mode="reflect", group="C4"), (1, 1, 4, 4)),
        (gnn.LiftingConv2d(1, 1, 7, padding=3, padding_mode="circular", group="C4"), (1, 1, 3, 3)),
        (gnn.MaxPool2d(4, padding=1, group="C4"), (1, 1, 4, 2, 2)),
        (gnn.MaxPool2d(4, padding=1, ceil_mode=True, group="C4"), (1, 1, 4, 1, 1)),
        (gnn.GroupConvTranspose2d(1, 1, 3, padding=3, group="C4"), (1, 1, 4, 5, 5)),
    ],
)
def test_the_smallest_size_that_a_message_names_is_taken(layer, shape):
    assert min(layer(torch.ones(shape)).shape) >= 1


@pytest.mark.parametrize("size", [(15, 16), (16, 18), 15, (16, 16, 16)], ids=str)
@pytest.mark.parametrize("layer", [gnn.Upsample(2, group="C4"), gnn.GroupConvTranspose2d(1, 1, 2, 2, group="C4")])
def test_sizes_out_of_reach(layer, size):
    takes = r"an int or a pair" if isinstance(size, tuple) and len(size) == 3 else r"from \(16, 16\) to \(17, 17\)"
    with pytest.raises(ValueError, match=f"output_size must be {takes}.*but got output_size="):
        layer(torch.zeros(1, 1, 4, 8, 8), output_size=size)


@pytest.mark.parametrize("size", [16, (17, 16), [16, 17], torch.Size((17, 17))], ids=str)
@pytest.mark.parametrize("layer", [gnn.Upsample(2, group="C4"), gnn.GroupConvTranspose2d(1, 1, 2, 2, group="C4")])
def test_sizes_within_reach(layer, size):
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    assert layer(torch.zeros(1, 1, 4, 8, 8), output_size=size).shape[-2:] == wanted


X, F = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 8, 8)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 1, 3, 3), "C4"), "weight must be a tensor"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 3, 3, 3), "C4"), "x must be a tensor .*C=3"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 3, 3), "C8"), "group must be one of C1"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 3, 3), "C4", stride=1.5), "stride must be"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 3, 3), "C4", padding="sam"), "padding must be one of"),
        (lambda: lifting_conv2d(X, torch.zeros(4, 2, 9, 9), "C4"), "input must be a tensor .*H >= 9"),
        (lambda: group_conv2d(F, torch.zeros(4, 2, 3, 3), "C4"), "weight must be a tensor"),
        (lambda: group_conv2d(F, torch.zeros(4, 2, 5, 3, 3), "C4"), "group_kernel_size must be"),
        (lambda: group_conv2d(F, torch.zeros(4, 2, 4, 3, 3), "D4"), r"f must be a tensor .*\|G\|=8"),
        (lambda: group_pool(X, "C4"), "input must be a tensor"),
        (lambda: group_pool(F, "C4", "median"), "reduction must be one of"),
        (lambda: group_pool(F, "C4", to="D1"), "to must be a subgroup of C4, but got to='D1'"),
    ],
)  # fmt: skip
def test_functions(call, match):
    with pytest.raises(ValueError, match=match):
        call()
