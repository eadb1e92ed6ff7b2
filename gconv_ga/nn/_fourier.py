r"""Group convolution in the Fourier basis of the rotations: the same function, at a cost linear in their number.

A feature map on ``C_n`` has the transform ``x^[a] = sum_h x[h] exp(-2 pi i a h / n)`` over its orientations. Let
``phi_m = f_cos + i f_sin`` be a pair of steerable functions of angular frequency ``m``, with the weights
``w_m = w_cos + i w_sin``. Rotating ``phi_m`` by one step multiplies it by a phase, so that it takes frequency ``a`` of
the input to the frequency ``a - m`` of the output alone:

    y^[b] = 1/2 sum_m  conj(w^_m[b + m]) (phi_m * x^[b + m]) + w^_m[m - b] (conj(phi_m) * x^[b - m])

For every output frequency this is one matrix product over the pairs (function, field). Maps are real, so that the
frequencies ``0 .. n/2`` are enough and everything is real arithmetic: a transform has the ``n`` rows ``Re 0, Re 1,
Im 1, Re 2, ...``. With J functions, each pair of fields costs ``(2 n - 2) J`` multiplications per pixel, where the
dense convolution costs ``n^2 k^2``. Free taps on C4 are such functions too: the transform of each orbit of four taps.

On ``D_n`` a field has two sides, the elements ``r^i`` and ``r^i m``, each with a transform ``x_s^``. The reflection
``m`` exchanges the sides; it multiplies a row of the transform by ``sigma = 1`` (real parts) or ``-1`` (imaginary
parts), and a function by its parity. In sums and differences ``x_0^ + sigma x_1^`` and ``x_0^ - sigma x_1^`` the
products fall into two halves that do not mix, which costs ``2 (2 n - 2) J`` where the dense convolution costs
``4 n^2 k^2``.

This file holds the algebra, in terms that do not depend on sizes, and a slow reference in plain torch;
`_fourier_kernel` computes with it.

References:
    Cesa, Lang, Weiler, "A program to build E(N)-equivariant steerable CNNs", ICLR 2022 (which frequencies a steerable
    kernel connects).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import Filters, GridFilters, SteerableFilters, steerable_basis
from ..groups import CyclicGroup, DihedralGroup

KERNEL_SIZES = (1, 3, 5, 7)
MOST_ROTATIONS = 60  # as in native/group_conv.cpp


class Component(NamedTuple):
    """One row of the products: a signed sum of one or two terms, each a function applied to a row of the transform.

    Args:
        frequency: Frequency of the input, ``0 .. n // 2``.
        terms: Sign, function and row of each term; the first sign is 1.
    """

    frequency: int
    terms: tuple[tuple[int, int, int], ...]


class Block(NamedTuple):
    """One output frequency: its one or two rows of the transform, and the components that they are sums of."""

    first_row: int
    rows: int
    first_component: int
    components: int


@dataclass(frozen=True, eq=False)
class FourierPlan:
    """Everything about a convolution on ``C_n`` that depends neither on its weights nor on sizes.

    Args:
        n: Number of rotations.
        functions: The steerable functions.
        quarters: Whether a rotation by 90 degrees multiplies every function of even frequency by 1 or -1.
        components: Rows of the products.
        blocks: Output frequencies.
        forward: The transform over the orientations, rows by elements.
        inverse: Its inverse.
        mixing: Matrix from the weights (rotation, function) to the numbers of the blocks, block by block, each with its
            rows and for each row its components.
        parity: For ``D_n``: 1 or -1 for each function, which a reflection multiplies it by. The components and blocks
            are then those of one half.
    """

    n: int
    functions: Tensor  # [J, k, k]
    quarters: bool
    components: tuple[Component, ...]
    blocks: tuple[Block, ...]
    forward: Tensor  # [n, n]
    inverse: Tensor  # [n, n]
    mixing: Tensor  # [P, n, J]
    parity: Tensor | None = None  # [J]

    @property
    def sides(self) -> int:
        """Number of sides of a field: 2 if there are reflections, else 1."""
        return 1 if self.parity is None else 2

    def side(self, half: int, function: int) -> int:
        """Return which of sum and difference (0 and 1) a half of the products reads through a function."""
        return half if self.parity is None or self.parity[function] > 0 else 1 - half

    @property
    def kernel_size(self) -> int:
        """Number of rows and columns."""
        return self.functions.shape[-1]


def plan_key(filters: Filters) -> str | None:
    """Return the key of the plan for a layer's filters; None if there is none.

    The key says everything that the plan depends on, so that operators can be given it in place of the plan, and the
    number of functions, so that shapes are known without the plan.
    """
    group, (rows, columns) = filters.group, filters.kernel_size
    if rows != columns or rows not in KERNEL_SIZES or not 3 <= group.n <= MOST_ROTATIONS:
        return None
    if not isinstance(group, CyclicGroup | DihedralGroup):
        return None
    if type(filters) is GridFilters and group.n == 4:
        return f"grid {group.name} {rows} {rows * rows}"
    if type(filters) is SteerableFilters:
        return f"steerable {group.name} {rows} {filters.shape[0]} {filters.max_error} {filters.functions}"
    return None


class PlanKey(NamedTuple):
    """A key, read."""

    grid: bool
    n: int
    reflections: bool
    kernel_size: int
    function_count: int
    max_error: float | None = None
    functions: int | None = None

    @classmethod
    def read(cls, key: str) -> "PlanKey":
        """Return what a key says."""
        kind, name, size, count, *rest = key.split()
        error, most = (None if text == "None" else text for text in (rest or ("None", "None")))
        return cls(
            kind == "grid", int(name[1:]), name[0] == "D", int(size), int(count),
            None if error is None else float(error), None if most is None else int(most),
        )  # fmt: skip

    @property
    def sides(self) -> int:
        """Number of sides of a field: 2 if there are reflections, else 1."""
        return 2 if self.reflections else 1

    @property
    def numbers(self) -> int:
        """Number of numbers of a pair of fields, and of multiplications per pixel."""
        return self.sides * (2 * self.n - 2 + self.n % 2) * self.function_count


def least_pixels(key: str, in_fields: int, out_fields: int) -> float:
    """Return the number of output pixels in a batch from which the Fourier algorithm is expected to be faster.

    Both algorithms have costs per pixel and costs of making kernels. Their constants, in units of one multiplication of
    the dense algorithm, were fitted to the times of training steps of 723 layers (C3 to C16, D3 to D8, k = 1 to 7, 1 to
    32 fields, 8 to 128 pixels a side, batches of 1 and 4; one thread of an AMD EPYC with AVX2). The Fourier algorithm
    has to be a tenth faster, for models err.
    """
    read = PlanKey.read(key)
    n, order, taps = read.n, read.n * read.sides, read.kernel_size**2
    pairs, maps = in_fields * out_fields, order * (in_fields + out_fields)
    dense = order**2 * taps * pairs + 17 * maps
    dense_kernels = 73 * order**2 * taps * pairs + 7.1e6
    functions = order * in_fields * (read.function_count * taps / 2 + 2 * taps)
    fourier = 1.65 * read.numbers * pairs + 1.55 * functions + (0.6 * n + 45) * maps
    weights = order * (taps if read.grid else read.function_count)
    fourier_kernels = read.numbers * pairs * (100 + 2.2 * weights) + 1.06e7
    gain = 0.9 * dense - fourier
    return (fourier_kernels - 0.9 * dense_kernels) / gain if gain > 0 else math.inf


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Make tensors that can be kept, whatever modes the caller is in."""
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        yield


@lru_cache(maxsize=256)
def plan_of(key: str) -> FourierPlan:
    """Return the plan of a key."""
    read = PlanKey.read(key)
    with plain_tensors():
        if read.grid:
            functions, frequency = _orbit_functions(read.kernel_size, read.reflections)
            rotated = functions.rot90(1, (-2, -1))
        else:
            group = CyclicGroup(read.n)
            basis = steerable_basis(group, read.kernel_size, max_error=read.max_error, functions=read.functions)
            functions, rotated, frequency = basis.kernels[:, 0], basis.kernels[:, 1], basis.frequency
        return _make_plan(read.n, functions, rotated, frequency, read.reflections)


@lru_cache(maxsize=256)
def mixing_of(key: str, dtype: torch.dtype) -> Tensor:
    """Return the matrix from the free weights of a pair of fields to its numbers.

    With reflections, output side 0 reads side ``s`` of the input with the planes of the elements ``r^i m^s``; the sum
    and difference of the two, up to the sign of the component, are the numbers of the halves.

    Shape:
        - output: ``[P, |G| * W]`` with W weights per element; P counts both halves
    """
    read, plan = PlanKey.read(key), plan_of(key)
    with plain_tensors():
        mixing = plan.mixing  # [P, n, J]
        if read.grid:
            # The functions are orthogonal: coefficients are products with them.
            flat = plan.functions.flatten(1)
            mixing = mixing @ (flat / flat.square().sum(dim=1, keepdim=True))
        if read.reflections:
            signs = torch.tensor(_signs_of_numbers(plan), dtype=mixing.dtype)[:, None, None]
            # Half of each: the sides of the output are their sum and difference.
            mixing = 0.5 * torch.cat(
                (torch.stack((mixing, signs * mixing), dim=1), torch.stack((mixing, -signs * mixing), dim=1))
            )
        return mixing.flatten(1).to(dtype).contiguous()


def _signs_of_numbers(plan: FourierPlan) -> list[int]:
    """Return for each number of a half the sign that a reflection gives its component."""
    signs = []
    for component in plan.components:
        found = {_sign_of_row(row) * int(plan.side(0, f) == 0 or -1) for _, f, row in component.terms}
        if len(found) != 1:
            raise RuntimeError("a component is neither even nor odd under reflection")
        signs.append(found.pop())
    return [
        sign
        for block in plan.blocks
        for _ in range(block.rows)
        for sign in signs[block.first_component : block.first_component + block.components]
    ]


def _sign_of_row(row: int) -> int:
    """Return what a reflection multiplies a row of the transform by: rows are ``Re 0, Re 1, Im 1, Re 2, ...``."""
    return 1 if row == 0 or row % 2 else -1


def mix(weight: Tensor, key: str) -> Tensor:
    """Return the numbers of the blocks for the free weights of a layer.

    Shape:
        - weight: ``[C_out, C_in, |G|, ...]``
        - output: ``[P, C_out, C_in]``
    """
    mixing = mixing_of(key, weight.dtype)
    return (mixing @ weight.flatten(2).flatten(0, 1).T).view(-1, *weight.shape[:2])


def mix_adjoint(numbers: Tensor, key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the gradient of the free weights, of this shape, from the gradient of the numbers."""
    return (numbers.flatten(1).T @ mixing_of(key, numbers.dtype)).view(shape)


def fourier_reference(x: Tensor, numbers: Tensor, key: str, padding: int) -> Tensor:
    """The convolution in plain torch: slow, and differentiable any number of times.

    Shape:
        - x: ``[B, C, |G|, H, W]``; numbers: ``[P, O, C]``
        - output: ``[B, O, |G|, H', W']``
    """
    plan = plan_of(key)
    batch, fields, _, height, width = x.shape
    signs = torch.tensor([_sign_of_row(row) for row in range(plan.n)]).to(x)[:, None, None, None]
    transform = torch.einsum("ah,bcshyx->sbacyx", plan.forward.to(x), x.unflatten(2, (plan.sides, plan.n)))
    if plan.sides == 2:
        transform = torch.stack((transform[0] + signs * transform[1], transform[0] - signs * transform[1]))
    products = F.conv2d(transform.reshape(-1, 1, height, width), plan.functions.to(x)[:, None], padding=padding)
    products = products.view(plan.sides, batch, plan.n, fields, -1, *products.shape[-2:])
    rows, done = [], 0
    for half in range(plan.sides):
        for block in plan.blocks:
            parts = plan.components[block.first_component : block.first_component + block.components]
            terms = [
                [sign * products[plan.side(half, f), :, row, :, f] for sign, f, row in part.terms] for part in parts
            ]
            z = torch.stack([term[0] if len(term) == 1 else term[0] + term[1] for term in terms], dim=1)
            for _ in range(block.rows):
                rows.append(torch.einsum("qoc,bqcyx->boyx", numbers[done : done + block.components], z))
                done += block.components
    halves = torch.stack(rows, dim=1).unflatten(1, (plan.sides, plan.n))  # [B, S, n, O, H', W']
    if plan.sides == 2:
        one, other = halves.unbind(1)
        halves = torch.stack((one + other, signs * (one - other)), dim=1)
    return torch.einsum("ha,bsaoyx->boshyx", plan.inverse.to(x), halves).flatten(2, 3)


def transform_rows(n: int) -> dict[int, tuple[int, int | None, int]]:
    """Return for each frequency modulo n its real row, its imaginary row if there is one, and the sign of that."""
    rows: dict[int, tuple[int, int | None, int]] = {0: (0, None, 1)}
    for a in range(1, (n + 1) // 2):
        rows[a], rows[n - a] = (2 * a - 1, 2 * a, 1), (2 * a - 1, 2 * a, -1)
    if n % 2 == 0:
        rows[n // 2] = (n - 1, None, 1)
    return rows


class _Mode(NamedTuple):
    """A function alone, or a pair: one step multiplies ``f_cos + i sense f_sin`` by ``exp(-i m angle)``."""

    frequency: int
    cosine: int
    sine: int | None
    sense: int


def _find_modes(n: int, functions: Tensor, rotated: Tensor, frequency: tuple[int, ...]) -> list[_Mode]:
    """Return the modes of functions that are sorted by frequency, pairs beside each other."""
    modes, f = [], 0
    while f < len(functions):
        m = frequency[f] % n
        if 2 * m % n == 0:
            modes.append(_Mode(m, f, None, 1))
            f += 1
            continue
        cosine, sine = functions[f], functions[f + 1]
        angle = 2 * math.pi * m / n
        rest = rotated[f] - math.cos(angle) * cosine
        errors = [(rest - sense * math.sin(angle) * sine).abs().max() for sense in (1, -1)]
        modes.append(_Mode(m, f, f + 1, 1 if errors[0] < errors[1] else -1))
        f += 2
    return modes


def _make_plan(
    n: int, functions: Tensor, rotated: Tensor, frequency: tuple[int, ...], reflections: bool
) -> FourierPlan:
    """Return the plan.

    Args:
        n: Number of rotations, at least 3.
        functions: The functions ``[J, k, k]``, sorted by frequency, pairs beside each other.
        rotated: The functions, rotated by one step of the group.
        frequency: Angular frequency of each, modulo n.
        reflections: Whether the group is ``D_n``.
    """
    rows, angle = transform_rows(n), 2 * math.pi / n
    elements = torch.arange(n, dtype=torch.float64)
    forward = torch.zeros(n, n, dtype=torch.float64)
    for a in range(n // 2 + 1):
        real, imaginary, _ = rows[a]
        forward[real] = torch.cos(a * angle * elements)
        if imaginary is not None:
            forward[imaginary] = -torch.sin(a * angle * elements)
    scale = torch.full((n, 1), 2 / n, dtype=torch.float64)
    scale[[real for real, imaginary, _ in rows.values() if imaginary is None]] = 1 / n
    components: list[Component] = []
    blocks: list[Block] = []
    mixing: list[Tensor] = []
    modes = _find_modes(n, functions, rotated, frequency)
    for b in range(n // 2 + 1):
        first, factors = len(components), []
        for mode, a, conjugated in _products_of(b, n, modes):
            factor = _factor(mode, a, conjugated, len(functions), n, halved=2 * b % n != 0)
            for part, terms in zip((factor, 1j * factor), _terms(mode, rows[a % n], conjugated), strict=True):
                if terms:
                    sign = terms[0][0]
                    components.append(Component(min(a % n, -a % n), tuple((sign * s, f, r) for s, f, r in terms)))
                    factors.append(sign * part)
        stacked = torch.stack(factors)  # [components, n, J]
        real, imaginary, _ = rows[b]
        mixing += [stacked.real] if imaginary is None else [stacked.real, stacked.imag]
        blocks.append(Block(real, 1 if imaginary is None else 2, first, len(components) - first))
    signs = [1 if m % 4 == 0 else -1 for m in frequency]
    even = [f for f, m in enumerate(frequency) if m % 2 == 0]
    turned = torch.stack([signs[f] * functions[f] for f in even]) if even else functions[:0]
    quarters = n % 4 == 0 and bool((functions[even].rot90(1, (-2, -1)) - turned).abs().le(1e-9).all())
    inverse = (scale * forward).T.contiguous()
    return FourierPlan(
        n, functions.contiguous(), quarters, tuple(components), tuple(blocks), forward, inverse, torch.cat(mixing),
        _parity_of(functions) if reflections else None,
    )  # fmt: skip


def _parity_of(functions: Tensor) -> Tensor:
    """Return 1 or -1 for each function, which a reflection of the last axis multiplies it by."""
    reflected = functions.flip(-1)
    errors = [(reflected - sign * functions).abs().flatten(1).amax(dim=1) for sign in (1, -1)]
    if torch.minimum(*errors).max() > 1e-9 * functions.abs().max():
        raise RuntimeError("a steerable function is neither even nor odd under reflection")
    return torch.where(errors[0] < errors[1], 1.0, -1.0)


def _products_of(b: int, n: int, modes: list[_Mode]) -> list[tuple[_Mode, int, bool]]:
    """Return for each product of output frequency b its mode, its input frequency, and whether the mode is conjugated.

    Where the output is real, the two products of a pair are conjugates of each other, and one is enough.
    """
    found = []
    for mode in modes:
        found.append((mode, b + mode.frequency, False))
        if mode.sine is not None and 2 * b % n:
            found.append((mode, b - mode.frequency, True))
    return found


def _factor(mode: _Mode, a: int, conjugated: bool, count: int, n: int, *, halved: bool) -> Tensor:
    """Return the complex factor of a product as a matrix ``[n, J]`` on the weights of element and function."""
    waves = torch.exp(2j * math.pi / n * a * torch.arange(n, dtype=torch.float64))  # of conj(w^[a]) and of w^[-a] alike
    factor = torch.zeros(n, count, dtype=torch.complex128)
    if mode.sine is None:
        factor[:, mode.cosine] = waves
        return factor
    waves = 0.5 * waves if halved else waves
    sense = -mode.sense if conjugated else mode.sense
    factor[:, mode.cosine], factor[:, mode.sine] = waves, -1j * sense * waves
    return factor


def _terms(
    mode: _Mode, row: tuple[int, int | None, int], conjugated: bool
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return real and imaginary part of ``(f_cos + i sense f_sin) * x^[a]`` as signs, functions and rows."""
    real, imaginary, sign = row
    sense = -mode.sense if conjugated else mode.sense
    real_part, imaginary_part = [(1, mode.cosine, real)], []
    if imaginary is not None:
        imaginary_part.append((sign, mode.cosine, imaginary))
    if mode.sine is not None:
        imaginary_part.append((sense, mode.sine, real))
        if imaginary is not None:
            real_part.append((-sense * sign, mode.sine, imaginary))
    return real_part, imaginary_part


def _orbit_functions(kernel_size: int, reflections: bool) -> tuple[Tensor, tuple[int, ...]]:
    """Return the functions ``[k * k, k, k]`` that free taps on C4 or D4 are sums of, and their frequencies.

    They are the transform of each orbit of four taps, so that a kernel is any sum of them. On C4 those of frequency 1
    are differences of opposite taps, the first less the last in the order of the taps. On D4 functions of an orbit and
    of its reflection are added and subtracted, so that each is even or odd.
    """
    taps, half = kernel_size**2, kernel_size**2 // 2
    one = torch.eye(taps, dtype=torch.float64).view(taps, kernel_size, kernel_size)
    even: list[Tensor] = []
    odd: list[Tensor] = []
    pairs: list[Tensor] = []
    seen = {half}
    for tap in range(half):
        if tap in seen:
            continue
        orbit = [one[tap].rot90(i) for i in range(4)]
        mirrored = [each.flip(-1) for each in orbit]
        mates = [each for each in mirrored if reflections and not any(torch.equal(each, own) for own in orbit)]
        seen |= {int(each.flatten().argmax()) for each in (*orbit, *mates)}
        for frequency, found in ((0, even), (2, odd)):
            wave = orbit[0] + (1 - frequency) * (orbit[1] + orbit[3]) + orbit[2]
            found += [wave + wave.flip(-1), wave - wave.flip(-1)] if mates else [wave]
        if not reflections:
            other = int(orbit[1].flatten().argmax())
            first = min(other, taps - 1 - other)
            pairs += [one[tap] - one[taps - 1 - tap], one[first] - one[taps - 1 - first]]
            continue
        # Of frequency 1 and real: F with its conjugate reflected, and i F, of which one may vanish.
        cosine, sine = orbit[0] - orbit[2], orbit[1] - orbit[3]
        sums = [cosine + cosine.flip(-1), sine - sine.flip(-1)], [-sine - sine.flip(-1), cosine - cosine.flip(-1)]
        kept = sums if mates else [max(sums, key=lambda pair: float(pair[0].abs().sum() + pair[1].abs().sum()))]
        pairs += [part / part.abs().max() for both in kept for part in both]
    functions = torch.stack([*even, one[half], *pairs, *odd])
    return functions, (0,) * (len(even) + 1) + (1,) * len(pairs) + (2,) * len(odd)
