"""Folders of images and masks as a user has them, and a run trained on them."""

import functools
import shutil
from pathlib import Path

import pytest
import torch
import typer.testing
from typer.testing import CliRunner

import gconv_ga.images
from gconv_ga.cli._app import app
from gconv_ga.images import Normalization, read_image
from gconv_ga.segmenter import SegmenterConfig, save_checkpoint

# The commands are read from a hundred signatures in each call; they are the same ones every time.
typer.testing._get_command = functools.cache(typer.testing._get_command)

SAMPLE = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"


def copy_sample(folder, count=4):
    """The first images of the sample, with their masks."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for index in range(count):
            shutil.copy(SAMPLE / kind / f"{index:02}.png", folder / kind)
    return ["--images", str(folder / "images"), "--masks", str(folder / "masks")]


@pytest.fixture
def invoke():
    """Runs a command; its result has ``exit_code``, ``stdout``, ``stderr``."""

    def run(*arguments, code=0):
        wide = {"NO_COLOR": "1", "COLUMNS": "150"}
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=wide)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def folders(tmp_path):
    """Options that name two folders of four images, which a test may harm."""
    return copy_sample(tmp_path / "data")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Options that name two folders of four images, not to be touched."""
    return copy_sample(tmp_path_factory.mktemp("data") / "data")


TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """A run of four steps, not to be touched."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = CliRunner().invoke(app, ["train", *data, "--out", str(folder), "--steps", "4", *TINY])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def balanced(tmp_path_factory):
    """Checkpoints of an equivariant and a plain network with random weights, both of which find both classes."""
    folder, image = tmp_path_factory.mktemp("balanced"), read_image(SAMPLE / "images" / "00.png")
    normalization, arguments = Normalization([24.0], [30.0]), {"in_channels": 1, "classes": 2, "width": 2, "depth": 2}
    checkpoints = {}
    for name, more in (("EquivariantUNet", {"group": "C4"}), ("UNet", {})):
        config = SegmenterConfig(name, {**arguments, **more}, ("<b>background</b>", "cell"), normalization)
        model = config.build(seed=0).eval()
        with torch.no_grad():
            background, cell = model(normalization(image)[None])[0]
            model.segmentation_head.bias[1] -= (cell - background).median()
        checkpoints[name] = save_checkpoint(folder / f"{name}.safetensors", model, config)
    return checkpoints
