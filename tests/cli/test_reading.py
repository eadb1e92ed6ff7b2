"""Files as they come: what the options of reading do, from training to prediction."""

import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


def test_a_page_of_a_stack_in_chosen_channels_and_masks_of_two_values(invoke, folders, tmp_path):
    """The other page and the other channel are noise, one channel is constant, and masks are 0 and 255."""
    images, masks = Path(folders[1]), Path(folders[3])
    numbers = np.random.default_rng(0)
    for path in list(images.iterdir()):
        grey = np.asarray(Image.open(path))
        noise = numbers.integers(0, 256, grey.shape, dtype=np.uint8)
        stack = np.stack([np.stack([noise, noise, noise]), np.stack([noise, grey, np.full_like(grey, 9)])])
        tifffile.imwrite(path.with_suffix(".tif"), stack, ome=True, metadata={"axes": "ZCYX"})
        path.unlink()
        mask = masks / path.name
        Image.fromarray(np.asarray(Image.open(mask)) * np.uint8(255)).save(mask)
    run = tmp_path / "run"
    refused = invoke("train", *folders, "--out", run, *TINY, code=2)
    assert "(--page)" in refused.stderr
    choices = ("--page", "1", "--channels", "1-2")
    said = invoke("train", *folders, "--out", run, "--steps", "2", *choices, *TINY).stderr
    assert "the masks hold 0 and 255, read as classes 0 and 1" in said
    assert "constant channels, which become 0: 1" in said
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["mask_encoding"]["values"] == [0, 255]
    reading = recorded["segmenter"]["reading"]
    assert (reading["page"], reading["channels"], reading["numbers"]) == (1, [1, 2], "uint8")
    # Without options, the choices are those of the training; the page that is all noise gives another answer.
    invoke("predict", "--run", run, "--images", images, "--out", tmp_path / "out")
    invoke("predict", "--run", run, "--images", images, "--out", tmp_path / "other", "--page", "0", "--probabilities")
    invoke("evaluate", "--run", run, *folders, "--out", tmp_path / "report")
    for mask in masks.iterdir():  # the same classes, as 0 and 1
        Image.fromarray(np.asarray(Image.open(mask)) // np.uint8(255)).save(mask)
    invoke("evaluate", "--run", run, *folders, "--out", tmp_path / "again")
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("report", "again")]
    assert reports[0]["dice_by_angle"] == reports[1]["dice_by_angle"]


def test_another_number_type_is_refused_or_scaled(invoke, trained, data, tmp_path):
    """16 bits of the same picture: the same prediction once scaled."""
    path = next(Path(data[1]).iterdir())
    grey = np.asarray(Image.open(path))
    (tmp_path / "wide").mkdir()
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "wide" / path.name)
    wide = ("predict", "--run", trained, "--images", tmp_path / "wide", "--out", tmp_path / "out", "--probabilities")
    assert "1/257" in invoke(*wide, code=1).stderr
    invoke("predict", "--run", trained, "--images", path, "--out", tmp_path / "expected", "--probabilities")
    invoke(*wide[:6], tmp_path / "scaled", "--probabilities", "--other-numbers", "scale")
    expected, found = (np.load(tmp_path / name / f"{path.stem}.npy") for name in ("expected", "scaled"))
    assert np.allclose(expected, found, atol=1e-5)


def test_an_image_that_is_too_large_is_refused(invoke, trained, data, tmp_path):
    path = next(Path(data[1]).iterdir())
    call = ("predict", "--run", trained, "--images", path, "--out", tmp_path / "out")
    table = invoke(*call, "--max-pixels", "16383", code=1).stderr
    assert "128 x 128 pixels" in " ".join(table.replace("│", " ").split())  # where lines break depends on the path
    invoke(*call, "--max-pixels", "16384")


def test_channels_are_a_list(invoke, trained, data, tmp_path):
    for wrong in ("a", "0-", "0,,1", "-1", "1" * 9):
        said = invoke("predict", "--run", trained, "--images", data[1], "--out", tmp_path, "--channels", wrong, code=2)
        assert "is not a list such as 0,1,2 or 0-2" in said.stderr
