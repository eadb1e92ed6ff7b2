"""Panels side by side: their pixels, their places, and refused arguments."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from gconv_ga.plots import PALETTE, Panel, panel_figure, save_figure


def shown(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_signs_are_two_colours_and_zero_is_white():
    pixels = Panel(torch.tensor([[-2.0, 0.0, 2.0]]), colours="signed").pixels()
    negative, zero, positive = pixels[0]
    assert zero.min() > 0.98
    assert negative[2] > negative[0], "blue"
    assert positive[0] > positive[2], "orange"


def test_a_common_limit_makes_panels_comparable():
    small, large = (Panel(torch.tensor([[v, -v]]), colours="signed", limit=4.0).pixels() for v in (1.0, 4.0))
    same = Panel(torch.tensor([[1.0, 4.0]]), colours="signed", limit=4.0).pixels()
    assert np.array_equal(same[0, 0], small[0, 0])
    assert np.array_equal(same[0, 1], large[0, 0])
    assert not np.allclose(small, large)


def test_zeros_are_white_without_a_limit():
    assert Panel(torch.zeros(3, 3), colours="signed").pixels().min() > 0.98


def test_labels_have_the_palettes_colours():
    pixels = Panel(torch.arange(8).view(2, 4), colours="labels").pixels()
    assert np.allclose(pixels.reshape(8, 3), [to_rgb(colour) for colour in PALETTE])
    assert len(set(PALETTE)) == len(PALETTE) == 8


def test_panels_keep_their_proportions_and_their_order():
    wide, high = Panel(torch.rand(4, 8), "wide"), Panel(torch.rand(1, 8, 4), "high", border="#0072b2")
    figure = panel_figure([[wide, r"$\to$", high], [None, None, wide]], labels=["first", "second"])
    assert [pixels.shape for pixels in shown(figure)] == [(4, 8, 3), (8, 4, 3), (4, 8, 3)]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["wide", "", "high", "wide"]
    first, sign, second, below = (axes.get_position() for axes in figure.axes)
    assert sign.width < first.width / 3
    assert first.x0 < sign.x0 < second.x0
    assert np.isclose(below.x0 + below.x1, second.x0 + second.x1)
    assert below.y1 < second.y0
    assert [text.get_text() for text in figure.texts] == ["first", "second"]
    frame = figure.axes[2].spines["left"]
    assert frame.get_edgecolor()[:3] == pytest.approx(to_rgb("#0072b2"))
    assert frame.get_linewidth() > figure.axes[0].spines["left"].get_linewidth()


def test_everything_lies_inside_of_the_file():
    """Titles and labels too: `save_figure` would cut off what sticks out."""
    panels = [Panel(torch.rand(8, 8), "two\nlines", border=PALETTE[0]), Panel(torch.rand(8, 8), "$L_g^{-1} f$")]
    figure = panel_figure([panels, panels], labels=["a\nb", "c"])
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    assert width < 4, "panels of 1.45 inches lie close together"


def bars(figure):
    """The upper tick label of every colour bar, and its box."""
    found = [axes for axes in figure.axes if axes.axison and list(axes.get_yticks()) == [-1, 0, 1]]
    return [(axes.get_yticklabels()[-1].get_text(), axes.get_position()) for axes in found]


def test_signed_panels_that_share_a_limit_share_a_colour_bar():
    signed = [
        Panel(torch.full((4, 4), v), colours="signed", limit=limit)
        for v, limit in ((1.0, 2.0), (2.0, 2.0), (3.0, None))
    ]
    grey = Panel(torch.rand(4, 4))
    figure = panel_figure([[signed[0], "$-$", signed[1], grey, signed[2]], [grey, None, grey, grey, signed[2]]])
    assert [limit for limit, _ in bars(figure)] == ["2", "3", "3"]
    first, second, middle, last = [
        axes.get_position() for axes in figure.axes if axes.images and not len(axes.get_yticks())
    ][:4]
    (_, bar), (_, bar_of_last), _ = bars(figure)
    assert first.x1 < second.x0 < second.x1 < bar.x0 < bar.x1 < middle.x0 < last.x1 < bar_of_last.x0
    assert np.isclose(bar.y0, second.y0)
    assert np.isclose(bar.y1, second.y1)
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x1 <= figure.get_size_inches()[0]


def test_a_colour_bar_has_the_colours_of_its_panels():
    panel = Panel(torch.tensor([[-2.0, 0.0, 2.0]]), colours="signed")
    figure = panel_figure([[panel]])
    top, middle, bottom = (figure.axes[1].images[0].get_array()[n, 0][:3] for n in (0, 64, -1))
    assert np.allclose([bottom, middle, top], panel.pixels()[0], atol=0.02)


def test_colour_bars_can_be_left_out_and_zeros_have_none():
    zeros, one = Panel(torch.zeros(4, 4), colours="signed"), Panel(torch.ones(4, 4), colours="signed")
    assert bars(panel_figure([[zeros]])) == []
    assert bars(panel_figure([[one]], colour_bars=False)) == []
    assert [limit for limit, _ in bars(panel_figure([[one]]))] == ["1"]


def test_marks_are_drawn_at_their_pixels():
    figure = panel_figure([[Panel(torch.rand(9, 9), marks=[(6.0, 2.0)])]])
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines} == {(6.0, 2.0)}


def test_nothing_global_is_changed(tmp_path):
    before = dict(mpl.rcParams)
    save_figure(panel_figure([[Panel(torch.rand(9, 9))]]), tmp_path / "x.png")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"values": torch.rand(2, 4, 4)}, "values"),
        ({"values": torch.rand(4)}, "values"),
        ({"values": torch.rand(3, 4, 4), "colours": "signed"}, "values"),
        ({"values": torch.rand(4, 4), "colours": "labels"}, "values"),
        ({"values": torch.rand(4, 4), "colours": "gray"}, "colours"),
        ({"values": torch.rand(4, 4), "colours": "signed", "limit": 0.0}, "limit"),
    ],
)
def test_a_panel_that_cannot_be_shown_is_refused(options, argument):
    with pytest.raises(ValueError, match=rf"^{argument} must be"):
        Panel(**options)


def test_no_panel_and_wrong_labels_are_refused():
    with pytest.raises(ValueError, match=r"^rows must be rows with at least one Panel"):
        panel_figure([["only words"]])
    with pytest.raises(ValueError, match=r"^labels must be 1 strings"):
        panel_figure([[Panel(torch.rand(4, 4))]], labels=["a", "b"])
