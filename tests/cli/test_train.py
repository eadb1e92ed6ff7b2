"""``gconv-ga train``: what it writes, what it refuses, and that an interrupted run ends as if it had not been."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from PIL import Image

from gconv_ga.cli import main
from gconv_ga.images import Normalization, read_image
from gconv_ga.segmenter import load_checkpoint
from gconv_ga.train import read_run

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same_run(run, other):
    ours, theirs = (load_checkpoint(folder / "model.safetensors") for folder in (run, other))
    assert ours.step == theirs.step
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(tensor, theirs.model.state_dict()[name]), name
    assert (run / "log.csv").read_text() == (other / "log.csv").read_text()


def test_a_run_holds_what_was_said(trained, data):
    checkpoints = ["best.safetensors", "model.safetensors", "state.safetensors"]
    assert names(trained) == sorted(["config.json", "curves.png", "log.csv", "run.json", "sources.json", *checkpoints])
    model, config, step = load_checkpoint(trained / "model.safetensors")
    assert step == 4
    assert (model.group.name, model.width, model.depth) == ("C8", 1, 2)
    run = read_run(trained)
    assert run.segmenter == config
    assert (run.steps, run.batch_size, run.crop, run.seed) == (4, 2, 32, 0)
    assert sorted(run.split.values()) == ["train", "train", "train", "val"]
    rows = (trained / "log.csv").read_text().splitlines()
    assert rows[0] == "step,loss,dice,average_precision"
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    with Image.open(trained / "curves.png") as file:
        assert file.format == "PNG"


def test_the_pooling_is_that_of_the_run(invoke, data, tmp_path):
    invoke("train", *data, "--out", tmp_path, "--steps", 1, *TINY, "--pooling", "max_blur")
    model, config, _ = load_checkpoint(tmp_path / "model.safetensors")
    assert model.pooling == config.arguments["pooling"] == "max_blur"
    assert type(model.encoder.down).__name__ == "MaxBlurPool2d"


def test_the_normalisation_is_measured_on_the_training_images(trained, data):
    run = read_run(trained)
    images = [read_image(Path(data[1]) / f"{name}.png") for name in run.names("train")]
    pixels = torch.cat([image.flatten() for image in images]).double()
    expected = Normalization([pixels.mean().item()], [pixels.std(correction=0).item()])
    assert run.segmenter.normalization.mean == pytest.approx(expected.mean, rel=1e-9)
    assert run.segmenter.normalization.std == pytest.approx(expected.std, rel=1e-9)


def test_a_split_file_decides(invoke, data, tmp_path):
    (tmp_path / "split.csv").write_text("file,split\n00.png,val\n01.png,test\n02.png,train\n03.png,train\n")
    invoke("train", *data, "--out", tmp_path / "run", "--steps", 1, "--split", tmp_path / "split.csv", *TINY)
    run = read_run(tmp_path / "run")
    assert (run.names("train"), run.names("val"), run.names("test")) == (["02", "03"], ["00"], ["01"])


def test_sixteen_bits_colours_and_more_classes(invoke, tmp_path):
    numbers = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in "ab":
        Image.fromarray(numbers.integers(0, 60000, (40, 33), dtype=np.uint16)).save(tmp_path / f"images/{name}.tif")
        Image.fromarray(numbers.integers(0, 3, (40, 33), dtype=np.uint8)).save(tmp_path / f"masks/{name}.png")
    folders = ["--images", tmp_path / "images", "--masks", tmp_path / "masks"]
    invoke("train", *folders, "--out", tmp_path / "run", "--steps", 1, "--group", "D4", *TINY)
    config = load_checkpoint(tmp_path / "run/model.safetensors").config
    assert config.classes == ("background", "class 1", "class 2")
    assert 25_000 < config.normalization.mean[0] < 35_000


WRONG = {
    "--images": [["--images", "{tmp}/nowhere"], ["--images", "{tmp}/empty"]],
    "--masks": [["--masks", "{tmp}/nowhere"]],
    "--group": [["--group", "E4"], ["--group", "C0"]],
    "--classes": [["--classes", "1"]],
    "--steps": [["--steps", "0"]],
    "--width": [["--width", "0"]],
    "--depth": [["--depth", "0"], ["--depth", "7"]],
    "--pooling": [["--pooling", "mean"]],
    "--crop": [["--crop", "0"]],
    "--batch-size": [["--batch-size", "0"]],
    "--learning-rate": [["--learning-rate", "0"], ["--learning-rate", "nan"]],
    "--percentile": [["--percentile", "101"]],
    "--black": [["--black", "1"], ["--percentile", "99", "--black", "99"]],
    "--split": [["--split", "{tmp}/nowhere.csv"]],
    "--device": [["--device", "abacus"]],
    "--out": [["--out", "{tmp}/file"], ["--resume"]],
}


@pytest.mark.parametrize(("option", "typed"), [(option, case) for option, cases in WRONG.items() for case in cases])
def test_a_wrong_option_is_named_in_one_line(option, typed, data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    typed = [part.format(tmp=tmp_path) for part in typed]
    with pytest.raises(SystemExit) as ended:
        main(["train", *data, "--out", str(tmp_path / "run"), "--steps", "1", *TINY, *typed])
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("gconv-ga: ")
    assert option in line
    assert names(tmp_path) == ["empty", "file"]


def test_what_is_wrong_with_files_is_one_table_and_nothing_is_written(invoke, folders, tmp_path):
    images, masks = Path(folders[1]), Path(folders[3])
    (masks / "00.png").unlink()
    (images / "01.png").write_bytes((images / "01.png").read_bytes()[:500])
    Image.fromarray(np.full((128, 128), 9, dtype=np.uint8)).save(masks / "02.png")
    result = invoke("train", *folders, "--out", tmp_path / "run", "--classes", 2, *TINY, code=2)
    for line in ("00.png", "no mask of this name", "01.png", "02.png", "mask values 9 .. 9, where 0 .. 1 are expected"):
        assert line in result.stderr
    assert result.stderr.strip().endswith("3 problems in the files; nothing was written")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(invoke, trained, data):
    before = (trained / "model.safetensors").read_bytes()
    result = invoke("train", *data, "--out", trained, code=2)
    assert "--out" in result.stderr
    assert "--resume resumes it" in result.stderr
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--width", "2"], "the run has 1"),
        (["--learning-rate", "0.5"], "the run has 0.01"),
        (["--seed", "1"], "has 0"),
        (["--pooling", "max_blur"], "the run has max"),
    ],
)
def test_other_settings_beside_resume_are_refused(typed, said, invoke, trained, data):
    result = invoke("train", *data, "--out", trained, "--resume", *typed, code=2)
    assert typed[0] in result.stderr
    assert said in result.stderr


def test_files_of_the_run_that_are_gone_are_refused(invoke, trained, folders):
    for folder in (folders[1], folders[3]):
        (Path(folder) / "02.png").unlink()
    result = invoke("train", *folders, "--out", trained, "--resume", code=2)
    assert "02 and its mask belong to the run" in result.stderr


def test_a_finished_run_goes_on_to_nothing(invoke, trained, data, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    invoke("train", *data, "--out", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "run", trained)


class PowerCutError(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_run_cut_after_any_step_ends_the_same(step, invoke, trained, data, tmp_path, monkeypatch):
    """Four steps, a state after each; the log may be a row ahead, and its last row may be half written."""
    rename, states = Path.replace, []

    def cut(path, target):
        rename(path, target)
        states.extend([target] if target.name == "state.safetensors" else [])
        if len(states) == step:
            with (target.parent / "log.csv").open("a") as file:
                file.write(f"{step + 1},0.123,\n{step + 2},0.")
            raise PowerCutError

    monkeypatch.setattr(Path, "replace", cut)
    command = ["train", *data, "--out", str(tmp_path / "run"), "--steps", "4", *TINY]
    with pytest.raises(PowerCutError):
        main(command)
    monkeypatch.undo()
    invoke(*command, "--resume")
    assert_same_run(tmp_path / "run", trained)


def test_a_killed_run_ends_the_same(invoke, data, tmp_path):
    typed = ["train", *data, "--steps", "40", *TINY]
    with Forked(tmp_path, *typed, "--out", tmp_path / "killed") as process:
        process.wait_for(tmp_path / "killed" / "state.safetensors")
    assert not (tmp_path / "killed" / "curves.png").exists(), "it was done before it could be killed"
    invoke(*typed, "--out", tmp_path / "killed", "--resume")
    invoke(*typed, "--out", tmp_path / "whole")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_state_that_is_a_pickle_is_refused_and_nothing_in_it_runs(invoke, data, tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    typed = ["train", *data, "--out", tmp_path / "run", "--steps", 1, *TINY]
    invoke(*typed)
    torch.save({"state": Malicious()}, tmp_path / "run" / "state.safetensors")
    result = invoke(*typed, "--resume", code=2)
    assert "--out" in result.stderr
    assert not (tmp_path / "pwned").exists()


def test_a_damaged_configuration_is_refused(invoke, data, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"steps": 3}))
    result = invoke("train", *data, "--out", tmp_path, "--resume", code=2)
    assert "'--out': text must be a configuration of a run" in result.stderr


def test_help_shows_an_example(invoke):
    shown = invoke("train", "--help").output
    assert "Example: gconv-ga train --images" in shown
    assert "Exit codes: 0 done" in shown
