"""``act(g, act(h, x)) == act(g h, x)``, to the last bit for multiples of 90 degrees and reflections."""

import itertools

import pytest
import torch
from action_cases import CASES
from hypothesis import given
from hypothesis import strategies as st
from strategies import exact_groups, groups_and_elements, sizes

from gconv_ga.actions import RegularField, ScalarField
from gconv_ga.groups import C4, D4, as_group

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (6, 3), (1, 4)], ids=str)
@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D1", "D2", "D4"])
@pytest.mark.parametrize("case", CASES)
def test_the_law_holds_to_the_last_bit(case, name, size, device):
    group = as_group(name)
    action, x = CASES[case].action(*size), CASES[case].tensor(group, *size).to(device)
    for g, h in itertools.product(range(group.order), repeat=2):
        twice = action.after(group, h)(action(x, group, h), group, g)
        once = action(x, group, group.product(g, h))
        assert torch.equal(twice, once), (g, h)
        assert action.after(group, h).after(group, g) == action.after(group, group.product(g, h))


@given(groups_and_elements(2, exact_groups()), sizes(), st.sampled_from(sorted(CASES)))
def test_the_law_holds_on_any_size(drawn, size, case):
    group, (g, h) = drawn
    action, x = CASES[case].action(*size), CASES[case].tensor(group, *size)
    twice = action.after(group, h)(action(x, group, h), group, g)
    assert torch.equal(twice, action(x, group, group.product(g, h)))


@pytest.mark.parametrize("case", CASES)
def test_the_identity_changes_nothing(case):
    action, x = CASES[case].action(3, 5), CASES[case].tensor(D4, 3, 5)
    assert torch.equal(action(x, D4, 0), x)


@pytest.mark.parametrize("case", [case for case in CASES if case != "invariant"])
@pytest.mark.parametrize("g", range(1, 8))
def test_every_other_element_moves_something(case, g):
    """Otherwise the law would hold for an action that does nothing."""
    action, x = CASES[case].action(4, 4), CASES[case].tensor(D4, 4, 4)
    assert not torch.equal(action(x, D4, g), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_dtype_is_kept(case, dtype):
    action, wide = CASES[case].action(3, 4), CASES[case].tensor(D4, 3, 4)
    if not dtype.is_signed and not CASES[case].unsigned:
        with pytest.raises(ValueError, match="x must be of a type with negative numbers"):
            action(wide.to(dtype), D4, 1)
        return
    if dtype.is_complex and case == "boxes":
        pytest.skip("complex numbers have no order, so no box has corners")
    # Values that the narrow type can represent are moved in it and in float64, and compared in float64.
    x = (wide % 2 if dtype == torch.int8 and case != "boxes" else wide).to(dtype)
    for g in range(D4.order):
        moved = action(x, D4, g)
        assert moved.dtype == dtype
        wider = torch.complex128 if dtype.is_complex else torch.float64
        reference = action(x.to(torch.float64).to(wider) if not dtype.is_complex else x.to(wider), D4, g)
        assert torch.equal(moved.to(wider), reference)


@pytest.mark.parametrize("case", ["scalar", "vector", "regular", "labels", "points"])
def test_infinities_and_nan_stay_where_they_belong(case):
    """No ``0 * inf``: a rotation by 90 degrees multiplies nothing."""
    action, x = CASES[case].action(3, 4), CASES[case].tensor(C4, 3, 4)
    x.view(-1)[0], x.view(-1)[1] = torch.inf, torch.nan
    for g in range(C4.order):
        moved = action(x, C4, g)
        assert moved.isinf().sum() == 1
        assert moved.isnan().sum() == 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("g", range(8))
def test_results_are_contiguous(case, g):
    action, x = CASES[case].action(3, 4), CASES[case].tensor(D4, 3, 4)
    crooked = x.unsqueeze(-1).expand(*x.shape, 2)[..., 0] if x.ndim < 2 else x.mT.contiguous().mT
    assert action(x, D4, g).is_contiguous()
    assert action(crooked, D4, g).is_contiguous()
    assert torch.equal(action(crooked, D4, g), action(x, D4, g))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["D4", "C8"])
def test_the_input_is_left_alone(case, name):
    group = as_group(name)
    action, x = CASES[case].action(4, 4), CASES[case].tensor(group, 4, 4)
    before = x.clone()
    for g in range(group.order):
        action(x, group, g)
    assert torch.equal(x, before)


@pytest.mark.parametrize("case", CASES)
def test_a_name_is_taken_for_the_group(case):
    action, x = CASES[case].action(3, 4), CASES[case].tensor(D4, 3, 4)
    assert torch.equal(action(x, "D4", 5), action(x, D4, 5))
    assert action.after("D4", 5) == action.after(D4, 5)


@pytest.mark.parametrize("name", ["D4", "C8"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "labels"])
def test_gradients_flow_through(case, name):
    group = as_group(name)
    action = CASES[case].action(3, 4)
    x = CASES[case].tensor(group, 3, 4)[..., :3, :4].div(7).requires_grad_()
    if case == "regular":
        x = x[:, :1].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: action(x, group, 1), x)


@pytest.mark.parametrize("action", [ScalarField(), RegularField()], ids=repr)
@pytest.mark.parametrize("name", ["C4", "C8"])
def test_empty_batches_are_moved(action, name):
    group = as_group(name)
    assert action(torch.empty(0, 3, group.order, 4, 4), group, 1).shape == (0, 3, group.order, 4, 4)


@pytest.mark.parametrize("name", ["D4", "C8"])
@pytest.mark.parametrize("case", CASES)
def test_actions_are_traced_without_a_break(case, name):
    group = as_group(name)
    action, x = CASES[case].action(4, 4), CASES[case].tensor(group, 4, 4)
    torch._dynamo.reset()
    traced = torch.compile(lambda x: action(x, group, 1), backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(x), action(x, group, 1), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("name", ["D4", "C8"])
@pytest.mark.parametrize("case", CASES)
def test_actions_run_on_fake_tensors_of_another_device(case, name):
    from torch._subclasses.fake_tensor import FakeTensorMode

    group = as_group(name)
    action, x = CASES[case].action(3, 4), CASES[case].tensor(group, 3, 4)
    with FakeTensorMode():
        fake = action(torch.empty(x.shape, device="cuda"), group, 1)
    assert fake.device.type == "cuda"
    assert fake.shape == action(x, group, 1).shape
