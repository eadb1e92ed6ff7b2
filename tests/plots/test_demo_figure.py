"""The figure of the demo: its panels, its captions, its size, and the global state it leaves alone."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from gconv_ga.plots import _demo_figure, demo_figure, save_figure
from gconv_ga.plots._demo_figure import CORRECT
from gconv_ga.plots._panels import picture

NAMES = ("BACKGROUND", "CORRECT", "MISSED", "FALSE_POSITIVE", "WRONG_CLASS", "CHANGED", "UNCHANGED")
COLOURS = {name: getattr(_demo_figure, name) for name in NAMES}


@pytest.fixture
def scene():
    """A square, a prediction with a missing column and a false pixel, and another false one when rotated."""
    truth = torch.zeros(12, 16, dtype=torch.int64)
    truth[3:7, 4:8] = 1
    labels = truth.clone()
    labels[3:7, 4] = 0
    labels[10, 14] = 1
    turned = labels.rot90(1, (-2, -1)).clone()
    turned[0, 0] = 1
    return torch.rand(1, 12, 16), truth, labels, turned


def draw(scene, names=("one",), **options):
    image, truth, labels, turned = scene
    options = {"group": "C4", "element": 1, **options}
    return demo_figure(image, truth, dict.fromkeys(names, (labels, turned)), **options)


def panels(figure):
    """The pixels of each panel, [H, W, 3], row by row, without the legend."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def colour_map(pixels):
    """The names of the colours of a panel."""
    found = np.full(pixels.shape[:2], "?", dtype=object)
    for name, colour in COLOURS.items():
        found[np.isclose(pixels, to_rgb(colour), atol=1e-6).all(axis=-1)] = name
    return found


def test_the_panels_are_the_images_and_maps(scene):
    _, truth, labels, _ = scene
    upright_image, upright_truth, upright, turned_image, turned_truth, moved, change = panels(draw(scene))
    assert np.array_equal(turned_image, np.rot90(upright_image))
    assert np.array_equal(turned_truth, np.rot90(upright_truth))
    assert np.array_equal(colour_map(upright_truth) == "CORRECT", truth.numpy() == 1)
    expected = np.full((12, 16), "BACKGROUND", dtype=object)
    expected[3:7, 5:8], expected[3:7, 4], expected[10, 14] = "CORRECT", "MISSED", "FALSE_POSITIVE"
    assert np.array_equal(colour_map(upright), expected)
    expected = np.rot90(expected).copy()
    expected[0, 0] = "FALSE_POSITIVE"
    assert np.array_equal(colour_map(moved), expected)
    expected = np.where(np.rot90(labels.numpy()) == 1, "UNCHANGED", "BACKGROUND").astype(object)
    expected[0, 0] = "CHANGED"
    assert np.array_equal(colour_map(change), expected)


def test_off_the_grid_pixels_from_outside_are_white_and_not_compared():
    truth = torch.ones(33, 33, dtype=torch.int64)
    everywhere = {"one": (truth, truth)}
    *_, turned_image, turned_truth, moved, change = panels(
        demo_figure(truth[None].float(), truth, everywhere, group="C8", element=1)
    )
    corners = np.add.outer(*[abs(np.arange(33) - 16)] * 2) > 16 * 2**0.5 + 1
    middle = np.add.outer(*[abs(np.arange(33) - 16)] * 2) < 16 * 2**0.5 - 1
    for pixels in (turned_image, turned_truth, moved, change):
        assert (pixels[corners] == 1).all()
    assert set(colour_map(moved)[middle]) == {"CORRECT"}
    assert set(colour_map(change)[middle]) == {"UNCHANGED"}
    assert "CHANGED" not in colour_map(change)


def test_the_captions_say_what_is_seen(scene):
    figure = draw(scene, ["first network", "second network"])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["image", "ground truth", "first network", "second network"]
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == [
        "original", "rotated by 90°", "difference",
    ]  # fmt: skip
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == ["1 label changed"] * 2
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes if axes.get_legend()]
    assert legends == [["correct", "missed", "false positive", "label changed"]]


@pytest.mark.parametrize(
    ("group", "element", "words"),
    [
        ("D4", 0, "not moved"),
        ("D4", 6, "reflected, rotated by 180°"),
        ("D4", 4, "reflected"),
        ("C8", 3, "rotated by 135°"),
    ],
)
def test_the_second_row_is_named_after_the_element(group, element, words):
    truth = torch.ones(9, 9, dtype=torch.int64)
    figure = demo_figure(truth[None].float(), truth, {"one": (truth, truth)}, group=group, element=element)
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()][1] == words


def test_all_text_lies_inside_of_the_file(scene):
    figure = draw(scene, ["C4 U-Net", "baseline", "baseline, not augmented at all"])
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def test_every_label_is_visible(scene, tmp_path):
    """Nothing drawn later covers the label of the third row: ink lies to the left of its first panel."""
    path = save_figure(draw(scene, ["first", "second"]), tmp_path / "x.png")
    pixels = np.asarray(Image.open(path).convert("L"))
    left, top = 72 + 2 * 408, 72 + 2 * 408
    assert pixels[top : top + 384, left - 60 : left - 1].min() < 64


def test_a_second_class_has_its_own_colour(scene):
    image, truth, labels, turned = scene
    labels[5, 6] = 2
    turned = labels.rot90(1, (-2, -1))
    figure = draw((image, truth, labels, turned))
    assert colour_map(panels(figure)[2])[5, 6] == "WRONG_CLASS"
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert "wrong class" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_picture_of_any_channels_and_units(channels, generator):
    image = 1000 * torch.rand(channels, 30, 40, generator=generator) - 300
    pixels = picture(image)
    assert pixels.shape == (30, 40, 3)
    assert (pixels.min(), pixels.max()) == (0.0, 1.0)
    assert (pixels[..., 0] == pixels[..., 1]).all() == (channels != 3)
    shown = image if channels == 3 else image.mean(dim=0)[None]
    order = np.corrcoef(shown[0].flatten().numpy(), pixels[..., 0].flatten())[0, 1]
    assert order > 0.99


def test_an_image_that_is_the_same_everywhere_can_be_shown():
    assert np.isfinite(picture(torch.ones(1, 5, 5))).all()


@pytest.mark.parametrize(("networks", "width"), [(1, 1296), (3, 2112)])
def test_the_file_has_the_size_it_was_made_for(networks, width, scene, tmp_path):
    path = save_figure(draw(scene, [f"network {number}" for number in range(networks)]), tmp_path / "new" / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    with Image.open(path) as file:
        assert file.size == (width, 1336)
        assert len(file.convert("RGB").getcolors(maxcolors=1 << 24)) > 20


def test_a_pixel_of_the_sample_is_three_by_three_of_the_file(tmp_path):
    """So nothing is interpolated: the panels consist of blocks of one colour."""
    truth = torch.zeros(128, 128, dtype=torch.int64)
    truth[64, 64] = 1
    path = save_figure(
        demo_figure(torch.rand(1, 128, 128), truth, {"x": (truth, truth)}, group="C4", element=0), tmp_path / "x.png"
    )
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float) / 255
    hits = np.argwhere(np.isclose(pixels, to_rgb(CORRECT), atol=1 / 255).all(axis=-1))
    truth_panel = hits[(hits[:, 0] < 460) & (hits[:, 1] < 870)]
    assert (truth_panel.max(axis=0) - truth_panel.min(axis=0) + 1).tolist() == [3, 3]
    assert len(truth_panel) == 9


def test_nothing_global_is_changed(scene, tmp_path):
    before = dict(mpl.rcParams)
    save_figure(draw(scene), tmp_path / "x.png")
    assert dict(mpl.rcParams) == before


def test_pyplot_is_not_loaded():
    """Pyplot would choose a backend for the whole program and keep every figure alive."""
    program = (
        "import sys; from gconv_ga.plots import *; print(*('matplotlib' + x in sys.modules for x in ('.pyplot', '')))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


def test_no_prediction_is_refused(scene):
    with pytest.raises(ValueError, match=r"^predictions must be at least one network's two label maps"):
        draw(scene, ())


def test_a_map_of_another_shape_is_refused(scene):
    image, truth, labels, _ = scene
    with pytest.raises(
        ValueError, match=r"^predictions\['one'\] must be a tensor \[H, W\] = \(16, 12\), but got \(12, 16\)"
    ):
        draw((image, truth, labels, labels))


def test_what_is_no_element_is_refused(scene):
    with pytest.raises(ValueError, match=r"element"):
        draw(scene, element=4)
