"""How the outputs of two kernels correlate on an image and on the image turned: what makes a kernel steerable.

A kernel ``a`` meets an image, a kernel ``b`` the image turned by ``R``. Over images whose power spectrum ``S`` depends
on the radial frequency ``p < pi`` alone, the mean product of the two outputs is ``a' C b`` with
``C[x, y] = rho(|R x - y|)`` and ``rho(r) = integral of S(p) J0(p r) p dp``, normalised to ``rho(0) = 1``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..groups import CyclicGroup


def frequencies(count: int = 96) -> tuple[Tensor, Tensor]:
    """Radial frequencies ``0 < p < pi``, and the weights that integrate over them; both ``[count]``.

    Gauss-Legendre in ``s`` with ``p = pi s^2``: spectra are steep near zero, so there are more nodes there.

    References:
        Golub and Welsch, "Calculation of Gauss quadrature rules", 1969.
    """
    i = torch.arange(1, count, dtype=torch.float64)
    beside = i / (4 * i.square() - 1).sqrt()
    positions, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    s = (positions + 1) / 2
    return math.pi * s.square(), vectors[0].square() * 2 * math.pi * s


def image_spectrum(slope: float, blur: float = 0.0) -> Tensor:
    """The power of an image at `frequencies`, ``(p^2 + 0.1^2)^(-slope / 2)`` after a Gaussian blur.

    Args:
        slope: 2 is the law of photographs.
        blur: Standard deviation of the Gaussian in pixels.

    References:
        Field, "Relations between the statistics of natural images and the response properties of cortical cells",
        1987, figure 7: power falls as ``1 / p^2``.
    """
    p, _ = frequencies()
    return (p.square() + 0.01) ** (-slope / 2) * torch.exp(-(blur * p).square())


def tap_positions(kernel_size: int) -> Tensor:
    """Where a kernel's taps are about its centre, in pixels: ``[k * k, 2]``, columns x (right) and y (up)."""
    along = torch.arange(kernel_size, dtype=torch.float64) - (kernel_size - 1) / 2
    y, x = torch.meshgrid(-along, along, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)


def correlations(n: int, kernel_size: int, spectra: Sequence[Tensor]) -> list[Tensor]:
    """For each spectrum the matrices ``C[g, x, y] = rho(|R_g x - y|)`` of the rotations of ``C_n``.

    Args:
        n: The number of rotations.
        kernel_size: The number of rows and columns.
        spectra: Powers at `frequencies`.

    Shape:
        - spectra: ``[96]`` each
        - output: ``[n, k * k, k * k]`` each, float64

    Example:
        >>> sharp, blurred = correlations(8, 3, [image_spectrum(2), image_spectrum(2, blur=1.0)])
        >>> sharp.shape, bool(sharp[0, 0, 1] < blurred[0, 0, 1])  # blur makes neighbours alike
        (torch.Size([8, 9, 9]), True)
    """
    taps = tap_positions(kernel_size)
    turned = torch.einsum("gij,xj->gxi", CyclicGroup(n).matrices, taps)
    distances = (turned.unsqueeze(2) - taps).norm(dim=-1)
    # Few of the n k^4 distances differ; rounding finds them.
    different, which = torch.unique((distances * 1e12).round(), return_inverse=True)
    p, weights = frequencies()
    waves = _bessel_j0(different.unsqueeze(1) / 1e12 * p)
    energies = [spectrum * p * weights for spectrum in spectra]
    return [(waves @ (energy / energy.sum()))[which] for energy in energies]


def _bessel_j0(x: Tensor) -> Tensor:
    """``J0(x)``, the mean of ``cos(x sin t)`` over a circle, to 1e-14 for ``|x| < 70``.

    `torch.special.bessel_j0` is off by up to 4e-7 in float64, more than some of the errors that are built on it.
    """
    # 32 points on a quarter of the circle are 128 on all of it: what they miss is J128(x).
    angles = (torch.arange(32, dtype=x.dtype) + 0.5) / 32 * math.pi / 2
    total = torch.zeros_like(x)
    for sine in angles.sin().tolist():
        total += (x * sine).cos()
    return total / 32
