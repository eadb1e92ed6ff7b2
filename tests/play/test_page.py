"""The page as Python writes it: its size, what it needs, and the networks that it refuses."""

import json
import re

import pytest
from torch import nn

from gconv_ga.images import Normalization, Reading
from gconv_ga.play import NETWORKS, play_page
from gconv_ga.segmenter import Checkpoint, SegmenterConfig, load_checkpoint


def checkpoint(architecture="EquivariantUNet", *, channels=1, names=("background", "nucleus"), reading=None, **more):
    arguments = {"in_channels": channels, "classes": len(names), "width": 1, "depth": 2, **more}
    normalization = Normalization([0.5] * channels, [0.25] * channels)
    config = SegmenterConfig(architecture, arguments, names, normalization, reading or Reading())
    return Checkpoint(config.build(seed=0).eval(), config, 0)


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_page_is_one_file_of_at_most_two_megabytes():
    page = play_page()
    assert len(page.encode()) <= 2_000_000
    # No other file and no host: nothing is loaded, imported or sent.
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"|url\(|import |fetch\(|XMLHttpRequest|https?://', page) == []
    data = data_of(page)
    assert [len(each["taps"]) for each in data["networks"]] == [1, 2, 3, 4]
    assert len(data["images"]) == 3


def test_networks_of_the_package_are_small():
    files = list(NETWORKS.iterdir())
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) < 400_000


def test_baseline_is_compute_matched():
    full, baseline = (load_checkpoint(NETWORKS / f"{name}.safetensors").model for name in ("c4-taps-4", "baseline"))
    assert baseline.width == full.baseline().width


def test_networks_of_ones_own_are_shown():
    data = data_of(play_page(checkpoint(group="D4")))
    assert [each["title"] for each in data["networks"]] == ["your D4 U-Net"]
    assert data["baseline"]["title"] == "baseline of the package"
    rgb = {"channels": 3, "names": ("a", "</script>")}  # a name is no end of the data
    other = data_of(play_page(checkpoint(**rgb), checkpoint("UNet", **rgb)))
    assert other["baseline"]["title"] == "your baseline"
    assert len(other["images"]) == 2, "histology"
    alone = data_of(play_page(checkpoint(channels=2)))
    assert alone["baseline"] is None
    assert alone["images"] == []
    plain = data_of(play_page(checkpoint("UNet")))
    assert plain["networks"][0]["weights"] == plain["baseline"]["weights"]


def test_images_of_a_browser_are_scaled_to_the_number_type_of_the_training():
    """Without a percentile, 16-bit training images are 257 times as bright as those that a browser reads."""
    page = play_page(checkpoint(reading=Reading(numbers="uint16")))
    normalization = data_of(page)["networks"][0]["normalization"]
    assert normalization["mean"] == pytest.approx([0.5 / 257])
    assert normalization["std"] == pytest.approx([0.25 / 257])
    with pytest.raises(ValueError, match="run must be trained on images"):
        play_page(checkpoint(reading=Reading(numbers="int16")))


@pytest.mark.parametrize(
    ("run", "baseline", "message"),
    [
        ({"architecture": "UNet", "depth": 9}, None, "run must be a network of at most 8 levels"),
        ({"architecture": "ObjectUNet", "group": None}, None, "run must be a network of --arch unet"),
        (None, {"architecture": "UNet"}, "baseline must be None unless run is an EquivariantUNet"),
        ({"architecture": "UNet"}, {"architecture": "UNet"}, "baseline must be None unless run is an EquivariantUNet"),
        ({}, {"architecture": "UNet", "channels": 3}, "baseline must be a network for 1 channels"),
        ({}, {"architecture": "UNet", "names": ("a", "b")}, "baseline must be a network for 1 channels"),
    ],
    ids=["depth", "objects without a group", "no run", "plain run", "channels", "classes"],
)
def test_networks_that_do_not_fit_are_refused(run, baseline, message):
    networks = [None if each is None else checkpoint(**each) for each in (run, baseline)]
    with pytest.raises(ValueError, match=message):
        play_page(*networks)


def test_other_architectures_are_refused():
    config = SegmenterConfig("UNet", {"in_channels": 1, "classes": 2}, ("a", "b"), Normalization([0.0], [1.0]))
    with pytest.raises(ValueError, match="run must be a network of --arch unet"):
        play_page(Checkpoint(nn.Conv2d(1, 2, 1), config, 0))
