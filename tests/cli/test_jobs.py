"""Commands as jobs: signals, a second one in the folder, a log in place of a terminal, which checkpoint is taken."""

import fcntl
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning
from forked import Forked

from gconv_ga._files import alone_in
from gconv_ga.cli import _progress
from gconv_ga.segmenter import load_checkpoint, save_checkpoint

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


def test_a_job_that_is_asked_to_end_saves_and_refuses_others_until_then(invoke, data, tmp_path):
    run = tmp_path / "run"
    with Forked(tmp_path, "train", *data, "--out", run, "--steps", 100_000, "--every", 10, *TINY) as process:
        process.wait_for(run / "state.safetensors")
        result = invoke("train", "--out", run, "--resume", code=2)
        assert "'--out': another training is at work in" in result.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    step = load_checkpoint(run / "model.safetensors").step
    assert f"stopped by SIGTERM; {run}/model.safetensors is of step {step}; --resume goes on" in process.errors
    assert len((run / "log.csv").read_text().splitlines()) == step + 1
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_a_new_training_in_a_folder_at_work_is_refused(invoke, data, tmp_path, monkeypatch):
    """The other training began after this one had looked for it."""

    def busy(folder):
        raise BlockingIOError(11, "another program is at work in this folder", str(folder))

    monkeypatch.setattr("gconv_ga.cli._options.alone_in", busy)
    result = invoke("train", *data, "--out", tmp_path / "run", "--steps", 1, *TINY, code=2)
    assert "'--out': another training is at work" in result.stderr
    monkeypatch.setattr("gconv_ga.cli._options.alone_in", begun_meanwhile)
    result = invoke("train", *data, "--out", tmp_path / "run", "--steps", 1, *TINY, code=2)
    assert "holds a run that has begun meanwhile" in result.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_two_evaluations_in_a_folder_do_not_mix_their_scores(invoke, trained, data, tmp_path):
    """The other one, with other settings, is at work: its lock is held by an open file of this program."""
    typed = ["evaluate", "--run", trained, *data, "--out", tmp_path / "out", "--device", "cpu"]
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = invoke(*typed, code=2)
        assert f"'--out': another evaluation is at work in {tmp_path / 'out'}; wait until it has" in result.stderr
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    invoke(*typed)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def begun_meanwhile(folder):
    (folder / "run.json").touch()
    return alone_in(folder)


def test_a_training_that_diverges_ends_with_exit_code_1(invoke, data, tmp_path):
    typed = ["train", *data, "--out", tmp_path / "run", "--steps", 4, *TINY, "--learning-rate", 1e35]
    result = invoke(*typed, code=1)
    assert "the training has diverged: " in result.stderr
    assert "nothing is saved" in result.stderr
    assert "lower --learning-rate" in result.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(("ended", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_stop_says_how_to_go_on(ended, code, invoke, data, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise ended

    monkeypatch.setattr(pytorch_lightning.Trainer, "fit", interrupted)
    result = invoke("train", *data, "--out", tmp_path / "run", *TINY, code=code)
    assert "--resume goes on from there" in result.stderr


def test_the_best_checkpoint_of_a_run_is_taken_and_named(invoke, trained, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    model, config, _ = load_checkpoint(run / "best.safetensors")
    save_checkpoint(run / "best.safetensors", model, config, step=123)
    typed = ["--images", Path(data[1]) / "00.png", "--out"]
    result = invoke("predict", "--run", run, *typed, tmp_path / "best")
    assert f"{run}/best.safetensors (best validation score, step 123)" in result.stderr
    (run / "best.safetensors").unlink()
    result = invoke("predict", "--run", run, *typed, tmp_path / "last")
    assert f"{run}/model.safetensors (last, step 4)" in result.stderr


def test_a_log_has_lines_of_progress(invoke, trained, data, tmp_path, monkeypatch):
    typed = ["predict", "--run", trained, "--images", data[1], "--out"]
    assert "images" not in invoke(*typed, tmp_path / "quick").stderr
    monkeypatch.setattr(_progress, "EVERY", 0)
    lines = invoke(*typed, tmp_path / "slow").stderr.splitlines()
    assert any(line.startswith("images 2 of 4, ") for line in lines)
    lines = invoke("train", *data, "--out", tmp_path / "run", "--steps", 2, *TINY).stderr.splitlines()
    assert any(line.startswith("training 1 of 2, loss ") for line in lines)


def test_images_without_finite_predictions_are_listed_and_the_others_done(invoke, trained, tmp_path):
    (tmp_path / "images").mkdir()
    clean = np.random.default_rng(0).random((20, 24), dtype=np.float32)
    for name, value in (("clean", 0.5), ("nan", np.nan), ("[red]inf", np.inf)):
        image = clean.copy()
        image[10, 10] = value
        np.save(tmp_path / "images" / f"{name}.npy", image)
    typed = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--probabilities"]
    result = invoke("predict", "--run", trained, *typed, "--other-numbers", "keep", code=1)
    assert all(f"{name}.npy" in result.stderr for name in ("nan", "[red]inf"))
    assert f"2 of 3 images cannot be predicted; the others are done, in {tmp_path / 'out'}" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "clean.npy",
        "clean.png",
        "predict.json",
        "predict.jsonl",
    ]


def test_half_written_predictions_of_a_killed_command_are_removed(invoke, trained, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".00.png.7-0.gconv_ga-part").write_bytes(b"half")
    invoke("predict", "--run", trained, "--images", Path(data[1]) / "00.png", "--out", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00.png", "predict.json", "predict.jsonl"]


@pytest.mark.parametrize(
    ("first", "steps", "each", "said"),
    [
        (1, 1000, 3.0, "about 50 minutes for 994 steps of 3.00 s, without validations"),
        (501, 1000, 60.0, "about 8 hours for 494 steps of 60.00 s, without validations"),
        (1, 100, 0.25, "about 24 seconds for 94 steps of 0.25 s, without validations"),
        (1, 11, 3.0, None),
    ],
)
def test_the_time_is_said_after_a_few_steps(first, steps, each, said, invoke, data, tmp_path, monkeypatch):
    """The first step, which takes 100 s here, is not counted."""
    now = [0.0]

    def steps_of(folder, config, pairs, *, report, **options):
        for step in range(first, first + 9):
            now[0] += 100.0 if step == first else each
            report(step, 0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr("gconv_ga.train.train_run", steps_of)
    monkeypatch.setattr("gconv_ga.cli._train_command.time", SimpleNamespace(monotonic=lambda: now[0]))
    result = invoke("train", *data, "--out", tmp_path / "run", "--steps", steps, *TINY, code=130)
    assert [line for line in result.stderr.splitlines() if "about" in line] == ([f"gconv-ga: {said}"] if said else [])
