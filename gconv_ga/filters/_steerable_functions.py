"""From the modes that turn well to real functions: ordered, turned by every rotation and measured."""

import math
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import invalid
from ._correlation import correlations, image_spectrum
from ._steerable_modes import Mode, find_modes, mirror_coordinates

# Beside the gain of any function that does its work; keeps the scale of one that does none above zero.
GAIN_NUGGET = 1e-3
# Of a ReLU's output, the mean product at independent places over that at one place.
RECTIFIED_FLOOR = 1 / math.pi


class Functions(NamedTuple):
    """What `make_functions` finds, in plain numbers."""

    frequency: tuple[int, ...]
    parity: tuple[int, ...]
    gain: tuple[float, ...]
    error: tuple[float, ...]
    blurred_error: tuple[float, ...]
    spread: tuple[float, ...]
    expected_error: float
    energy: float
    rectified_energy: float
    curve: tuple[tuple[int, float], ...]
    kernels: tuple[float, ...]


def make_functions(n: int, kernel_size: int, max_error: float, count: int | None, smoothing: float) -> Functions:
    """The functions of `steerable_basis`, from the number of rotations and the knobs."""
    candidates = find_modes(n, kernel_size)
    modes = _choose(candidates, max_error, count)
    spectra = [image_spectrum(3), image_spectrum(2), image_spectrum(2, blur=1.0)]
    smooth, photographs, blurred = correlations(n, kernel_size, spectra)
    kernels, labels = [], []
    # By frequency and parity; within each, orthonormal and the smoothest first.
    columns, _ = mirror_coordinates(kernel_size)
    modes.sort(key=lambda mode: (mode.frequency, -mode.parity))
    for (frequency, parity), alike in groupby(modes, key=lambda mode: (mode.frequency, mode.parity)):
        for vector, gain in _orthonormal([mode.vector for mode in alike], columns, smooth[0]):
            for function, mirrored in _turned(vector, frequency, parity, n, kernel_size):
                kernels.append(function)
                labels.append((frequency, mirrored, gain))
    K = torch.stack(kernels).flatten(2)
    gains = torch.tensor([gain for _, _, gain in labels], dtype=torch.float64)
    spread = gains**smoothing
    spread /= spread.square().mean().sqrt()
    misses, energies = _misses(K, photographs)
    blurred_misses, blurred_energies = _misses(K, blurred)
    rectified = (1 - RECTIFIED_FLOOR) * photographs[0] + RECTIFIED_FLOOR
    variance = spread.square()
    return Functions(
        frequency=tuple(frequency for frequency, _, _ in labels),
        parity=tuple(mirrored for _, mirrored, _ in labels),
        gain=tuple(gain for _, _, gain in labels),
        error=tuple((misses / energies).sqrt().tolist()),
        blurred_error=tuple((blurred_misses / blurred_energies).sqrt().tolist()),
        spread=tuple(spread.tolist()),
        expected_error=math.sqrt((variance @ misses) / (variance @ energies)),
        energy=float(variance @ energies),
        rectified_energy=float(torch.einsum("f,fgx,xy,fgy->", variance, K, rectified, K)) / n,
        curve=_curve(candidates, kernel_size**2),
        kernels=tuple(K.flatten().tolist()),
    )


def _curve(modes: list[Mode], most: int) -> tuple[tuple[int, float], ...]:
    """How many functions there are up to each error; as many as taps, the rest would repeat them."""
    counts = accumulate(1 if mode.parity else 2 for mode in modes)
    return tuple((count, mode.error) for count, mode in zip(counts, modes, strict=True) if count <= most)


def _choose(modes: list[Mode], max_error: float, count: int | None) -> list[Mode]:
    if count is None:
        chosen = [mode for mode in modes if mode.error <= max_error]
        if not chosen:
            raise invalid("max_error", f"at least {modes[0].error:.2g}, the error of the best function", max_error)
        return chosen
    chosen = []
    for mode in modes:
        size = 1 if mode.parity else 2
        if size > count:
            break
        chosen.append(mode)
        count -= size
    return chosen


def _orthonormal(vectors: Sequence[Tensor], columns: Tensor, correlation: Tensor) -> list[tuple[Tensor, float]]:
    """Orthonormal kernels with the same span whose outputs do not correlate, the largest output first, and its gain."""
    V, _ = torch.linalg.qr(torch.stack(list(vectors), dim=1))
    G = (columns.conj().T @ correlation.to(columns.dtype) @ columns).real
    gains, rotation = torch.linalg.eigh(V.T @ G @ V + GAIN_NUGGET * torch.eye(len(vectors), dtype=torch.float64))
    V = V @ rotation
    # An eigenvector's sign is the solver's whim, and weights that are saved must mean the same elsewhere.
    direction = torch.arange(1, len(V) + 1, dtype=torch.float64).cos()
    V = V * (direction @ V).sign()
    kernels = (columns @ V.to(columns.dtype)).T
    return list(zip(kernels.flip(0), gains.flip(0).tolist(), strict=True))


def _turned(kernel: Tensor, frequency: int, parity: int, n: int, kernel_size: int) -> list[tuple[Tensor, int]]:
    """The real functions of a mode, each turned by every rotation, ``[n, k, k]``, with its parity."""
    exact = math.gcd(n, 4)
    angles = 2 * math.pi * frequency / n * torch.arange(n // exact, dtype=torch.float64)
    # Only to the first exact turn; from there on index moves, so that these agree to the last bit.
    part = torch.exp(-1j * angles).view(-1, 1, 1) * kernel.view(kernel_size, kernel_size)
    turned = torch.cat([part.rot90(s * 4 // exact, (-2, -1)) for s in range(exact)])
    if parity == 1:
        functions = [(turned.real, 1)]
    elif parity == -1:
        functions = [(turned.imag, -1)]
    else:
        functions = [(math.sqrt(2) * turned.real, 1), (math.sqrt(2) * turned.imag, -1)]
    backwards = -torch.arange(n) % n
    return [((K + sign * K[backwards].flip(-1)) / 2, sign) for K, sign in functions]


def _misses(K: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Of each function ``[F, n, k * k]`` the energy of its error over the inexact rotations, and of its output."""
    n = len(C)
    energies = torch.einsum("fgx,xy,fgy->fg", K, C[0], K)
    together = torch.einsum("fx,gxy,fgy->fg", K[:, 0], C, K)
    inexact = [g for g in range(n) if 4 * g % n]
    misses = (energies[:, :1] + energies - 2 * together)[:, inexact].clamp(min=0)
    return (misses.mean(1) if inexact else 0 * energies[:, 0]), energies.mean(1)
