"""From the modes that turn well to real functions: ordered, turned by every rotation and measured."""

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


MAX_ERROR = 0.2


@dataclass(frozen=True)
class SteerableBasis:
    """Functions on the k x k taps with a version for every element of a group; made by `steerable_basis`.

    It holds plain numbers, so nobody can change what others see.

    Args:
        group: The group.
        kernel_size: The number of rows and columns.
        frequency: Of each function: how often it comes round while it is turned once, modulo ``n``.
        parity: Of each function: 1 if the mirror leaves it as it is, -1 if it changes its sign.
        gain: Of each function: the energy of its output on sharp images, large for smooth functions.
        error: Of each function: how much its output differs when function and photograph are turned, relative, root
            mean square over the rotations that are not multiples of 90 degrees.
        blurred_error: The same on photographs blurred by a Gaussian of one pixel.
        spread: Of each function: the standard deviation of its weight in a kernel as it begins, in mean square 1.
        expected_error: As ``error``, for a kernel with independent random weights of these standard deviations.
        energy: Of that kernel's output on a photograph of variance 1.
        rectified_energy: The same for a photograph that has passed a ReLU and has a second moment of 1.
        curve: How many functions there would be up to each value of ``max_error``, as (functions, error).
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
        """The number of functions, F."""
        return len(self.parity)

    @property
    def kernels(self) -> Tensor:
        """``L_g`` of each function: a new float64 tensor ``[F, |G|, k, k]`` at each call."""
        values = torch.tensor(self._kernels, dtype=torch.float64)
        rotated = values.view(len(self), self.group.n, self.kernel_size, self.kernel_size)
        if self.group.order == self.group.n:
            return rotated
        # Element n + i is "mirror, then rotate by i".
        return torch.cat((rotated, rotated * torch.tensor(self.parity).view(-1, 1, 1, 1)), dim=1)


def steerable_basis(
    group: Group | str,
    kernel_size: int,
    *,
    max_error: float | None = None,
    functions: int | None = None,
    smoothing: float = 0.25,
) -> SteerableBasis:
    r"""The k x k kernels that turn with the image, for a group of any number of rotations.

    An element turns a kernel ``k = sum_f w_f b_f`` to ``L_g k = sum_f w_f (L_g b_f)``. Turning composes; multiples
    of 90 degrees are what `torch.rot90` does and mirrors what `torch.flip` does, to the last bit. At other angles the
    turned kernel gives on the turned image what the kernel gave on the image, up to an error that is stated.

    The errors have a gap near ``pi / 4 k^2`` functions: what lies beyond it lives in the corners of the Nyquist square,
    which do not turn. The first call for a group and size takes less than a second, the next ones no time.

    Args:
        group: ``C_n`` or ``D_n``, or its name; both have the same functions.
        kernel_size: The number of rows and columns; 2 only where all rotations are multiples of 90 degrees.
        max_error: The largest error of a function, relative to its output, on a mixture of sharp and blurred images;
            0.2 if neither this nor ``functions`` is given.
        functions: Take the best ones, at most this many, whatever their error. Most come in pairs, a cosine and a sine,
            which are not split.
        smoothing: The weights of a new kernel have standard deviations that grow as ``gain ** smoothing``, so that it
            is smooth, and what it makes has less to alias in a ReLU. With 0 all are alike. What is trained is not
            scaled: scaled functions would stay smooth, and networks of them segmented a little worse
            (benchmarks/README.md, any_angle).

    Raises:
        ValueError: An argument is out of its range, no function is as good as ``max_error``, or both it and
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
        advice = "a 2 x 2 kernel has its corners only, and between them nowhere to turn to"
        raise invalid("kernel_size", f"1 or at least 3 for {group.name}", kernel_size, advice)
    if max_error is not None and functions is not None:
        raise invalid("functions", f"None if max_error={max_error} decides", functions)
    if functions is not None:
        functions = as_int("functions", functions, minimum=1)
        if functions > size**2:
            raise invalid("functions", f"at most the {size**2} taps of a {size} x {size} kernel", functions)
    errors = _number("max_error", MAX_ERROR if max_error is None else max_error)
    return SteerableBasis(group, size, *_functions(group.n, size, errors, functions, _number("smoothing", smoothing)))


def _number(argument: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise invalid(argument, "a number of at least 0", value)
    return float(value)


@lru_cache(maxsize=256)
def _functions(n: int, kernel_size: int, max_error: float, count: int | None, smoothing: float) -> Functions:
    # A thread of its own has none of the caller's modes: no fake tensors, inference, default device or autocast.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(make_functions, n, kernel_size, max_error, count, smoothing).result()
