"""How the outputs of two kernels correlate on an image and on the image turned: what makes a kernel steerable.

A kernel ``a`` meets an image, a kernel ``b`` the image turned by ``R``. Over images whose power spectrum ``S`` depends
on the radial frequency ``p < pi`` alone, the mean product of the two outputs is ``a' C b`` with
``C[x, y] = rho(|R x - y|)`` and ``rho(r) = integral of S(p) J0(p r) p dp``, normalised to ``rho(0) = 1``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

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
        >>> from gconv_ga.filters._steerable_modes import correlations, image_spectrum
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


# Keeps kernels apart whose output is next to nothing. Measured: 1e-5 costs a fifth of the functions at k = 7.
NUGGET = 1e-6


class Mode(NamedTuple):
    """A kernel that turns by a phase."""

    frequency: int
    parity: int  # 1 or -1: one real function, even or odd under the mirror. 0: a pair, cosine and sine.
    error: float  # of the output, relative, root mean square over the rotations that are not exact
    vector: Tensor  # in the columns of `mirror_coordinates`


def mirror_coordinates(kernel_size: int) -> tuple[Tensor, int]:
    """Orthonormal columns ``e_x + e_x'`` and then ``i (e_x - e_x')``, ``x'`` the mirrored tap; and how many are even.

    Shape:
        - output: ``[k * k, k * k]``, complex128
    """
    taps = torch.eye(kernel_size**2, dtype=torch.float64).view(kernel_size, kernel_size, -1)
    half, rest = kernel_size // 2, kernel_size - kernel_size // 2
    mirrored = taps.flip(1)
    even = (taps + mirrored)[:, :rest].flatten(0, 1)
    odd = (taps - mirrored)[:, :half].flatten(0, 1)
    columns = torch.cat((torch.complex(even, 0 * even), torch.complex(0 * odd, odd))).T
    return columns / columns.norm(dim=0), len(even)


def quarter_turn(kernel_size: int, quarters: int) -> Tensor:
    """The permutation matrix that turns a flat kernel as `torch.rot90` does, ``[k * k, k * k]``."""
    taps = torch.arange(kernel_size**2).view(kernel_size, kernel_size)
    return torch.eye(kernel_size**2, dtype=torch.float64)[torch.rot90(taps, quarters).flatten()]


def selection_spectrum(frequency: int) -> Tensor:
    """The images that kernels of one angular frequency are chosen for: sharp ones, and blurred ones counted twice.

    Such a kernel sees about ``p^(2 m)`` of the power; each part is brought to the same energy there, because blurred
    images would not count otherwise. Measured: chosen on sharp images alone, the 3 x 3 kernels of frequency 2 miss by
    0.20 of their output on images blurred by one pixel, and by 0.06 this way.
    """
    p, weights = frequencies()
    seen = p ** (2 * frequency + 1) * weights
    sharp, blurred = image_spectrum(3), image_spectrum(3, blur=1.0)
    return sharp / (sharp @ seen) + 2 * blurred / (blurred @ seen)


def find_modes(n: int, kernel_size: int) -> list[Mode]:
    """All candidates of ``C_n``, the most steerable first."""
    columns, evens = mirror_coordinates(kernel_size)
    exact = math.gcd(n, 4)
    found = []
    spectra = [selection_spectrum(m) for m in range(n // 2 + 1)]
    for m, C in enumerate(correlations(n, kernel_size, spectra)):
        B = _real(columns, torch.einsum("g,gxy->xy", _phases(m, n), C.to(columns.dtype)) / n)
        G = _real(columns, C[0].to(columns.dtype)) + NUGGET * torch.eye(kernel_size**2, dtype=torch.float64)
        turns = [quarter_turn(kernel_size, s * 4 // exact).to(columns.dtype) for s in range(exact)]
        sector = _real(columns, sum(p.conj() * P for p, P in zip(_phases(m, exact), turns, strict=True)) / exact)
        parts = [(0, slice(None))] if 2 * m % n else [(1, slice(evens)), (-1, slice(evens, None))]
        for parity, part in parts:
            share, vectors = torch.linalg.eigh(sector[part, part])
            W = torch.zeros(kernel_size**2, int((share > 0.5).sum()), dtype=torch.float64)
            W[part] = vectors[:, share > 0.5]
            shares, vectors = _generalised_eigh(W.T @ B @ W, W.T @ G @ W)
            for mu, vector in zip(shares.tolist(), (W @ vectors).T, strict=True):
                error = 0.0 if exact == n else math.sqrt(max(0.0, 2 * n / (n - exact) * (1 - mu)))
                found.append(Mode(m, parity, error, vector))
    return sorted(found, key=lambda mode: mode.error)


def _phases(frequency: int, n: int) -> Tensor:
    return torch.exp(-2j * math.pi * frequency / n * torch.arange(n, dtype=torch.float64))


def _real(columns: Tensor, matrix: Tensor) -> Tensor:
    """A matrix in mirror coordinates, where the matrices here are real."""
    return (columns.conj().T @ matrix @ columns).real


def _generalised_eigh(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of ``A v = mu B v``, both symmetric, B positive."""
    L = torch.linalg.cholesky(B)
    half = torch.linalg.solve_triangular(L, A, upper=False)
    whole = torch.linalg.solve_triangular(L, half.T, upper=False)
    values, vectors = torch.linalg.eigh((whole + whole.T) / 2)
    return values, torch.linalg.solve_triangular(L.T, vectors, upper=True)
