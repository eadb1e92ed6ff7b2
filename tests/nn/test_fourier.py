"""The Fourier algorithm of group convolution against the dense one, and where it must step aside."""

import copy
import dataclasses
import os
import pickle
import signal

import pytest
import torch
from torch._subclasses import FakeTensorMode

import gconv_ga.nn as gnn
from gconv_ga.nn import _fourier, _fourier_kernel, _fourier_plan
from gconv_ga.nn._fourier import PlanKey, fourier_reference, mix, plan_key, plan_of

needs_library = pytest.mark.skipif(
    not _fourier_kernel.FOURIER_IS_AVAILABLE, reason=f"Fourier algorithm: {_fourier_kernel.LIBRARY_STATUS}"
)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
GROUPS = ["C3", "C4", "C5", "C6", "C7", "C8", "C12", "C16", "D3", "D4", "D5", "D6", "D8"]


def relative(actual, expected):
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())


def errors(conv, x, algorithm="fourier"):
    """The largest relative differences of output and gradients from those of the dense algorithm."""
    conv.bias.data.normal_()
    inputs = x.requires_grad_(), conv.weight, conv.bias
    with gnn.algorithm("dense"):
        expected = conv(x)
    seed = torch.randn_like(expected)
    dense = expected, *torch.autograd.grad(expected, inputs, seed)
    with gnn.algorithm(algorithm):
        y = conv(x)
    return [relative(a, b) for a, b in zip((y, *torch.autograd.grad(y, inputs, seed)), dense, strict=True)]


def make(group, kernel_size=3, fields=(2, 3), dtype=torch.float64, **arguments):
    arguments.setdefault("padding", kernel_size // 2)
    return gnn.GroupConv2d(*fields, kernel_size, group=group, dtype=dtype, **arguments)


def image(conv, batch=2, size=(7, 9)):
    return torch.randn(batch, conv.in_channels, conv.group.order, *size, dtype=conv.weight.dtype)


@needs_library
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("group", GROUPS)
def test_output_and_gradients_are_those_of_the_dense_algorithm(group, kernel_size):
    conv = make(group, kernel_size)
    assert max(errors(conv, image(conv))) <= TOLERANCES[torch.float64]


@needs_library
@pytest.mark.parametrize("group", ["C3", "C8", "D4"])
def test_so_they_are_in_single_precision(group):
    conv = make(group, dtype=torch.float32)
    assert max(errors(conv, image(conv))) <= TOLERANCES[torch.float32]


@needs_library
@pytest.mark.parametrize("group", ["C4", "C7", "C8", "D4", "C9"])
def test_kernels_of_7_x_7(group):
    conv = make(group, 7)
    assert max(errors(conv, image(conv, size=(11, 8)))) <= 1e-12


@needs_library
@pytest.mark.parametrize("filters", ["grid", "steerable"])
@pytest.mark.parametrize("group", ["C4", "D4"])
def test_free_taps_and_steerable_kernels(group, filters):
    conv = make(group, 5, filters=filters)
    assert max(errors(conv, image(conv))) <= 1e-12


@needs_library
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 40), (40, 1), (3, 700), (65, 64), (33, 127)])
@pytest.mark.parametrize("group", ["C4", "C8", "D8"])
def test_sizes(group, size):
    conv = make(group, fields=(3, 5))
    assert max(errors(conv, image(conv, batch=1, size=size))) <= 1e-12


@needs_library
@pytest.mark.parametrize("fields", [(1, 1), (1, 9), (7, 1), (17, 6)])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_numbers_of_fields(fields, dtype):
    conv = make("C8", 5, fields, dtype)
    assert max(errors(conv, image(conv))) <= TOLERANCES[dtype]


@needs_library
@pytest.mark.parametrize("padding", [0, 1, 3, 5, "same", "valid"])
def test_paddings(padding):
    conv = make("C8", 5, padding=padding)
    assert max(errors(conv, image(conv, size=(9, 12)))) <= 1e-12


@needs_library
def test_an_empty_batch():
    conv = make("D4")
    with gnn.algorithm("fourier"):
        y = conv(image(conv, batch=0).requires_grad_())
    assert y.shape == (0, 3, 8, 7, 9)
    y.sum().backward()
    assert not conv.weight.grad.any()


@needs_library
def test_an_image_smaller_than_the_kernel_is_refused_as_before():
    conv = make("C8", 5, padding=0)
    with gnn.algorithm("fourier"), pytest.raises(ValueError, match="kernel is larger than the padded image"):
        conv(image(conv, size=(4, 9)))


@needs_library
def test_a_wrong_number_is_seen(monkeypatch):
    """The comparison rejects numbers that are off by a millionth."""
    conv, mixing = make("C8"), _fourier.mixing_of
    monkeypatch.setattr(_fourier_kernel, "mixing_of", lambda key, dtype: mixing(key, dtype) * (1 + 1e-6))
    monkeypatch.setattr(_fourier_kernel, "_tables", _fourier_kernel._tables.__wrapped__)
    assert max(errors(conv, image(conv))) > 1e-7


@needs_library
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads(threads, batch):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        conv = make("C8", 5)
        x = image(conv, batch, (23, 9))
        assert max(errors(conv, x)) <= 1e-12
        with gnn.algorithm("fourier"):
            y, again = conv(x), conv(x)
        grads = [torch.autograd.grad(out.square().sum(), (x, conv.weight)) for out in (y, again)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, again)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@needs_library
@pytest.mark.parametrize("group", ["C8", "D4"])
def test_gradcheck(group):
    conv = make(group, fields=(1, 1))

    def run(x, weight, bias):
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x,))

    x = image(conv, 1, (4, 3)).requires_grad_()
    with gnn.algorithm("fourier"):
        assert torch.autograd.gradcheck(run, (x, conv.weight, conv.bias))


@needs_library
def test_double_backward():
    conv = make("C8")
    x = image(conv).requires_grad_()
    found = []
    for name in ("dense", "fourier"):
        with gnn.algorithm(name):
            y = conv(x)
        first = torch.autograd.grad(y.square().sum(), (x, conv.weight), create_graph=True)
        found.append(torch.autograd.grad(sum(grad.square().sum() for grad in first), (x, conv.weight)))
    assert all(relative(a, b) < 1e-12 for a, b in zip(*found, strict=True))


@needs_library
@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_of_input_and_weight_run_once(create_graph):
    """Hooks that change gradients, also where the gradient is to be differentiated (a gradient penalty)."""
    conv = make("C8")
    inputs = image(conv).requires_grad_(), conv.weight
    with gnn.algorithm("dense"):
        expected = torch.autograd.grad(conv(inputs[0]).square().sum(), inputs)
    for tensor in inputs:
        tensor.register_hook(lambda grad: 3 * grad)
    with gnn.algorithm("fourier"):
        found = torch.autograd.grad(conv(inputs[0]).square().sum(), inputs, create_graph=create_graph)
    assert all(relative(a, 3 * b) < 1e-12 for a, b in zip(found, expected, strict=True))


@needs_library
def test_compiled_as_one_graph():
    conv = make("D4")
    x = image(conv)
    with gnn.algorithm("fourier"):
        expected = conv(x)
        compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")(x)
        grads = [torch.autograd.grad(y.square().sum(), conv.weight)[0] for y in (expected, compiled)]
    assert torch.equal(compiled, expected)
    assert relative(*grads) < 1e-14


@needs_library
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))])
def test_copies_compute_the_same(duplicate):
    conv = make("C8")
    x = image(conv)
    with gnn.algorithm("fourier"):
        assert torch.equal(duplicate(conv)(x), conv(x))
    assert repr(duplicate(conv)) == repr(conv)
    assert sorted(conv.state_dict()) == ["bias", "weight"]


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")
def test_a_forked_process_has_threads_of_its_own():
    conv, before = make("C8"), torch.get_num_threads()
    x, key, weight = image(conv, 4), plan_key(conv.filters), conv.weight.detach()
    torch.set_num_threads(2)
    try:
        expected = _fourier_kernel.fourier_conv(x, weight, None, None, key, 1)  # the parent's threads are running now
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that hangs is ended, and fails
            same = (_fourier_kernel.fourier_conv(x, weight, None, None, key, 1) == expected).numpy().all()
            os._exit(0 if same else 1)
        _, status = os.waitpid(child, 0)
    finally:
        torch.set_num_threads(before)
    assert os.waitstatus_to_exitcode(status) == 0


def uses(conv, x, algorithm="fourier"):
    """Whether the Fourier algorithm computes this output."""
    called = []
    original = _fourier_kernel.fourier_conv
    module = __import__("gconv_ga.nn._convolution", fromlist=["fourier_conv"])
    module.fourier_conv = lambda *args: called.append(1) or original(*args)
    try:
        with gnn.algorithm(algorithm):
            conv(x)
    finally:
        module.fourier_conv = original
    return bool(called)


@needs_library
@pytest.mark.parametrize(
    "arguments",
    [
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding_mode": "circular"},
        {"groups": 2},
        {"group_kernel_size": 3},
        {"padding": (0, 1), "group": "C2"},
        {"group": "C1"},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_layers_that_it_is_not_for(arguments):
    conv = make(**{"group": "C4", "fields": (2, 2), **arguments})
    assert not uses(conv, image(conv, size=(9, 9)))


@needs_library
def test_callers_that_it_is_not_for():
    conv = make("C8", dtype=torch.float32)
    x = image(conv)
    assert uses(conv, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not uses(conv, x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert not uses(conv, mode.from_tensor(x))
    assert not uses(lambda x: torch.func.vmap(conv)(x[None]), x)
    with torch.autograd.forward_ad.dual_level():
        assert not uses(conv, torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("group", GROUPS)
def test_the_reference_is_the_dense_convolution(group):
    """The algebra without the library."""
    conv = make(group, bias=False)
    key, x = plan_key(conv.filters), image(conv)
    read = PlanKey.read(key)
    numbers = mix(conv.weight, key)
    assert numbers.shape == (read.numbers, 3, 2)
    y = fourier_reference(x, numbers, key, 1)
    with gnn.algorithm("dense"):
        assert relative(y, conv(x)) < 1e-13


@pytest.mark.parametrize(("group", "kernel_size"), [("C8", 3), ("C16", 5), ("C12", 5), ("C6", 3), ("C7", 3)])
def test_the_cost_is_linear_in_the_rotations(group, kernel_size):
    """One real product for a real frequency, three for a complex one."""
    conv = make(group, kernel_size)
    key = plan_key(conv.filters)
    plan = plan_of(key)
    n, count = plan.n, len(plan.functions)
    expected = {0: 3 * n // 2 - 1, 1: (3 * n - 1) // 2}[n % 2] * count
    assert len(plan.factors) == sum(b.rows * b.components for b in plan.blocks) == expected
    assert PlanKey.read(key).multiplications == expected
    assert len(mix(conv.weight, key)) == PlanKey.read(key).numbers == n * count


@pytest.mark.parametrize("group", ["D4", "D6", "D8", "D5"])
def test_the_cost_with_reflections(group):
    """Twice that of four products for a complex one; maps on D_n as maps on C_n with twice the fields: four times."""
    key = plan_key(make(group).filters)
    plan = plan_of(key)
    assert (
        len(plan.factors)
        == PlanKey.read(key).multiplications
        == 2 * (2 * plan.n - 2 + plan.n % 2) * len(plan.functions)
    )


@pytest.mark.parametrize("group", GROUPS)
def test_the_gradient_of_the_input_is_a_convolution_by_the_same_numbers(group, monkeypatch):
    conv = make(group, bias=False)
    key, x = plan_key(conv.filters), image(conv).requires_grad_()
    with gnn.algorithm("dense"):
        y = conv(x)
    seed = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, seed)
    plan = plan_of(key)
    reversed_plan = dataclasses.replace(plan, factors=plan.adjoint_factors)
    monkeypatch.setattr(_fourier, "plan_of", lambda key: reversed_plan)
    assert relative(fourier_reference(seed, mix(conv.weight, key).transpose(1, 2), key, 1), expected) < 1e-13


def test_a_function_without_parity_is_refused():
    with pytest.raises(RuntimeError, match="neither even nor odd under reflection"):
        _fourier_plan._parity_of(torch.arange(9.0).view(1, 3, 3))


@needs_library
@pytest.mark.parametrize("group", ["C4", "C8", "D4"])
def test_the_rule_chooses_by_size(group):
    """Large layers on large images are computed in the Fourier basis, and small ones are not."""
    large, small = make(group, fields=(32, 32), dtype=torch.float32), make(group, 1, (1, 1), torch.float32)
    assert uses(large, image(large, 1, (32, 32)), "auto")
    assert not uses(small, image(small, 1, (32, 32)), "auto")
    assert not uses(large, image(large, 1, (3, 400)), "auto")
    for conv in (large, small):
        assert not uses(conv, image(conv, 1, (16, 16)), "dense")
        assert uses(conv, image(conv, 1, (16, 16)), "fourier")


@needs_library
def test_the_rule_is_the_same_for_a_rotated_image():
    conv = make("C8", fields=(8, 8), dtype=torch.float32)
    for size in ((8, 9), (7, 30), (12, 40)):
        assert uses(conv, image(conv, 1, size), "auto") == uses(conv, image(conv, 1, size[::-1]), "auto")


@needs_library
@pytest.mark.parametrize("fields", [(16, 16), (24, 8), (3, 40)])
@pytest.mark.parametrize("group", ["C4", "D4", "C8"])
def test_maps_by_element_and_weights_in_two_parts(group, fields):
    """As converted networks have them: elements before fields in memory, and taps apart from the weight."""
    conv = make(group, fields=fields, filters="grid" if group in ("C4", "D4") else "auto")
    x, order, bias = image(conv, 2, (8, 16)), conv.group.order, conv.bias.detach().requires_grad_()
    weight, taps = conv.weight.detach()[:, :, 0].clone(), conv.weight.detach()[:, :, 1:].movedim(2, 0).flatten(0, 1)
    inputs = [x.requires_grad_(), weight.requires_grad_(), taps.contiguous().requires_grad_(), bias]
    by_element = x.transpose(1, 2).contiguous().transpose(1, 2)
    y = conv.convolve_with(by_element, *inputs[1:])
    assert y.transpose(1, 2).is_contiguous()
    with gnn.algorithm("dense"):
        expected = conv(x)
    seed = torch.randn_like(expected)
    grads = torch.autograd.grad(y, inputs, seed)
    dense = torch.autograd.grad(expected, (x, conv.weight, conv.bias), seed)
    joined = torch.cat((grads[1].unsqueeze(2), grads[2].unflatten(0, (order - 1, -1)).movedim(0, 2)), dim=2)
    assert relative(y, expected) <= 1e-12
    assert all(relative(a, b) <= 1e-12 for a, b in zip((grads[0], joined, grads[3]), dense, strict=True))


@needs_library
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (16, 3), (1, 5)])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_many_fields_and_small_maps(size, dtype):
    """Weights are then read once, a few fields at a time."""
    conv = make("C4", fields=(67, 130), dtype=dtype)
    assert max(errors(conv, image(conv, 3, size))) <= TOLERANCES[dtype]


def test_the_choice_is_put_back():
    with gnn.algorithm("fourier"):
        with gnn.algorithm("dense"), pytest.raises(KeyError):
            raise KeyError
        conv = make("C8")
        assert uses(conv, image(conv)) == _fourier_kernel.FOURIER_IS_AVAILABLE
    with pytest.raises(ValueError, match="name must be one of 'auto', 'dense', 'fourier', but got name='dens'"):
        gnn.algorithm("dens")


def test_without_the_library_the_dense_algorithm_is_used(monkeypatch):
    monkeypatch.setattr("gconv_ga.nn._algorithms.FOURIER_IS_AVAILABLE", False)
    monkeypatch.setattr("gconv_ga.nn._algorithms.LIBRARY_STATUS", "it was not built")
    conv = make("C8")
    assert not uses(conv, image(conv))
    assert gnn.algorithms() == {"dense": "available", "fourier": "not available: it was not built"}


@needs_library
def test_a_library_of_another_version_is_not_used(monkeypatch):
    """After an update of an editable installation the old library may still be there."""
    monkeypatch.setattr(_fourier_kernel, "INTERFACE_VERSION", 1)
    library, reason = _fourier_kernel._load_library()
    assert library is None
    assert "was built from another version of gconv_ga: install gconv_ga again" in reason
