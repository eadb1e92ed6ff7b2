"""The trained networks of the package on the command line: listed, and taken by name in place of a run."""

import shutil

import numpy as np
import pytest
import tifffile

from gconv_ga.cli._options import checkpoint_file, run_encoding
from gconv_ga.images import read_image, write_sample
from gconv_ga.pretrained import NAMES, card_text, find_checkpoint, read_card


def test_they_are_listed(invoke):
    lines = invoke("models").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == list(NAMES)
    assert f"Dice {next(iter(read_card('nuclei')['scores'].values()))['mean']['dice']:.3f}" in lines[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_printed(name, invoke):
    assert invoke("models", name).stdout == card_text(read_card(name))


def test_an_unknown_name_is_refused(invoke):
    assert "'nuclei', 'histology'" in invoke("models", "cells", code=2).stderr


def test_objects_take_one_line(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = write_sample("nuclei", "nuclei") / "test" / "images"  # a folder of that name, without a run
    kept = sorted(images.iterdir())[0]
    for other in set(images.iterdir()) - {kept}:
        other.unlink()
    result = invoke("predict", "--run", "nuclei", "--images", images, "--objects")
    assert "the network nuclei of the package" in result.stderr
    assert "the folder nuclei holds no run" in result.stderr
    assert (tmp_path / "predictions" / f"{kept.stem}_objects.tif").exists()
    rows = (tmp_path / "predictions" / f"{kept.stem}_objects.csv").read_text().splitlines()
    assert len(rows) > 2


def test_images_of_16_bits_have_the_same_objects(invoke, tmp_path):
    image = sorted((write_sample("nuclei", tmp_path / "sample") / "test" / "images").iterdir())[0]
    counts = 200 * read_image(image)[0].numpy().astype(np.uint16) + 1000
    tifffile.imwrite(tmp_path / f"{image.stem}.tif", counts)
    found = []
    for file in (image, tmp_path / f"{image.stem}.tif"):
        invoke("predict", "--run", "nuclei", "--images", file, "--out", tmp_path / file.suffix[1:], "--objects")
        found.append(tifffile.imread(tmp_path / file.suffix[1:] / f"{image.stem}_objects.tif") > 0)
    assert found[0].any()
    assert (found[0] == found[1]).mean() > 0.999


def test_images_of_other_channels_are_refused(invoke, tmp_path):
    images = write_sample("histology", tmp_path / "sample") / "test" / "images"
    result = invoke("predict", "--run", "nuclei", "--images", images, "--out", tmp_path / "out", code=1)
    assert "choose some with channels" in " ".join(result.stderr.split())


def test_a_run_of_that_name_wins(trained, tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "nuclei")
    assert checkpoint_file(tmp_path.__class__("nuclei")).parent.resolve() == tmp_path / "nuclei"
    shutil.copy(trained / "model.safetensors", "histology")
    path = tmp_path.__class__("histology")
    assert checkpoint_file(path) == path
    path.unlink()
    assert checkpoint_file(path) == find_checkpoint("histology")
    assert run_encoding(path) is None


def test_a_path_is_no_name(tmp_path):
    assert checkpoint_file(tmp_path / "nuclei") == tmp_path / "nuclei"


@pytest.mark.parametrize("command", ["check", "export", "play"])
def test_other_commands_take_a_name(command, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        "check": ["--size", "16x24", "--parts", "suspect"],
        "export": ["--out", "nuclei.pt2"],
        "play": ["--out", "play.html"],
    }
    result = invoke(command, "--run", "nuclei", *options[command])
    assert "the network nuclei of the package" in result.stderr
    if command == "play":
        assert (tmp_path / "play.html").stat().st_size < 3_000_000
