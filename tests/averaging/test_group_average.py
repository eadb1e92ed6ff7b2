"""GroupAverage against the average written out, and cases that other libraries get wrong."""

import pytest
import torch
from slow_average import EXACT, SIZES, Crooked, elements, relative, slow_average, turn
from tolerances import TOLERANCES
from torch import Tensor, nn

from gconv_ga.actions import VectorField
from gconv_ga.averaging import GroupAverage

TIGHT = TOLERANCES[torch.float64]


def image(*shape: int, device: torch.device) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(device)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", EXACT)
def test_agrees_with_the_slow_average(group: str, size: tuple[int, int], device: torch.device) -> None:
    net = Crooked().double().to(device)
    x = image(2, 3, *size, device=device)
    assert relative(GroupAverage(net, group)(x), slow_average(net, group, x)) <= TIGHT


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("group", EXACT)
def test_is_equivariant(group: str, size: tuple[int, int], device: torch.device) -> None:
    net = GroupAverage(Crooked().double().to(device), group)
    x = image(1, 3, *size, device=device)
    upright = net(x)
    for g in elements(group):
        assert relative(net(turn(x, g)), turn(upright, g)) <= TIGHT


def test_the_module_alone_is_not_equivariant(device: torch.device) -> None:
    net = Crooked().double().to(device)
    x = image(1, 3, 12, 12, device=device)
    assert relative(net(turn(x, (1, False))), turn(net(x), (1, False))) > 0.1


@pytest.mark.parametrize("size", [(12, 12), (12, 17)], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 8, 100])
def test_chunks_change_nothing(chunk_size: int, size: tuple[int, int], device: torch.device) -> None:
    net = Crooked().double().to(device)
    x = image(2, 3, *size, device=device)
    assert relative(GroupAverage(net, "D4", chunk_size=chunk_size)(x), slow_average(net, "D4", x)) <= TIGHT


class Sizes(nn.Module):
    """Record the number and size of the images in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append((x.shape[0], *x.shape[-2:]))
        return x


@pytest.mark.parametrize(
    ("size", "chunk_size", "passes"),
    [
        ((6, 6), None, [(16, 6, 6)]),
        ((6, 8), None, [(8, 6, 8), (8, 8, 6)]),
        ((6, 6), 3, [(6, 6, 6), (6, 6, 6), (4, 6, 6)]),
        ((6, 8), 3, [(6, 6, 8), (6, 8, 6), (2, 6, 8), (2, 8, 6)]),
    ],
)
def test_number_and_size_of_passes(
    size: tuple[int, int], chunk_size: int | None, passes: list[tuple[int, ...]], device: torch.device
) -> None:
    net = Sizes()
    GroupAverage(net, "D4", chunk_size=chunk_size)(image(2, 1, *size, device=device))
    assert sorted(net.passes) == sorted(passes)


def test_matches_ttach(device: torch.device) -> None:
    ttach = pytest.importorskip("ttach", reason="compares with ttach where it is installed")
    net = Crooked().double().to(device)
    peer = ttach.SegmentationTTAWrapper(net, ttach.aliases.d4_transform(), merge_mode="mean")
    for size in ((12, 12), (12, 17)):
        x = image(2, 3, *size, device=device)
        assert relative(GroupAverage(net, "D4")(x), peer(x)) <= TIGHT


@pytest.mark.parametrize("size", [(6, 8), (31, 45), (7, 7)], ids=str)
def test_one_pixel_comes_back_where_it_was(size: tuple[int, int], device: torch.device) -> None:
    mask = torch.zeros(1, 1, *size, device=device)
    mask[..., 1, 4] = 1
    assert torch.equal(GroupAverage(nn.Identity(), "D4")(mask), mask)


@pytest.mark.parametrize("group", EXACT)
def test_a_ramp_loses_no_pixel(group: str, device: torch.device) -> None:
    # A rotation by 90 degrees on a fixed 6 x 8 canvas would cut off two columns and fill in zeros.
    ramp = torch.arange(1.0, 49.0, device=device).view(1, 1, 6, 8)
    assert torch.equal(GroupAverage(nn.Identity(), group)(ramp), ramp)


def test_every_pixel_of_a_turned_image_reaches_the_module(device: torch.device) -> None:
    seen: list[Tensor] = []
    ramp = torch.arange(48.0, device=device).view(1, 1, 6, 8)
    GroupAverage(lambda x: (seen.append(x), x)[1], "D4")(ramp)
    rows = torch.cat([x.flatten(1) for x in seen])
    assert len(rows) == 8
    assert torch.equal(rows.sort(-1).values, ramp.flatten().expand(8, -1))


def test_an_equivariant_module_is_left_as_it_is(device: torch.device) -> None:
    net = nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64, device=device)
    with torch.no_grad():
        net.weight.copy_(sum(turn(net.weight, g) for g in elements("D4")) / 8)
    x = image(2, 2, 9, 12, device=device)
    assert relative(GroupAverage(net, "D4")(x), net(x)) <= TIGHT


def potential(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """A smooth function of the position: each pixel adds a bump, with a weight that depends on its row and column."""
    height, width = x.shape[-2:]
    i = torch.arange(height, dtype=x.dtype, device=x.device).view(-1, 1)
    j = torch.arange(width, dtype=x.dtype, device=x.device)
    weight = 1 + torch.sin(0.7 * i + 0.1 * j * j)
    bumps = torch.exp(-((columns[..., None, None] - j) ** 2 + (rows[..., None, None] - i) ** 2) / 3)
    return torch.einsum("hw,bhw,yxhw->byx", weight, x[:, 0], bumps)


def grid(height: int, width: int, device: torch.device) -> list[Tensor]:
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    return [columns.to(device).requires_grad_(), rows.to(device).requires_grad_()]


def flow(x: Tensor) -> Tensor:
    """The gradient of the potential at every pixel, columns before rows, by autograd."""
    columns, rows = grid(*x.shape[-2:], device=x.device)
    u = potential(x, columns, rows)
    parts = [torch.autograd.grad(sample.sum(), (columns, rows), retain_graph=True) for sample in u]
    return torch.stack([torch.stack(part) for part in parts])


def averaged_flow(x: Tensor, group: str) -> Tensor:
    """The gradient of the averaged potential, with the position transformed by every element."""
    height, width = x.shape[-2:]
    columns, rows = grid(height, width, x.device)
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for quarters, mirrored in elements(group):
        # The coordinates of the point (column, row) after a clockwise rotation of the image by `quarters`.
        (c, r), (h, w) = (columns, rows), (height, width)
        for _ in range(quarters):
            c, r, h, w = h - 1 - r, c, w, h
        if mirrored:
            c = w - 1 - c
        turned = torch.rot90(x, -quarters, (-2, -1))
        total = total + potential(turned.flip(-1) if mirrored else turned, c, r).sum() / len(elements(group))
    return torch.stack(torch.autograd.grad(total, (columns, rows)))


@pytest.mark.parametrize("size", [(6, 6), (5, 8)], ids=str)
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_averaged_flow_is_the_gradient_of_the_averaged_potential(
    group: str, size: tuple[int, int], device: torch.device
) -> None:
    x = image(1, 1, *size, device=device)
    expected = averaged_flow(x, group)
    assert relative(GroupAverage(flow, group, out_action="vector")(x)[0], expected) <= TIGHT
    if size[0] == size[1]:
        assert relative(GroupAverage(flow, group, out_action="scalar")(x)[0], expected) > 0.1
    backwards = GroupAverage(lambda x: flow(x).flip(1), group, out_action=VectorField(order="yx"))
    assert relative(backwards(x)[0].flip(0), expected) <= TIGHT


@pytest.mark.parametrize("size", [(8, 8), (6, 9)], ids=str)
def test_nan_stays_where_it_is(size: tuple[int, int], device: torch.device) -> None:
    x = torch.ones(2, 1, *size, device=device)
    x[0, 0, 1, 2] = torch.nan
    y = GroupAverage(nn.Identity(), "D4")(x)
    assert torch.equal(y.isnan(), x.isnan())
    pooled = GroupAverage(lambda x: x.mean((-2, -1)), "D4", out_action="invariant")(x)
    assert pooled.isnan().flatten().tolist() == [True, False]


def test_the_callers_tensor_is_never_written(device: torch.device) -> None:
    x = image(2, 1, 5, 5, device=device)
    before = x.clone()
    for group in ("C1", "C4"):
        for chunk_size in (None, 1):
            y = GroupAverage(lambda x: x.mul_(2).add_(1), group, "invariant", "invariant", chunk_size=chunk_size)(x)
            assert torch.equal(x, before)
            assert relative(y, 2 * before + 1) <= TIGHT


def test_the_modules_tensor_is_never_written(device: torch.device) -> None:
    kept = torch.ones(4, 3, device=device)
    net = GroupAverage(lambda x: kept, "C4", out_action="invariant", chunk_size=1)
    y = net(torch.zeros(4, 1, 2, 2, device=device))
    y.add_(1)
    assert torch.equal(kept, torch.ones_like(kept))


def test_half_precision_is_summed_in_single(device: torch.device) -> None:
    # 256 + 1 is 256 in bfloat16; the sum of the four corners is 260.
    x = torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16, device=device)
    x[..., 0, 0], x[..., 0, 3], x[..., 3, 0], x[..., 3, 3] = 256, 1, 1, 2
    y = GroupAverage(lambda x: x[..., 0, 0], "C4", out_action="invariant")(x)
    assert y.dtype == torch.bfloat16
    assert y.item() == 65.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64], ids=str)
def test_keeps_the_modules_dtype(dtype: torch.dtype, device: torch.device) -> None:
    x = torch.ones(1, 1, 4, 6, device=device)
    assert GroupAverage(lambda x: x.to(dtype), "D4")(x).dtype == dtype


def test_integer_images_go_in(device: torch.device) -> None:
    x = torch.arange(24, dtype=torch.uint8, device=device).view(1, 1, 4, 6)
    assert torch.equal(GroupAverage(lambda x: x.float() / 255, "D4")(x), x.float() / 255)


@pytest.mark.parametrize(("size", "chunk_size"), [((8, 8), None), ((6, 9), None), ((6, 9), 3)], ids=str)
def test_gradients_are_those_of_the_slow_average(
    size: tuple[int, int], chunk_size: int | None, device: torch.device
) -> None:
    net = Crooked().double().to(device)
    x = image(2, 3, *size, device=device).requires_grad_()
    inputs = [x, *net.parameters()]
    expected = torch.autograd.grad(slow_average(net, "D4", x).square().sum(), inputs)
    actual = torch.autograd.grad(GroupAverage(net, "D4", chunk_size=chunk_size)(x).square().sum(), inputs)
    for one, other in zip(actual, expected, strict=True):
        assert relative(one, other) <= TIGHT


def test_gradcheck(device: torch.device) -> None:
    net = GroupAverage(Crooked(1, 2).double().to(device), "D4", out_action="vector")
    x = image(1, 1, 4, 5, device=device).requires_grad_()
    assert torch.autograd.gradcheck(net, (x,), fast_mode=True)


def test_batch_norm_counts_one_update(device: torch.device) -> None:
    norm = nn.BatchNorm2d(2, dtype=torch.float64, device=device)
    alone = nn.BatchNorm2d(2, dtype=torch.float64, device=device)
    crop = image(3, 2, 8, 8, device=device)
    net = GroupAverage(nn.Sequential(nn.ZeroPad2d((2, 0, 2, 0)), norm, nn.ReLU()), "D4")
    net(crop)
    assert norm.num_batches_tracked == 1
    # The statistics are those of the whole orbit, including the asymmetric padding.
    alone(nn.functional.pad(torch.cat([turn(crop, g) for g in elements("D4")]), (2, 0, 2, 0)))
    assert relative(norm.running_mean, alone.running_mean) <= TIGHT
    assert relative(norm.running_var, alone.running_var) <= TIGHT
    net(image(3, 2, 8, 9, device=device))
    assert norm.num_batches_tracked == 3  # two shapes, two passes


def test_training_mode_is_equivariant_when_the_orbit_is_one_batch(device: torch.device) -> None:
    net = nn.Sequential(Crooked(), nn.BatchNorm2d(2), nn.ReLU()).double().to(device)
    x = image(2, 3, 12, 12, device=device)
    average = GroupAverage(net, "C4").train()
    assert relative(average(turn(x, (1, False))), turn(average(x), (1, False))) <= TIGHT
    assert net.training
    average.eval()
    assert relative(average(x), slow_average(net, "C4", x)) <= TIGHT
