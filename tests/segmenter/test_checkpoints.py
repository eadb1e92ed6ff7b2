"""Checkpoints: what is saved comes back; what is no checkpoint is refused, and nothing in it is ever run."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save

from gconv_ga._files import write_atomically
from gconv_ga.images import Normalization
from gconv_ga.segmenter import SegmenterConfig, load_checkpoint, save_checkpoint


@pytest.fixture
def trained(config):
    """A network whose weights and statistics are not those of a new one, in train mode."""
    model = config.build(seed=3)
    for _ in range(2):
        model(torch.randn(2, 1, 16, 16))
    return model


def header(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])


def test_a_checkpoint_gives_back_the_network(trained, config, tmp_path):
    path = save_checkpoint(tmp_path / "new" / "net.safetensors", trained, config, step=12)
    loaded = load_checkpoint(str(path))
    x = torch.randn(2, 1, 17, 20)
    assert torch.equal(loaded.model(x), trained.eval()(x))
    assert not loaded.model.training
    assert (loaded.config, loaded.step) == (config, 12)


def test_the_plain_network_too(config, tmp_path):
    arguments = {"in_channels": 1, "classes": 2, "width": 4, "depth": 2}
    plain = SegmenterConfig("UNet", arguments, config.classes, config.normalization)
    model = plain.build(seed=1).eval()
    loaded = load_checkpoint(save_checkpoint(tmp_path / "net.safetensors", model, plain))
    x = torch.randn(1, 1, 16, 16)
    assert torch.equal(loaded.model(x), model(x))


def test_the_file_is_safetensors_with_json_in_its_header(trained, config, tmp_path):
    meta = header(save_checkpoint(tmp_path / "net.safetensors", trained, config, step=5))["__metadata__"]
    fields = json.loads(meta["gconv_ga"])
    assert fields["arguments"] == {"in_channels": 1, "classes": 2, "group": "C4", "width": 2, "depth": 2}
    assert fields["classes"] == ["background", "nucleus"]
    assert fields["normalization"]["percentile"] == 99.8
    assert meta["step"] == "5"


def test_loading_leaves_the_generator_alone(trained, config, tmp_path):
    path = save_checkpoint(tmp_path / "net.safetensors", trained, config)
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)


class Bomb:
    """What a malicious pickle does: it runs a command when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_refused_and_nothing_in_it_runs(form, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "net.safetensors"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"weights": Bomb(mark)}, path)
    with pytest.raises(ValueError, match=r"^path must be a checkpoint of gconv_ga.*pickles are never opened"):
        load_checkpoint(path)
    assert not mark.exists()


def test_the_bomb_would_have_gone_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark"))).close()
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("part", [0, 7, 200, -1])
def test_a_truncated_file_is_refused(part, trained, config, tmp_path):
    path = save_checkpoint(tmp_path / "net.safetensors", trained, config)
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(ValueError, match=r"^path must be a checkpoint of gconv_ga.*not an intact safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("where", ["absent", "folder"])
def test_a_file_that_is_not_there_is_refused(where, tmp_path):
    path = tmp_path if where == "folder" else tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match=r"^path must be a checkpoint of gconv_ga.*There is no such file"):
        load_checkpoint(path)


def test_weights_without_a_configuration_are_refused(trained, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(save(trained.state_dict()))
    with pytest.raises(ValueError, match=r"^path must be .* does not describe the network"):
        load_checkpoint(path)


def test_weights_of_another_network_are_refused(config, tmp_path):
    wider = SegmenterConfig("EquivariantUNet", {**config.arguments, "width": 3}, config.classes, config.normalization)
    path = save_checkpoint(tmp_path / "net.safetensors", wider.build(seed=0), config)
    with pytest.raises(ValueError, match=r"^path must be .* Its weights do not fit"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(value, trained, config, tmp_path):
    path = save_checkpoint(tmp_path / "net.safetensors", trained, config)
    with torch.no_grad():
        trained.segmentation_head.bias[1] = value
    with pytest.raises(ValueError, match=r"^model must be a network of finite weights, but segmentation_head.bias has"):
        save_checkpoint(path, trained, config)
    load_checkpoint(path)
    described = header(path)["__metadata__"]
    path.write_bytes(save(trained.state_dict(), described))
    with pytest.raises(ValueError, match=r"^path must be a checkpoint .* Its weights segmentation_head.bias have NaN"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 10**9}, "width must be at most"),
        ({"width": 60}, "where"),
        ({"depth": 10**6}, "depth must be at most 32"),
        ({"in_channels": 2}, r"encoder.blocks.0.0.weight is \(2, 1, 3, 3\) where \(2, 2, 3, 3\) is needed"),
        ({"kernel_size": 1001}, "kernel_size must be at most 31"),
        ({"group": "D4"}, "where"),
        ({"width": "2"}, "width must be a positive int"),
        ({"pooling": []}, "pooling must be one of"),
    ],
)
def test_a_network_larger_than_its_weights_is_not_built(arguments, message, trained, config, tmp_path, monkeypatch):
    """A small file that describes a gigantic network; one that is just wrong ends in the same way."""
    described = json.dumps({**json.loads(config.to_json()), "arguments": {**config.arguments, **arguments}})
    (tmp_path / "net.safetensors").write_bytes(save(trained.state_dict(), {"gconv_ga": described}))

    def build(*_, **__):
        raise AssertionError("memory was allocated")

    monkeypatch.setattr(SegmenterConfig, "build", build)
    with pytest.raises(ValueError, match=f"^path must be a checkpoint .* Its weights do not fit .*{message}"):
        load_checkpoint(tmp_path / "net.safetensors")


def test_a_converted_network_larger_than_its_weights_is_not_built(config, tmp_path, monkeypatch):
    arguments = {"in_channels": 1, "classes": 2, "name": "Unet", "encoder": "resnet18"}
    large = SegmenterConfig("smp", arguments, config.classes, config.normalization)
    content = save({"weight": torch.zeros(1000)}, {"gconv_ga": large.to_json()})
    (tmp_path / "net.safetensors").write_bytes(content)
    monkeypatch.setattr(SegmenterConfig, "build", None)
    with pytest.raises(ValueError, match=r"^path must be .* arguments must be those of a network of 1,000 weights"):
        load_checkpoint(tmp_path / "net.safetensors")


def test_a_negative_step_is_refused(trained, config, tmp_path):
    with pytest.raises(ValueError, match=r"^step must be an int of at least 0, but got step=-1"):
        save_checkpoint(tmp_path / "net.safetensors", trained, config, step=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    """The disk is full in the middle of the second writing: the first one is still there, and nothing else."""
    path = write_atomically(tmp_path / "a" / "x", b"first")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert [each.name for each in path.parent.iterdir()] == ["x"]


def test_a_configuration_survives_json(config):
    again = SegmenterConfig.from_json(config.to_json())
    assert again == config
    assert isinstance(again.classes, tuple)


def change(text, **fields):
    return json.dumps({**json.loads(text), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "os.system"}, r"^architecture must be one of 'EquivariantUNet', 'UNet', .*, but got"),
        (
            {"arguments": {"in_channels": 1}},
            r"^arguments must be what EquivariantUNet takes.*missing a required argument",
        ),
        ({"classes": ["nucleus"]}, r"^classes must be 2 names"),
        ({"classes": ["nucleus", "nucleus"]}, r"^classes must be different names"),
        (
            {"normalization": {"mean": [float("nan")], "std": [1.0]}},
            r"^normalization must be one whose means",
        ),
        ({"normalization": {"mean": [0.0], "std": [0.0]}}, r"^std must be positive"),
        ({"normalization": None}, r"^text must be a configuration of a segmenter as JSON.*TypeError"),
        ({"hook": "x"}, r"^text must be a configuration of a segmenter as JSON.*hook"),
    ],
)
def test_a_wrong_configuration_is_refused(fields, message, config):
    with pytest.raises(ValueError, match=message):
        SegmenterConfig.from_json(change(config.to_json(), **fields))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{'a': 1}", "7"])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(ValueError, match=r"^text must be a configuration of a segmenter as JSON, but got text="):
        SegmenterConfig.from_json(text)


def test_arguments_that_json_cannot_hold_are_refused(config):
    with pytest.raises(ValueError, match=r"^arguments must be numbers, strings, None.*Write a group by its name"):
        SegmenterConfig("UNet", {**config.arguments, "group": object()}, config.classes, config.normalization)


def test_the_seed_gives_the_weights(config):
    first, again, other = (config.build(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    with pytest.raises(ValueError, match=r"^seed must be an int of at least 0"):
        config.build(seed=-1)


def test_a_checkpoint_of_the_first_version_loads(config, tmp_path):
    """Its header as it was written then, by hand: neither names nor order may come to matter."""
    model = config.build(seed=4)
    header = {
        "step": "8",
        "gconv_ga": '{"architecture": "EquivariantUNet", "arguments": {"in_channels": 1, "classes": 2, "group": "C4", '
        '"width": 2, "depth": 2}, "classes": ["background", "class 1"], '
        '"normalization": {"mean": [26.5], "std": [30.25], "percentile": null}}',
    }
    (tmp_path / "model.safetensors").write_bytes(save(model.state_dict(), header))
    loaded, read, step = load_checkpoint(tmp_path / "model.safetensors")
    assert (step, read.classes, read.normalization.mean) == (8, ("background", "class 1"), (26.5,))
    x = torch.randn(1, 1, 16, 16)
    assert torch.equal(loaded(x), model.eval()(x))


@pytest.mark.parametrize(
    ("architecture", "more", "name"),
    [
        ("EquivariantUNet", {"group": "D8"}, "D8"), ("EquivariantUNet", {}, "C4"),
        ("ObjectUNet", {"group": None}, "C1"), ("UNet", {}, "C1"),
        ("smp", {"name": "Unet", "encoder": "resnet18"}, "C4"),
    ],
)  # fmt: skip
def test_the_group_is_that_of_the_network(architecture, more, name):
    arguments = {"in_channels": 1, "classes": 2, **more}
    config = SegmenterConfig(architecture, arguments, ("a", "b"), Normalization([0.0], [1.0]))
    assert config.group.name == name
    if architecture == "EquivariantUNet":
        assert config.build().group == config.group
