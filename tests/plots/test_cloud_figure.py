"""Point clouds and their frames: where points and axes are drawn, and refused arguments."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from gconv_ga.frames import FrameSet, MeanFrame, PCAFrame, PointFrame
from gconv_ga.plots import PALETTE, Cloud, chart, cloud_figure

TRIANGLE = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])


def dots(axes):
    """The places of the points."""
    return np.array([line.get_xydata()[0] for line in axes.lines if line.get_marker() == "o"])


def arrows(axes):
    """Tail, tip and colour of the arrows."""
    found = [text for text in axes.texts if text.arrow_patch is not None]
    return [(np.array(a.get_position()), np.array(a.xy), a.arrow_patch.get_edgecolor()[:3]) for a in found]


def test_points_of_the_plane_are_where_they_are():
    (axes,) = cloud_figure([[Cloud(TRIANGLE, "triangle", bonds=[(0, 1)])]]).axes
    assert np.allclose(dots(axes), TRIANGLE - TRIANGLE.mean(0), atol=1e-6)
    assert axes.get_title() == "triangle"
    assert axes.get_aspect() == 1
    assert len(axes.lines) == 4


def test_a_view_from_above_shows_space_as_a_plane():
    points = torch.rand(5, 3)
    (axes,) = cloud_figure([[Cloud(points)]], view=(90.0, -90.0)).axes
    assert np.allclose(dots(axes), (points - points.mean(0))[:, :2], atol=1e-6)


def test_a_view_drops_the_line_of_sight_and_keeps_the_rest():
    """Projected unit vectors less what they have along the eye's direction: the same lengths and angles."""
    up, around = np.deg2rad([20.0, 50.0])
    eye = np.array([np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)])
    points = torch.rand(6, 3, dtype=torch.float64)
    (axes,) = cloud_figure([[Cloud(points)]], view=(20.0, 50.0)).axes
    centred = (points - points.mean(0)).numpy()
    across = centred - np.outer(centred @ eye, eye)
    assert np.allclose(dots(axes) @ dots(axes).T, across @ across.T, atol=1e-9)


def test_axes_of_a_frame_start_at_its_origin_and_have_their_colours():
    frames = PCAFrame("E", 2)(TRIANGLE[None])
    (axes,) = cloud_figure([[Cloud(TRIANGLE, frames=frames)]]).axes
    drawn = arrows(axes)
    assert len(drawn) == 4  # four elements with two axes each, and both signs of two axes
    assert [colour for *_, colour in drawn] == [pytest.approx(to_rgb(PALETTE[k])) for k in (0, 0, 1, 1)]
    for k in (0, 1):
        axis = frames.rotations[0, 0, :, k].numpy()
        directions = [(tip - tail) / np.linalg.norm(tip - tail) for tail, tip, _ in drawn[2 * k : 2 * k + 2]]
        assert all(np.allclose(tail, 0, atol=1e-6) for tail, *_ in drawn)
        assert np.allclose(sorted(d @ axis for d in directions), [-1, 1], atol=1e-5)


def test_an_axis_that_elements_share_is_drawn_once_with_the_sum_of_their_weights():
    eye = torch.eye(2)
    rotations = torch.stack((eye, eye * torch.tensor([1.0, -1.0]), torch.tensor([[0.0, -1.0], [1.0, 0.0]])))
    frames = FrameSet(rotations[None], torch.zeros(1, 3, 2), torch.tensor([[0.3, 0.3, 0.4]]))
    (axes,) = cloud_figure([[Cloud(TRIANGLE, frames=frames, shown_axes=1)]]).axes
    found = {
        tuple(np.round(tip - tail, 3) > 0): axes.texts[n].arrow_patch.get_alpha()
        for n, (tail, tip, _) in enumerate(arrows(axes))
    }
    assert found == pytest.approx({(True, False): 1.0, (False, True): 0.25 + 0.75 * 0.4 / 0.6})


def orange_pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    return int((np.abs(pixels - (np.array(to_rgb("#d55e00")) * 255).round()) < 3).all(-1).sum())


def test_long_arrows_fit_and_none_is_left_out():
    cloud = Cloud(TRIANGLE, arrows=torch.tensor([[-9.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    figure = cloud_figure([[cloud]])
    (axes,) = figure.axes
    tips = np.array([tip for _, tip, _ in arrows(axes)])
    assert np.abs(tips).max() < axes.get_xlim()[1]
    assert orange_pixels(figure) > 100
    small = cloud_figure([[cloud]], reach=2.0)  # the tip is outside of the panel
    assert small.axes[0].get_xlim()[1] == 2.0
    assert orange_pixels(small) > 100


def test_elements_without_weight_are_not_drawn():
    pair = torch.stack((TRIANGLE, torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])))
    frames = PointFrame("SE", 2)(pair)
    first = type(frames)(frames.rotations[:1], frames.translations[:1], frames.weights[:1])
    (axes,) = cloud_figure([[Cloud(pair[0], frames=first)]]).axes
    used = first.weights[0] > 0
    distinct = [torch.unique(first.rotations[0, used, :, k].round(decimals=4), dim=0) for k in (0, 1)]
    assert not used.all()
    assert len(arrows(axes)) == sum(map(len, distinct))


def test_all_panels_have_one_scale():
    near, far = cloud_figure([[Cloud(TRIANGLE), None, Cloud(3 * TRIANGLE)]], labels=["row"]).axes
    assert near.get_xlim() == far.get_xlim()
    assert far.get_xlim()[1] > dots(far).max()


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"points": torch.rand(4, 4)}, "points"),
        ({"points": torch.rand(1, 4, 3)}, "points"),
        ({"points": torch.rand(4, 3), "arrows": torch.rand(3, 3)}, "arrows"),
        ({"points": torch.rand(4, 3), "symbols": ["C"]}, "symbols"),
        ({"points": torch.rand(4, 2), "shown_axes": 3}, "shown_axes"),
        ({"points": torch.rand(4, 2), "shown_axes": 0}, "shown_axes"),
        ({"points": torch.rand(4, 3), "frames": MeanFrame()(torch.rand(1, 4, 2))}, "frames.rotations"),
        ({"points": torch.rand(4, 3), "frames": MeanFrame()(torch.rand(2, 4, 3))}, "frames.rotations"),
    ],
)
def test_what_does_not_fit_is_refused(options, argument):
    with pytest.raises(ValueError, match=rf"^{argument} must be"):
        Cloud(**options)


def test_no_cloud_and_wrong_labels_are_refused():
    with pytest.raises(ValueError, match=r"^rows must be rows with at least one Cloud"):
        cloud_figure([[None]])
    with pytest.raises(ValueError, match=r"^labels must be 1 strings"):
        cloud_figure([[Cloud(TRIANGLE)]], labels=["a", "b"])


def test_a_chart_has_its_words_and_no_box():
    figure, axes = chart("angle", "error", title="A title")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("angle", "error", "A title")
    assert not axes.spines["top"].get_visible()
    assert figure.axes == [axes]
