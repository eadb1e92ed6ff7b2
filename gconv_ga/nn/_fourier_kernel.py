"""Group convolution in the Fourier basis on the CPU: the compiled library, its tables, and operators made of it.

The library (native/group_conv.cpp) is plain C++ without torch, and runs in torch's threads. It is built when the
package is installed from source where a C++ compiler is found, and wheels carry it; without it, layers use the dense
algorithm.
"""

import contextlib
import ctypes
import itertools
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ._fourier import (
    Block,
    FourierPlan,
    PlanKey,
    fourier_reference,
    mix,
    mix_adjoint,
    plain_tensors,
    plan_of,
    transform_rows,
)

FOLDER = Path(__file__).parent / "native"
INTERFACE_VERSION = 3  # as in native/group_conv.cpp
_NAMES = {torch.float32: "float", torch.float64: "double"}
_INTEGERS = (
    "n", "sides", "functions", "kernel_size", "quarters", "blocks", "frequencies", "kinds", "components", "pairs",
    "products", "numbers",
)  # fmt: skip
_TABLES = (
    "block", "frequency", "butterfly", "single", "pair", "kind", "order", "orbit", "number", "weight", "coefficient",
    "forward", "inverse",
)  # fmt: skip


class _Plan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in _INTEGERS] + [(name, ctypes.c_void_p) for name in _TABLES]


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("in_fields", "out_fields", "height", "width", "padding")]


# ---- The library


def library_names() -> list[str]:
    """Return the libraries that this processor can run, the fastest first."""
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if machine != "x86_64":
        return [f"group_conv_{machine}"]
    capability = torch.backends.cpu.get_cpu_capability()
    levels = {"AVX512": ["v4", "v3"], "AVX2": ["v3"]}.get(capability, [])
    return [f"group_conv_x86_64_{level}" for level in levels]


def _load_library() -> tuple[Any, str]:
    """Return the library and its file name, or None and why there is none."""
    names = library_names()
    if not names:
        return None, "this processor has no AVX2"
    reason = "it was not built: install gconv_ga from a wheel, or from source where a C++ compiler is found"
    for file in (FOLDER / f"{name}{suffix}" for name in names for suffix in (".so", ".dylib")):
        if not file.is_file():
            continue
        try:
            library = ctypes.CDLL(str(file))
            version = library.interface_version()
        except (OSError, AttributeError) as error:
            reason = f"{file.name} cannot be used: {error}"
            continue
        if version != INTERFACE_VERSION:
            reason = f"{file.name} was built from another version of gconv_ga: install gconv_ga again"
            continue
        for kind in _NAMES.values():
            getattr(library, f"forward_{kind}").restype = ctypes.c_int
            getattr(library, f"backward_{kind}").restype = ctypes.c_int
        return library, file.name
    return None, reason


LIBRARY, LIBRARY_STATUS = _load_library()
FOURIER_IS_AVAILABLE = LIBRARY is not None  # torch.compile reads it


# ---- Tables


def _features(kernel_size: int, quarters: bool) -> tuple[Tensor, list[tuple[int, int]], list[tuple[int, int]]]:
    """Return which taps the features add up, the pairs of taps that quarters combine, and the ranges of the features.

    Opposite taps are added and subtracted once for all functions. Even functions read sums, odd ones differences; with
    quarters, even functions read sums or differences of sums.

    Shape:
        - features: ``[F, k * k]``
    """
    taps, half = kernel_size**2, kernel_size**2 // 2
    one = torch.eye(taps, dtype=torch.float64)
    opposite = one.flip(0)
    sums, differences = one[:half] + opposite[:half], one[:half] - opposite[:half]
    if not quarters:
        return torch.cat((sums, one[half : half + 1], differences)), [], [(0, half + 1), (half + 1, half)]
    orbit: list[tuple[int, int]] = []
    for t in range(half):
        if not any(t in pair for pair in orbit):
            rotated = sums[t].view(kernel_size, kernel_size).rot90(1).flatten()
            orbit.append((t, next(u for u in range(half) if torch.equal(sums[u], rotated))))
    added = [sums[t] + sums[u] for t, u in orbit]
    subtracted = [sums[t] - sums[u] for t, u in orbit]
    features = torch.stack([*added, one[half], *subtracted, *differences])
    return features, orbit, [(0, len(orbit) + 1), (len(orbit) + 1, len(orbit)), (half + 1, half)]


def _functions_by_kind(plan: FourierPlan) -> tuple[list[list[int]], list[int], Tensor, list[tuple[int, int]]]:
    """Return the kinds of functions, the functions in their order, their coefficients, and the pairs of taps."""
    features, orbit, ranges = _features(plan.kernel_size, plan.quarters)
    functions = plan.functions.flatten(1)
    solved = (functions @ features.T) / features.square().sum(dim=1)
    kinds: list[list[int]] = []
    order: list[int] = []
    coefficients: list[Tensor] = []
    for first, count in ranges:
        own = slice(first, first + count)
        # A function is of the kind whose features add up to it.
        rest = (solved[:, own] @ features[own] - functions).abs().amax(dim=1)
        members = [f for f in range(len(functions)) if count and rest[f] < 1e-9 * functions[f].abs().max()]
        if not members:
            continue
        table = solved[members, own]
        plain = len(members) == count and bool(((table == 0) | (table == 1)).all() and (table.sum(dim=0) == 1).all())
        if plain:  # each function is one of the features
            members = [members[int(table[:, feature].argmax())] for feature in range(count)]
            table = solved[members, own]
        kinds.append([first, count, len(order), len(members), int(plain)])
        order += members
        coefficients.append(table.flatten())
    if sorted(order) != list(range(len(functions))):
        raise RuntimeError("a steerable function is neither even nor odd under a rotation by 180 degrees")
    return kinds, order, torch.cat(coefficients), orbit


@lru_cache(maxsize=64)
def _tables(key: str, dtype: torch.dtype) -> tuple[_Plan, dict[str, Tensor]]:
    """Return the plan as the library takes it, and the tensors that it points into."""
    with plain_tensors():
        return _make_tables(plan_of(key), dtype)


def _make_tables(plan: FourierPlan, dtype: torch.dtype) -> tuple[_Plan, dict[str, Tensor]]:
    count = len(plan.functions)
    kinds, order, coefficients, orbit = _functions_by_kind(plan)
    rows = transform_rows(plan.n)
    frequencies: list[list[int]] = []
    butterflies: list[list[int]] = []
    singles: list[list[int]] = []
    halves = range(plan.sides)
    pairs_of_components = [
        [component.pair[0], component.pair[1], component.pair[2], number]
        for number, component in enumerate(plan.components)
        if component.pair is not None  # on C_n alone, which has no halves
    ]
    # Two numbers each, the second often with the coefficient 0.
    factors = [
        [(*factor, (0.0, 0))[:2] for factor in each] for each in (plan.factors, plan.adjoint_factors)
    ]
    for a in range(plan.n // 2 + 1):
        first_row, imaginary, _ = rows[a]
        before = len(butterflies), len(singles)
        pairs: dict[tuple[int, ...], dict[int, int]] = {}
        height = 1 if imaginary is None else 2
        for half, (number, component) in itertools.product(halves, enumerate(plan.components)):
            if component.frequency != a or component.pair is not None:
                continue
            places = tuple((plan.side(half, f) * height + row - first_row) * count + f for _, f, row in component.terms)
            if len(places) == 1:
                singles.append([places[0], half * len(plan.components) + number])
            else:
                pairs.setdefault(places, {})[component.terms[1][0]] = half * len(plan.components) + number
        butterflies += [[*places, signs[1], signs[-1]] for places, signs in pairs.items()]
        added = len(butterflies) - before[0], len(singles) - before[1]
        frequencies.append([height, first_row, before[0], added[0], before[1], added[1]])

    def integers(values: Sequence[Any]) -> Tensor:
        return torch.tensor(values if len(values) else [0], dtype=torch.int32).contiguous()

    tables = {
        "block": integers(
            [
                Block(half * plan.rows + b.first_row, b.rows, half * len(plan.components) + b.first_component, b.components)
                for half in halves
                for b in plan.blocks
            ]
        ),
        "frequency": integers(frequencies),
        "butterfly": integers(butterflies),
        "single": integers(singles),
        "pair": integers(pairs_of_components),
        "kind": integers(kinds),
        "order": integers(order),
        "orbit": integers(orbit),
        "number": integers([[[i for _, i in factor] for factor in each] for each in factors]),
        "weight": torch.tensor([[[c for c, _ in factor] for factor in each] for each in factors], dtype=dtype),
        "coefficient": coefficients.to(dtype).contiguous(),
        "forward": plan.forward.to(dtype).contiguous(),
        "inverse": plan.inverse.to(dtype).contiguous(),
    }
    sizes = (
        plan.n, plan.sides, count, plan.kernel_size, int(plan.quarters), plan.sides * len(plan.blocks),
        len(frequencies), len(kinds), plan.sides * len(plan.components), len(pairs_of_components),
        len(plan.factors), len(plan.basis),
    )  # fmt: skip
    return _Plan(*sizes, *(tables[name].data_ptr() for name in _TABLES)), tables


# ---- Threads

Share = tuple[int, int, int, int]  # first image, end, first row of the output, end


def _find_parallel() -> ctypes.c_void_p:
    """Return the address of `GOMP_parallel` in the OpenMP library that torch has loaded; null if there is none."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if "omp" in line.rpartition("/")[2])
    for path in sorted(paths, key=lambda path: "torch" not in path):
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p)
    return ctypes.c_void_p(None)


_parallel = _find_parallel() if FOURIER_IS_AVAILABLE else ctypes.c_void_p(None)
_pool: ThreadPoolExecutor | None = None


def _forget_threads() -> None:
    # A forked process has none of its parent's threads, and OpenMP would wait for them for ever.
    global _parallel, _pool
    _parallel, _pool = ctypes.c_void_p(None), None


os.register_at_fork(after_in_child=_forget_threads)


def _run(function: Any, arguments: tuple[Any, ...], target: Tensor | None, shares: list[Share]) -> None:
    """Call a function of the library for shares, in torch's threads or, where those are not known, in our own.

    Args:
        function: A function of the library.
        arguments: Its arguments before the shares.
        target: A tensor with a part for every share, of which the function gets the address and the size of a part.
        shares: The shares of the call.
    """
    global _pool

    def call(first: int, end: int, threads: int) -> int:
        table = (ctypes.c_int32 * (4 * (end - first)))(*itertools.chain.from_iterable(shares[first:end]))
        parts: tuple[Any, ...] = ()
        if target is not None:
            parts = _address(target[first:] if len(target) else None), ctypes.c_int64(target[:1].numel())
        code: int = function(*arguments, *parts, table, end - first, threads, _parallel)
        return code

    threads = torch.get_num_threads()
    if len(shares) <= 1 or threads == 1 or _parallel.value:
        codes = [call(0, len(shares), threads)]
    else:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="gconv_ga")
        others = [_pool.submit(call, i, i + 1, 1) for i in range(1, len(shares))]
        codes = [call(0, 1, 1), *(other.result() for other in others)]
    if any(codes):
        raise MemoryError("not enough memory for a group convolution")


def _shares(batch: int, rows: int) -> list[Share]:
    """Return shares of a batch of images with so many rows; they have no row in common."""
    threads = torch.get_num_threads()
    if threads == 1 or batch >= threads:
        parts = min(threads, batch)
        return [(batch * i // parts, batch * (i + 1) // parts, 0, rows) for i in range(parts)]
    bands = max(1, min(2 * -(-threads // batch), rows))
    cuts = [rows * i // bands for i in range(bands + 1)]
    return [(image, image + 1, cuts[i], cuts[i + 1]) for image in range(batch) for i in range(bands)]


# ---- Operators: opaque to torch.compile, which sees the shapes alone


def _address(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


# Not `torch.library.custom_op`: its first call imports torch's compiler, which takes seconds.
_operators = torch.library.Library("gconv_ga", "FRAGMENT")
Operator = TypeVar("Operator", bound=Callable[..., Any])


def _operator(schema: str) -> Callable[[Operator], Operator]:
    """Make a function an operator of torch's on the CPU."""

    def define(function: Operator) -> Operator:
        _operators.define(schema)
        _operators.impl(name := schema.partition("(")[0], function, "CPU")
        return getattr(torch.ops.gconv_ga, name).default

    return define


def _fake(name: str) -> Callable[[Operator], Operator]:
    """Make a function say the shapes of an operator."""
    return torch.library.register_fake(f"gconv_ga::{name}", lib=_operators)


@_operator("fourier_mix(Tensor weight, str key) -> Tensor")
def fourier_mix(weight: Tensor, key: str) -> Tensor:
    """Return the numbers of the blocks for the free weights; see `mix`."""
    return mix(weight, key)


@_fake("fourier_mix")
def _(weight: Tensor, key: str) -> Tensor:
    read = PlanKey.read(key)
    return weight.new_empty(read.numbers, *weight.shape[:2])


@_operator("fourier_mix_adjoint(Tensor numbers, str key, SymInt[] shape) -> Tensor")
def fourier_mix_adjoint(numbers: Tensor, key: str, shape: Sequence[int]) -> Tensor:
    """Return the adjoint of `fourier_mix`: the gradient of the weights."""
    return mix_adjoint(numbers.contiguous(), key, tuple(shape))


@_fake("fourier_mix_adjoint")
def _(numbers: Tensor, key: str, shape: Sequence[int]) -> Tensor:
    return numbers.new_empty(tuple(shape))


def _keep_shape(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.key, ctx.shape = inputs[1], tuple(inputs[0].shape)


torch.library.register_autograd(
    "gconv_ga::fourier_mix",
    lambda ctx, grad: (fourier_mix_adjoint(grad, ctx.key, ctx.shape), None),
    setup_context=_keep_shape,
    lib=_operators,
)
torch.library.register_autograd(
    "gconv_ga::fourier_mix_adjoint",
    lambda ctx, grad: (fourier_mix(grad.contiguous(), ctx.key), None, None),
    setup_context=_keep_shape,
    lib=_operators,
)


@_operator("fourier_conv(Tensor x, Tensor numbers, Tensor? bias, str key, int padding) -> Tensor")
def fourier_conv(x: Tensor, numbers: Tensor, bias: Tensor | None, key: str, padding: int) -> Tensor:
    """Return the group convolution of maps on ``C_n`` or ``D_n``.

    Shape:
        - x: ``[B, C, |G|, H, W]``; numbers: ``[P, O, C]``; bias: ``[O]``
        - output: ``[B, O, |G|, H', W']``
    """
    x, numbers = x.contiguous(), numbers.contiguous()
    bias = None if bias is None else bias.contiguous()
    y = x.new_empty(_output_shape(x, numbers, key, padding))
    if not y.numel():
        return y
    plan, _ = _tables(key, x.dtype)
    sizes = _Sizes(x.shape[1], numbers.shape[1], x.shape[3], x.shape[4], padding)
    function = getattr(LIBRARY, f"forward_{_NAMES[x.dtype]}")
    arguments = ctypes.byref(plan), ctypes.byref(sizes), _address(x), _address(numbers), _address(bias), _address(y)
    _run(function, arguments, None, _shares(x.shape[0], y.shape[3]))
    return y


def _output_shape(x: Tensor, numbers: Tensor, key: str, padding: int) -> tuple[int, ...]:
    change = 2 * padding - PlanKey.read(key).kernel_size + 1
    return (x.shape[0], numbers.shape[1], x.shape[2], x.shape[3] + change, x.shape[4] + change)


@_fake("fourier_conv")
def _(x: Tensor, numbers: Tensor, bias: Tensor | None, key: str, padding: int) -> Tensor:
    return x.new_empty(_output_shape(x, numbers, key, padding))


@_operator(
    "fourier_conv_backward(Tensor grad, Tensor x, Tensor numbers, str key, int padding, bool need_x, bool need_numbers)"
    " -> (Tensor, Tensor)"
)
def fourier_conv_backward(
    grad: Tensor, x: Tensor, numbers: Tensor, key: str, padding: int, need_x: bool, need_numbers: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of input and numbers; an empty tensor for one that is not needed."""
    grad, x, numbers = grad.contiguous(), x.contiguous(), numbers.contiguous()
    grad_x = torch.empty_like(x) if need_x else x.new_empty(0)
    if not grad.numel() or not (need_x or need_numbers):
        return grad_x.zero_(), torch.zeros_like(numbers) if need_numbers else x.new_empty(0)
    plan, _ = _tables(key, x.dtype)
    sizes = _Sizes(x.shape[1], numbers.shape[1], x.shape[3], x.shape[4], padding)
    function = getattr(LIBRARY, f"backward_{_NAMES[x.dtype]}")
    shares = _shares(x.shape[0], x.shape[3])
    # A sum of its own for each share, added up in their order: the result does not depend on who is first.
    parts = numbers.new_zeros(len(shares) if need_numbers else 0, *numbers.shape)
    arguments = (
        ctypes.byref(plan), ctypes.byref(sizes), _address(grad), _address(x), _address(numbers),
        _address(grad_x if need_x else None),
    )  # fmt: skip
    _run(function, arguments, parts, shares)
    if not need_numbers:
        return grad_x, x.new_empty(0)
    return grad_x, parts[0] if len(parts) == 1 else parts.sum(dim=0)


@_fake("fourier_conv_backward")
def _(
    grad: Tensor, x: Tensor, numbers: Tensor, key: str, padding: int, need_x: bool, need_numbers: bool
) -> tuple[Tensor, Tensor]:
    empty = x.new_empty(0)
    return torch.empty_like(x) if need_x else empty, torch.empty_like(numbers) if need_numbers else empty.clone()


def _keep_inputs(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, numbers, bias, ctx.key, ctx.padding = inputs
    ctx.save_for_backward(x, numbers)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, numbers = ctx.saved_tensors
    need_x, need_numbers, need_bias = ctx.needs_input_grad[:3]
    grad_bias = grad.sum((0, 2, 3, 4)) if ctx.has_bias and need_bias else None
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # the gradient is to be differentiated
        needed = [tensor for tensor, need in ((x, need_x), (numbers, need_numbers)) if need]
        found = torch.autograd.grad(
            fourier_reference(x, numbers, ctx.key, ctx.padding), needed, grad, create_graph=True
        ) if needed else ()  # fmt: skip
        grads = iter(found)
        return next(grads) if need_x else None, next(grads) if need_numbers else None, grad_bias, None, None
    grad_x, grad_numbers = fourier_conv_backward(grad, x, numbers, ctx.key, ctx.padding, need_x, need_numbers)
    return grad_x if need_x else None, grad_numbers if need_numbers else None, grad_bias, None, None


torch.library.register_autograd("gconv_ga::fourier_conv", _backward, setup_context=_keep_inputs, lib=_operators)
