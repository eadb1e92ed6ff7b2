"""Plans of the Fourier algorithm: what is multiplied by what, for a set of steerable functions; see `_fourier`."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Component(NamedTuple):
    """One row of what the numbers are multiplied by: a signed sum of one or two terms, or of two other components.

    Args:
        frequency: Frequency of the input, ``0 .. n // 2``.
        terms: Sign, function and row of each term, a function applied to a row of the transform; the first sign is 1.
        pair: Of a sum: the two components, and the sign of the second.
    """

    frequency: int
    terms: tuple[tuple[int, int, int], ...]
    pair: tuple[int, int, int] | None = None


class Block(NamedTuple):
    """One matrix product: its one or two rows of the output, and the components that they are sums of.

    The rows of the output are those of the transform; after them come the ``k_1`` of the complex frequencies, whose
    ``k_3`` and ``k_2`` lie in the rows of the real and the imaginary part.
    """

    first_row: int
    rows: int
    first_component: int
    components: int


# What multiplies a component in a row of a block: one or two numbers, each with its coefficient.
Factor = tuple[tuple[float, int], ...]


@dataclass(frozen=True, eq=False)
class FourierPlan:
    """Everything about a convolution on ``C_n`` or ``D_n`` that depends neither on its weights nor on sizes.

    Args:
        n: Number of rotations.
        functions: The steerable functions.
        quarters: Whether a rotation by 90 degrees multiplies every function of even frequency by 1 or -1.
        components: Rows that the numbers are multiplied by. For ``D_n`` those of one half.
        blocks: Matrix products. For ``D_n`` those of one half.
        forward: The transform over the orientations, rows by elements.
        inverse: Its inverse.
        basis: Matrix from the weights (element, function) to the numbers.
        factors: The numbers, half by half, block by block, row by row, component by component.
        adjoint_factors: The same for the gradient of the input.
        parity: For ``D_n``: 1 or -1 for each function, which a reflection multiplies it by.
    """

    n: int
    functions: Tensor  # [J, k, k]
    quarters: bool
    components: tuple[Component, ...]
    blocks: tuple[Block, ...]
    forward: Tensor  # [n, n]
    inverse: Tensor  # [n, n]
    basis: Tensor  # [P, |G|, J]
    factors: tuple[Factor, ...]
    adjoint_factors: tuple[Factor, ...]
    parity: Tensor | None = None  # [J]

    @property
    def sides(self) -> int:
        """Number of sides of a field: 2 if there are reflections, else 1."""
        return 1 if self.parity is None else 2

    @property
    def kernel_size(self) -> int:
        """Number of rows and columns."""
        return self.functions.shape[-1]

    @property
    def rows(self) -> int:
        """Number of rows of the output of one half, with the ``k_1`` after those of the transform."""
        return self.n + (0 if self.sides == 2 else (self.n - 1) // 2)

    def side(self, half: int, function: int) -> int:
        """Return which of sum and difference (0 and 1) a half of the products reads through a function."""
        return half if self.parity is None or self.parity[function] > 0 else 1 - half


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


def make_plan(n: int, functions: Tensor, rotated: Tensor, frequency: tuple[int, ...], reflections: bool) -> FourierPlan:
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
    parity = _parity_of(functions) if reflections else None
    modes = _find_modes(n, functions, rotated, frequency)
    layout = _Layout(n, modes, parity)
    basis = layout.basis(len(functions))
    exchange = _exchange(n, modes, functions, parity, basis)
    adjoint = tuple(tuple((c * exchange[i][0], exchange[i][1]) for c, i in factor) for factor in layout.factors)
    signs = [1 if m % 4 == 0 else -1 for m in frequency]
    even = [f for f, m in enumerate(frequency) if m % 2 == 0]
    turned = torch.stack([signs[f] * functions[f] for f in even]) if even else functions[:0]
    quarters = n % 4 == 0 and bool((functions[even].rot90(1, (-2, -1)) - turned).abs().le(1e-9).all())
    inverse = (scale * forward).T.contiguous()
    return FourierPlan(
        n, functions.contiguous(), quarters, tuple(layout.components), tuple(layout.blocks), forward, inverse, basis,
        tuple(layout.factors), adjoint, parity,
    )  # fmt: skip


class _Edge(NamedTuple):
    """One complex product: its factor as a matrix on the weights, and its one or two components, each with its sign."""

    factor: Tensor  # complex, [n, J]
    parts: tuple[tuple[int, Component], ...]


# A component, and what multiplies it: one or two parts of edges' factors, "real" or "imag", each with its coefficient.
_Product = tuple[int, tuple[tuple[float, int, str], ...]]


class _Layout:
    """Components, blocks and factors of a plan, and the numbers that the factors are made of.

    A number is named by the place of its edge, "real" or "imag", and for ``D_n`` by the sign with which it takes the
    planes of the reflections.
    """

    def __init__(self, n: int, modes: "list[_Mode]", parity: Tensor | None) -> None:
        self.n, self.parity = n, parity
        self.edges: list[_Edge] = []
        self.components: list[Component] = []
        self.blocks: list[Block] = []
        self.numbers: dict[tuple[int, str, int], int] = {}
        self._rows: list[list[_Product]] = []
        rows = transform_rows(n)
        for b in range(n // 2 + 1):
            real, imaginary, _ = rows[b]
            first = len(self.edges)
            for mode, a, conjugated in _products_of(b, n, modes):
                factor = _factor(mode, a, conjugated, _count(modes), n, halved=2 * b % n != 0)
                parts = []
                for terms in _terms(mode, rows[a % n], conjugated):
                    if terms:
                        sign = terms[0][0]
                        signed = tuple((sign * s, f, r) for s, f, r in terms)
                        parts.append((sign, Component(min(a % n, -a % n), signed)))
                self.edges.append(_Edge(factor, tuple(parts)))
            own = range(first, len(self.edges))
            if imaginary is not None and parity is None:
                self._add_complex(b, real, imaginary, own)
            else:
                self._add_real(real, 1 if imaginary is None else 2, own)
        self.factors: list[Factor] = []
        for half in range(1 if parity is None else 2):
            for row in self._rows:
                for component, parts_of_edges in row:
                    sign = 1 if parity is None else (1 - 2 * half) * _sign_of(self.components[component], parity)
                    self.factors.append(tuple((c, self._number(edge, part, sign)) for c, edge, part in parts_of_edges))

    def _number(self, edge: int, part: str, sign: int) -> int:
        return self.numbers.setdefault((edge, part, sign), len(self.numbers))

    def _add_real(self, first_row: int, rows: int, edges: Iterable[int]) -> None:
        """Add a block whose components are those of its edges: four products in two rows for ``w z``."""
        first = len(self.components)
        places: list[list[int]] = []
        for edge in edges:
            places.append(list(range(len(self.components), len(self.components) + len(self.edges[edge].parts))))
            self.components += [component for _, component in self.edges[edge].parts]
        self.blocks.append(Block(first_row, rows, first, len(self.components) - first))
        for row in range(rows):
            found: list[_Product] = []
            for edge, own in zip(edges, places, strict=True):
                for i, ((sign, _), place) in enumerate(zip(self.edges[edge].parts, own, strict=True)):
                    coefficient = -sign if (row, i) == (0, 1) else sign
                    found.append((place, ((float(coefficient), edge, "real" if row == i else "imag"),)))
            self._rows.append(found)

    def _add_complex(self, b: int, real: int, imaginary: int, edges: Sequence[int]) -> None:
        """Add the three products of a complex frequency."""
        first, count = len(self.components), len(edges)
        parts = [self.edges[edge].parts for edge in edges]
        self.components += [part[0][1] for part in parts] + [part[1][1] for part in parts]
        signs = [(part[0][0], part[1][0]) for part in parts]
        for i, (one, other) in enumerate(signs):
            frequency = self.components[first + i].frequency
            self.components.append(Component(frequency, (), (first + i, first + count + i, one * other)))
        self.blocks += [
            Block(real, 1, first + count, count), Block(imaginary, 1, first, count),
            Block(self.n + b - 1, 1, first + 2 * count, count),
        ]  # fmt: skip
        each = list(zip(edges, signs, range(first, first + count), strict=True))
        self._rows += [
            [(i + count, ((-t, edge, "real"), (-t, edge, "imag"))) for edge, (_, t), i in each],
            [(i, ((-s, edge, "real"), (s, edge, "imag"))) for edge, (s, _), i in each],
            [(i + 2 * count, ((s, edge, "real"),)) for edge, (s, _), i in each],
        ]

    def basis(self, functions: int) -> Tensor:
        """Return the matrix from the weights to the numbers, ``[P, |G|, J]``."""
        found = []
        for edge, part, sign in self.numbers:
            factor = self.edges[edge].factor
            row = factor.real if part == "real" else factor.imag
            # Half of each: the sides of the output are sum and difference of the halves.
            found.append(row if self.parity is None else 0.5 * torch.cat((row, sign * row)))
        sides = 1 if self.parity is None else 2
        if len(found) != sides * self.n * functions:
            raise RuntimeError("there are not as many numbers as weights")
        return torch.stack(found)


def _sign_of(component: Component, parity: Tensor) -> int:
    """Return the sign that a reflection gives a component."""
    found = {sign_of_row(row) * (1 if parity[f] > 0 else -1) for _, f, row in component.terms}
    if len(found) != 1:
        raise RuntimeError("a component is neither even nor odd under reflection")
    return found.pop()


def _count(modes: "list[_Mode]") -> int:
    return sum(1 if mode.sine is None else 2 for mode in modes)


def _exchange(
    n: int, modes: "list[_Mode]", functions: Tensor, parity: Tensor | None, basis: Tensor
) -> list[tuple[float, int]]:
    """Return for each number that of the kernels ``flip(L_u k_{u^-1})`` as a coefficient and one of the numbers."""
    count = len(functions)
    opposite = _parity_of(functions, "a rotation by 180 degrees", lambda each: each.flip(-2, -1))
    moved = torch.zeros_like(basis)
    for i in range(n):
        turn = torch.zeros(count, count, dtype=torch.float64)
        for mode in modes:
            c, s = (trig(2 * math.pi / n * mode.frequency * i) for trig in (math.cos, math.sin))
            turn[mode.cosine, mode.cosine] = c
            if mode.sine is not None:
                turn[mode.sine, mode.sine] = c
                turn[mode.sine, mode.cosine], turn[mode.cosine, mode.sine] = mode.sense * s, -mode.sense * s
        turn = opposite[:, None] * turn
        moved[:, -i % n] = basis[:, i] @ turn
        if parity is not None:
            moved[:, n + i] = basis[:, n + i] @ (turn * parity)
    flat = basis.flatten(1)
    found = (moved.flatten(1) @ flat.T) / flat.square().sum(dim=1)
    found[found.abs() < 1e-9] = 0
    places = found.abs().argmax(dim=1)
    if found.count_nonzero() != len(found):
        raise RuntimeError("the numbers of the adjoint are not those of the layer in another order")
    return [(float(found[i, place]), int(place)) for i, place in enumerate(places.tolist())]


def _parity_of(
    functions: Tensor, what: str = "reflection", move: Callable[[Tensor], Tensor] = lambda each: each.flip(-1)
) -> Tensor:
    """Return 1 or -1 for each function, which a move multiplies it by, by default a reflection of the last axis."""
    reflected = move(functions)
    errors = [(reflected - sign * functions).abs().flatten(1).amax(dim=1) for sign in (1, -1)]
    if torch.minimum(*errors).max() > 1e-9 * functions.abs().max():
        raise RuntimeError(f"a steerable function is neither even nor odd under {what}")
    return torch.where(errors[0] < errors[1], 1.0, -1.0).double()


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


def orbit_functions(kernel_size: int, reflections: bool) -> tuple[Tensor, tuple[int, ...]]:
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


def sign_of_row(row: int) -> int:
    """Return what a reflection multiplies a row of the transform by: rows are ``Re 0, Re 1, Im 1, Re 2, ...``."""
    return 1 if row == 0 or row % 2 else -1
