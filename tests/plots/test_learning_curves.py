"""The learning curves show the losses and scores they are given."""

import pytest

from gconv_ga.plots import learning_curves


def test_losses_their_means_and_scores_are_drawn():
    losses = [(step, 1 / step) for step in range(1, 41)]
    figure = learning_curves(losses, [(20, 0.25), (40, 0.5)])
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("training loss", "validation Dice")
    raw, mean = (line.get_ydata() for line in left.lines)
    assert list(raw) == [loss for _, loss in losses]
    assert mean[0] == 1
    assert mean[-1] == pytest.approx((1 / 39 + 1 / 40) / 2)
    assert list(right.lines[0].get_xdata()) == [20, 40]
    assert list(right.lines[0].get_ydata()) == [0.25, 0.5]


def test_without_scores_there_is_one_axis():
    assert len(learning_curves([(1, 0.5)], []).axes) == 1
