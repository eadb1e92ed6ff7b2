"""Runs that are extended: more steps than they were begun with, on the cycle of the new length."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import gconv_ga.images
from gconv_ga.images import find_images, match_masks
from gconv_ga.train import RunConfig, Segmenter, read_run, train_run
from gconv_ga.train._state import read_log, read_state

SAMPLE = Path(gconv_ga.images.__file__).parent / "sample" / "nuclei"
PAIRS, _ = match_masks(find_images(SAMPLE / "images")[:2], SAMPLE / "masks")


class PowerCutError(BaseException):
    pass


@pytest.fixture
def run(config):
    return RunConfig(config, {"00": "train", "01": "val"}, steps=4, batch_size=2, crop=16)


def extended(run, steps=8):
    return dataclasses.replace(run, steps=steps)


def rates_while(monkeypatch):
    """Record learning rate and first beta of each step."""
    seen, step = [], torch.optim.AdamW.step

    def watched(optimizer, *arguments, **options):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    return seen


def cycle(steps):
    """Learning rate and first beta of each step of a whole cycle, from torch itself."""
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps, pct_start=0.1)
    rates = []
    for _ in range(steps):
        rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        optimizer.step()
        schedule.step()
    return rates


def test_a_finished_run_is_extended_on_the_cycle_of_the_new_length(run, tmp_path, monkeypatch):
    expected = [pytest.approx(rates, rel=1e-12) for rates in [*cycle(4), *cycle(8)[4:]]]
    seen = rates_while(monkeypatch)
    train_run(tmp_path, run, PAIRS)
    first, moments = read_log(tmp_path / "log.csv"), read_state(tmp_path / "state.safetensors").moments
    reports = []
    train_run(tmp_path, extended(run), PAIRS, report=lambda step, loss: reports.append(step))
    rows = read_log(tmp_path / "log.csv")
    assert [row.step for row in rows] == list(range(1, 9))
    assert rows[:4] == first
    assert reports == [5, 6, 7, 8]
    assert read_run(tmp_path) == extended(run)
    state = read_state(tmp_path / "state.safetensors")
    assert (state.step, state.cycle["total_steps"]) == (8, 8)
    assert moments[0]["step"] == 4
    assert state.moments[0]["step"] == 8, "the optimizer goes on, it does not begin again"
    assert seen == expected


@pytest.mark.parametrize("step", [4, 5, 7])
def test_an_extended_run_that_is_cut_ends_the_same(step, run, tmp_path, monkeypatch):
    """Step 4 is the state of the shorter run: the longer one is cut before it has saved anything but run.json."""
    from gconv_ga.train._state import TrainingState

    train_run(tmp_path / "whole", run, PAIRS)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    model = train_run(tmp_path / "whole", extended(run), PAIRS)
    write = TrainingState.write

    def cut(state, path):
        if state.step > step:
            raise PowerCutError
        write(state, path)

    monkeypatch.setattr(TrainingState, "write", cut)
    with pytest.raises(PowerCutError):
        train_run(tmp_path / "cut", extended(run), PAIRS)
    monkeypatch.undo()
    assert read_state(tmp_path / "cut" / "state.safetensors").step == step
    again = train_run(tmp_path / "cut", extended(run), PAIRS)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    state, other = (read_state(tmp_path / name / "state.safetensors") for name in ("whole", "cut"))
    assert (state.cycle, state.groups) == (other.cycle, other.groups)


def test_an_extended_run_is_not_the_longer_run(run, tmp_path):
    """The input that the comparisons above must tell apart."""
    train_run(tmp_path / "extended", run, PAIRS)
    train_run(tmp_path / "extended", extended(run), PAIRS)
    train_run(tmp_path / "longer", extended(run), PAIRS)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("extended", "longer")]
    assert logs[0] != logs[1]


def test_a_run_that_lost_patience_is_extended_only_as_far_as_its_patience(run, tmp_path):
    patient = dataclasses.replace(run, every=1, patience=1, learning_rate=1e-9)
    train_run(tmp_path, patient, PAIRS)
    assert len(read_log(tmp_path / "log.csv")) == 2
    train_run(tmp_path, extended(patient), PAIRS)
    assert len(read_log(tmp_path / "log.csv")) == 2
    assert read_run(tmp_path).steps == 8


def test_a_segmenter_takes_the_length_of_its_cycle():
    assert Segmenter(nn.Conv2d(1, 2, 1), steps=5).steps == 5
    with pytest.raises(ValueError, match="steps must be a positive int, but got steps=0"):
        Segmenter(nn.Conv2d(1, 2, 1), steps=0)
