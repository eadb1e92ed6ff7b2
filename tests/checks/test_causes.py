"""For each fault of a layer of torch the report says what it is; the same layer without the fault is left alone."""

import pytest
import torch
from symmetric_nets import image, symmetrise
from torch import nn

from gconv_ga.checks import equivariance_report, good_sizes


def uneven(value):
    """A layer that is not symmetric, whatever the seed."""
    torch.manual_seed(0)
    return value.double()


# (the layer, the shape of its input, the group, words of the explanation; empty where the layer is equivariant)
CASES = {
    "strided convolution, 32": (lambda: symmetrise(nn.Conv2d(2, 3, 3, 2, 1)), (32, 33), "C4", "exact at 31 and 33"),
    "strided convolution, 33": (lambda: symmetrise(nn.Conv2d(2, 3, 3, 2, 1)), (33, 31), "C4", ""),
    "strided convolution, dilated": (
        lambda: symmetrise(nn.Conv2d(2, 3, 3, 3, 2, dilation=2)),
        (9, 9),
        "C4",
        "kernel 3, stride 3, padding 2 leaves 2 of 9 rows over at the far end; exact at 7 and 10",
    ),
    "reflected padding": (
        lambda: symmetrise(nn.Conv2d(2, 3, 3, 2, 1, padding_mode="reflect")),
        (8, 8),
        "C4",
        "exact at 7 and 9",
    ),
    "max pool, odd": (
        lambda: nn.MaxPool2d(2),
        (8, 7),
        "C4",
        "leaves 1 of 7 columns over at the far end; exact at 6 and 8",
    ),
    "max pool, even": (lambda: nn.MaxPool2d(2), (8, 6), "D4", ""),
    "max pool k3 s2 p1": (lambda: nn.MaxPool2d(3, 2, 1), (8, 9), "C4", "leaves 1 of 8 rows over"),
    "max pool, ceil": (lambda: nn.MaxPool2d(2, ceil_mode=True), (7, 7), "C4", "leaves 1 of 7 rows over"),
    "average pool": (
        lambda: nn.AvgPool2d(3),
        (10, 9),
        "C4",
        "leaves 1 of 10 rows over at the far end; exact at 9 and 12",
    ),
    "average pool, exact": (lambda: nn.AvgPool2d(3, 2, 1), (9, 11), "D4", ""),
    "p-norm pool": (lambda: nn.LPPool2d(2, 2), (7, 8), "C4", "exact at 6 and 8"),
    "rows of a mirror only": (lambda: nn.MaxPool2d(2), (7, 8), "D1", ""),
    "columns of a mirror": (lambda: nn.MaxPool2d(2), (8, 7), "D1", "leaves 1 of 7 columns over"),
    "free kernel": (
        lambda: uneven(nn.Conv2d(2, 3, 3, padding=1)),
        (8, 8),
        "C4",
        "its kernel is not symmetric under C4: LiftingConv2d and GroupConv2d",
    ),
    "symmetric kernel": (lambda: symmetrise(nn.Conv2d(2, 3, 3, padding=1)), (8, 9), "D4", ""),
    "one pixel": (lambda: uneven(nn.Conv2d(2, 3, 1)), (8, 9), "D4", ""),
    "even kernel, same": (
        lambda: symmetrise(nn.Conv2d(2, 3, 4, padding="same")),
        (8, 8),
        "C4",
        "padding='same' pads an even kernel on one side more: use an odd kernel",
    ),
    "odd kernel, same": (lambda: symmetrise(nn.Conv2d(2, 3, 3, padding="same", dilation=2)), (8, 7), "C4", ""),
    "valid": (lambda: symmetrise(nn.Conv2d(2, 3, 4, padding="valid")), (8, 7), "C4", ""),
    "long kernel": (
        lambda: uneven(nn.Conv2d(2, 3, (1, 5), padding=(0, 2))),
        (8, 8),
        "C4",
        "kernel_size (1, 5) differs between rows and columns, which a quarter turn swaps",
    ),
    "long pool": (
        lambda: nn.AvgPool2d((1, 3), 1, (0, 1)),
        (8, 8),
        "C4",
        "padding (0, 1) differs between rows and columns",
    ),
    "long pool without quarter turns": (lambda: nn.AvgPool2d((1, 3), 1, (0, 1)), (8, 8), "D2", ""),
    "transposed, output padding": (
        lambda: symmetrise(nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1)),
        (5, 5),
        "C4",
        "output_padding=(1, 1) adds pixels at one end only: use output_padding=0",
    ),
    "transposed": (lambda: symmetrise(nn.ConvTranspose2d(2, 2, 3, 2, 1)), (5, 6), "D4", ""),
    "transposed, free": (
        lambda: uneven(nn.ConvTranspose2d(2, 3, 3, 2, 1)),
        (5, 6),
        "C4",
        "its kernel is not symmetric under C4",
    ),
    "nearest, whole": (lambda: nn.Upsample(scale_factor=2), (5, 6), "D4", ""),
    "nearest, half": (
        lambda: nn.Upsample(scale_factor=0.5),
        (6, 6),
        "C4",
        "mode='nearest' from 6 to 3 reads pixels off the middle: use bilinear",
    ),
    "nearest to a size": (
        lambda: nn.Upsample(size=9),
        (5, 5),
        "C4",
        "mode='nearest' from 5 to 9 reads pixels off the middle",
    ),
    "bilinear to a size": (lambda: nn.Upsample(size=9, mode="bilinear"), (5, 5), "D4", ""),
    "bilinear, one and a half": (
        lambda: nn.Upsample(scale_factor=1.5, mode="bilinear"),
        (9, 9),
        "C4",
        "scale_factor 1.5 makes 13.5 of 9 pixels, which is rounded at the far end: give size=",
    ),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d(3), (8, 7), "D4", ""),
    "adaptive, uneven": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (6, 6), "C4", "output_size (2, 3) differs"),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (5, 5), "C4", "its channels stand for places inside a pixel"),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (6, 6), "C4", "its channels stand for places inside a pixel"),
    "flatten": (lambda: nn.Flatten(), (3, 4), "C4", "flattening a map of 3 x 4 gives every pixel weights of its own"),
    "flatten one pixel": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 4), "D4", ""),
    "padding on one side": (lambda: nn.ZeroPad2d((0, 1, 0, 1)), (5, 5), "C4", "by (0, 1, 0, 1): make them equal"),
    "padding on all sides": (lambda: nn.ReflectionPad2d(2), (5, 6), "D4", ""),
    "softmax over columns": (lambda: nn.Softmax(-1), (5, 5), "C4", "dim=-1 normalises along one side of the image"),
    "softmax over channels": (lambda: nn.Softmax(1), (5, 6), "D4", ""),
    "layer norm with places": (
        lambda: randomised(nn.LayerNorm([4, 5, 5])),
        (5, 5),
        "C4",
        "its weights have a place in the image",
    ),
    "layer norm without": (lambda: nn.LayerNorm([4, 5, 5], elementwise_affine=False), (5, 5), "D4", ""),
    "group norm": (lambda: randomised(nn.GroupNorm(2, 4)), (5, 6), "D4", ""),
    "fractional pool": (lambda: nn.FractionalMaxPool2d(2, 4), (9, 9), "C4", "two runs on the same input differ"),
    "pool with indices": (
        lambda: nn.MaxPool2d(2, return_indices=True),
        (6, 6),
        "C4",
        "indices are places in the image before it is turned",
    ),
    "unknown": (lambda: Shift(), (6, 6), "C4", "no rule knows what breaks this class: replace it, or use GroupAverage"),
}


def randomised(layer):
    for parameter in layer.double().parameters():
        nn.init.normal_(parameter)
    return layer


class Shift(nn.Module):
    def forward(self, x):
        return x.roll(1, -1)


CHANNELS = {"Conv2d": 2, "ConvTranspose2d": 2}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("case", CASES)
def test_the_fault_is_named(case):
    make, size, group, words = CASES[case]
    layer = make()
    x = image(1, CHANNELS.get(type(layer).__name__, 4), *size)
    report = equivariance_report(layer, group, x)
    assert report.ok == (words == "")
    if words:
        assert words in report.worst.why
        assert "no rule knows" not in report.worst.why or case == "unknown"


@pytest.mark.parametrize("size", [(6, 7), (6, 6)], ids=str)
def test_maps_on_the_group_have_the_same_rules(size):
    layer, x = nn.MaxPool3d((1, 2, 2)), image(1, 2, 4, *size)
    report = equivariance_report(layer, "C4", x, in_action="regular")
    assert report.ok == (size == (6, 6))
    assert report.ok or "leaves 1 of 7 columns over" in report.worst.why


def test_a_convolution_over_the_element_axis_is_named():
    layer = nn.Conv3d(2, 2, 3, padding=1).double()
    report = equivariance_report(layer, "C4", image(1, 2, 4, 6, 6), in_action="regular")
    assert "its kernel reaches over neighbours on the element axis: use GroupConv2d" in report.worst.why


def test_sides_that_no_element_flips_are_not_blamed():
    """The mirror of D_1 leaves the rows where they are, so a row may be left over."""
    report = equivariance_report(nn.MaxPool2d(2), "D1", image(1, 4, 9, 7))
    assert "leaves 1 of 7 columns over" in report.worst.why
    assert "rows" not in report.worst.why


def test_our_own_layers_are_told_of_their_own_switch():
    """Any layer with a window and ``sampling``; the layers themselves live in a room above."""
    layer = nn.MaxPool2d(2)
    layer.sampling = "shared"
    report = equivariance_report(layer, "C4", image(1, 4, 7, 7))
    assert report.worst.why.endswith("exact at 6 and 8; sampling='per_orientation' is exact at every size")


def test_two_faults_are_both_named():
    report = equivariance_report(nn.Conv2d(2, 3, 3, 2, 1).double(), "C4", image(1, 2, 8, 8))
    assert "exact at 7 and 9" in report.worst.why
    assert "its kernel is not symmetric" in report.worst.why


@pytest.mark.parametrize("near", range(8, 14))
@pytest.mark.parametrize(("kernel_size", "stride", "padding", "dilation"), [(3, 2, 1, 1), (2, 2, 0, 1), (3, 3, 2, 2)])
def test_good_sizes_are_those_at_which_a_pool_is_equivariant(near, kernel_size, stride, padding, dilation):
    """Tried on a maximum, which no kernel can spoil."""
    pool = nn.MaxPool2d(kernel_size, stride, min(padding, kernel_size // 2), dilation)
    sizes = good_sizes(near, kernel_size, stride, pool.padding, dilation)
    works = equivariance_report(pool, "C4", image(1, 4, near, near)).ok
    assert works == (near in sizes)
    assert all(equivariance_report(pool, "C4", image(1, 4, n, n)).ok for n in sizes)
    assert sizes[0] <= near <= sizes[1] or sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"near": 0, "kernel_size": 3}, r"^near must be a positive int, but got near=0"),
        ({"near": 8, "kernel_size": 0}, r"^kernel_size must be a positive int"),
        ({"near": 8, "kernel_size": 3, "stride": 1.5}, r"^stride must be a positive int"),
        ({"near": 8, "kernel_size": 3, "padding": -1}, r"^padding must be an int of at least 0"),
        ({"near": 8, "kernel_size": 3, "dilation": True}, r"^dilation must be a positive int"),
    ],
)
def test_bad_sizes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        good_sizes(**arguments)
