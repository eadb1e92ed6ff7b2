"""Steerable filters: stacks of transformed kernels, against loops; initial weights preserve the variance."""

import copy
import math
import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tolerances import TOLERANCES

from gconv_ga.filters import SteerableFilters
from gconv_ga.groups import as_group

TIGHT = TOLERANCES[torch.float64]
GROUPS = ("C1", "C5", "C8", "C12", "D3", "D4", "D6", "D8")


def turned_kernel(coefficients, filters, g):
    """Return ``L_g k`` of one kernel, function by function."""
    return sum(w * b[g] for w, b in zip(coefficients.tolist(), filters.basis.kernels, strict=True))


def slow_rotate_and_shift(weight, filters):
    """Compute ``(L_g k)(y, h) = k(g^-1 y, g^-1 h)`` in loops: ``[C_out, |G|, C_in * |G|, k * k]``."""
    out, channels, order, _ = weight.shape
    group, found = filters.group, []
    for o in range(out):
        for g in range(order):
            for i in range(channels):
                for h in range(order):
                    plane = weight[o, i, group.product(group.inverse(g), h)]
                    found.append(turned_kernel(plane, filters, g).flatten())
    return torch.stack(found).view(out, order, channels * order, -1)


def random(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("name", GROUPS)
def test_rotate_is_the_sum_of_rotated_functions(name, kernel_size, generator):
    filters = SteerableFilters(as_group(name), (kernel_size, kernel_size))
    weight = random(generator, 2, 3, *filters.shape)
    turned = filters.rotate(weight, filters.tables())
    assert turned.shape == (2, filters.group.order, 3, kernel_size**2)
    for o, g, j in torch.cartesian_prod(*map(torch.arange, turned.shape[:3])).tolist():
        expected = turned_kernel(weight[o, j], filters, g).flatten()
        assert (turned[o, g, j] - expected).abs().max() <= TIGHT * weight.abs().max()


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("name", GROUPS)
def test_rotate_and_shift_is_what_the_loops_say(name, kernel_size, generator):
    filters = SteerableFilters(as_group(name), (kernel_size, kernel_size))
    weight = random(generator, 2, 2, filters.group.order, *filters.shape)
    got, expected = filters.rotate_and_shift(weight, filters.tables()), slow_rotate_and_shift(weight, filters)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= TIGHT * expected.abs().max()


@dataclass(frozen=True)
class ShiftedTheWrongWay(SteerableFilters):
    def tables(self):
        taps = torch.arange(len(self.basis))
        return super().tables() | {"shift_index": (self.group.cayley_table.unsqueeze(2) * len(taps) + taps).flatten(1)}


@pytest.mark.parametrize("name", ["C5", "D3"])
def test_planes_shifted_the_wrong_way_are_seen(name, generator):
    filters = ShiftedTheWrongWay(as_group(name), (3, 3))
    weight = random(generator, 1, 1, filters.group.order, *filters.shape)
    miss = filters.rotate_and_shift(weight, filters.tables()) - slow_rotate_and_shift(weight, filters)
    assert miss.abs().max() > 0.1


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ["C8", "D4", "D8"])
def test_exact_elements_move_the_taps_of_the_kernel(name, dtype, device, generator):
    """Against `torch.rot90` and `torch.flip`, on every dtype and device."""
    filters = SteerableFilters(as_group(name), (5, 5))
    tables = {key: table.to(device) for key, table in filters.tables().items()}
    weight = random(generator, 4, 2, *filters.shape, dtype=dtype).to(device)
    turned = filters.rotate(weight, tables).unflatten(-1, (5, 5))
    assert turned.dtype == dtype
    n = filters.group.n
    for quarters in range(4):
        expected = {quarters * n // 4: turned[:, 0].rot90(quarters, (-2, -1))}
        if filters.group.order > n:
            expected[n + quarters * n // 4] = turned[:, 0].flip(-1).rot90(quarters, (-2, -1))
        for g, kernel in expected.items():
            assert (turned[:, g] - kernel).abs().max() <= TOLERANCES[dtype] * turned.abs().max()


@pytest.mark.parametrize("group_axis", [False, True])
def test_gradients(group_axis, generator):
    filters = SteerableFilters(as_group("D3"), (3, 3))
    tables = filters.tables()
    shape = (1, 2, 6, *filters.shape) if group_axis else (1, 2, *filters.shape)
    weight = random(generator, *shape).requires_grad_()
    expand = filters.rotate_and_shift if group_axis else filters.rotate
    assert torch.autograd.gradcheck(lambda w: expand(w, tables), (weight,))
    assert torch.autograd.gradgradcheck(lambda w: expand(w, tables), (weight,))


def noise_like_photographs(generator, batch, side):
    """Return images of variance 1 with power ``1 / (p^2 + 0.01)`` in the disc p < pi."""
    w = 2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64)
    p = torch.hypot(w, w.unsqueeze(1))
    amplitude = (p.square() + 0.01).rsqrt() * (p < math.pi) * (p > 0)
    noise = torch.randn(batch, 1, side, side, generator=generator, dtype=torch.float64)
    images = torch.fft.ifft2(torch.fft.fft2(noise) * amplitude).real
    return images / images.std()


def second_moments(filters, variance, generator):
    """Return second moments of the outputs of three layers with weights of that variance and ReLU between them."""
    order, fields, (size, _) = filters.group.order, 8, filters.kernel_size
    tables, x, moments = filters.tables(), noise_like_photographs(generator, 2, 48), []
    for channels in (1, fields * order, fields * order):
        if channels == 1:
            weight = random(generator, fields, 1, *filters.shape) * variance(1, False) ** 0.5
            kernel = filters.rotate(weight, tables)
        else:
            weight = random(generator, fields, fields, order, *filters.shape) * variance(channels, True) ** 0.5
            kernel = filters.rotate_and_shift(weight, tables)
        kernel = kernel.flatten(0, 1).unflatten(-1, (size, size))
        x = F.conv2d(F.pad(x, 4 * [size // 2], mode="circular"), kernel)
        moments.append(x.square().mean())
        x = x.relu()
    return torch.stack(moments)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("name", ["C4", "C8", "D3"])
def test_initial_weights_keep_the_variance(name, size, generator):
    filters = SteerableFilters(as_group(name), (size, size))

    def variance(channels, rectified):
        return filters.variance(channels, rectified=rectified)

    # A single draw varies, since its smooth kernels see much the same. The mean of ten is preserved.
    moments = torch.stack([second_moments(filters, variance, generator) for _ in range(10)]).mean(0)
    assert all(0.4 < moment < 2.5 for moment in moments.tolist()), moments


def test_the_rule_for_white_noise_does_not_keep_it(generator):
    filters = SteerableFilters(as_group("C8"), (5, 5))
    spread = torch.tensor(filters.basis.spread, dtype=torch.float64).square()
    white = filters.basis.kernels.square().sum((1, 2, 3)) @ spread / 8
    moments = second_moments(
        filters, lambda channels, rectified: spread * (1 + rectified) / (channels * white), generator
    )
    assert moments[-1] > 10


def test_knobs_reach_the_basis():
    group = as_group("C8")
    assert SteerableFilters(group, (5, 5)).shape == (15,)
    assert SteerableFilters(group, (5, 5), functions=12).shape == (12,)
    assert SteerableFilters(group, (5, 5), max_error=0.3).shape == (17,)
    assert SteerableFilters(group, (5, 5), smoothing=0).basis.spread == (1.0,) * 15


@pytest.mark.parametrize(
    ("kernel_size", "knobs", "message"),
    [
        ((3, 5), {}, r"kernel_size must be square for filters='steerable', but got kernel_size=\(3, 5\)"),
        ((2, 2), {}, "kernel_size must be 1 or at least 3 for C8, but got kernel_size=2"),
        ((3, 3), {"functions": 10}, "functions must be at most the 9 taps"),
    ],
)
def test_refusals_come_at_once(kernel_size, knobs, message):
    with pytest.raises(ValueError, match=message):
        SteerableFilters(as_group("C8"), kernel_size, **knobs)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda filters: pickle.loads(pickle.dumps(filters))])
def test_copies_are_equal(copied):
    filters = SteerableFilters(as_group("D8"), (3, 3), smoothing=0.5)
    assert copied(filters) == filters
    assert hash(copied(filters)) == hash(filters)


def test_tables_are_new_at_each_call():
    filters = SteerableFilters(as_group("C8"), (3, 3))
    for table in filters.tables().values():
        table.zero_()
    assert all(table.abs().max() > 0 for table in filters.tables().values())
