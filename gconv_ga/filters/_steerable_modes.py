"""Steerable modes: kernels that a rotation changes by a phase only, as nearly as the pixels of an image allow.

Let a kernel ``a`` see an image, and a kernel ``b`` the image rotated by ``R``. Over images whose power spectrum ``S``
depends on the radial frequency ``p < pi`` alone, the mean product of the two outputs is ``a' C b`` with
``C[x, y] = rho(|R x - y|)`` and ``rho(r) = integral of S(p) J0(p r) p dp``, normalized to ``rho(0) = 1``. The modes are
eigenvectors of the mean of ``C`` over the rotations, weighted with the phases of their frequency.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..groups import CyclicGroup

# Excludes kernels whose output is next to nothing. Measured: 1e-5 costs a fifth of the functions at k = 7.
NUGGET = 1e-6


class Mode(NamedTuple):
    """A kernel that a rotation changes by a phase.

    Args:
        frequency: Number of periods in a full rotation.
        parity: 1 or -1 for one real function, even or odd under reflection; 0 for a pair, cosine and sine.
        error: Relative error of the output, root mean square over the rotations that are not exact.
        vector: Coefficients in the columns of `mirror_coordinates`.
    """

    frequency: int
    parity: int
    error: float
    vector: Tensor


def find_modes(n: int, kernel_size: int) -> list[Mode]:
    """Return all candidates for ``C_n``, the most steerable first."""
    columns, evens = mirror_coordinates(kernel_size)
    exact = math.gcd(n, 4)
    found = []
    spectra = [_selection_spectrum(m) for m in range(n // 2 + 1)]
    for m, C in enumerate(correlations(n, kernel_size, spectra)):
        B = _real(columns, torch.einsum("g,gxy->xy", _phases(m, n), C.to(columns.dtype)) / n)
        G = _real(columns, C[0].to(columns.dtype)) + NUGGET * torch.eye(kernel_size**2, dtype=torch.float64)
        rotations = [_rotation_matrix(kernel_size, s * 4 // exact).to(columns.dtype) for s in range(exact)]
        sector = _real(columns, sum(p.conj() * P for p, P in zip(_phases(m, exact), rotations, strict=True)) / exact)
        parts = [(0, slice(None))] if 2 * m % n else [(1, slice(evens)), (-1, slice(evens, None))]
        for parity, part in parts:
            share, vectors = torch.linalg.eigh(sector[part, part])
            W = torch.zeros(kernel_size**2, int((share > 0.5).sum()), dtype=torch.float64)
            W[part] = vectors[:, share > 0.5]
            shares, vectors = _generalized_eigh(W.T @ B @ W, W.T @ G @ W)
            for mu, vector in zip(shares.tolist(), (W @ vectors).T, strict=True):
                error = 0.0 if exact == n else math.sqrt(max(0.0, 2 * n / (n - exact) * (1 - mu)))
                found.append(Mode(m, parity, error, vector))
    return sorted(found, key=lambda mode: mode.error)


def _selection_spectrum(frequency: int) -> Tensor:
    """Return the power of the images that modes of one frequency are chosen for: sharp ones, and twice blurred ones.

    A mode of frequency ``m`` sees about ``p^(2 m)`` of the power. Sharp and blurred images are scaled to the same
    energy there, because blurred images would not matter otherwise. Measured: chosen on sharp images alone, the 3 x 3
    kernels of frequency 2 have an error of 0.20 of their output on images blurred by one pixel, and 0.06 in this way.
    """
    p, weights = _frequencies()
    seen = p ** (2 * frequency + 1) * weights
    sharp, blurred = image_spectrum(3), image_spectrum(3, blur=1.0)
    return sharp / (sharp @ seen) + 2 * blurred / (blurred @ seen)


def _phases(frequency: int, n: int) -> Tensor:
    return torch.exp(-2j * math.pi * frequency / n * torch.arange(n, dtype=torch.float64))


def _rotation_matrix(kernel_size: int, quarters: int) -> Tensor:
    """Return the permutation matrix that rotates a flat kernel as `torch.rot90` does, ``[k * k, k * k]``."""
    taps = torch.arange(kernel_size**2).view(kernel_size, kernel_size)
    return torch.eye(kernel_size**2, dtype=torch.float64)[torch.rot90(taps, quarters).flatten()]


def mirror_coordinates(kernel_size: int) -> tuple[Tensor, int]:
    """Return orthonormal columns ``e_x + e_x'``, then ``i (e_x - e_x')``, and the number of the former (even) ones.

    Here ``x'`` is the reflected tap. In these coordinates the matrices of the modes are real.

    Shape:
        - output: ``[k * k, k * k]``, complex128
    """
    taps = torch.eye(kernel_size**2, dtype=torch.float64).view(kernel_size, kernel_size, -1)
    half, rest = kernel_size // 2, kernel_size - kernel_size // 2
    reflected = taps.flip(1)
    even = (taps + reflected)[:, :rest].flatten(0, 1)
    odd = (taps - reflected)[:, :half].flatten(0, 1)
    columns = torch.cat((torch.complex(even, 0 * even), torch.complex(0 * odd, odd))).T
    return columns / columns.norm(dim=0), len(even)


def _real(columns: Tensor, matrix: Tensor) -> Tensor:
    """Return a matrix in the real coordinates of `mirror_coordinates`."""
    return (columns.conj().T @ matrix @ columns).real


def _generalized_eigh(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of ``A v = mu B v``, both symmetric, B positive."""
    L = torch.linalg.cholesky(B)
    half = torch.linalg.solve_triangular(L, A, upper=False)
    whole = torch.linalg.solve_triangular(L, half.T, upper=False)
    values, vectors = torch.linalg.eigh((whole + whole.T) / 2)
    return values, torch.linalg.solve_triangular(L.T, vectors, upper=True)


def correlations(n: int, kernel_size: int, spectra: Sequence[Tensor]) -> list[Tensor]:
    """Return, per spectrum, the matrices ``C[g, x, y] = rho(|R_g x - y|)`` of the rotations of ``C_n``.

    Args:
        n: Number of rotations.
        kernel_size: Number of rows and columns.
        spectra: Power of the images at `_frequencies`, see `image_spectrum`.

    Shape:
        - spectra: ``[96]`` each
        - output: ``[n, k * k, k * k]`` each, float64

    Example:
        >>> from gconv_ga.filters._steerable_modes import correlations, image_spectrum
        >>> sharp, blurred = correlations(8, 3, [image_spectrum(2), image_spectrum(2, blur=1.0)])
        >>> sharp.shape, bool(sharp[0, 0, 1] < blurred[0, 0, 1])  # blur makes neighbours similar
        (torch.Size([8, 9, 9]), True)
    """
    taps = _tap_positions(kernel_size)
    rotated = torch.einsum("gij,xj->gxi", CyclicGroup(n).matrices, taps)
    distances = (rotated.unsqueeze(2) - taps).norm(dim=-1)
    # Few of the n k^4 distances differ; rounding finds them.
    different, index = torch.unique((distances * 1e12).round(), return_inverse=True)
    p, weights = _frequencies()
    waves = _bessel_j0(different.unsqueeze(1) / 1e12 * p)
    energies = [spectrum * p * weights for spectrum in spectra]
    return [(waves @ (energy / energy.sum()))[index] for energy in energies]


def image_spectrum(slope: float, blur: float = 0.0) -> Tensor:
    """Return the power of images at `_frequencies`, ``(p^2 + 0.1^2)^(-slope / 2)`` after a Gaussian blur.

    Args:
        slope: Exponent of the power law; 2 for photographs.
        blur: Standard deviation of the Gaussian in pixels.

    References:
        Field, "Relations between the statistics of natural images and the response properties of cortical cells",
        1987, figure 7: power falls as ``1 / p^2``.
    """
    p, _ = _frequencies()
    return (p.square() + 0.01) ** (-slope / 2) * torch.exp(-(blur * p).square())


def _frequencies(count: int = 96) -> tuple[Tensor, Tensor]:
    """Return radial frequencies ``0 < p < pi``, and the weights that integrate over them; both ``[count]``.

    Gauss-Legendre quadrature in ``s`` with ``p = pi s^2``, which has more nodes near zero, where spectra are steep.

    References:
        Golub and Welsch, "Calculation of Gauss quadrature rules", 1969.
    """
    i = torch.arange(1, count, dtype=torch.float64)
    beside = i / (4 * i.square() - 1).sqrt()
    positions, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    s = (positions + 1) / 2
    return math.pi * s.square(), vectors[0].square() * 2 * math.pi * s


def _tap_positions(kernel_size: int) -> Tensor:
    """Return the taps of a kernel about its centre, in pixels: ``[k * k, 2]``, columns x (right) and y (up)."""
    along = torch.arange(kernel_size, dtype=torch.float64) - (kernel_size - 1) / 2
    y, x = torch.meshgrid(-along, along, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)


def _bessel_j0(x: Tensor) -> Tensor:
    """Compute ``J0(x)``, the mean of ``cos(x sin t)`` over a circle, to 1e-14 for ``|x| < 70``.

    `torch.special.bessel_j0` has errors of up to 4e-7 in float64, more than some of the errors derived from it.
    """
    # 32 points on a quarter of the circle are 128 on all of it; their error is J128(x).
    angles = (torch.arange(32, dtype=x.dtype) + 0.5) / 32 * math.pi / 2
    total = torch.zeros_like(x)
    for sine in angles.sin().tolist():
        total += (x * sine).cos()
    return total / 32
