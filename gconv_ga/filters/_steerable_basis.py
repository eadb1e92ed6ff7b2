"""The steerable basis: real functions on the taps of a kernel that rotate by any angle, with their errors."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .._validate import as_int, invalid
from ..groups import Group, as_group
from ._steerable_modes import Mode, correlations, find_modes, image_spectrum, mirror_coordinates

MAX_ERROR = 0.2
# Added to the gain of every function, so that the scale of a function without any output stays above zero.
GAIN_NUGGET = 1e-3
# For the output of a ReLU: the mean product at independent places over the mean square.
RECTIFIED_FLOOR = 1 / math.pi


@dataclass(frozen=True)
class SteerableBasis:
    """Functions on the k x k taps, each with a version for every element of a group; made by `steerable_basis`.

    It holds plain numbers, so that no caller can change what others see.

    Args:
        group: The group.
        kernel_size: Number of rows and columns.
        frequency: Per function, the number of periods in a full rotation, modulo ``n``.
        parity: Per function, 1 if the reflection leaves it unchanged, -1 if it changes its sign.
        gain: Per function, the energy of its output on sharp images, which is large for smooth functions.
        error: Per function, the relative change of its output when function and photograph are rotated together, root
            mean square over the rotations by angles that are not multiples of 90 degrees.
        blurred_error: The same on photographs blurred by a Gaussian of one pixel.
        spread: Per function, the standard deviation of its initial weights, with mean square 1.
        expected_error: The same as ``error``, for a kernel with independent weights of these standard deviations.
        energy: Energy of the output of that kernel on a photograph of variance 1.
        rectified_energy: The same on a photograph that has passed a ReLU and has a second moment of 1.
        curve: Number of functions that each value of ``max_error`` would admit, as (functions, error).
        _kernels: The numbers of `kernels` for the rotations, flat.

    Example:
        >>> from gconv_ga.filters import steerable_basis
        >>> basis = steerable_basis("D8", 3)
        >>> len(basis), basis.frequency, basis.parity
        (6, (0, 0, 1, 1, 2, 2), (1, 1, 1, -1, 1, -1))
        >>> basis.kernels.shape  # [F, |G|, k, k]
        torch.Size([6, 16, 3, 3])
    """

    group: Group
    kernel_size: int
    frequency: tuple[int, ...]
    parity: tuple[int, ...]
    gain: tuple[float, ...] = field(repr=False)
    error: tuple[float, ...] = field(repr=False)
    blurred_error: tuple[float, ...] = field(repr=False)
    spread: tuple[float, ...] = field(repr=False)
    expected_error: float
    energy: float = field(repr=False)
    rectified_energy: float = field(repr=False)
    curve: tuple[tuple[int, float], ...] = field(repr=False)
    _kernels: tuple[float, ...] = field(repr=False)

    def __len__(self) -> int:
        """Return the number of functions, F."""
        return len(self.parity)

    @property
    def kernels(self) -> Tensor:
        """``L_g`` of each function: a new float64 tensor ``[F, |G|, k, k]`` at each call."""
        values = torch.tensor(self._kernels, dtype=torch.float64)
        rotated = values.view(len(self), self.group.n, self.kernel_size, self.kernel_size)
        if self.group.order == self.group.n:
            return rotated
        # Element n + i is "reflect, then rotate by i".
        return torch.cat((rotated, rotated * torch.tensor(self.parity).view(-1, 1, 1, 1)), dim=1)


def steerable_basis(
    group: Group | str,
    kernel_size: int,
    *,
    max_error: float | None = None,
    functions: int | None = None,
    smoothing: float = 0.25,
) -> SteerableBasis:
    r"""Return the k x k kernels that rotate with the image, for a group of any number of rotations.

    An element transforms a kernel ``k = sum_f w_f b_f`` to ``L_g k = sum_f w_f (L_g b_f)``. Transformations compose.
    Rotations by multiples of 90 degrees are those of `torch.rot90`, and reflections those of `torch.flip`, to the last
    bit. At other angles, the rotated kernel gives on the rotated image the output of the kernel on the image, up to
    the stated error.

    The errors have a gap near ``pi / 4 k^2`` functions: beyond it, functions live in the corners of the Nyquist square,
    which do not rotate. The first call for a group and size takes less than a second; later calls are immediate.

    Args:
        group: ``C_n`` or ``D_n``, or its name; both have the same functions.
        kernel_size: Number of rows and columns. 2 is possible only if all rotations are multiples of 90 degrees.
        max_error: Largest error of a function, relative to its output, on a mixture of sharp and blurred images. If
            neither this nor ``functions`` is given, 0.2.
        functions: Largest number of functions; the best ones are taken, whatever their error. Most come in pairs, a
            cosine and a sine, which are not split.
        smoothing: The initial weights have standard deviations that grow as ``gain ** smoothing``, so that initial
            kernels are smooth and their outputs alias less in a ReLU. With 0 all deviations are equal. The trained
            weights are not scaled: scaled functions would stay smooth, and networks with them segmented slightly worse
            (benchmarks/README.md, any_angle).

    Raises:
        ValueError: An argument is out of its range, no function is as good as ``max_error``, or both ``max_error`` and
            ``functions`` are given.

    Example:
        >>> import torch
        >>> from gconv_ga.filters import steerable_basis
        >>> basis = steerable_basis("C8", 5)
        >>> len(basis), basis.kernels.shape
        (15, torch.Size([15, 8, 5, 5]))
        >>> torch.equal(basis.kernels.roll(-2, 1), basis.kernels.rot90(1, (-2, -1)))  # two eighths are a quarter
        True
    """
    group = as_group(group)
    size = as_int("kernel_size", kernel_size, minimum=1)
    if size == 2 and not group.is_exact():
        advice = "a 2 x 2 kernel has only its corners, which other angles rotate to where there is no tap"
        raise invalid("kernel_size", f"1 or at least 3 for {group.name}", kernel_size, advice)
    if max_error is not None and functions is not None:
        raise invalid("functions", f"None if max_error={max_error} decides", functions)
    if functions is not None:
        functions = as_int("functions", functions, minimum=1)
        if functions > size**2:
            raise invalid("functions", f"at most the {size**2} taps of a {size} x {size} kernel", functions)
    limit = _as_number("max_error", MAX_ERROR if max_error is None else max_error)
    return SteerableBasis(group, size, *_functions(group.n, size, limit, functions, _as_number("smoothing", smoothing)))


def _as_number(argument: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise invalid(argument, "a number of at least 0", value)
    return float(value)


class _Functions(NamedTuple):
    """The fields of a `SteerableBasis` that depend on the rotations alone, as plain numbers."""

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


@lru_cache(maxsize=256)
def _functions(n: int, kernel_size: int, max_error: float, count: int | None, smoothing: float) -> _Functions:
    # A thread of its own has none of the caller's modes: no fake tensors, inference, default device or autocast.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_compute_functions, n, kernel_size, max_error, count, smoothing).result()


def _compute_functions(n: int, kernel_size: int, max_error: float, count: int | None, smoothing: float) -> _Functions:
    candidates = find_modes(n, kernel_size)
    modes = _choose(candidates, max_error, count)
    spectra = [image_spectrum(3), image_spectrum(2), image_spectrum(2, blur=1.0)]
    smooth, photographs, blurred = correlations(n, kernel_size, spectra)
    kernels, labels = [], []
    # By frequency and parity; within each, orthonormal and the smoothest first.
    columns, _ = mirror_coordinates(kernel_size)
    modes.sort(key=lambda mode: (mode.frequency, -mode.parity))
    for (frequency, parity), alike in groupby(modes, key=lambda mode: (mode.frequency, mode.parity)):
        for vector, gain in _orthonormalize([mode.vector for mode in alike], columns, smooth[0]):
            for function, sign in _rotate(vector, frequency, parity, n, kernel_size):
                kernels.append(function)
                labels.append((frequency, sign, gain))
    K = torch.stack(kernels).flatten(2)
    gains = torch.tensor([gain for _, _, gain in labels], dtype=torch.float64)
    spread = gains**smoothing
    spread /= spread.square().mean().sqrt()
    errors, energies = _error_energies(K, photographs)
    blurred_errors, blurred_energies = _error_energies(K, blurred)
    rectified = (1 - RECTIFIED_FLOOR) * photographs[0] + RECTIFIED_FLOOR
    variance = spread.square()
    return _Functions(
        frequency=tuple(frequency for frequency, _, _ in labels),
        parity=tuple(sign for _, sign, _ in labels),
        gain=tuple(gain for _, _, gain in labels),
        error=tuple((errors / energies).sqrt().tolist()),
        blurred_error=tuple((blurred_errors / blurred_energies).sqrt().tolist()),
        spread=tuple(spread.tolist()),
        expected_error=math.sqrt((variance @ errors) / (variance @ energies)),
        energy=float(variance @ energies),
        rectified_energy=float(torch.einsum("f,fgx,xy,fgy->", variance, K, rectified, K)) / n,
        curve=_curve(candidates, kernel_size**2),
        kernels=tuple(K.flatten().tolist()),
    )


def _choose(modes: list[Mode], max_error: float, count: int | None) -> list[Mode]:
    """Return the modes within ``max_error``, or the best that make at most ``count`` functions."""
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


def _curve(modes: list[Mode], most: int) -> tuple[tuple[int, float], ...]:
    """Return the number of functions up to each error; no more than taps, since further ones would repeat them."""
    counts = accumulate(1 if mode.parity else 2 for mode in modes)
    return tuple((count, mode.error) for count, mode in zip(counts, modes, strict=True) if count <= most)


def _orthonormalize(vectors: Sequence[Tensor], columns: Tensor, correlation: Tensor) -> list[tuple[Tensor, float]]:
    """Return orthonormal kernels of the same span with uncorrelated outputs, the largest output first, and its gain."""
    V, _ = torch.linalg.qr(torch.stack(list(vectors), dim=1))
    G = (columns.conj().T @ correlation.to(columns.dtype) @ columns).real
    gains, rotation = torch.linalg.eigh(V.T @ G @ V + GAIN_NUGGET * torch.eye(len(vectors), dtype=torch.float64))
    V = V @ rotation
    # Solvers choose the sign of an eigenvector differently, but saved weights must mean the same everywhere.
    direction = torch.arange(1, len(V) + 1, dtype=torch.float64).cos()
    V = V * (direction @ V).sign()
    kernels = (columns @ V.to(columns.dtype)).T
    return list(zip(kernels.flip(0), gains.flip(0).tolist(), strict=True))


def _rotate(kernel: Tensor, frequency: int, parity: int, n: int, kernel_size: int) -> list[tuple[Tensor, int]]:
    """Return the real functions of a mode, rotated by every rotation, ``[n, k, k]``, with their parity."""
    exact = math.gcd(n, 4)
    angles = 2 * math.pi * frequency / n * torch.arange(n // exact, dtype=torch.float64)
    # Phases up to the first exact rotation, index moves from there on, so that exact rotations agree to the last bit.
    sector = torch.exp(-1j * angles).view(-1, 1, 1) * kernel.view(kernel_size, kernel_size)
    rotated = torch.cat([sector.rot90(s * 4 // exact, (-2, -1)) for s in range(exact)])
    if parity == 1:
        functions = [(rotated.real, 1)]
    elif parity == -1:
        functions = [(rotated.imag, -1)]
    else:
        functions = [(math.sqrt(2) * rotated.real, 1), (math.sqrt(2) * rotated.imag, -1)]
    backwards = -torch.arange(n) % n
    reflected = [((K + sign * K[backwards].flip(-1)) / 2, sign) for K, sign in functions]
    # Under a rotation by 180 degrees functions are even or odd. Where it is not in the group that holds to rounding;
    # here it is made exact.
    return [((K + _half_turn_sign(K) * K.flip(-2, -1)) / 2, sign) for K, sign in reflected]


def _half_turn_sign(K: Tensor) -> int:
    """Return 1 for functions that are even under a rotation by 180 degrees, -1 for odd ones."""
    return 1 if bool((K * K.flip(-2, -1)).sum() > 0) else -1


def _error_energies(K: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Return, per function ``[F, n, k * k]``, the energies of its error over inexact rotations and of its output."""
    n = len(C)
    energies = torch.einsum("fgx,xy,fgy->fg", K, C[0], K)
    products = torch.einsum("fx,gxy,fgy->fg", K[:, 0], C, K)
    inexact = [g for g in range(n) if 4 * g % n]
    errors = (energies[:, :1] + energies - 2 * products)[:, inexact].clamp(min=0)
    return (errors.mean(1) if inexact else 0 * energies[:, 0]), energies.mean(1)
