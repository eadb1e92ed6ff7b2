"""``gconv-ga train --instances``: a network for objects, whose rules predict and evaluate use; exact end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from gconv_ga.images import read_mask
from gconv_ga.objects import Decoder, changed_objects, decode
from gconv_ga.segmenter import load_checkpoint, save_checkpoint

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def instances(data, tmp_path_factory):
    """The numbers of the objects in the masks."""
    folder = tmp_path_factory.mktemp("instances")
    for file in sorted(Path(data[3]).iterdir()):
        Image.fromarray(decode(read_mask(file)).labels.numpy().astype(np.uint16)).save(folder / file.name)
    return folder


@pytest.fixture(scope="module")
def run(data, instances, tmp_path_factory):
    """A run of four steps."""
    from typer.testing import CliRunner

    from gconv_ga.cli._app import app

    folder = tmp_path_factory.mktemp("objects") / "run"
    typed = ["train", *data[:2], "--instances", str(instances), "--out", str(folder), "--steps", "4", "--group", "C4"]
    result = CliRunner().invoke(app, [*typed, *TINY])
    assert result.exit_code == 0, result.output
    return folder


def test_the_run_has_heads_and_rules(run, instances):
    model, config, step = load_checkpoint(run / "model.safetensors")
    assert (config.architecture, step, config.classes) == ("ObjectUNet", 4, ("background", "class 1"))
    assert isinstance(config.decoder, Decoder)
    assert model.maps(torch.zeros(1, 1, 16, 16)).shape == (1, 5, 16, 16)
    settings = json.loads((run / "run.json").read_text())
    assert settings["mask_encoding"]["instances"] is True
    assert json.loads((run / "sources.json").read_text())["instances"] == str(instances)


def test_faults_of_objects_are_not_those_of_masks(data, instances, invoke, tmp_path):
    typed = ["train", *data[:2], "--out", tmp_path / "run", "--instances"]
    for file in sorted(instances.iterdir())[1:]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = invoke(*typed, tmp_path, code=2)
    assert "'--images and --instances': 1 problem in the files; nothing was written" in result.stderr


def test_it_is_resumed_and_extended(run, invoke):
    before = load_checkpoint(run / "model.safetensors").config
    invoke("train", "--out", run, "--resume")
    assert load_checkpoint(run / "model.safetensors").config == before
    invoke("train", "--out", run, "--resume", "--steps", 5)
    assert load_checkpoint(run / "model.safetensors").step == 5


@pytest.mark.parametrize("method", ["distance", "flow"])
def test_objects_of_all_heads_rotate_with_the_image(method, run, data, instances, invoke, tmp_path):
    """With biases that let this hardly trained network find something."""
    model, config, _ = load_checkpoint(run / "model.safetensors")
    with torch.no_grad():
        model.segmentation_head.bias[1] += 1
        model.distance_head.bias += 1
        model.flow_head.weight *= 5
    checkpoint = save_checkpoint(
        tmp_path / "net.safetensors", model, type(config)(**{**vars(config), "decoder": Decoder(method, smallest=3)})
    )
    (tmp_path / "images").mkdir()
    with Image.open(Path(data[1]) / "00.png") as file:
        pixels = np.asarray(file)[:70, :90]
    for quarters in (0, 1):
        Image.fromarray(np.rot90(pixels, quarters).copy()).save(tmp_path / f"images/{quarters}.png")
    typed = ["--run", checkpoint, "--images", tmp_path / "images", "--out", tmp_path / "out", "--tile", 48]
    invoke("predict", *typed, "--objects", "--device", "cpu")
    assert json.loads((tmp_path / "out/predict.json").read_text())["objects"]["decoder"]["method"] == method
    upright, rotated = (torch.from_numpy(tifffile.imread(tmp_path / f"out/{name}_objects.tif")).long() for name in "01")
    assert upright.max() > 0
    assert changed_objects(upright, rotated, "C4", 1) == (0, 0, 0)


def test_evaluate_uses_the_rules(run, data, instances, invoke, tmp_path):
    typed = ["evaluate", "--run", run, *data[:2], "--instances", instances, "--out", tmp_path / "out"]
    invoke(*typed, "--device", "cpu")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["objects"]["true"] > 10
    assert report["objects"]["changed_pixels"] == 0


@pytest.mark.parametrize(
    ("more", "option"),
    [
        (["--masks", "."], "--instances"), (["--arch", "smp:Unet:resnet18"], "--arch"),
        (["--classes", "3"], "--classes"),
        (["--instances", "nowhere"], "--instances"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(more, option, data, instances, invoke, tmp_path):
    typed = ["train", *data[:2], "--instances", instances, "--out", tmp_path / "run", "--steps", 2]
    assert f"'{option}'" in invoke(*typed, *more, code=2).stderr
    assert not (tmp_path / "run").exists()
