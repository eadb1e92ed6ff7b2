"""The table of a steerable basis: its numbers are those of the basis, and its text is readable."""

import pytest
import torch

from gconv_ga.filters import describe, steerable_basis


@pytest.mark.parametrize("name", ["C8", "D8", "C12"])
@pytest.mark.parametrize("knobs", [{}, {"functions": 11}, {"max_error": 0.05}, {"smoothing": 0}])
def test_rows_are_the_functions_of_each_frequency(name, knobs):
    table, basis = describe(name, 5, **knobs), steerable_basis(name, 5, **knobs)
    assert table.basis == basis
    assert sum(row.functions for row in table.rows) == len(basis)
    frequency = torch.tensor(basis.frequency)
    for row in table.rows:
        of = frequency == row.frequency
        assert row.functions == of.sum()
        assert row.error == torch.tensor(basis.error, dtype=torch.float64)[of].max()
        assert row.blurred_error == torch.tensor(basis.blurred_error, dtype=torch.float64)[of].max()


def test_the_text_names_group_size_and_gap():
    first, second, header, *rows = repr(describe("C8", 5)).splitlines()
    assert first.startswith("C8, 5 x 5: 15 functions in 25 taps, expected error 0.0")
    assert second == "max_error 0.09 admits them, the next needs 0.26"
    assert [len(line) for line in rows] == [len(header)] * 5


def test_where_all_taps_are_taken_the_text_says_so():
    text = repr(describe("C4", 3))
    assert "9 functions in 9 taps, expected error 0.0000" in text
    assert "the next needs more taps" in text


def test_what_the_basis_refuses_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be 1 or at least 3 for C8"):
        describe("C8", 2)
