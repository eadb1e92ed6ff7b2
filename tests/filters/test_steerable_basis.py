"""The steerable basis: exact where rotations are, transformed by one law, orthonormal, and immutable."""

import copy
import itertools
import pickle

import pytest
import torch
from tolerances import TOLERANCES
from torch._subclasses.fake_tensor import FakeTensorMode

from gconv_ga.actions import ScalarField
from gconv_ga.filters import _steerable_basis, steerable_basis
from gconv_ga.groups import CyclicGroup, DihedralGroup, as_group

TIGHT = TOLERANCES[torch.float64]


@pytest.mark.parametrize("kernel_size", [1, 3, 4, 5, 7])
@pytest.mark.parametrize("n", [1, 2, 4, 6, 8, 10, 12, 16])
def test_multiples_of_90_degrees_are_index_moves_to_the_last_bit(n, kernel_size):
    kernels = steerable_basis(CyclicGroup(n), kernel_size).kernels
    for quarters in (q for q in range(4) if n * q % 4 == 0):
        assert torch.equal(kernels.roll(-n * quarters // 4, 1), kernels.rot90(quarters, (-2, -1)))


@pytest.mark.parametrize("kernel_size", [1, 3, 4, 5, 7])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 12])
def test_mirrors_are_index_moves_to_the_last_bit(n, kernel_size):
    """Element n + i is "reflect the last axis, then rotate by i"; that is "rotate by -i, then reflect"."""
    kernels = steerable_basis(DihedralGroup(n), kernel_size).kernels
    assert kernels.shape[1] == 2 * n
    assert torch.equal(kernels[:, n:], kernels[:, [-i % n for i in range(n)]].flip(-1))
    assert torch.equal(kernels[:, :n], steerable_basis(CyclicGroup(n), kernel_size).kernels)


def law_of_turning(kernels, group):
    """Return how far ``kernels[F, |G|, k, k]`` are from being transformed by one matrix per element that compose.

    ``L_g b = rho(g) b`` gives ``L_g L_h b = rho(h) rho(g) b``. The matrices are fitted at the element alone, so kernels
    that are transformed in any other way fail.
    """
    kernels = kernels.flatten(2)
    identity = kernels[:, 0]
    rho = [kernels[:, g] @ torch.linalg.pinv(identity) for g in range(group.order)]
    misses = [rho[g] @ identity - kernels[:, g] for g in range(group.order)]
    misses += [rho[h] @ rho[g] - rho[group.product(g, h)] for g in range(group.order) for h in range(group.order)]
    return max(float(miss.abs().max()) for miss in misses)


@pytest.mark.parametrize("kernel_size", [3, 4, 5])
@pytest.mark.parametrize("name", ["C3", "C5", "C6", "C8", "C12", "D3", "D5", "D8"])
def test_turning_is_one_matrix_for_each_element_and_composes(name, kernel_size):
    group = as_group(name)
    assert law_of_turning(steerable_basis(group, kernel_size).kernels, group) <= TIGHT


@pytest.mark.parametrize("spoil", ["interpolated", "backwards"])
def test_kernels_that_do_not_compose_are_seen(spoil):
    group = DihedralGroup(8)
    kernels = steerable_basis(group, 5).kernels
    if spoil == "interpolated":
        kernels = torch.stack([ScalarField()(kernels[:, 0], group, g) for g in range(group.order)], dim=1)
    else:
        kernels = kernels[:, [group.inverse(g) for g in range(group.order)]]
    assert law_of_turning(kernels, group) > 0.1


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 12])
def test_functions_are_orthonormal_on_average_over_the_rotations(n, kernel_size):
    kernels = steerable_basis(CyclicGroup(n), kernel_size).kernels.flatten(2)
    gram = torch.einsum("fgx,hgx->fh", kernels, kernels) / n
    assert (gram - torch.eye(len(kernels), dtype=gram.dtype)).abs().max() <= TIGHT


@pytest.mark.parametrize("smoothing", [0.25, 1.0])
def test_smoothing_is_how_a_kernel_begins_and_nothing_else(smoothing):
    plain, smooth = (steerable_basis("C8", 5, smoothing=s) for s in (0, smoothing))
    scale = torch.tensor(plain.gain, dtype=torch.float64) ** smoothing
    scale = scale / scale.square().mean().sqrt()
    assert plain.spread == (1.0,) * 15
    assert torch.allclose(torch.tensor(smooth.spread, dtype=torch.float64), scale, rtol=TIGHT, atol=TIGHT)
    assert scale.max() > 1.2 * scale.min()
    assert (smooth.error, smooth.gain) == (plain.error, plain.gain)
    assert torch.equal(smooth.kernels, plain.kernels)
    # Smooth kernels grow: the sum of the taps is the output on a constant image.
    assert smooth.expected_error < plain.expected_error


@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D4"])
@pytest.mark.parametrize("kernel_size", [2, 3, 5])
def test_where_all_angles_are_exact_every_tap_is_free(name, kernel_size):
    basis = steerable_basis(name, kernel_size)
    assert len(basis) == kernel_size**2
    assert torch.linalg.matrix_rank(basis.kernels[:, 0].flatten(1)) == kernel_size**2
    assert basis.expected_error == max(basis.error) == max(basis.blurred_error) == 0


@pytest.mark.parametrize("name", ["C3", "C8", "D12"])
def test_one_tap_is_the_same_at_every_angle(name):
    basis = steerable_basis(name, 1)
    assert basis.kernels.flatten().tolist() == [1.0] * as_group(name).order
    assert basis.expected_error == 0


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("n", [8, 12, 16])
def test_errors_jump_near_a_quarter_pi_of_the_taps(n, kernel_size):
    """The Shannon number of the disc in the square: functions beyond it do not rotate."""
    curve = steerable_basis(CyclicGroup(n), kernel_size).curve
    jumps = {here[0]: after[1] - here[1] for here, after in itertools.pairwise(curve)}
    edge = max(jumps, key=jumps.__getitem__)
    assert edge == pytest.approx(torch.pi / 4 * kernel_size**2, rel=0.25)
    assert [error for _, error in curve] == sorted(error for _, error in curve)


def test_knobs_choose_from_the_best_of_the_curve():
    curve = dict(steerable_basis("C8", 5).curve)
    for count, error in curve.items():
        basis = steerable_basis("C8", 5, functions=count)
        assert len(basis) == count
        assert max(c for c, e in curve.items() if e <= error) == len(steerable_basis("C8", 5, max_error=error))
    # Most functions come in pairs, which are not split: one more than a whole number of pairs adds nothing.
    assert 13 not in curve
    assert len(steerable_basis("C8", 5, functions=13)) == 12
    assert max(curve) <= 25


def test_defaults_admit_what_peers_have_and_more():
    """escnn 1.0.11 has 6, 11 and 18 functions for k = 3, 5, 7."""
    counts = [len(steerable_basis("C8", size)) for size in (3, 5, 7)]
    assert all(ours >= theirs for ours, theirs in zip(counts, (6, 11, 18), strict=True))


REFUSALS = [
    (("C8", 2), {}, r"kernel_size must be 1 or at least 3 for C8, but got kernel_size=2\. A 2 x 2"),
    (("D6", 2), {}, "kernel_size must be 1 or at least 3 for D6"),
    (("C8", 0), {}, "kernel_size must be a positive int, but got kernel_size=0"),
    (("C8", 3.0), {}, "kernel_size must be a positive int, but got kernel_size=3.0"),
    ((8, 3), {}, "group must be a group or its name"),
    (("C8", 5), {"max_error": -0.1}, "max_error must be a number of at least 0, but got max_error=-0.1"),
    (("C8", 5), {"max_error": "0.1"}, "max_error must be a number of at least 0"),
    (("C8", 5), {"max_error": float("nan")}, "max_error must be a number of at least 0"),
    (
        ("C8", 5),
        {"max_error": 0.0},
        r"max_error must be at least 0\.0\d+, the error of the best function, but got max_error=0.0",
    ),
    (("C8", 5), {"functions": 0}, "functions must be a positive int, but got functions=0"),
    (("C8", 5), {"functions": True}, "functions must be a positive int, but got functions=True"),
    (("C8", 5), {"functions": 26}, "functions must be at most the 25 taps of a 5 x 5 kernel, but got functions=26"),
    (("C8", 5), {"functions": 12, "max_error": 0.2}, "functions must be None if max_error=0.2 decides"),
    (("C8", 5), {"smoothing": -1}, "smoothing must be a number of at least 0, but got smoothing=-1"),
    (("C8", 5), {"smoothing": None}, "smoothing must be a number of at least 0, but got smoothing=None"),
]


@pytest.mark.parametrize(("arguments", "knobs", "message"), REFUSALS)
def test_refusals_say_what_to_give(arguments, knobs, message):
    with pytest.raises(ValueError, match=message):
        steerable_basis(*arguments, **knobs)


def test_nobody_can_change_what_others_see():
    basis = steerable_basis("C8", 3)
    before = basis.kernels
    basis.kernels.zero_()
    assert torch.equal(steerable_basis("C8", 3).kernels, before)
    assert before.abs().max() > 0
    with pytest.raises(AttributeError, match="kernel_size"):
        basis.kernel_size = 5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda basis: pickle.loads(pickle.dumps(basis))])
def test_copies_are_equal(copied):
    basis = steerable_basis("D8", 3)
    again = copied(basis)
    assert again == basis
    assert hash(again) == hash(basis)
    assert torch.equal(again.kernels, basis.kernels)
    assert basis != steerable_basis("D8", 3, smoothing=0)


@pytest.fixture
def default_float16():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    yield
    torch.set_default_dtype(before)


def fresh():
    _steerable_basis._functions.cache_clear()
    return steerable_basis("C8", 5)


def test_the_callers_modes_change_nothing(default_float16):
    by_dtype = fresh()
    with torch.inference_mode():
        by_inference = fresh()
    assert not by_inference.kernels.is_inference()
    with torch.device("meta"):
        on_meta = fresh()
        assert on_meta.kernels.is_meta
    with FakeTensorMode():
        fake = fresh()
    torch.set_default_dtype(torch.float32)
    usual = fresh()
    assert by_dtype == by_inference == on_meta == fake == usual
    assert usual.kernels.dtype == by_dtype.kernels.dtype == torch.float64


def test_it_is_made_once():
    before = fresh() and _steerable_basis._functions.cache_info().misses
    steerable_basis("C8", 5)
    steerable_basis("D8", 5)  # reflections add nothing to compute
    assert _steerable_basis._functions.cache_info().misses == before
