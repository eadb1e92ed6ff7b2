"""The figures of steerable filters show the functions and the curve of the basis."""

import numpy as np
import pytest
import torch

from gconv_ga.filters import steerable_basis
from gconv_ga.plots import Panel, basis_figure, tradeoff_chart


def shown(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


@pytest.mark.parametrize("element", [0, 3, 9])
def test_every_function_is_drawn_as_the_element_turns_it(element):
    basis = steerable_basis("D8", 3)
    pictures = shown(basis_figure(basis, element=element))
    assert len(pictures) == len(basis)
    for picture, function in zip(pictures, basis.kernels[:, element], strict=True):
        assert np.allclose(picture, Panel(function, colours="signed").pixels())


def test_a_quarter_turn_turns_the_pictures():
    basis = steerable_basis("C8", 5)
    upright, turned, eighth = (shown(basis_figure(basis, element=element)) for element in (0, 2, 1))
    assert all(np.allclose(np.rot90(a), b, atol=1e-5) for a, b in zip(upright, turned, strict=True))
    assert not all(np.allclose(a, b, atol=1e-5) for a, b in zip(upright, eighth, strict=True))


def test_each_frequency_has_a_row():
    basis = steerable_basis("C8", 5)
    figure = basis_figure(basis)
    heights = [round(axes.get_position().y0, 6) for axes in figure.axes]
    assert len(set(heights)) == len(set(basis.frequency)) == len(figure.texts)
    rows = [sorted(set(heights), reverse=True).index(height) for height in heights]
    assert rows == list(basis.frequency)
    assert [text.get_text() for text in figure.texts] == [f"frequency {m}" for m in range(5)]


def test_the_chart_has_the_curve_and_tells_what_is_taken():
    bases = [steerable_basis("C8", 3), steerable_basis("C8", 5, functions=12)]
    axes = tradeoff_chart(bases).axes[0]
    assert axes.get_yscale() == "log"
    for number, basis in enumerate(bases):
        curve, taken, left_out = axes.lines[3 * number : 3 * number + 3]
        assert [tuple(point) for point in curve.get_xydata()] == list(basis.curve)
        assert max(taken.get_xdata()) == len(basis) < min(left_out.get_xdata())
        assert len(taken.get_xdata()) + len(left_out.get_xdata()) == len(basis.curve)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[1] == f"C8, 5 x 5: 12 functions, expected error {bases[1].expected_error:.3f}"


def test_nothing_is_left_out_where_all_functions_are_taken():
    assert len(tradeoff_chart([steerable_basis("C3", 1)]).axes[0].lines) == 2


def test_drawing_uses_no_random_numbers():
    state = torch.get_rng_state()
    basis_figure(steerable_basis("C5", 3)).draw_without_rendering()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("element", [8, -1, 0.5])
def test_no_element_is_refused(element):
    with pytest.raises(ValueError, match=r"^element must be"):
        basis_figure(steerable_basis("C8", 3), element=element)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match=r"^bases must be at least one basis, but got bases=\[\]"):
        tradeoff_chart([])
    with pytest.raises(
        ValueError, match=r"^bases must be bases of groups with angles other than multiples of 90 degrees"
    ):
        tradeoff_chart([steerable_basis("C8", 3), steerable_basis("D4", 3)])
