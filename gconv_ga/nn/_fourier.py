r"""Group convolution in the Fourier basis of the rotations: the same function, at a cost linear in their number.

A feature map on ``C_n`` has the transform ``x^[a] = sum_h x[h] exp(-2 pi i a h / n)`` over its orientations. Let
``phi_m = f_cos + i f_sin`` be a pair of steerable functions of angular frequency ``m``, with the weights
``w_m = w_cos + i w_sin``. Rotating ``phi_m`` by one step multiplies it by a phase, so that it takes frequency ``a`` of
the input to the frequency ``a - m`` of the output alone:

    y^[b] = 1/2 sum_m  conj(w^_m[b + m]) (phi_m * x^[b + m]) + w^_m[m - b] (conj(phi_m) * x^[b - m])

For every output frequency this is one matrix product over the pairs (function, field). Maps are real, so that the
frequencies ``0 .. n/2`` are enough and everything is real arithmetic: a transform has the ``n`` rows ``Re 0, Re 1,
Im 1, Re 2, ...``. A complex product takes three real ones (Gauss), ``w z = k_1 + k_3 + i (k_1 + k_2)`` with

    k_1 = Re w (Re z + Im z),  k_2 = (Im w - Re w) Re z,  k_3 = -(Re w + Im w) Im z,

so that with J functions and even n each pair of fields costs ``(3 n / 2 - 1) J`` multiplications per pixel, where the
dense convolution costs ``n^2 k^2``. Free taps on C4 are such functions too: the transform of each orbit of four taps.

The real and imaginary parts of the factors ``w`` are called the numbers of a layer: as many as it has weights.
The gradient of the input is a group convolution of the gradient of the output, with the kernels ``k*_u =
flip(L_u k_{u^-1})``, and up to signs and factors its numbers are those of the layer in another order.

On ``D_n`` a field has two sides, the elements ``r^i`` and ``r^i m``, each with a transform ``x_s^``. The reflection
``m`` exchanges the sides; it multiplies a row of the transform by ``sigma = 1`` (real parts) or ``-1`` (imaginary
parts), and a function by its parity. In sums and differences ``x_0^ + sigma x_1^`` and ``x_0^ - sigma x_1^`` the
products fall into two halves that do not mix. A number there differs between the real and the imaginary rows, so that
a product takes four real ones: ``2 (2 n - 2) J`` multiplications, where the dense convolution costs ``4 n^2 k^2``.

`_fourier_plan` holds the algebra, in terms that do not depend on sizes; this file which layers have a plan and when it
pays, and a slow reference in plain torch. `_fourier_kernel` computes with it.

References:
    Cesa, Lang, Weiler, "A program to build E(N)-equivariant steerable CNNs", ICLR 2022 (which frequencies a steerable
    kernel connects).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..filters import Filters, GridFilters, SteerableFilters, steerable_basis
from ..groups import CyclicGroup, DihedralGroup
from ._fourier_plan import FourierPlan, make_plan, orbit_functions, sign_of_row, transform_rows

KERNEL_SIZES = (1, 3, 5, 7)
MOST_ROTATIONS = 60  # as in native/group_conv.cpp


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
        """Number of numbers of a pair of fields."""
        return self.sides * self.n * self.function_count

    @property
    def multiplications(self) -> int:
        """Number of multiplications of a pair of fields per pixel."""
        real = 2 - self.n % 2
        pairs = (self.n - 1) // 2
        return (real + 3 * pairs if self.sides == 1 else 2 * (real + 4 * pairs)) * self.function_count


def least_pixels(key: str, in_fields: int, out_fields: int) -> float:
    """Return the number of output pixels in a batch from which the Fourier algorithm is expected to be faster.

    Both algorithms have costs per pixel and costs of making kernels. Their constants, in units of one multiplication of
    the dense algorithm, were fitted to the times of training steps of 866 layers (C3 to C16, D3 to D8, k = 1 to 5, 1 to
    64 fields, 4 to 128 pixels a side, batches of 1 to 4; one thread of an AMD EPYC with AVX-512). The Fourier algorithm
    has to be a tenth faster, for models err.
    """
    read = PlanKey.read(key)
    n, order, taps = read.n, read.n * read.sides, read.kernel_size**2
    pairs, maps = in_fields * out_fields, order * (in_fields + out_fields)
    in_whole, in_maps, out_maps = (-(-count // 16) * 16 for count in (in_fields, order * in_fields, order * out_fields))
    dense = taps * in_maps * out_maps + 51 * maps
    dense_kernels = 142 * order**2 * taps * pairs + 6.3e6
    # On C4 with free taps the library applies the functions of an orbit of taps at once.
    functions = (0.61 if read.grid and read.sides == 1 else 1.7) * maps * (read.function_count * taps / 4 + taps)
    # One of three products is over vectors of input fields.
    products = 1.05 * read.multiplications * (2 * pairs + in_whole * out_fields) / 3
    fourier = products + functions + (62 + 0.7 * n) * maps
    terms = read.numbers * order * (2.5 if read.grid else 1.5)
    fourier_kernels = pairs * (61 * read.multiplications + 92 * read.numbers + 8.2 * terms) + 6.2e6
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
            functions, frequency = orbit_functions(read.kernel_size, read.reflections)
            rotated = functions.rot90(1, (-2, -1))
        else:
            group = CyclicGroup(read.n)
            basis = steerable_basis(group, read.kernel_size, max_error=read.max_error, functions=read.functions)
            functions, rotated, frequency = basis.kernels[:, 0], basis.kernels[:, 1], basis.frequency
        return make_plan(read.n, functions, rotated, frequency, read.reflections)


@lru_cache(maxsize=256)
def mixing_of(key: str, dtype: torch.dtype) -> Tensor:
    """Return the matrix from the free weights of a pair of fields to its numbers.

    Shape:
        - output: ``[P, |G| * W]`` with W weights per element
    """
    plan = plan_of(key)
    with plain_tensors():
        mixing = plan.basis
        if PlanKey.read(key).grid:
            # The functions are orthogonal: coefficients are products with them.
            flat = plan.functions.flatten(1)
            mixing = mixing @ (flat / flat.square().sum(dim=1, keepdim=True))
        return mixing.flatten(1).to(dtype).contiguous()


def mix(weight: Tensor, key: str) -> Tensor:
    """Return the numbers for the free weights of a layer.

    Shape:
        - weight: ``[C_out, C_in, |G|, ...]``
        - output: ``[P, C_out, C_in]``
    """
    mixing = mixing_of(key, weight.dtype)
    return (mixing @ weight.flatten(2).flatten(0, 1).T).view(-1, *weight.shape[:2])


def join_planes(weight: Tensor, taps: Tensor | None) -> Tensor:
    """Return weights with a plane for every element.

    Shape:
        - weight: ``[C_out, C_in, |G|, ...]``, or with taps ``[C_out, C_in, ...]``
        - taps: ``[(|G| - 1) C_out, C_in, ...]``
        - output: ``[C_out, C_in, |G|, ...]``
    """
    if taps is None:
        return weight
    return torch.cat((weight.unsqueeze(0), taps.unflatten(0, (-1, len(weight))))).movedim(0, 2)


def fourier_reference(x: Tensor, numbers: Tensor, key: str, padding: int) -> Tensor:
    """The convolution in plain torch: slow, and differentiable any number of times.

    Shape:
        - x: ``[B, C, |G|, H, W]``; numbers: ``[P, O, C]``
        - output: ``[B, O, |G|, H', W']``
    """
    plan = plan_of(key)
    batch, fields, _, height, width = x.shape
    signs = torch.tensor([sign_of_row(row) for row in range(plan.n)]).to(x)[:, None, None, None]
    transform = torch.einsum("ah,bcshyx->sbacyx", plan.forward.to(x), x.unflatten(2, (plan.sides, plan.n)))
    if plan.sides == 2:
        transform = torch.stack((transform[0] + signs * transform[1], transform[0] - signs * transform[1]))
    products = F.conv2d(transform.reshape(-1, 1, height, width), plan.functions.to(x)[:, None], padding=padding)
    products = products.view(plan.sides, batch, plan.n, fields, -1, *products.shape[-2:])
    multiplied = torch.stack([torch.stack([c * numbers[i] for c, i in factor]).sum(dim=0) for factor in plan.factors])
    halves, done = [], 0
    for half in range(plan.sides):
        z: list[Tensor] = []
        for part in plan.components:
            if part.pair is not None:
                one, other, sign = part.pair
                z.append(z[one] + sign * z[other])
                continue
            terms = [sign * products[plan.side(half, f), :, row, :, f] for sign, f, row in part.terms]
            z.append(terms[0] if len(terms) == 1 else terms[0] + terms[1])
        rows: dict[int, Tensor] = {}
        for block in plan.blocks:
            own = torch.stack(z[block.first_component : block.first_component + block.components], dim=1)
            for row in range(block.first_row, block.first_row + block.rows):
                rows[row] = torch.einsum("qoc,bqcyx->boyx", multiplied[done : done + block.components], own)
                done += block.components
        for extra in range(plan.n, plan.rows):
            real, imaginary, _ = transform_rows(plan.n)[extra - plan.n + 1]
            rows[real], rows[cast(int, imaginary)] = rows[real] + rows[extra], rows[cast(int, imaginary)] + rows[extra]
        halves.append(torch.stack([rows[row] for row in range(plan.n)], dim=1))
    y = torch.stack(halves, dim=1)  # [B, S, n, O, H', W']
    if plan.sides == 2:
        one_half, other_half = y.unbind(1)
        y = torch.stack((one_half + other_half, signs * (one_half - other_half)), dim=1)
    return torch.einsum("ha,bsaoyx->boshyx", plan.inverse.to(x), y).flatten(2, 3)
