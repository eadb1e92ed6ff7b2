"""``gconv-ga train`` with what comes from elsewhere: a second machine, and an encoder that others have trained."""

import socket

import pytest
import segmentation_models_pytorch as smp
import torch
from forked import Forked
from safetensors.torch import save_file

from gconv_ga.images import Normalization
from gconv_ga.segmenter import SegmenterConfig, load_checkpoint
from gconv_ga.train import pretrained_weights, read_run

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--device", "cpu"]


def losses_of(run):
    return [float(line.split(",")[1]) for line in (run / "log.csv").read_text().splitlines()[1:]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_nodes_have_the_curve_of_one_process(invoke, data, tmp_path):
    """Each is started by its own command, as on two machines that share a disc; the first alone writes and speaks."""
    typed = ["train", *data, *TINY, "--steps", "4", "--every", "2", "--batch-size", "4"]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    typed_two = [*typed, "--out", tmp_path / "two", "--nodes", "2"]
    with (
        Forked(tmp_path, *typed_two, NODE_RANK="0", **shared) as first,
        Forked(tmp_path, *typed_two, NODE_RANK="1", **shared) as second,
    ):
        assert [first.wait(), second.wait()] == [0, 0], (first.errors, second.errors)
    assert [node.output.count("model.safetensors after 4 steps") for node in (first, second)] == [1, 0]
    invoke(*typed, "--out", tmp_path / "one")
    assert sorted(file.name for file in (tmp_path / "two").iterdir()) == sorted(
        file.name for file in (tmp_path / "one").iterdir()
    )
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), abs=2e-3)
    invoke(*typed, "--out", tmp_path / "other", "--seed", "1")
    assert losses_of(tmp_path / "other") != pytest.approx(losses_of(tmp_path / "one"), abs=2e-3)


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """The weights that are "downloaded", and what was asked for."""
    state = smp.encoders.get_encoder("mobilenet_v2", weights=None).state_dict()
    numbers = torch.Generator().manual_seed(7)
    weights = {
        name: torch.rand(value.shape, generator=numbers) * 0.05 if value.is_floating_point() else value
        for name, value in state.items()
    }
    save_file(weights, tmp_path / "model.safetensors")
    asked = []

    def download(repo_id, filename, revision):
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr(smp.encoders, "hf_hub_download", download)
    return weights, asked


def encoder_of(state, weights):
    """The tensors of a network under the names of its encoder's."""
    return {name: next(value for key, value in state.items() if key.endswith(f"encoder.{name}")) for name in weights}


def test_pretrained_weights_are_those_of_the_encoder(encoder):
    weights, asked = encoder
    arguments = {"in_channels": 3, "classes": 2, "name": "Unet", "encoder": "mobilenet_v2", "group": "C4"}
    config = SegmenterConfig("smp", arguments, ("a", "b"), Normalization([0.0] * 3, [1.0] * 3))
    state = pretrained_weights(config, "imagenet", seed=3)
    assert ("smp-hub/mobilenet_v2.imagenet", "model.safetensors") in asked
    found = encoder_of(state, weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    own = encoder_of(config.build(seed=3).state_dict(), weights)
    first = "features.0.0.weight"
    assert not torch.equal(own[first], weights[first]), "the encoder's own are other ones"
    again = pretrained_weights(config, "imagenet", seed=4)
    assert any(not torch.equal(state[name], value) for name, value in again.items()), "the head and decoder are drawn"


def test_a_run_begins_with_pretrained_weights(encoder, invoke, data, tmp_path):
    """Of grey images: the first kernel is the sum over the colours it was trained for."""
    weights, _ = encoder
    arch = ["--arch", "smp:FPN:mobilenet_v2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]
    tiny = ["--steps", "1", "--learning-rate", "1e-12"]
    invoke("train", *data, "--out", tmp_path / "run", *arch, *tiny, "--pretrained", "imagenet")
    assert read_run(tmp_path / "run").init == "pretrained:imagenet"
    model, _, step = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert step == 1
    found = encoder_of(model.state_dict(), weights)
    expected = {**weights, "features.0.0.weight": weights["features.0.0.weight"].sum(dim=1, keepdim=True)}
    for name, value in expected.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(found[name], value, rtol=0, atol=1e-6), name
