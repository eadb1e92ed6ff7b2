"""The errors that a basis states, against plane waves, which are rotated exactly, without correlations."""

import math

import pytest
import torch
import torch.nn.functional as F
from plane_waves import errors, positions, turned

from gconv_ga.filters import steerable_basis
from gconv_ga.groups import CyclicGroup


def as_it_begins(basis):
    """Return the functions, each scaled by the deviation of its initial weights."""
    return basis.kernels * torch.tensor(basis.spread, dtype=torch.float64).view(-1, 1, 1, 1)


@pytest.mark.parametrize("kernel_size", [3, 4, 5, 7])
@pytest.mark.parametrize("n", [3, 5, 6, 8, 12])
def test_stated_errors_are_those_of_waves(n, kernel_size):
    basis = steerable_basis(CyclicGroup(n), kernel_size)
    each, together = errors(as_it_begins(basis))
    assert torch.tensor(basis.error) == pytest.approx(each.numpy(), rel=1e-3, abs=1e-7)
    assert basis.expected_error == pytest.approx(together, rel=1e-3)
    blurred, _ = errors(basis.kernels, blur=1.0)
    assert torch.tensor(basis.blurred_error) == pytest.approx(blurred.numpy(), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("spoil", ["backwards", "not turned"])
def test_kernels_that_do_not_turn_with_the_image_are_seen(spoil):
    basis = steerable_basis("C8", 5)
    kernels = as_it_begins(basis)[:, [-g % 8 for g in range(8)] if spoil == "backwards" else [0] * 8]
    _, together = errors(kernels)
    assert together > 10 * basis.expected_error


@pytest.mark.parametrize(("n", "kernel_size"), [(8, 3), (8, 5), (8, 7), (6, 5), (5, 4)])
def test_the_expected_error_is_met_by_convolutions_of_images(n, kernel_size, generator):
    """An image that is a sum of waves is rotated by rotating the waves."""
    basis = steerable_basis(CyclicGroup(n), kernel_size)
    # With independent weights the expected energies are the sums over the functions.
    kernels = as_it_begins(basis)
    number, images, side = 600, 256, 8
    # Frequencies of density p / (p^2 + 0.01) make the power of a photograph.
    u = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    p = (0.01 * ((math.pi**2 + 0.01) / 0.01) ** u - 0.01).sqrt()
    direction = 2 * math.pi * torch.rand(number, generator=generator, dtype=torch.float64)
    phases = torch.exp(2j * math.pi * torch.rand(images, 1, number, generator=generator, dtype=torch.float64))
    waves = torch.stack((p * direction.cos(), p * direction.sin()), dim=1)
    along = torch.arange(side, dtype=torch.float64)

    def draw(waves, shift):
        """Return the images on a grid, x to the right and y up, at places shifted by that phase."""
        rows = torch.exp(-1j * torch.outer(along, waves[:, 1])) * shift
        return (rows @ (torch.exp(1j * torch.outer(along, waves[:, 0])) * phases).mT).real

    missed, seen = 0.0, 0.0
    valid = slice((kernel_size - 1) // 2, (kernel_size - 1) // 2 + side - kernel_size + 1)
    for g in (g for g in range(n) if 4 * g % n):
        after = turned(waves, 2 * math.pi * g / n)
        # An even kernel's centre is between the pixels.
        even = torch.exp(0.5j * (after @ torch.tensor([1.0, -1.0], dtype=torch.float64)) * (1 - kernel_size % 2))
        got = F.conv2d(draw(after, torch.ones_like(even)).unsqueeze(1), kernels[:, g].unsqueeze(1))
        # The values under the kernel at the same places of the images before the rotation, tap by tap.
        taps = [draw(after, even * torch.exp(1j * (waves @ tap))) for tap in positions(kernel_size)]
        expected = F.conv2d(torch.stack(taps, 1), kernels[:, 0].flatten(1)[..., None, None])[..., valid, valid]
        missed += (got - expected).square().sum()
        seen += expected.square().sum()
    assert (missed / seen).sqrt() == pytest.approx(basis.expected_error, rel=0.1)


def test_waves_turn_counter_clockwise():
    east = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert turned(east, math.pi / 2)[0].tolist() == pytest.approx([0.0, 1.0])
