r"""Group convolution in the Fourier basis of the rotations: the same function, at a cost linear in their number.

A feature map on ``C_n`` has the transform ``x^[a] = sum_h x[h] exp(-2 pi i a h / n)`` over its orientations. Let
``phi_m = f_cos + i f_sin`` be a pair of steerable functions of angular frequency ``m``, with the weights
``w_m = w_cos + i w_sin``. Rotating ``phi_m`` by one step multiplies it by a phase, so that it takes frequency ``a`` of
the input to the frequency ``a - m`` of the output alone:

    y^[b] = 1/2 sum_m  conj(w^_m[b + m]) (phi_m * x^[b + m]) + w^_m[m - b] (conj(phi_m) * x^[b - m])

For every output frequency this is one matrix product over the pairs (function, field). Maps are real, so that the
frequencies ``0 .. n/2`` are enough and everything is real arithmetic: a transform has the ``n`` rows ``Re 0, Re 1,
Im 1, Re 2, ...``. With J functions, each pair of fields costs ``(2 n - 2) J`` multiplications per pixel, where the
dense convolution costs ``n^2 k^2``. Maps on ``D_n`` are maps on ``C_n`` with twice the fields. Free taps on C4 are such
functions too: the transform of each orbit of four taps.

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
        mixing: Matrix from the weights (element, function) to the numbers of the blocks, block by block, each with its
            rows and for each row its components.
    """

    n: int
    functions: Tensor  # [J, k, k]
    quarters: bool
    components: tuple[Component, ...]
    blocks: tuple[Block, ...]
    forward: Tensor  # [n, n]
    inverse: Tensor  # [n, n]
    mixing: Tensor  # [P, n, J]

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
        """Number of fields of a map on ``C_n`` for each field of the map."""
        return 2 if self.reflections else 1

    @property
    def numbers(self) -> int:
        """Number of numbers of a pair of fields."""
        return (2 * self.n - 2 + self.n % 2) * self.function_count


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
            functions, frequency = _orbit_functions(read.kernel_size)
            return _make_plan(4, functions, functions.rot90(1, (-2, -1)), frequency)
        basis = steerable_basis(
            CyclicGroup(read.n), read.kernel_size, max_error=read.max_error, functions=read.functions
        )  # fmt: skip
        kernels = basis.kernels
        return _make_plan(read.n, kernels[:, 0], kernels[:, 1], basis.frequency)


@lru_cache(maxsize=256)
def mixing_of(key: str, dtype: torch.dtype) -> Tensor:
    """Return the matrix from the free weights of a pair of fields to its numbers.

    With reflections, a map on ``D_n`` is a map on ``C_n`` with two fields for each one: the elements ``r^i`` and
    ``r^i m``. The kernel from field ``s`` to field 1 is the reflected one, ``k(m y, m h)``, and
    ``m r^u m^s = r^-u m^(1 - s)``.

    Shape:
        - output: ``[S, S, P, |G| * W]`` with S = 2 if there are reflections and else 1, and W weights per element
    """
    with plain_tensors():
        return _make_mixing(PlanKey.read(key), plan_of(key)).to(dtype).contiguous()


def _make_mixing(read: PlanKey, plan: FourierPlan) -> Tensor:
    mixing = plan.mixing  # [P, n, J]
    if read.grid:
        # The functions are orthogonal: coefficients are products with them.
        flat = plan.functions.flatten(1)
        mixing = mixing @ (flat / flat.square().sum(dim=1, keepdim=True))
    if not read.reflections:
        return mixing.flatten(1)[None, None]
    if read.grid:
        reflected = mixing.unflatten(2, (read.kernel_size, -1)).flip(-1).flatten(2)
    else:
        basis = steerable_basis(
            DihedralGroup(read.n), read.kernel_size, max_error=read.max_error, functions=read.functions
        )  # fmt: skip
        reflected = mixing * torch.tensor(basis.parity, dtype=mixing.dtype)
    reflected = reflected[:, -torch.arange(read.n) % read.n]
    count, n, weights = mixing.shape
    whole = mixing.new_zeros(2, 2, count, 2, n, weights)
    for s in (0, 1):
        whole[0, s, :, s] = mixing
        whole[1, s, :, 1 - s] = reflected
    return whole.flatten(3)


def mix(weight: Tensor, key: str) -> Tensor:
    """Return the numbers of the blocks for the free weights of a layer.

    Shape:
        - weight: ``[C_out, C_in, |G|, ...]``
        - output: ``[P, S C_out, S C_in]``
    """
    out_fields, in_fields = weight.shape[:2]
    mixing = mixing_of(key, weight.dtype)
    numbers = mixing.flatten(0, 2) @ weight.reshape(out_fields * in_fields, -1).T
    numbers = numbers.view(*mixing.shape[:3], out_fields, in_fields)
    return numbers.permute(2, 3, 0, 4, 1).reshape(mixing.shape[2], mixing.shape[0] * out_fields, -1).contiguous()


def mix_adjoint(numbers: Tensor, key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the gradient of the free weights, of this shape, from the gradient of the numbers."""
    mixing = mixing_of(key, numbers.dtype)
    sides, out_fields, in_fields = mixing.shape[0], shape[0], shape[1]
    split = numbers.view(-1, out_fields, sides, in_fields, sides).permute(2, 4, 0, 1, 3)
    return (split.reshape(-1, out_fields * in_fields).T @ mixing.flatten(0, 2)).view(shape)


def fourier_reference(x: Tensor, numbers: Tensor, key: str, padding: int) -> Tensor:
    """The convolution in plain torch: slow, and differentiable any number of times.

    Shape:
        - x: ``[B, C, n, H, W]``; numbers: ``[P, O, C]``
        - output: ``[B, O, n, H', W']``
    """
    plan = plan_of(key)
    batch, fields, n, height, width = x.shape
    transform = torch.einsum("ah,bchyx->bacyx", plan.forward.to(x), x)
    products = F.conv2d(transform.reshape(-1, 1, height, width), plan.functions.to(x)[:, None], padding=padding)
    products = products.view(batch, n, fields, -1, *products.shape[-2:])
    rows, done = [], 0
    for block in plan.blocks:
        parts = plan.components[block.first_component : block.first_component + block.components]
        terms = [[sign * products[:, row, :, f] for sign, f, row in part.terms] for part in parts]
        z = torch.stack([term[0] if len(term) == 1 else term[0] + term[1] for term in terms], dim=1)
        for _ in range(block.rows):
            rows.append(torch.einsum("qoc,bqcyx->boyx", numbers[done : done + block.components], z))
            done += block.components
    return torch.einsum("ha,aboyx->bohyx", plan.inverse.to(x), torch.stack(rows))


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


def _make_plan(n: int, functions: Tensor, rotated: Tensor, frequency: tuple[int, ...]) -> FourierPlan:
    """Return the plan.

    Args:
        n: Number of rotations, at least 3.
        functions: The functions ``[J, k, k]``, sorted by frequency, pairs beside each other.
        rotated: The functions, rotated by one step of the group.
        frequency: Angular frequency of each, modulo n.
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
        n, functions.contiguous(), quarters, tuple(components), tuple(blocks), forward, inverse, torch.cat(mixing)
    )  # fmt: skip


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


def _orbit_functions(kernel_size: int) -> tuple[Tensor, tuple[int, ...]]:
    """Return the functions ``[k * k, k, k]`` that free taps on C4 are sums of, and their frequencies.

    They are the transform of each orbit of four taps, so that a kernel is any sum of them. Those of frequency 1 are
    differences of opposite taps, the first less the last in the order of the taps.
    """
    taps, half = kernel_size**2, kernel_size**2 // 2
    one = torch.eye(taps, dtype=torch.float64).view(taps, kernel_size, kernel_size)
    even, odd, pairs, seen = [], [], [], {half}
    for tap in range(half):
        if tap in seen:
            continue
        orbit = [one[tap].rot90(i) for i in range(4)]
        seen |= {int(each.flatten().argmax()) for each in orbit}
        even.append(orbit[0] + orbit[1] + orbit[2] + orbit[3])
        odd.append(orbit[0] - orbit[1] + orbit[2] - orbit[3])
        other = int(orbit[1].flatten().argmax())
        first = min(other, taps - 1 - other)
        pairs += [one[tap] - one[taps - 1 - tap], one[first] - one[taps - 1 - first]]
    functions = torch.stack([*even, one[half], *pairs, *odd])
    return functions, (0,) * (len(even) + 1) + (1,) * len(pairs) + (2,) * len(odd)
