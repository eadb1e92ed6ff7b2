"""A training that is stopped by a signal, by another one in its folder, or because it has diverged."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gconv_ga.images
from gconv_ga.images import find_images, match_masks
from gconv_ga.segmenter import load_checkpoint
from gconv_ga.train import CrossEntropyDice, RunConfig, train_run
from gconv_ga.train import _signals as signals_file
from gconv_ga.train._state import read_log, read_state

SAMPLE = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"


@pytest.fixture
def pairs():
    return match_masks(find_images(SAMPLE / "images")[:2], SAMPLE / "masks")[0]


@pytest.fixture
def run(config):
    return RunConfig(config, {"00": "train", "01": "val"}, steps=5, batch_size=1, crop=16, every=5, augment="strong")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", signals_file.SIGNALS)
def test_a_signal_saves_the_step_and_the_run_ends_as_one_that_was_not_stopped(number, run, pairs, tmp_path):
    def send(step, loss):
        if step == 2:
            os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in signals_file.SIGNALS]
    with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt) as ended:
        train_run(tmp_path / "stopped", run, pairs, report=send)
    assert getattr(ended.value, "code", 143) == 143
    assert [signal.getsignal(each) for each in signals_file.SIGNALS] == before
    saved = read_state(tmp_path / "stopped" / "state.safetensors").step
    assert saved == load_checkpoint(tmp_path / "stopped" / "model.safetensors").step == 3
    again, whole = (train_run(tmp_path / name, run, pairs).state_dict() for name in ("stopped", "whole"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    assert read_log(tmp_path / "stopped" / "log.csv") == read_log(tmp_path / "whole" / "log.csv")


def test_a_second_signal_ends_at_once(run, pairs, tmp_path):
    def send(step, loss):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path, run, pairs, report=send)
    assert not (tmp_path / "state.safetensors").exists()


def test_a_signal_to_one_process_stops_all(monkeypatch):
    """Two processes, of which the other one has received SIGTERM."""
    monkeypatch.setattr(signals_file, "process_count", lambda: 2)
    monkeypatch.setattr(signals_file.dist, "all_reduce", lambda tensor, operation: tensor.fill_(signal.SIGTERM))
    signals = signals_file.StopSignals()
    assert signals.reached_any(torch.device("cpu"))
    assert signals.error().code == 143


HOLDS = """
import sys
from pathlib import Path
from gconv_ga._files import alone_in
with alone_in(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_in_the_folder_is_refused(run, pairs, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(ValueError, match=r"^folder must be one in which no other training is at work, but got"):
            train_run(tmp_path, run, pairs)
        assert names(tmp_path) == [".lock"]
        process.stdin.close()
    (tmp_path / ".model.safetensors.1-0.gconv_ga-part").touch()  # left by a training that was killed
    train_run(tmp_path, dataclasses.replace(run, steps=1), pairs)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def diverges_by_loss(self, logits, masks):
    return logits.mean() * float("nan")


def diverges_by_gradient(self, logits, masks):
    return 1 + (0 * logits.sum()).sqrt()  # 1, and its gradient is NaN


@pytest.mark.parametrize(
    ("forward", "learning_rate", "saved", "message"),
    [
        (diverges_by_loss, 1e-2, 1, "the loss of step 2 is nan"),
        (diverges_by_gradient, 1e-2, 1, "after step 2 the weights .* have NaN or infinity"),
        (CrossEntropyDice.forward, 1e35, 0, "at the validation after step 1 its output is not finite"),
    ],
)
def test_a_training_that_diverges_stops_and_keeps_what_was_saved(
    forward, learning_rate, saved, message, run, pairs, tmp_path, monkeypatch
):
    """By the loss, by a gradient at a finite loss, and by weights that are finite but give no finite output."""
    config = dataclasses.replace(run, every=1, learning_rate=learning_rate)
    healthy, calls = CrossEntropyDice.forward, []

    def loss(self, logits, masks):
        calls.append(masks)
        return (healthy if len(calls) <= saved else forward)(self, logits, masks)

    monkeypatch.setattr(CrossEntropyDice, "forward", loss)
    with pytest.raises(FloatingPointError, match=message):
        train_run(tmp_path, config, pairs)
    file = tmp_path / "model.safetensors"
    assert (load_checkpoint(file).step if file.exists() else 0) == saved


def test_a_state_that_has_diverged_is_refused(run, pairs, tmp_path):
    train_run(tmp_path, dataclasses.replace(run, steps=1), pairs)
    state = read_state(tmp_path / "state.safetensors")
    state.moments[0]["exp_avg"].fill_(float("nan"))
    state.write(tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"^path must be the state of a .* It has diverged: moments.0.exp_avg"):
        read_state(tmp_path / "state.safetensors")
