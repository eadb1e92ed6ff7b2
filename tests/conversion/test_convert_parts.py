"""Every kind of layer, function and wiring inside a plain network, one at a time, on awkward sizes."""

import pytest
import torch
import torch.nn.functional as F
from conversion_nets import image, randomised
from slow_average import relative, slow_average
from tolerances import TOLERANCES
from torch import nn
from torch.nn.utils import parametrizations, prune

from gconv_ga.conversion import NotConvertible, convert
from gconv_ga.models import UNet

TIGHT = TOLERANCES[torch.float64]


class Between(nn.Module):
    """Something between two convolutions, the last of which is not strided: images in, images out."""

    def __init__(self, part, channels: int = 6) -> None:
        super().__init__()
        self.first, self.part, self.last = nn.Conv2d(3, 6, 3, padding=1), part, nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, x):
        return self.last(self.part(torch.tanh(self.first(x))))


def to_a_multiple(pad):
    """Pads to the next multiple of four, as many networks do to their input, then pools."""

    def forward(x):
        rows, columns = -x.shape[-2] % 4, -x.shape[-1] % 4
        return F.avg_pool2d(F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), **pad), 4)

    return forward


LAYERS = {
    # convolutions
    "stride 2": lambda: nn.Conv2d(6, 6, 3, 2, 1),
    "stride 3": lambda: nn.Conv2d(6, 6, 5, 3, 1),
    "patches": lambda: nn.Conv2d(6, 6, 4, 4),
    "a single tap with a stride": lambda: nn.Conv2d(6, 6, 1, 2),
    "dilated and strided": lambda: nn.Conv2d(6, 6, 3, 2, 2, 2),
    "same, even kernel": lambda: nn.Conv2d(6, 6, 4, padding="same"),
    "same, dilated": lambda: nn.Conv2d(6, 6, 3, padding="same", dilation=2),
    "a line": lambda: nn.Sequential(nn.Conv2d(6, 6, (1, 7), padding=(0, 3)), nn.Conv2d(6, 6, (7, 1), padding=(3, 0))),
    "depthwise, strided": lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6),
    "grouped": lambda: nn.Conv2d(6, 6, 3, groups=3),
    "reflect": lambda: nn.Conv2d(6, 6, 3, 2, 1, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(6, 6, 4, padding="same", padding_mode="circular"),
    "replicate": lambda: nn.Conv2d(6, 6, 5, 2, 2, padding_mode="replicate"),
    "without bias": lambda: nn.Conv2d(6, 6, 3, 2, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(6, 6, 2, 2),
    "transposed, output padding": lambda: nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups=2),
    "transposed, a line": lambda: nn.ConvTranspose2d(6, 6, (3, 1), padding=(1, 0), dilation=1),
    "transposed, dilated": lambda: nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, dilation=2, bias=False),
    # convolutions whose weights are computed at each call
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(6, 6, 3, 2, 1)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(6, 6, 3, 2, 1)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Conv2d(6, 6, 3, 2, 1)),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(6, 6, 3, 2, 1)),
    "pruned": lambda: prune.l1_unstructured(nn.Conv2d(6, 6, 3, 2, 1), "weight", 0.3),
    # pools
    "max pool": lambda: nn.MaxPool2d(2),
    "max pool 3 2 1": lambda: nn.MaxPool2d(3, 2, 1),
    "max pool, ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "max pool, dilated": lambda: nn.MaxPool2d(2, 3, dilation=2),
    "max pool, a line": lambda: nn.MaxPool2d((3, 1), 1, (1, 0)),
    "average pool": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pool, ceil": lambda: nn.AvgPool2d(4, 3, ceil_mode=True),
    "power pool": lambda: nn.LPPool2d(2, 3, 2),
    "adaptive": lambda: nn.AdaptiveMaxPool2d(5),
    # sizes
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "nearest by half": lambda: nn.Upsample(scale_factor=1.5, mode="nearest"),
    "pixel shuffle": lambda: nn.Sequential(nn.Conv2d(6, 24, 1), nn.PixelShuffle(2)),
    "F.pixel_shuffle": lambda: nn.Sequential(
        nn.Conv2d(6, 24, 1), nn.Conv2d(24, 24, 1), nn.PixelShuffle(2), nn.MaxPool2d(3)
    ),
    "pixel unshuffle": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.PixelUnshuffle(2), nn.Conv2d(24, 6, 1)),
    "channel shuffle": lambda: nn.ChannelShuffle(3),
    # padding
    "zeros on one side": lambda: nn.ZeroPad2d((0, 1, 0, 1)),
    "crossed sides": lambda: nn.ReflectionPad2d((1, 2, 2, 1)),
    "constant": lambda: nn.ConstantPad2d((1, 0, 1, 0), 0.7),
    "symmetric": lambda: nn.ReplicationPad2d(2),
    # channels
    "group norm": lambda: nn.GroupNorm(2, 6),
    "instance norm": lambda: nn.InstanceNorm2d(6, affine=True),
    "local response norm": lambda: nn.LocalResponseNorm(3),
    "batch norm": lambda: nn.BatchNorm2d(6),
    "PReLU": lambda: nn.PReLU(6),
    "GLU": lambda: nn.Sequential(nn.Conv2d(6, 12, 1), nn.GLU(1)),
    "softmax": lambda: nn.Softmax2d(),
    "in place": lambda: nn.Sequential(nn.Hardswish(inplace=True), nn.ELU(inplace=True)),
}
FUNCTIONS = {
    "F.max_pool2d": lambda x: F.max_pool2d(x, 3, stride=2),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "F.max_pool2d by name": lambda x: F.max_pool2d(input=x, kernel_size=(2, 2)),
    "F.avg_pool2d, divisor": lambda x: F.avg_pool2d(x, 3, 2, divisor_override=5),
    "F.lp_pool2d": lambda x: F.lp_pool2d(x, 2, 2),
    "F.adaptive": lambda x: F.adaptive_avg_pool2d(x, (7, 7)),
    "nearest to a size": lambda x: F.interpolate(F.avg_pool2d(x, 3, 2), x.shape[-2:]),
    "nearest-exact to a size": lambda x: F.interpolate(F.avg_pool2d(x, 3, 2), x.shape[-2:], None, "nearest-exact"),
    "bilinear by half": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "bicubic to a size": lambda x: F.interpolate(F.avg_pool2d(x, 2), x.shape[-2:], mode="bicubic", align_corners=True),
    "area": lambda x: F.interpolate(x, (5, 5), mode="area"),
    "F.pad to a multiple": to_a_multiple({}),
    "F.pad to a multiple, replicate": to_a_multiple({"mode": "replicate"}),
}
PARTS = [*LAYERS, *FUNCTIONS]


def between(name):
    return randomised(Between(LAYERS[name]() if name in LAYERS else FUNCTIONS[name]), image(2, 3, 17, 20))


@pytest.mark.parametrize("name", PARTS)
@torch.no_grad()
def test_parts(name):
    model = between(name)
    sizes = [(17, 20), (18, 18), (23, 16), (19, 19)]
    for group, example, other in (("C4", 0, 1), ("D4", 2, 3), ("C4", 2, 1)):
        net = convert(model, group, image(1, 3, *sizes[example]))
        x = image(2, 3, *sizes[other], seed=7)
        assert relative(net(x), slow_average(model, group, x)) <= TIGHT


CAUGHT = [name for name in PARTS if "pool" in name or "nearest" in name or "shuffle" in name or "F.pad" in name]
# Their windows leave nothing over, or they commute.
HARMLESS = {"channel shuffle", "max pool, a line", "nearest"}


@pytest.mark.parametrize("name", sorted({*CAUGHT, "bilinear by half"} - HARMLESS))
@torch.no_grad()
def test_parts_fail_where_functions_are_not_caught(name, monkeypatch):
    model = between(name)
    monkeypatch.setattr("gconv_ga.conversion._functions._HANDLERS", {})

    def convert_at_every_size():
        for size in [(17, 17), (18, 18), (19, 19), (16, 16)]:
            convert(model, "C4", image(1, 3, *size))

    with pytest.raises(NotConvertible):
        convert_at_every_size()


class Shared(nn.Module):
    """One convolution under two names, one that is called twice, and one that is in a plain list only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.again = nn.Conv2d(4, 4, 3, 2, 1)
        self.alias = self.again
        self.blocks = nn.ModuleDict({"a": nn.ModuleList([nn.Conv2d(4, 4, 3, 2, 1)]), "b": nn.Sequential()})
        self.hidden = [self.blocks["a"][0], self.again]

    def forward(self, x):
        y = self.again(self.again(self.stem(x)))
        for each in self.hidden:
            y = y + F.interpolate(each(self.alias(y)), y.shape[-2:], mode="bilinear")
        return y


@torch.no_grad()
def test_shared_modules_stay_shared():
    model = randomised(Shared(), image(1, 3, 40, 33))
    net = convert(model, "C4", image(1, 3, 40, 33))
    assert net.model.again is net.model.alias is net.model.hidden[1]
    assert net.model.hidden[0] is net.model.blocks["a"][0]
    x = image(2, 3, 44, 32, seed=7)
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT
    # Opening it once opens it everywhere.
    net.open_taps()
    assert [name for name, _ in net.named_parameters() if name.endswith("taps")] == [
        "model.again.taps",
        "model.blocks.a.0.taps",
    ]
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


def test_weights_tied_between_two_modules_stay_tied():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3)).double()
    model[2].weight = model[0].weight
    net = convert(model, "C4", image(1, 3, 9, 11))
    assert net.model[0].weight is net.model[2].weight
    assert len(list(net.parameters())) == 3


def test_hooks_are_kept():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3)).double()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(("after", output.shape[0])))
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(("before", inputs[0].shape[0])))
    model[2].register_full_backward_hook(lambda module, grad_input, grad_output: seen.append(("back", 8)))
    net = convert(model, "C4", image(1, 3, 12, 15))
    assert net.report.rows[0].action == "swap", "a hook is no reason to leave a convolution closed"
    seen.clear()
    net(image(2, 3, 12, 15)).sum().backward()
    assert seen == [("before", 8), ("after", 8), ("back", 8)]


@torch.no_grad()
def test_the_input_is_not_written_to():
    class Normalise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1))
            self.conv = nn.Conv2d(3, 2, 3, 2)

        def forward(self, x):
            return self.conv(x.sub_(self.mean).relu_())

    model = Normalise().double()
    for group in ("C1", "C4"):
        net = convert(model, group, image(1, 3, 12, 15))
        x = image(1, 3, 12, 15)
        expected = slow_average(model, group, x.clone())
        assert relative(net(x), expected) <= TIGHT
        assert torch.equal(x, image(1, 3, 12, 15))


class SegNet(nn.Module):
    """Pools that return their indices, and unpooling that uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2, return_indices=True)
        self.middle, self.unpool, self.last = nn.Conv2d(6, 6, 3, padding=1), nn.MaxUnpool2d(2), nn.Conv2d(6, 2, 3)

    def forward(self, x):
        y = self.first(x)
        pooled, indices = self.pool(y)
        return self.last(self.unpool(self.middle(pooled), indices, output_size=y.shape[-2:]))


@pytest.mark.parametrize("size", [(16, 20), (17, 17), (19, 14)], ids=str)
@torch.no_grad()
def test_pools_that_return_indices(size):
    model = SegNet().double()
    net = convert(model, "D4", image(1, 3, 17, 20))
    x = image(2, 3, *size, seed=7)
    assert relative(net(x), slow_average(model, "D4", x)) <= TIGHT


class Tokens(nn.Module):
    """A block of one attention layer over the pixels, channels last, without positions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 2, 3)

    def forward(self, x):
        y = self.stem(x)
        tokens = y.flatten(2).transpose(1, 2)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed)[0]
        pixels = tokens.transpose(1, 2).unflatten(2, y.shape[2:]).permute(0, 2, 3, 1)
        return self.head((pixels + self.mlp(pixels)).permute(0, 3, 1, 2))


@torch.no_grad()
def test_attention_without_positions():
    model = randomised(Tokens(), image(1, 3, 21, 25))
    net = convert(model, "C4", image(1, 3, 21, 25))
    x = image(2, 3, 23, 18, seed=7)
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


@torch.no_grad()
def test_a_norm_whose_weights_have_positions():
    model = randomised(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 10, 10]), nn.Conv2d(4, 2, 3)), image(1, 3, 12, 12)
    )
    net = convert(model, "D4", image(1, 3, 12, 12))
    assert net.report.rows[1].why == "weights depend on the position"
    x = image(2, 3, 12, 12, seed=7)
    assert relative(net(x), slow_average(model, "D4", x)) <= TIGHT


class Merge(nn.Module):
    """Two images of different sizes in, two images and a number out; mixes positions with channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, fine, coarse, *, scale=None):
        up = F.interpolate(coarse, fine.shape[-2:], mode="bilinear")
        y = self.conv(torch.cat((fine, up), 1)).roll(1, -1)
        return {"maps": (y * scale, y[..., ::2, ::2]), "level": y.mean((1, 2, 3)), "name": "merged"}


class Merging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.merge, self.head = nn.Conv2d(3, 3, 3), Merge(), nn.Conv2d(4, 2, 3)

    def forward(self, x):
        y = self.stem(x)
        merged = self.merge(y, F.avg_pool2d(y, 2), scale=2.0)
        fine, coarse = merged["maps"]
        assert merged["name"] == "merged"
        return self.head(fine + F.interpolate(coarse, fine.shape[-2:], mode="bilinear")) * merged["level"].view(
            -1, 1, 1, 1
        )


@torch.no_grad()
def test_blocks_with_several_images_are_conjugated_whole():
    model = randomised(Merging(), image(1, 3, 15, 18))
    with pytest.raises(NotConvertible, match=r"merge \(Merge, "):
        convert(model, "C4", image(1, 3, 15, 18))
    for size in [(15, 18), (17, 17)]:
        net = convert(model, "C4", image(1, 3, *size), conjugate=Merge)
        x = image(2, 3, 14, 19, seed=7)
        assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


class Skip(nn.Module):
    """A transposed convolution called with the size of the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 6, 3, 2, 1), nn.ConvTranspose2d(6, 4, 3, 2, 1)
        self.last = nn.Conv2d(7, 2, 3)

    def forward(self, x):
        up = self.up(self.down(x), output_size=x.shape[-2:])
        return self.last(torch.cat((x, up), dim=1))


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (17, 20), (23, 16)], ids=str)
@torch.no_grad()
def test_a_transposed_convolution_that_is_told_a_size(size, opened):
    model = randomised(Skip(), image(1, 3, 17, 20))
    net = convert(model, "C4", image(1, 3, 17, 20))
    if opened:
        net.open_taps()
    x = image(2, 3, *size, seed=7)
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


def test_a_size_out_of_reach_is_torchs_to_refuse():
    net = convert(Skip().double(), "C4", image(1, 3, 17, 20))
    with pytest.raises(ValueError, match="requested an output size"):
        net.model.up(image(4, 6, 5, 5), output_size=(20, 20))


@pytest.mark.parametrize("pooling", ["max", "max_blur"])
@torch.no_grad()
def test_our_own_plain_unet(pooling):
    """Its up-sampling is called with the size of the skip."""
    model = randomised(UNet(1, 2, width=4, depth=3, pooling=pooling), image(1, 1, 30, 41))
    net = convert(model, "C4", image(1, 1, 30, 41))
    x = image(2, 1, 43, 27, seed=7)
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT
