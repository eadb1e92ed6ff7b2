"""Runs as Python calls: configuration, refusals, validation, and predictions of one image."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gconv_ga.images
from gconv_ga.evaluate import dice
from gconv_ga.images import MaskEncoding, PairFiles, find_images, match_masks, read_mask
from gconv_ga.predict import Tiled, predict_image, predict_labels
from gconv_ga.segmenter import load_checkpoint
from gconv_ga.train import RunConfig, read_run, train_run
from gconv_ga.train._run import RunCallback
from gconv_ga.train._state import CsvLog, LogRow, read_log, read_state

SAMPLE = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"


@pytest.fixture
def pairs():
    return match_masks(find_images(SAMPLE / "images")[:3], SAMPLE / "masks")[0]


@pytest.fixture
def run(config):
    return RunConfig(config, {"00": "train", "01": "val", "02": "test"}, steps=2, batch_size=2, crop=32)


def test_a_configuration_goes_to_json_and_back(run):
    assert RunConfig.from_json(run.to_json()) == run
    assert (run.names("train"), run.names("val"), run.names("test")) == (["00"], ["01"], ["02"])


def test_how_masks_say_their_classes_goes_to_json_and_back(run):
    code = MaskEncoding({"none": (0, 0, 0), "cell": (9, 8, 7), "ignore": (1, 1, 1)}, ignore_index=-1)
    coded = dataclasses.replace(run, mask_encoding=code)
    assert RunConfig.from_json(coded.to_json()) == coded
    older = json.loads(coded.to_json())
    older["mask_code"] = older.pop("mask_encoding")
    assert RunConfig.from_json(json.dumps(older)) == coded
    older["augmentation"] = older.pop("symmetry")
    assert RunConfig.from_json(json.dumps({**older, "augmentation": "C4"})).symmetry == "C4"
    del older["mask_code"]
    assert RunConfig.from_json(json.dumps(older)) == run


def test_what_lies_under_ignored_pixels_changes_no_weight(run, tmp_path):
    """Half of each mask is ignored; what the image's pixels there are called in the other classes has no say."""
    weights, losses = [], []
    for name, value in (("ignored", 255), ("other", 77), ("counted", 1)):
        folder = tmp_path / name
        folder.mkdir()
        pairs = []
        for index in range(2):
            mask = read_mask(SAMPLE / "masks" / f"{index:02}.png")
            mask[:, 64:] = value
            np.save(folder / f"{index:02}.npy", mask.numpy().astype(np.uint8))
            pairs.append(PairFiles(SAMPLE / "images" / f"{index:02}.png", folder / f"{index:02}.npy"))
        code = MaskEncoding(ignore_index=None if name == "counted" else value)
        config = dataclasses.replace(run, split={"00": "train", "01": "val"}, mask_encoding=code)
        weights.append(train_run(folder / "run", config, pairs).state_dict())
        losses.append(read_log(folder / "run" / "log.csv"))
    ours, same, other = weights
    assert losses[0] == losses[1] != losses[2]
    assert all(torch.equal(tensor, same[key]) for key, tensor in ours.items())
    assert not all(torch.equal(tensor, other[key]) for key, tensor in ours.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_encoding": {"colors": {"a": [0, 0, 0]}}}, "colors must be the colours of two classes"),
        ({"steps": 0}, "steps must be a positive int"),
        ({"batch_size": 0}, "batch_size must be a positive int"),
        ({"crop": 0}, "crop must be a positive int"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"every": 0}, "every must be a positive int"),
        ({"precision": "8"}, "precision must be one of '32', 'bf16-mixed', '16-mixed'"),
        ({"patience": 2, "split": {"a": "train"}}, "patience must be None where no image is for validation"),
        ({"seed": -1}, "seed must be an int of at least 0"),
        ({"symmetry": "E4"}, "symmetry must be a group"),
        ({"augment": "heavy"}, "augment must be none, light, strong, or kinds among"),
        ({"augment": "strong, color"}, "augment must be without color for images of 1 channels"),
        ({"split": {"a": "val"}}, "split must be one that has images for training"),
        ({"stepps": 3}, "text must be a configuration of a run as JSON"),
        ({"segmenter": None}, "text must be a configuration of a"),
    ],
)
def test_a_wrong_configuration_is_refused(change, message, run):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_json(json.dumps({**json.loads(run.to_json()), **change}))


def test_the_validation_score_is_the_mean_over_its_images(run, pairs, tmp_path):
    split = {"00": "train", "01": "val", "02": "val"}
    model = train_run(tmp_path, RunConfig(run.segmenter, split, steps=2, batch_size=2, crop=32, every=2), pairs)
    scores = []
    dataset = gconv_ga.images.PairDataset(pairs[1:], run.segmenter.normalization)
    for index in range(2):
        image, mask = dataset[index]
        scores.append(dice(predict_labels(model, image[None]), mask[None], classes=2))
    assert [row.dice for row in read_log(tmp_path / "log.csv")] == [None, pytest.approx(sum(scores) / 2, abs=1e-6)]


def test_a_run_without_validation_images_logs_no_score(run, pairs, tmp_path):
    train_run(tmp_path, RunConfig(run.segmenter, {"00": "train"}, steps=1, batch_size=1, crop=32), pairs)
    assert [row.dice for row in read_log(tmp_path / "log.csv")] == [None]


@pytest.mark.parametrize("change", [{"steps": 1}, {"crop": 16}, {"steps": 3, "crop": 16}, {"split": {"00": "train"}}])
def test_another_configuration_in_the_same_folder_is_refused(change, run, pairs, tmp_path):
    (tmp_path / "run.json").write_text(run.to_json())
    with pytest.raises(ValueError, match=r"config must be that of the run in .*, or the same with more steps"):
        train_run(tmp_path, dataclasses.replace(run, **change), pairs)
    assert read_run(tmp_path) == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_missing_file_is_refused(run, pairs, tmp_path):
    with pytest.raises(ValueError, match="pairs must be all files of the split, '01' among them"):
        train_run(tmp_path, run, [pairs[0]])


def test_the_callers_random_numbers_are_left_alone(run, pairs, tmp_path):
    before = torch.get_rng_state()
    train_run(tmp_path, run, pairs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("content", [b"", b"no tensors"])
def test_a_damaged_state_is_refused(content, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="path must be the state of a training"):
        read_state(tmp_path / "state.safetensors")


def test_a_checkpoint_is_no_state_and_a_state_no_checkpoint(run, pairs, tmp_path):
    train_run(tmp_path, run, pairs)
    with pytest.raises(ValueError, match="path must be the state of a training"):
        read_state(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="path must be a checkpoint"):
        load_checkpoint(tmp_path / "state.safetensors")


def test_a_log_loses_what_came_after_the_saved_step(tmp_path):
    rows = [LogRow(1, 0.5, None), LogRow(2, 0.25, 0.125, 0.5), LogRow(3, 0.1, None)]
    log = CsvLog(tmp_path / "log.csv", 0)
    for row in rows:
        log.add(row)
    assert read_log(tmp_path / "log.csv") == rows
    with (tmp_path / "log.csv").open("a") as file:
        file.write("4,0.1")
    CsvLog(tmp_path / "log.csv", 2).add(LogRow(3, 0.7, None))
    assert read_log(tmp_path / "log.csv") == [*rows[:2], LogRow(3, 0.7, None)]


@pytest.fixture
def net(generator):
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3))
    nn.init.normal_(model[0].weight, generator=generator)
    return model


def test_an_image_is_predicted_as_its_tiles_are(net, generator):
    x = torch.randn(1, 70, 45, generator=generator)
    counts = []
    labels, shares = predict_image(net, x, tile=32, probabilities=True, progress=lambda *n: counts.append(n))
    with torch.no_grad():
        logits = Tiled(net.eval(), 32)(x[None])[0]
    assert torch.equal(labels, logits.argmax(dim=0))
    assert labels.dtype == torch.int64
    assert (shares - logits.softmax(dim=0)).abs().max() < 1e-6
    assert counts[-1][0] == counts[-1][1] == len(counts)


def test_the_modes_of_the_model_come_back(net):
    net[1].eval()
    predict_image(net, torch.zeros(1, 8, 8))
    assert (net.training, net[0].training, net[1].training) == (True, True, False)


def test_probabilities_come_only_when_asked_for(net):
    assert predict_image(net, torch.zeros(1, 8, 8)).probabilities is None


def test_an_image_of_other_axes_is_refused(net):
    with pytest.raises(ValueError, match=r"image must be a tensor \[C, H, W\]"):
        predict_image(net, torch.zeros(8, 8))


@pytest.mark.parametrize(
    ("scores", "patience", "kept"),
    [
        ([0.9, 0.1, 0.3, 0.2], None, 3),
        ([0.9, 0.8, 0.1, 0.2], None, 4),
        ([0.1, 0.2, 0.3, 0.3], None, 3),  # of equal ones the first
        ([0.9, 0.1, 0.3, 0.2], 4, 1),  # with patience any of them: training may end there
        ([0.9, 0.1, 0.3], 2, 1),
        ([None, None, None, None], None, None),
    ],
)
def test_the_best_checkpoint_is_one_of_the_second_half(scores, patience, kept, run, pairs, tmp_path, monkeypatch):
    """With a high learning rate the score of a few images is noise."""
    monkeypatch.setattr(RunCallback, "_validate", lambda self, segmenter, step: scores[step - 1])
    train_run(tmp_path, dataclasses.replace(run, steps=4, every=1, patience=patience), pairs)
    assert load_checkpoint(tmp_path / "model.safetensors").step == len(scores)
    best = tmp_path / "best.safetensors"
    assert (load_checkpoint(best).step if best.exists() else None) == kept


def test_an_extended_run_keeps_its_best_checkpoint_until_there_is_a_later_one(run, pairs, tmp_path, monkeypatch):
    scores = [0.9, 0.8, 0.1, 0.2, 0.3, 0.1]
    monkeypatch.setattr(RunCallback, "_validate", lambda self, segmenter, step: scores[step - 1])
    best = []
    for steps in (2, 3, 6):
        train_run(tmp_path, dataclasses.replace(run, steps=steps, every=1), pairs)
        best.append(load_checkpoint(tmp_path / "best.safetensors").step)
    assert best == [2, 2, 5]
