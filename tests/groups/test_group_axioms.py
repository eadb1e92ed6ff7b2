"""The laws of a group, for any n."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from strategies import groups, groups_and_elements, subgroups

from gconv_ga.groups import CyclicGroup, DihedralGroup


@given(groups_and_elements(3))
def test_the_product_is_associative_and_stays_inside(case):
    group, (g, h, k) = case
    assert group.product(group.product(g, h), k) == group.product(g, group.product(h, k))
    assert 0 <= group.product(g, h) < group.order


@given(groups_and_elements(1))
def test_zero_is_the_identity(case):
    group, (g,) = case
    assert group.product(0, g) == group.product(g, 0) == g


@given(groups_and_elements(1))
def test_the_inverse_undoes_from_both_sides(case):
    group, (g,) = case
    assert group.product(g, group.inverse(g)) == group.product(group.inverse(g), g) == 0


@given(groups())
def test_the_cayley_table_is_a_latin_square(group):
    table, all_elements = group.cayley_table, torch.arange(group.order)
    assert table.dtype == torch.int64
    assert torch.equal(table.sort(dim=0).values, all_elements.unsqueeze(1).expand_as(table))
    assert torch.equal(table.sort(dim=1).values, all_elements.expand_as(table))


@given(groups_and_elements(2))
def test_the_cayley_table_holds_the_products(case):
    group, (g, h) = case
    assert group.cayley_table[g, h] == group.product(g, h)


@given(groups_and_elements(2))
def test_the_matrices_are_a_homomorphism(case):
    group, (g, h) = case
    matrices = group.matrices
    torch.testing.assert_close(matrices[group.product(g, h)], matrices[g] @ matrices[h], rtol=0, atol=1e-14)


@given(groups())
def test_the_matrices_are_orthogonal_and_all_different(group):
    matrices = group.matrices
    assert matrices.dtype == torch.float64
    assert matrices.shape == (group.order, 2, 2)
    identity = torch.eye(2, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity, rtol=0, atol=1e-14)
    distances = torch.cdist(matrices.flatten(1), matrices.flatten(1)) + 9 * torch.eye(group.order)
    assert distances.min() > 1 / group.n


@given(groups_and_elements(1))
def test_the_matrices_are_the_ones_that_the_indices_promise(case):
    """Written out: a counter-clockwise rotation by ``2 pi i / n`` after the reflection ``x -> -x``."""
    group, (g,) = case
    angle = 2 * math.pi * (g % group.n) / group.n
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    mirror = torch.diag(torch.tensor([-1.0 if g >= group.n else 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(group.matrices[g], turn @ mirror, rtol=0, atol=1e-15)


@given(groups_and_elements(1))
def test_entries_at_quarter_turns_are_exact(case):
    group, (g,) = case
    quarter = 4 * (g % group.n) % group.n == 0
    entries = {entry for row in group.matrix(g) for entry in row}
    assert group.is_exact(g) == quarter
    assert (entries <= {-1.0, 0.0, 1.0}) == quarter
    assert "-0.0" not in {str(entry) for entry in entries}
    assert torch.equal(group.matrices[g], torch.tensor(group.matrix(g), dtype=torch.float64))


@given(groups())
def test_a_group_is_exact_if_all_its_elements_are(group):
    assert group.is_exact() == all(group.is_exact(g) for g in range(group.order))


@given(groups_and_elements(2, groups().filter(lambda group: isinstance(group, DihedralGroup))))
def test_a_rotation_behind_the_mirror_turns_back(case):
    """``r^i m r^j = r^(i - j) m``."""
    group, (g, h) = case
    i, j, mirror = g % group.n, h % group.n, group.n
    left = group.product(group.product(i, mirror), j)
    assert left == group.product((i - j) % group.n, mirror) == group.n + (i - j) % group.n


@given(subgroups())
def test_a_subgroup_is_closed_and_its_embedding_is_a_homomorphism(case):
    group, subgroup = case
    places = group.subgroup(subgroup)
    assert len(set(places)) == subgroup.order
    assert places[0] == 0
    for g, h in itertools.product(range(subgroup.order), repeat=2):
        assert places[subgroup.product(g, h)] == group.product(places[g], places[h])
    torch.testing.assert_close(group.matrices[list(places)], subgroup.matrices, rtol=0, atol=1e-15)
    assert group.subgroup(subgroup.name) == places
    assert group.subgroup(reversed(places)) == tuple(sorted(places))


@pytest.mark.parametrize(
    ("group", "subgroup"),
    [
        (CyclicGroup(8), CyclicGroup(3)),
        (CyclicGroup(4), DihedralGroup(1)),
        (CyclicGroup(4), CyclicGroup(8)),
        (DihedralGroup(1), CyclicGroup(2)),  # of the same order, but a reflection is not a rotation by 180 degrees
        (DihedralGroup(6), DihedralGroup(4)),
        (DihedralGroup(4), "C3"),
        (CyclicGroup(8), [0, 1, 2, 3]),
        (CyclicGroup(8), [2, 4, 6]),
        (CyclicGroup(8), []),
        (DihedralGroup(4), [0, 1]),
        (DihedralGroup(4), [0, 8]),
        (CyclicGroup(4), [0, -1]),
        (CyclicGroup(4), [0, 2.0]),
        (CyclicGroup(4), "half of the rotations"),
        (CyclicGroup(4), 2),
        (CyclicGroup(4), None),
    ],
)
def test_what_is_no_subgroup_is_refused(group, subgroup):
    with pytest.raises(ValueError, match=r"^(of|element) must be "):
        group.subgroup(subgroup)
