"""Training: it learns, the same seed learns the same, and it leaves nothing behind but weights and checkpoints."""

import logging
import signal
import warnings

import pytest
import torch
from torch import nn

from gconv_ga.images import CropStream
from gconv_ga.segmenter import Machines, load_checkpoint
from gconv_ga.train import ReportSteps, SaveCheckpoints, Segmenter, fit


def stream(sample, length, **options):
    return CropStream(sample.train, length=length, crop=32, **options)


def weights(model):
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_the_loss_falls(sample, config, device):
    losses = []
    callbacks = [ReportSteps(lambda step, loss: losses.append((step, loss)))]
    model = config.build(seed=0)
    fit(Segmenter(model), stream(sample, 160), batch_size=4, machines=Machines(device), callbacks=callbacks)
    assert [step for step, _ in losses] == list(range(1, 41))
    first, last = (sum(loss for _, loss in part) / 8 for part in (losses[:8], losses[-8:]))
    assert last < 0.75 * first
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())


def test_a_segmenter_that_cannot_learn_is_seen(sample, config):
    """The broken input of the test above: a rate so small that nothing is learnt."""
    losses = []
    fit(
        Segmenter(config.build(seed=0), learning_rate=1e-9),
        stream(sample, 160),
        batch_size=4,
        callbacks=[ReportSteps(lambda step, loss: losses.append(loss))],
    )
    assert sum(losses[-8:]) > 0.9 * sum(losses[:8])


def test_the_same_seed_gives_the_same_weights(sample, config):
    def run(model_seed, stream_seed):
        model = config.build(seed=model_seed)
        torch.rand(3)  # what the caller draws in between does not matter
        fit(Segmenter(model), stream(sample, 12, seed=stream_seed), batch_size=4)
        return weights(model)

    first = run(0, 0)
    assert torch.equal(run(0, 0), first)
    assert not torch.equal(run(1, 0), first)
    assert not torch.equal(run(0, 1), first)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9, 10, 11, 20])
def test_any_number_of_steps(steps, sample):
    """The rate never exceeds its maximum, and ends near nothing where there are steps enough to get there."""
    rates = []
    segmenter = Segmenter(nn.Conv2d(1, 2, 1), learning_rate=0.5)
    look = ReportSteps(lambda step, loss: rates.append(segmenter.optimizers().param_groups[0]["lr"]))
    fit(segmenter, stream(sample, 2 * steps), batch_size=2, callbacks=[look])
    assert len(rates) == steps
    assert max(rates) <= 0.5
    assert rates[-1] < (0.05 if steps >= 9 else 0.5)


def test_what_the_model_draws_is_seeded(sample):
    def run(seed):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
        fit(Segmenter(model), stream(sample, 8), batch_size=4, seed=seed)
        return weights(model)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_nothing_global_is_changed(sample, config, capfd):
    before = (torch.get_rng_state(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
    handler, level, filters = signal.getsignal(signal.SIGINT), logging.getLogger().level, list(warnings.filters)
    lightning = logging.getLogger("pytorch_lightning").level
    fit(Segmenter(config.build(seed=0)), stream(sample, 4), batch_size=2)
    after = (torch.get_rng_state(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert signal.getsignal(signal.SIGINT) is handler
    assert (logging.getLogger().level, logging.getLogger("pytorch_lightning").level) == (level, lightning)
    assert list(warnings.filters) == filters
    assert capfd.readouterr() == ("", "")


def test_no_file_is_left(sample, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(Segmenter(config.build(seed=0)), stream(sample, 4), batch_size=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("every", "expected"), [(2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_checkpoints_are_written_on_the_way_and_at_the_end(every, expected, sample, config, tmp_path):
    saver, seen = SaveCheckpoints(tmp_path / "a" / "net.safetensors", config, every=every), []
    look = ReportSteps(lambda step, loss: seen.append(saver.saved))
    model = config.build(seed=0)
    fit(Segmenter(model), stream(sample, 10), batch_size=2, callbacks=[saver, look])
    assert sorted(set(seen) - {0}) == expected
    loaded = load_checkpoint(saver.path)
    assert (loaded.step, loaded.config) == (5, config)
    assert torch.equal(weights(loaded.model), weights(model))


def test_ctrl_c_keeps_the_last_checkpoint_and_the_signal(sample, config, tmp_path):
    """Lightning itself answers Ctrl-C with ``sys.exit(1)`` and leaves the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    saver = SaveCheckpoints(tmp_path / "net.safetensors", config, every=2)

    def interrupt(step, loss):
        if step == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(
            Segmenter(config.build(seed=0)), stream(sample, 40), batch_size=2, callbacks=[saver, ReportSteps(interrupt)]
        )
    assert signal.getsignal(signal.SIGINT) is handler
    assert saver.saved == load_checkpoint(saver.path).step == 4


def test_other_errors_pass_through(sample, config):
    def stop(step, loss):
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        fit(Segmenter(config.build(seed=0)), stream(sample, 4), batch_size=2, callbacks=[ReportSteps(stop)])
    assert caught.value.code == 3


@pytest.mark.parametrize("value", [0, 2.5, 9])
def test_a_wrong_batch_size_is_refused(value, sample, config):
    with pytest.raises(ValueError, match=rf"^batch_size must be .*got batch_size={value}"):
        fit(Segmenter(config.build(seed=0)), stream(sample, 8), batch_size=value)


@pytest.mark.parametrize("value", ["tpu9", "cuda:77", "gpu"])
def test_a_device_that_is_not_there_is_refused(value, sample, config):
    with pytest.raises(
        ValueError, match=rf"^device must be 'auto' or a device of this machine: cpu.*got device='{value}'"
    ):
        fit(Segmenter(config.build(seed=0)), stream(sample, 8), batch_size=2, machines=Machines(value))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_wrong_learning_rate_is_refused(value):
    with pytest.raises(ValueError, match=r"^learning_rate must be positive, but got learning_rate="):
        Segmenter(nn.Conv2d(1, 2, 1), learning_rate=value)


def test_checkpoints_every_no_step_are_refused(config):
    with pytest.raises(ValueError, match=r"^every must be a positive int, but got every=0"):
        SaveCheckpoints("net.safetensors", config, every=0)


def test_a_negative_seed_is_refused(sample, config):
    with pytest.raises(ValueError, match=r"^seed must be an int of at least 0, but got seed=-1"):
        fit(Segmenter(config.build(seed=0)), stream(sample, 4), batch_size=2, seed=-1)
