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

from ._fourier import PlanKey, fourier_reference, join_planes, mix, mixing_of, plain_tensors, plan_of
from ._fourier_plan import Block, FourierPlan, transform_rows

FOLDER = Path(__file__).parent / "native"
INTERFACE_VERSION = 3  # as in native/group_conv.cpp
_NAMES = {torch.float32: "float", torch.float64: "double"}
_INTEGERS = (
    "n", "sides", "functions", "kernel_size", "quarters", "blocks", "frequencies", "kinds", "components", "pairs",
    "products", "numbers", "width", "orbits",
)  # fmt: skip
_TABLES = (
    "block", "frequency", "butterfly", "single", "pair", "kind", "order", "orbit", "quad", "mix_begin", "mix_index",
    "unmix_begin", "unmix_index", "number", "weight", "mix", "unmix", "coefficient", "forward", "inverse",
)  # fmt: skip


class _Plan(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in _INTEGERS] + [(name, ctypes.c_void_p) for name in _TABLES]


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("in_fields", "out_fields", "height", "width", "padding")] + [
        (f"{side}_{axis}", ctypes.c_int64) for side in ("in", "out") for axis in ("image", "field", "element")
    ]


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("first", "rest")] + [
        (name, ctypes.c_int64) for name in ("element", "out_field", "in_field", "first_length", "rest_length")
    ]


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
        return _make_tables(plan_of(key), mixing_of(key, torch.float64), dtype)


def _sparse(matrix: Tensor) -> tuple[list[int], list[int], Tensor]:
    """Return where each row of a matrix begins among its entries other than 0, their columns, and the entries."""
    there = matrix.abs() > 1e-12 * matrix.abs().max()  # the others are rounding
    begins = [0, *there.sum(dim=1).cumsum(0).tolist()]
    return begins, there.nonzero()[:, 1].tolist(), matrix[there]


def _find_quads(
    plan: FourierPlan, singles: list[tuple[int, list[int]]], butterflies: list[list[int]], pairs: list[list[int]]
) -> tuple[int, list[int]]:
    """Return the orbits of four taps, and the table by which the library applies their functions; none if it cannot.

    It can on C4 with free taps, where the functions of an orbit are the sum of its taps, the difference of the sums of
    opposite ones, and the differences of opposite ones.
    """
    taps, orbits = plan.kernel_size**2, plan.kernel_size**2 // 4
    functions = plan.functions.flatten(1)
    if (plan.n, plan.sides) != (4, 1) or len(functions) != taps:
        return 0, []
    one = torch.eye(taps, dtype=torch.float64)
    even, cosine, odd = range(orbits), range(orbits + 1, taps - orbits, 2), range(taps - orbits, taps)
    # Rows of the transform are numbered 0 to 3; those of one frequency lie beside each other in the library.
    place = {single[0] + (0, 1, 3)[frequency] * taps: single[1] for frequency, single in singles}
    crossed = {tuple(b[:2]): b[2:] for b in butterflies}
    summed = {tuple(sorted(pair[:2])): pair[2:] for pair in pairs}
    table: list[int] = []

    def entry(first: int, second: int) -> tuple[int, int]:
        sign, number = summed[tuple(sorted((first, second)))]
        return number, sign

    for o in range(orbits):
        e, c, s, d = even[o], cosine[o], cosine[o] + 1, odd[o]
        t, u = int(functions[c].argmax()), int(functions[s].argmax())
        opposite = one.flip(0)
        expected = {
            e: one[t] + opposite[t] + one[u] + opposite[u], d: one[t] + opposite[t] - one[u] - opposite[u],
            c: one[t] - opposite[t], s: one[u] - opposite[u],
        }  # fmt: skip
        if any(not torch.equal(functions[f], values) for f, values in expected.items()):
            return 0, []
        at = [{f: place.get(row * taps + f, -1) for f in (e, d, c, s)} for row in range(4)]
        sums = [
            entry(at[1][e], at[2][e]),
            entry(at[1][d], at[2][d]),
            entry(at[0][c], at[0][s]),
            entry(at[3][c], at[3][s]),
        ]
        table += [
            t, u, *at[0].values(), at[1][e], at[1][d], at[2][e], at[2][d], *at[3].values(),
            *crossed[c, taps + s], *crossed[taps + c, s], *(number for number, _ in sums), *(sign for _, sign in sums),
        ]  # fmt: skip
    middle = [place[row * taps + orbits] for row in range(4)]
    return orbits, [*table, *middle, *entry(middle[1], middle[2])]


def _make_tables(plan: FourierPlan, mixing: Tensor, dtype: torch.dtype) -> tuple[_Plan, dict[str, Tensor]]:
    count = len(plan.functions)
    kinds, order, coefficients, orbit = _functions_by_kind(plan)
    rows = transform_rows(plan.n)
    frequencies: list[list[int]] = []
    butterflies: list[list[int]] = []
    singles: list[list[int]] = []
    halves = range(plan.sides)
    singles_by_frequency: list[tuple[int, list[int]]] = []
    pairs_of_components = [
        [component.pair[0], component.pair[1], component.pair[2], number]
        for number, component in enumerate(plan.components)
        if component.pair is not None  # on C_n alone, which has no halves
    ]
    # Two numbers each, the second often with the coefficient 0.
    factors = [[(*factor, (0.0, 0))[:2] for factor in each] for each in (plan.factors, plan.adjoint_factors)]
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
                singles_by_frequency.append((a, singles[-1]))
            else:
                pairs.setdefault(places, {})[component.terms[1][0]] = half * len(plan.components) + number
        butterflies += [[*places, signs[1], signs[-1]] for places, signs in pairs.items()]
        added = len(butterflies) - before[0], len(singles) - before[1]
        frequencies.append([height, first_row, before[0], added[0], before[1], added[1]])

    orbits, quads = _find_quads(plan, singles_by_frequency, butterflies, pairs_of_components)
    mix_begin, mix_index, mix_values = _sparse(mixing)
    unmix_begin, unmix_index, unmix_values = _sparse(mixing.T)

    def integers(values: Sequence[Any]) -> Tensor:
        return torch.tensor(values if len(values) else [0], dtype=torch.int32).contiguous()

    tables = {
        "block": integers(
            [
                Block(
                    half * plan.rows + b.first_row,
                    b.rows,
                    half * len(plan.components) + b.first_component,
                    b.components,
                )
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
        "quad": integers(quads),
        "mix_begin": integers(mix_begin),
        "mix_index": integers(mix_index),
        "unmix_begin": integers(unmix_begin),
        "unmix_index": integers(unmix_index),
        "mix": mix_values.to(dtype).contiguous(),
        "unmix": unmix_values.to(dtype).contiguous(),
        "number": integers([[[i for _, i in factor] for factor in each] for each in factors]),
        "weight": torch.tensor([[[c for c, _ in factor] for factor in each] for each in factors], dtype=dtype),
        "coefficient": coefficients.to(dtype).contiguous(),
        "forward": plan.forward.to(dtype).contiguous(),
        "inverse": plan.inverse.to(dtype).contiguous(),
    }
    sizes = (
        plan.n, plan.sides, count, plan.kernel_size, int(plan.quarters), plan.sides * len(plan.blocks),
        len(frequencies), len(kinds), plan.sides * len(plan.components), len(pairs_of_components),
        len(plan.factors), len(plan.basis), mixing.shape[1] // (plan.n * plan.sides), orbits,
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


def _run(function: Any, arguments: tuple[Any, ...], parts: list[_Weights] | None, shares: list[Share]) -> None:
    """Call a function of the library for shares, in torch's threads or, where those are not known, in our own.

    Args:
        function: A function of the library.
        arguments: Its arguments before the shares.
        parts: What the function gets for each share besides; an empty list for a null pointer.
        shares: The shares of the call.
    """
    global _pool

    def call(first: int, end: int, threads: int) -> int:
        table = (ctypes.c_int32 * (4 * (end - first)))(*itertools.chain.from_iterable(shares[first:end]))
        more: tuple[Any, ...] = ()
        if parts is not None:
            more = ((_Weights * (end - first))(*parts[first:end]) if parts else None,)
        code: int = function(*arguments, *more, table, end - first, threads, _parallel)
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


def _with_whole_planes(x: Tensor) -> Tensor:
    """Return maps ``[B, C, |G|, H, W]`` whose planes lie in memory by field and element, or by element and field."""
    return x if x.is_contiguous() or x.transpose(1, 2).is_contiguous() else x.contiguous()


def _new_maps(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return maps that lie in memory as ``x`` does: by field and element, or by element and field."""
    if x.is_contiguous():
        return x.new_empty(shape)
    batch, fields, order, *size = shape
    return x.new_empty(batch, order, fields, *size).transpose(1, 2)


def _weights(weight: Tensor, taps: Tensor | None) -> _Weights:
    """Return where weights lie: ``weight`` has those of every element, or of the identity, and ``taps`` the others."""
    in_fields, size = weight.shape[1], weight.itemsize
    if taps is None:
        order = weight.shape[2]
        width = weight.numel() // max(1, weight.shape[0] * in_fields * order)
        first, rest, total = weight.data_ptr(), weight.data_ptr() + size * width, weight.numel()
        return _Weights(first, rest, width, in_fields * order * width, order * width, total, total - width)
    width = weight.numel() // max(1, weight.shape[0] * in_fields)
    steps = weight.numel(), in_fields * width, width
    return _Weights(weight.data_ptr(), taps.data_ptr(), *steps, weight.numel(), taps.numel())


@_operator("fourier_conv(Tensor x, Tensor weight, Tensor? taps, Tensor? bias, str key, int padding) -> Tensor")
def fourier_conv(x: Tensor, weight: Tensor, taps: Tensor | None, bias: Tensor | None, key: str, padding: int) -> Tensor:
    """Return the group convolution of maps on ``C_n`` or ``D_n``; it lies in memory as ``x`` does.

    Shape:
        - x: ``[B, C, |G|, H, W]``; bias: ``[O]``
        - weight: ``[O, C, |G|, ...]``, or with taps ``[O, C, ...]``; taps: ``[(|G| - 1) O, C, ...]``
        - output: ``[B, O, |G|, H', W']``
    """
    x, weight = _with_whole_planes(x), weight.contiguous()
    taps, bias = (None if tensor is None else tensor.contiguous() for tensor in (taps, bias))
    y = _new_maps(x, _output_shape(x, weight, key, padding))
    if not y.numel():
        return y
    plan, _ = _tables(key, x.dtype)
    sizes = _Sizes(x.shape[1], y.shape[1], x.shape[3], x.shape[4], padding, *x.stride()[:3], *y.stride()[:3])
    function = getattr(LIBRARY, f"forward_{_NAMES[x.dtype]}")
    arguments = (
        ctypes.byref(plan), ctypes.byref(sizes), _address(x), ctypes.byref(_weights(weight, taps)), _address(bias),
        _address(y),
    )  # fmt: skip
    _run(function, arguments, None, _shares(x.shape[0], y.shape[3]))
    return y


def _output_shape(x: Tensor, weight: Tensor, key: str, padding: int) -> tuple[int, ...]:
    change = 2 * padding - PlanKey.read(key).kernel_size + 1
    return (x.shape[0], weight.shape[0], x.shape[2], x.shape[3] + change, x.shape[4] + change)


@_fake("fourier_conv")
def _(x: Tensor, weight: Tensor, taps: Tensor | None, bias: Tensor | None, key: str, padding: int) -> Tensor:
    return _new_maps(_with_whole_planes(x), _output_shape(x, weight, key, padding))


@_operator(
    "fourier_conv_backward(Tensor grad, Tensor x, Tensor weight, Tensor? taps, str key, int padding, bool need_x,"
    " bool need_weight) -> (Tensor, Tensor, Tensor)"
)
def fourier_conv_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    taps: Tensor | None,
    key: str,
    padding: int,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and taps; an empty tensor for one that is not needed."""
    grad, x, weight = _with_whole_planes(grad), _with_whole_planes(x), weight.contiguous()
    taps = None if taps is None else taps.contiguous()
    grad_x = torch.empty_like(x) if need_x else x.new_empty(0)
    nothing = x.new_empty(0)
    if not grad.numel() or not (need_x or need_weight):
        zeros = [torch.zeros_like(w) if need_weight and w is not None else nothing.clone() for w in (weight, taps)]
        return grad_x.zero_(), zeros[0], zeros[1]
    plan, _ = _tables(key, x.dtype)
    # The gradient of the input is a convolution of that of the output.
    sizes = _Sizes(
        grad.shape[1], x.shape[1], grad.shape[3], grad.shape[4], PlanKey.read(key).kernel_size - 1 - padding,
        *grad.stride()[:3], *x.stride()[:3],
    )  # fmt: skip
    function = getattr(LIBRARY, f"backward_{_NAMES[x.dtype]}")
    shares = _shares(x.shape[0], x.shape[3])
    # A sum of its own for each share, added up in their order: the result does not depend on who is first.
    count = len(shares) if need_weight else 0
    weights = weight.new_empty(count, *weight.shape)
    others = None if taps is None else taps.new_empty(count, *taps.shape)
    arguments = (
        ctypes.byref(plan), ctypes.byref(sizes), _address(grad), _address(x), ctypes.byref(_weights(weight, taps)),
        _address(grad_x if need_x else None),
    )  # fmt: skip
    _run(
        function, arguments, [_weights(weights[i], None if others is None else others[i]) for i in range(count)], shares
    )
    if not need_weight:
        return grad_x, nothing, nothing.clone()
    grad_weight, grad_taps = (
        nothing if parts is None else parts[0] if count == 1 else parts.sum(dim=0) for parts in (weights, others)
    )
    return grad_x, grad_weight, grad_taps


@_fake("fourier_conv_backward")
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    taps: Tensor | None,
    key: str,
    padding: int,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(_with_whole_planes(x)) if need_x else x.new_empty(0)
    found = [
        x.new_empty(0) if w is None or not need_weight else torch.empty_like(w, memory_format=torch.contiguous_format)
        for w in (weight, taps)
    ]
    return grad_x, found[0], found[1]


def _keep_inputs(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, weight, taps, bias, ctx.key, ctx.padding = inputs
    ctx.save_for_backward(x, weight, taps)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, taps = ctx.saved_tensors
    need_x, need_weight, need_taps, need_bias = ctx.needs_input_grad[:4]
    grad_bias = grad.sum((0, 2, 3, 4)) if ctx.has_bias and need_bias else None
    needs = need_x, need_weight, need_taps and taps is not None
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # the gradient is to be differentiated
        # Hooks of these tensors are for the gradient that is returned, not for its computation.
        x, weight, taps = x.view_as(x), weight.view_as(weight), None if taps is None else taps.view_as(taps)
        needed = [tensor for tensor, need in zip((x, weight, taps), needs, strict=True) if need]
        y = fourier_reference(x, mix(join_planes(weight, taps), ctx.key), ctx.key, ctx.padding)
        grads = iter(torch.autograd.grad(y, needed, grad, create_graph=True) if needed else ())
        found = [next(grads) if need else None for need in needs]
    else:
        every = fourier_conv_backward(grad, x, weight, taps, ctx.key, ctx.padding, need_x, any(needs[1:]))
        found = [each if need else None for each, need in zip(every, needs, strict=True)]
    return *found, grad_bias, None, None


torch.library.register_autograd("gconv_ga::fourier_conv", _backward, setup_context=_keep_inputs, lib=_operators)
