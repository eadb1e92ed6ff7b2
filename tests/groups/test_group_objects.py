"""Groups as Python objects: names, equality, immutability."""

import copy
import dataclasses
import math
import pickle
import re

import pytest
import torch
from hypothesis import given
from strategies import groups

import gconv_ga.groups
from gconv_ga.groups import C4, C8, D4, CyclicGroup, DihedralGroup, Group, as_group


@given(groups())
def test_the_repr_can_be_typed_back(group):
    assert eval(repr(group), {"CyclicGroup": CyclicGroup, "DihedralGroup": DihedralGroup}) == group


@given(groups())
def test_the_name_means_the_group(group):
    assert as_group(group) is group
    assert as_group(group.name) == as_group(group.name.lower()) == as_group(f" {group.name} ") == group


@given(groups(), groups())
def test_equal_groups_are_equal_and_hash_alike(group, other):
    same = type(group) is type(other) and group.n == other.n
    assert (group == other) == same
    assert len({group, other}) == (1 if same else 2)
    assert hash(type(group)(group.n)) == hash(group)


@given(groups())
def test_copies_are_equal(group):
    for twin in (pickle.loads(pickle.dumps(group)), copy.deepcopy(group), copy.copy(group)):
        assert twin == group
        assert hash(twin) == hash(group)
        assert torch.equal(twin.cayley_table, group.cayley_table)


def test_the_order_is_that_of_the_elements():
    assert (CyclicGroup(5).order, DihedralGroup(5).order) == (5, 10)
    assert (CyclicGroup(5).name, DihedralGroup(5).name) == ("C5", "D5")


@pytest.mark.parametrize("name", [name for name in gconv_ga.groups.__all__ if re.fullmatch(r"[CD]\d+", name)])
def test_ready_made_groups_are_called_by_their_name(name):
    group = getattr(gconv_ga.groups, name)
    assert group.name == name
    assert as_group(name) == group


def test_all_ready_made_groups_are_there():
    names = {"C1", "C2", "C3", "C4", "C6", "C8", "C12", "C16", "D1", "D2", "D3", "D4", "D6", "D8"}
    assert names <= set(gconv_ga.groups.__all__)


@pytest.mark.parametrize("name", ["n", "order", "name", "matrices", "cayley_table", "whatever"])
def test_attributes_cannot_be_set(name):
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        setattr(C4, name, 8)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        delattr(C4, name)
    assert (C4.n, C4.order, C4.name) == (4, 4, "C4")


@pytest.mark.parametrize("name", ["matrices", "cayley_table"])
def test_editing_a_returned_tensor_changes_no_group(name):
    before = getattr(D4, name).clone()
    getattr(D4, name).zero_()
    assert torch.equal(getattr(D4, name), before)
    assert torch.equal(getattr(DihedralGroup(4), name), before)
    assert D4.product(1, 4) == 5


def test_the_default_dtype_does_not_matter():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float16)
        assert C8.matrices.dtype == torch.float64
        assert C8.matrices[1, 0, 0] == math.cos(math.pi / 4)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("kind", [CyclicGroup, DihedralGroup])
@pytest.mark.parametrize("n", [0, -1, 2.5, 4.0, True, False, "4", None, [4], float("nan"), 1j])
def test_what_is_no_number_of_rotations_is_refused(kind, n):
    with pytest.raises(ValueError, match=r"^n must be a positive int, but got n="):
        kind(n)


@pytest.mark.parametrize("n", [torch.tensor(4), torch.tensor([4]).to(torch.int16)[0]])
def test_an_integer_of_another_type_is_an_int_afterwards(n):
    assert CyclicGroup(n) == C4
    assert type(CyclicGroup(n).n) is int


@pytest.mark.parametrize(
    "group",
    [
        "C0",
        "C-1",
        "C2.5",
        "D0",
        "C",
        "4",
        "S4",
        "SO(2)",
        "C04",
        "half of the rotations",
        "",
        None,
        0,
        -1,
        2.5,
        (1, 2),
        True,
    ],
)
def test_what_is_no_group_is_refused(group):
    with pytest.raises(
        ValueError, match=r"^group must be a group or its name, such as C4, 'C4' or 'D4', but got group="
    ):
        as_group(group)


def test_a_number_is_refused_with_a_word_on_groups_of_channels():
    with pytest.raises(
        ValueError, match=r"^subgroup must be .* but got subgroup=4\. .* write 'C4'; .* write groups=4\.$"
    ):
        as_group(4, "subgroup")


@pytest.mark.parametrize("g", [4, -1, 1.0, "1", None, True])
@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda g: C4.product(g, 0), "g"),
        (lambda g: C4.product(0, g), "h"),
        (lambda g: C4.inverse(g), "g"),
        (lambda g: C4.matrix(g), "element"),
        (lambda g: C4.is_exact([g] if g is None else g), "element"),
    ],
)
def test_what_is_no_element_is_refused(call, argument, g):
    with pytest.raises(ValueError, match=rf"^{argument} must be an (int|element)"):
        call(g)


def test_the_base_class_is_no_group():
    with pytest.raises(TypeError, match="abstract"):
        Group(4)
