r"""The kernels that turn with the image, found by angular frequency modulo n.

In ``C_n`` a kernel ``v`` of frequency ``m`` is turned by element ``g`` by a phase, ``exp(-i m t_g) v`` with
``t_g = 2 pi g / n``. The share of its output energy that turns with the image is ``mu = v* B_m v / v* C_0 v``, with
``B_m = 1/n sum_g exp(-i m t_g) C_g`` and the ``C_g`` of `correlations`. The best kernels are the eigenvectors of
``B_m`` against ``C_0``. Frequencies count modulo n: near the corner of the Nyquist square a kernel is a mixture of
``m`` and ``m - n``, which ``C_n`` cannot tell apart, and to let it be one is the gain over circular harmonics.

Two symmetries of the pixel grid are built in. Where 180 or 90 degrees belong to the group, ``v`` obeys the phase there
exactly. And ``v`` of a mirrored position is the conjugate of ``v``, so that mirrors cost nothing and in the coordinates
"even functions, i times odd functions" all matrices are real.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ._correlation import correlations, frequencies, image_spectrum

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
