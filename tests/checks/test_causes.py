"""For each fault of a torch layer the report names the cause; the same layer without the fault passes."""

import pytest
import torch
from symmetric_nets import image, symmetrise
from torch import nn

from gconv_ga.checks import equivariance_report, good_sizes


def uneven(value):
    """A layer that is not symmetric, whatever the seed."""
    torch.manual_seed(0)
    return value.double()


def left_over(good, window, rest):
    """The explanation of a window that does not cover the whole image."""
    cure = f"Give this layer {good}, or use a layer of gconv_ga.nn, which is exact at every size"
    return f"{cure}: {window} leaves {rest} over at the far end."


SYMMETRIC = (
    "Use LiftingConv2d and GroupConv2d, which rotate the kernel to every orientation, or for a trained network convert "
    "or GroupAverage: its kernel is not symmetric under "
)

# (the layer, the shape of its input, the group, words of the explanation; empty if the layer is equivariant)
CASES = {
    "strided convolution, 32": (
        lambda: symmetrise(nn.Conv2d(2, 3, 3, 2, 1)),
        (32, 33),
        "C4",
        "Give this layer 31 or 33 rows, or",
    ),
    "strided convolution, 33": (lambda: symmetrise(nn.Conv2d(2, 3, 3, 2, 1)), (33, 31), "C4", ""),
    "strided convolution, dilated": (
        lambda: symmetrise(nn.Conv2d(2, 3, 3, 3, 2, dilation=2)),
        (9, 9),
        "C4",
        left_over("7 or 10 rows", "kernel 3, stride 3, padding 2", "2 of 9 rows"),
    ),
    "reflected padding": (
        lambda: symmetrise(nn.Conv2d(2, 3, 3, 2, 1, padding_mode="reflect")),
        (8, 8),
        "C4",
        "Give this layer 7 or 9 rows",
    ),
    "max pool, odd": (
        lambda: nn.MaxPool2d(2),
        (8, 7),
        "C4",
        left_over("6 or 8 columns", "kernel 2, stride 2, padding 0", "1 of 7 columns"),
    ),
    "max pool, even": (lambda: nn.MaxPool2d(2), (8, 6), "D4", ""),
    "max pool k3 s2 p1": (lambda: nn.MaxPool2d(3, 2, 1), (8, 9), "C4", "leaves 1 of 8 rows over"),
    "max pool, ceil": (lambda: nn.MaxPool2d(2, ceil_mode=True), (7, 7), "C4", "leaves 1 of 7 rows over"),
    "average pool": (
        lambda: nn.AvgPool2d(3),
        (10, 9),
        "C4",
        left_over("9 or 12 rows", "kernel 3, stride 3, padding 0", "1 of 10 rows"),
    ),
    "average pool, exact": (lambda: nn.AvgPool2d(3, 2, 1), (9, 11), "D4", ""),
    "p-norm pool": (lambda: nn.LPPool2d(2, 2), (7, 8), "C4", "Give this layer 6 or 8 rows"),
    "rows of a mirror only": (lambda: nn.MaxPool2d(2), (7, 8), "D1", ""),
    "columns of a mirror": (lambda: nn.MaxPool2d(2), (8, 7), "D1", "leaves 1 of 7 columns over"),
    "free kernel": (
        lambda: uneven(nn.Conv2d(2, 3, 3, padding=1)),
        (8, 8),
        "C4",
        SYMMETRIC + "C4.",
    ),
    "symmetric kernel": (lambda: symmetrise(nn.Conv2d(2, 3, 3, padding=1)), (8, 9), "D4", ""),
    "one pixel": (lambda: uneven(nn.Conv2d(2, 3, 1)), (8, 9), "D4", ""),
    "even kernel, same": (
        lambda: symmetrise(nn.Conv2d(2, 3, 4, padding="same")),
        (8, 8),
        "C4",
        "Use an odd kernel: padding='same' pads an even kernel by one pixel more on one side.",
    ),
    "odd kernel, same": (lambda: symmetrise(nn.Conv2d(2, 3, 3, padding="same", dilation=2)), (8, 7), "C4", ""),
    "valid": (lambda: symmetrise(nn.Conv2d(2, 3, 4, padding="valid")), (8, 7), "C4", ""),
    "long kernel": (
        lambda: uneven(nn.Conv2d(2, 3, (1, 5), padding=(0, 2))),
        (8, 8),
        "C4",
        "Use the same kernel_size for rows and columns: a rotation by 90 degrees swaps them, and kernel_size is (1, 5)",
    ),
    "long pool": (
        lambda: nn.AvgPool2d((1, 3), 1, (0, 1)),
        (8, 8),
        "C4",
        "Use the same padding for rows and columns: a rotation by 90 degrees swaps them, and padding is (0, 1).",
    ),
    "long pool without quarter turns": (lambda: nn.AvgPool2d((1, 3), 1, (0, 1)), (8, 8), "D2", ""),
    "transposed, output padding": (
        lambda: symmetrise(nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1)),
        (5, 5),
        "C4",
        "Use output_padding=0 or GroupConvTranspose2d: output_padding=(1, 1) adds pixels at one end only.",
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
        "Use mode='bilinear', or enlarge by a whole factor: mode='nearest' from 6 to 3 pixels reads pixels off",
    ),
    "nearest to a size": (
        lambda: nn.Upsample(size=9),
        (5, 5),
        "C4",
        "mode='nearest' from 5 to 9 pixels reads pixels off the middle",
    ),
    "bilinear to a size": (lambda: nn.Upsample(size=9, mode="bilinear"), (5, 5), "D4", ""),
    "bilinear, one and a half": (
        lambda: nn.Upsample(scale_factor=1.5, mode="bilinear"),
        (9, 9),
        "C4",
        "Use size= instead of scale_factor=1.5, which makes 13.5 of 9 pixels: the fraction is cut off at the far end.",
    ),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d(3), (8, 7), "D4", ""),
    "adaptive, uneven": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (6, 6), "C4", "and output_size is (2, 3)."),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (5, 5), "C4", "its channels stand for positions inside a pixel"),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (6, 6), "C4", "its channels stand for positions inside a pixel"),
    "flatten": (lambda: nn.Flatten(), (3, 4), "C4", "flattening a map of 3 x 4 gives every pixel weights of its own"),
    "flatten one pixel": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 4), "D4", ""),
    "padding on one side": (
        lambda: nn.ZeroPad2d((0, 1, 0, 1)),
        (5, 5),
        "C4",
        "Pad all sides equally: it pads left, right, top and bottom by (0, 1, 0, 1).",
    ),
    "padding on all sides": (lambda: nn.ReflectionPad2d(2), (5, 6), "D4", ""),
    "softmax over columns": (
        lambda: nn.Softmax(-1),
        (5, 5),
        "C4",
        "Apply it over the channels (dim=1) or over all pixels: dim=-1 normalizes along one side of the image.",
    ),
    "softmax over channels": (lambda: nn.Softmax(1), (5, 6), "D4", ""),
    "layer norm with places": (
        lambda: randomised(nn.LayerNorm([4, 5, 5])),
        (5, 5),
        "C4",
        "Use elementwise_affine=False or GroupNorm(1, C): its weights differ from pixel to pixel.",
    ),
    "layer norm without": (lambda: nn.LayerNorm([4, 5, 5], elementwise_affine=False), (5, 5), "D4", ""),
    "group norm": (lambda: randomised(nn.GroupNorm(2, 4)), (5, 6), "D4", ""),
    "fractional pool": (
        lambda: nn.FractionalMaxPool2d(2, 4),
        (9, 9),
        "C4",
        "Make it deterministic: two runs on the same input differ",
    ),
    "pool with indices": (
        lambda: nn.MaxPool2d(2, return_indices=True),
        (6, 6),
        "C4",
        "Pool without indices: they are positions in the image before it is rotated.",
    ),
    "unknown": (
        lambda: Shift(),
        (6, 6),
        "C4",
        "Replace it, or use GroupAverage: no rule explains why this class is not equivariant.",
    ),
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
        assert "no rule explains" not in report.worst.why or case == "unknown"


@pytest.mark.parametrize("size", [(6, 7), (6, 6)], ids=str)
def test_maps_on_the_group_have_the_same_rules(size):
    layer, x = nn.MaxPool3d((1, 2, 2)), image(1, 2, 4, *size)
    report = equivariance_report(layer, "C4", x, in_action="regular")
    assert report.ok == (size == (6, 6))
    assert report.ok or "leaves 1 of 7 columns over" in report.worst.why


def test_a_convolution_over_the_element_axis_is_named():
    layer = nn.Conv3d(2, 2, 3, padding=1).double()
    report = equivariance_report(layer, "C4", image(1, 2, 4, 6, 6), in_action="regular")
    assert "Use GroupConv2d: the kernel spans neighbours on the element axis." in report.worst.why


def test_sides_that_no_element_flips_are_not_blamed():
    """The reflection of D_1 leaves the rows where they are, so a row may be left over."""
    report = equivariance_report(nn.MaxPool2d(2), "D1", image(1, 4, 9, 7))
    assert "leaves 1 of 7 columns over" in report.worst.why
    assert "rows" not in report.worst.why


def test_our_own_layers_are_told_of_their_own_switch():
    """Any layer with a window and ``sampling`` will do: our own layers live in a room above."""
    layer = nn.MaxPool2d(2)
    layer.sampling = "shared"
    report = equivariance_report(layer, "C4", image(1, 4, 7, 7))
    assert report.worst.why.startswith(
        "Give this layer 6 or 8 rows, or set sampling='per_orientation', which is exact at every size: kernel 2"
    )


def test_two_faults_are_both_named():
    report = equivariance_report(nn.Conv2d(2, 3, 3, 2, 1).double(), "C4", image(1, 2, 8, 8))
    assert "Give this layer 7 or 9 rows" in report.worst.why
    assert "its kernel is not symmetric" in report.worst.why


@pytest.mark.parametrize("near", range(8, 14))
@pytest.mark.parametrize(("kernel_size", "stride", "padding", "dilation"), [(3, 2, 1, 1), (2, 2, 0, 1), (3, 3, 2, 2)])
def test_good_sizes_are_those_at_which_a_pool_is_equivariant(near, kernel_size, stride, padding, dilation):
    """Tested on max pooling, which has no weights that could break it."""
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
