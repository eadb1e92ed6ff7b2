"""What is told to be exact is exact at every size, in every batch and orientation: crops, folded axes, weights."""

import pytest
import torch
import torch.nn.functional as F
from conversion_nets import image, randomised
from slow_average import elements as elements_of
from slow_average import relative, slow_average, turn_back
from tolerances import TOLERANCES
from torch import nn

from gconv_ga.conversion import NotConvertible, convert

TIGHT = TOLERANCES[torch.float64]
SIZES = [(16, 16), (17, 20), (19, 19), (18, 23)]


class Around(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Conv2d(3, 6, 3, padding=1), function, nn.Conv2d(6, 2, 3)
        self.register_buffer("blur", torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return self.last(self.function(self, torch.tanh(self.first(x))))


def padded_and_cropped(m, y):
    h, w = y.shape[-2:]
    return F.max_pool2d(F.pad(y, (0, -w % 8, 0, -h % 8)), 1, 1)[:, :, :h, :w]


def channels_last(m, y):
    y = y.permute(0, 2, 3, 1)
    return y[:, 1:, 1:].movedim(-1, 1)


CROPS = {
    "pad to a multiple and crop": padded_and_cropped,
    "without the first row and column": lambda m, y: y[..., 1:, 1:],
    "without the last two": lambda m, y: y[:, :, :-2, :-2],
    "every other pixel": lambda m, y: y[..., ::2, ::2],
    "narrow": lambda m, y: y.narrow(2, 1, y.shape[2] - 1).narrow(-1, 1, y.shape[3] - 1),
    "split": lambda m, y: y.split(4, 2)[0].split(4, 3)[0],
    "chunks": lambda m, y: torch.chunk(torch.chunk(y, 2, 2)[0], 2, 3)[0],
    "channels last": channels_last,
    "a strided kernel in a buffer": lambda m, y: F.conv2d(y, m.blur, stride=2, groups=6),
    "a transposed kernel in a buffer": lambda m, y: F.conv_transpose2d(y, m.blur, stride=2, groups=6),
    "global pool by its window": lambda m, y: y * F.avg_pool2d(y, y.shape[2:]).sigmoid(),
}


@pytest.mark.parametrize("name", CROPS)
@torch.no_grad()
def test_crops_and_kernels_at_every_size(name):
    model = randomised(Around(CROPS[name]), image(1, 3, 16, 16))
    for group, example in (("C4", (16, 16)), ("D4", (16, 24))):
        net = convert(model, group, image(1, 3, *example))
        for size in SIZES:
            x = image(2, 3, *size, seed=7)
            assert relative(net(x), slow_average(model, group, x)) <= TIGHT


LUCKY = {
    # At the example's size these do nothing, or do the right thing.
    "one-sided padding by cat": lambda m, y: torch.cat((y, y.new_zeros(*y.shape[:2], -y.shape[2] % 2, y.shape[3])), 2),
    "a roll by the remainder": lambda m, y: y.roll(y.shape[-1] % 2, -1),
}


@pytest.mark.parametrize("name", LUCKY)
def test_a_lucky_example_does_not_hide_an_error(name):
    model = randomised(Around(LUCKY[name]), image(1, 3, 16, 24))
    with pytest.raises(NotConvertible, match=r"at another size, \d+ x \d+ with a batch of 2"):
        convert(model, "C2", image(1, 3, 16, 24))


class DeepOnAPixel(nn.Module):
    """Many batch norms on maps of one pixel, whose statistics over one or two images let rounding errors grow."""

    def __init__(self, before) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.first = before, nn.Conv2d(2, 16, 3, padding=1)
        blocks = [nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1)) for _ in range(15)]
        self.blocks = nn.Sequential(nn.AdaptiveAvgPool2d(1), *blocks)

    def forward(self, x):
        return self.blocks(self.first(self.before(x)))


def test_rounding_errors_of_deep_networks_on_one_pixel_are_no_difference():
    model = DeepOnAPixel(nn.Identity()).double().eval()
    net, x = convert(model, "C4", image(1, 2, 16, 17)), image(2, 2, 19, 22, seed=3)
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


def test_a_true_difference_before_a_deep_network_on_one_pixel_is_found():
    class RampInOddWidths(nn.Sequential):  # a module without parts would be conjugated, and right
        def forward(self, x):
            return x * (1 + x.shape[-1] % 2 * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype))

    with pytest.raises(NotConvertible, match="differs from its group average"):
        convert(DeepOnAPixel(RampInOddWidths()).double(), "C4", image(1, 2, 16, 18))


def test_the_report_tells_the_sizes():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()
    assert convert(model, "C4", image(1, 3, 16, 24)).report.sizes == [(16, 24), (19, 29)]
    fixed = nn.Sequential(model, nn.Flatten(), nn.Linear(2 * 6 * 6, 3)).double()
    assert convert(fixed, "C4", image(1, 3, 16, 16)).report.sizes == [(16, 16), (16, 16)]


def test_networks_that_take_multiples_only_are_verified_at_another_multiple():
    class Multiples(nn.Sequential):
        def forward(self, x):
            if x.shape[-1] % 8 or x.shape[-2] % 8:
                raise RuntimeError("sizes must be multiples of 8")
            return super().forward(x)

    model = Multiples(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()
    assert convert(model, "C4", image(1, 3, 16, 24)).report.sizes == [(16, 24), (24, 32)]


class Swapped(nn.Module):
    """Two orientations change places; the mean hides it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        y = self.first(x)
        return self.last(y.flip(0))


def test_a_mean_does_not_hide_that_orientations_change_places():
    """In a batch of one, only orientations are reversed."""
    with pytest.raises(NotConvertible, match="differs from its group average"):
        convert(Swapped().double(), "C4", image(1, 3, 12, 15))


class Frames(nn.Module):
    """Time in the batch for the first layers, and in the channels for the last."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4 * times, 2, 3)

    def forward(self, x):
        b, t, h, w = x.shape
        y = self.second(self.first(x.reshape(b * t, 1, h, w))[..., 1:, 1:])
        return self.last(y.view(b, t * 4, *y.shape[-2:]))


@pytest.mark.parametrize(("group", "times"), [("C4", 3), ("D4", 8), ("C2", 4)])
@torch.no_grad()
def test_an_axis_folded_into_the_batch(group, times):
    model = randomised(Frames(times), image(2, times, 21, 26))
    net = convert(model, group, image(2, times, 21, 26), reduce="none")
    x = image(1, times, 22, 22, seed=7)
    maps = net(x)
    assert relative(maps[:, :, 0], model(x)) <= TIGHT
    net.reduce = "mean"
    assert relative(net(x), slow_average(model, group, x)) <= TIGHT
    net.open_taps()
    for module in net.convolutions().values():
        module.taps.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    for g in elements_of(group):
        assert relative(net(turn_back(x, g)), turn_back(net(x), g)) <= TIGHT


@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.spectral_norm,
        lambda c: nn.utils.parametrizations.weight_norm(c),
        nn.utils.parametrizations.spectral_norm,
    ],
    ids=["old", "weight norm", "spectral norm"],
)
@torch.no_grad()
def test_a_weight_with_as_many_rows_as_the_orbit_is_none(wrap):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), wrap(nn.ConvTranspose2d(8, 4, 4, 2, 1))).double()
    model(image(2, 3, 16, 24))
    net = convert(model.eval(), "C4", image(2, 3, 16, 24))
    for batch in (1, 2, 4):
        x = image(batch, 3, 16, 24, seed=7)
        assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


class TokensPadded(nn.Module):
    """Linear attention: tokens padded by a column of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.last = nn.Conv2d(3, 24, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        b, _, h, w = x.shape
        tokens = self.qkv(x).reshape(b, 2, 12, h * w).transpose(-1, -2)
        q, k, v = tokens.relu().chunk(3, -1)
        y = q @ (k.transpose(-1, -2) @ F.pad(v, (0, 1), value=1.0))
        y = y[..., :-1] / (y[..., -1:] + 1e-3)
        return self.last(y.transpose(-1, -2).reshape(b, 8, h, w))


@torch.no_grad()
def test_tokens_are_no_images():
    model = TokensPadded().double()
    net = convert(model, "C4", image(1, 3, 12, 15))
    x = image(2, 3, 13, 13, seed=7)
    assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


class Table(nn.Module):
    """Adds a number that a table holds for each bin; mixes positions and channels, so that it must be conjugated."""

    def forward(self, y, table):
        bins = (y.mean((1, 2, 3)).sigmoid() * len(table)).long()
        return y.roll(1, -1) + table[bins, :, None, None]


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.look, self.last = nn.Conv2d(3, 4, 3), Table(), nn.Conv2d(4, 2, 3)
        self.register_buffer("table", torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return self.last(self.look(self.first(x), self.table))


@torch.no_grad()
def test_a_table_with_as_many_rows_as_the_orbit_is_none():
    model = Looked().double()
    net = convert(model, "C4", image(1, 3, 12, 15))
    for batch in (2, 4, 8):
        x = image(batch, 3, 12, 15, seed=7)
        assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


class Filtered(nn.Module):
    """Convolves with a fixed filter: a buffer, a tensor that is held, or one that is made at each call."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.kind, self.first, self.last = kind, nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)
        kernel = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.held = kernel.repeat(16, 1, 1, 1) if kind == "held" else None
        self.register_buffer("kernel", kernel if kind == "repeated" else kernel.repeat(16, 1, 1, 1))

    def forward(self, x):
        made = torch.arange(144, dtype=x.dtype, device=x.device).reshape(16, 1, 3, 3).sin()
        kernels = {"held": self.held, "made": made, "repeated": self.kernel.repeat(16, 1, 1, 1)}
        kernel = kernels.get(self.kind, self.kernel)
        return self.last(F.conv2d(torch.tanh(self.first(x)), kernel, stride=2, groups=16))


class Described(nn.Module):
    """Compares pixels with a table of descriptors, which it pools and flattens as if they were images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(16, 2, 1)
        self.register_buffer("table", torch.randn(16, 1, 4, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        descriptors = F.max_pool2d(F.pad(self.table[..., 1:], (1, 0)), 2).flatten(1)
        return self.last(torch.einsum("bchw,pc->bphw", self.first(x), descriptors).tanh())


@pytest.mark.parametrize("kind", ["buffer", "held", "made", "repeated", "described"])
@torch.no_grad()
def test_a_constant_with_as_many_rows_as_the_orbit_is_none(kind):
    model = (Described() if kind == "described" else Filtered(kind)).double()
    net = convert(model, "C4", image(1, 3, 12, 15))
    # Four images have 16 orientations.
    for batch, size in ((4, (12, 15)), (4, (13, 13)), (3, (12, 15))):
        x = image(batch, 3, *size, seed=7)
        assert relative(net(x), slow_average(model, "C4", x)) <= TIGHT


@torch.no_grad()
def test_a_constant_with_as_many_rows_as_the_orbit_is_none_in_programs_either():
    model = Filtered("buffer").double().eval()
    net, x = convert(model, "C4", image(1, 3, 12, 15)), image(4, 3, 12, 15, seed=7)
    expected = slow_average(model, "C4", x)
    assert relative(torch.compile(net, backend="eager", fullgraph=True)(x), expected) <= TIGHT
    assert relative(torch.export.export(net, (x,)).module()(x), expected) <= TIGHT
