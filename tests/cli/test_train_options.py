"""``gconv-ga train``: other networks, first weights, half precision, patience, logs, options from a file, processes."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga._files import sha256_of
from gconv_ga.averaging import GroupAverage
from gconv_ga.cli import main
from gconv_ga.pretrained import load
from gconv_ga.segmenter import SegmenterConfig, load_checkpoint, plain_smp
from gconv_ga.train import initial_weights, read_run

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]
SMP = ["--arch", "smp:PSPNet:tu-test_resnet", "--crop", "32", "--batch-size", "2", "--device", "cpu", "--steps", "4"]
UNET = [*TINY, "--steps", "4"]
KINDS = {
    "patience": [*UNET, "--every", "1", "--patience", "2", "--learning-rate", "1e-9"],
    "half": [*UNET, "--precision", "bf16-mixed"],
    "smp": [*SMP, "--group", "D4"],
    "smp, open": [*SMP, "--open-taps", "--precision", "bf16-mixed"],
}


def names_of(run):
    return sorted(path.name for path in run.iterdir())


def rows_of(run):
    return [line.split(",") for line in (run / "log.csv").read_text().splitlines()[1:]]


def losses_of(run):
    return [float(row[1]) for row in rows_of(run)]


def state_of(run):
    return load_checkpoint(run / "model.safetensors").model.state_dict()


def assert_same_run(run, other):
    ours, theirs = state_of(run), state_of(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert (run / "log.csv").read_text() == (other / "log.csv").read_text()
    assert names_of(run) == names_of(other)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Runs of each kind that nobody interrupts, made when they are asked for."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def run(kind):
        if kind not in made:
            made[kind] = folder / str(len(made))
            with pytest.raises(SystemExit) as ended:
                main(["train", *data, "--out", str(made[kind]), *KINDS[kind]])
            assert ended.value.code == 0
        return made[kind]

    return run


class PowerCutError(BaseException):
    pass


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("patience", 1),
        ("patience", 3),
        ("patience", 4),
        ("patience", 6),
        ("patience", 8),
        ("half", 7),
        ("smp", 8),
        ("smp, open", 6),
    ],
)
def test_a_run_cut_in_the_middle_of_a_write_ends_the_same(kind, write, invoke, whole, data, tmp_path, monkeypatch):
    """The power goes in the middle of a file: config.json, sources.json, run.json, the log, checkpoints and states."""
    expected, done = whole(kind), []
    sync = os.fsync

    def cut(descriptor):
        done.append(descriptor)
        if len(done) == write:
            os.ftruncate(descriptor, 100)
            raise PowerCutError
        sync(descriptor)

    command = ["train", *data, "--out", str(tmp_path / "run"), *KINDS[kind]]
    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(PowerCutError):
        main(command)
    monkeypatch.undo()
    resume = ["--resume"] if (tmp_path / "run" / "run.json").exists() else []
    invoke(*command, *resume)
    assert_same_run(tmp_path / "run", expected)


def test_what_a_killed_program_left_half_written_is_taken_away(invoke, trained, data, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / ".state.safetensors.123-0.gconv_ga-part").write_bytes(b"half")
    invoke("train", *data, "--out", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "run", trained)


def test_patience_ends_a_run_that_gets_no_better(whole, invoke, data, tmp_path):
    run = whole("patience")
    assert len(rows_of(run)) == 3, "the first validation, and two more that find nothing better"
    assert load_checkpoint(run / "best.safetensors").step == 1
    assert load_checkpoint(run / "model.safetensors").step == 3
    said = invoke("train", *data, "--out", run, "--resume").stdout
    assert "model.safetensors after 3 steps" in said
    assert "best.safetensors after 1" in said
    patient = [*UNET, "--every", "1", "--learning-rate", "1e-9"]
    invoke("train", *data, "--out", tmp_path / "patient", *patient)
    assert len(rows_of(tmp_path / "patient")) == 4


def test_half_precision_is_near_full_precision_and_not_the_same(whole, trained):
    half, full = losses_of(whole("half")), losses_of(trained)
    assert half != full
    assert half == pytest.approx(full, abs=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in state_of(whole("half")).values())


def test_a_converted_network_is_checked_predicted_evaluated_and_exported(whole, invoke, data, tmp_path):
    run = whole("smp, open")
    result = invoke("check", "--run", run, "--size", "40x33")
    assert "is equivariant under C4" in result.stdout
    assert any(name.endswith(".taps") for name in state_of(run))
    invoke("predict", "--run", run, "--images", data[1], "--out", tmp_path / "predictions", "--device", "cpu")
    assert (tmp_path / "predictions" / "03.png").exists()
    invoke("export", "--run", run, "--out", tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    image = torch.randn(1, 1, 72, 96)
    with torch.no_grad():
        expected = load_checkpoint(run / "best.safetensors").model(image)
        assert (program(image) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_closed_taps_are_the_group_average_of_the_plain_network(whole, generator):
    model, *_ = load_checkpoint(whole("smp") / "model.safetensors")
    plain = plain_smp("PSPNet", "tu-test_resnet", 1, 2)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(1, 1, 37, 50, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        average = GroupAverage(plain.double().eval(), "D4")(x)
        assert (model.double()(x) - average).abs().max() < 1e-10 * average.abs().max()
        assert (plain(x) - average).abs().max() > 1e-3 * average.abs().max()


def test_a_run_begins_with_the_weights_of_a_checkpoint(invoke, trained, data, tmp_path):
    started = [*UNET, "--steps", "1", "--learning-rate", "1e-12", "--init", trained / "model.safetensors"]
    invoke("train", *data, "--out", tmp_path / "run", *started)
    ours, theirs = state_of(tmp_path / "run"), state_of(trained)
    for name, tensor in ours.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tensor, theirs[name], rtol=0, atol=1e-9), name
    assert read_run(tmp_path / "run").init.startswith("sha256:")
    random = read_run(trained).segmenter.build(seed=0).state_dict()
    assert not torch.allclose(ours["segmentation_head.weight"], random["segmentation_head.weight"], atol=1e-6)


def test_a_plain_checkpoint_becomes_the_group_average(balanced, generator):
    plain, config, _ = load_checkpoint(balanced["UNet"])
    turning = SegmenterConfig(
        "EquivariantUNet", {**config.arguments, "group": "D4"}, config.classes, config.normalization
    )
    model = turning.build()
    model.load_state_dict(initial_weights(turning, balanced["UNet"]))
    x = torch.randn(1, 1, 21, 26, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        average = GroupAverage(plain.double(), "D4")(x)
        assert (model.double().eval()(x) - average).abs().max() < 1e-10
        assert (plain(x) - average).abs().max() > 1e-4


def test_first_weights_that_do_not_fit_are_named(invoke, balanced, data, tmp_path):
    typed = [*UNET, "--init", balanced["EquivariantUNet"], "--group", "C4", "--width", "3"]
    result = invoke("train", *data, "--out", tmp_path / "run", *typed, code=2)
    assert "--init" in result.stderr
    assert "encoder.blocks.0.0.weight is (2, 1, 3, 3) where (3, 1, 3, 3) is needed" in result.stderr
    assert not (tmp_path / "run").exists()


def test_first_weights_for_other_channels_are_refused(invoke, data, tmp_path):
    typed = ["--images", data[1], "--instances", data[3], "--steps", "1", "--device", "cpu", "--init", "histology"]
    result = invoke("train", *typed, "--out", tmp_path / "run", code=2)
    assert "'--init': path must be weights of a network for images of 1 channel, but got path=" in result.stderr
    assert "These are for 3." in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_network_of_first_weights_is_as_theirs_unless_an_option_says_more(invoke, balanced, data, tmp_path):
    few = ["--steps", "1", "--batch-size", "2", "--crop", "32", "--device", "cpu", "--learning-rate", "1e-12"]
    invoke("train", *data, "--out", tmp_path / "run", *few, "--init", balanced["EquivariantUNet"])
    arguments = read_run(tmp_path / "run").segmenter.arguments
    assert (arguments["group"], arguments["width"], arguments["depth"]) == ("C4", 2, 2)
    recorded = json.loads((tmp_path / "run/config.json").read_text())
    assert (recorded["group"], recorded["width"], recorded["depth"]) == ("C4", 2, 2)
    files = balanced["EquivariantUNet"], tmp_path / "run/model.safetensors"
    before, after = (load_checkpoint(file).model for file in files)
    for name, parameter in before.named_parameters():
        assert torch.allclose(parameter, after.get_parameter(name), atol=1e-6)
    invoke("train", *data, "--out", tmp_path / "again", *few, "--init", tmp_path / "run")  # of a run, its best
    assert read_run(tmp_path / "again").init == f"sha256:{sha256_of(tmp_path / 'run/best.safetensors')}"
    typed = ["--init", tmp_path / "run", "--percentile", "99.8"]
    result = invoke("train", *data, "--out", tmp_path / "scaled", *few, *typed)
    assert "its weights are of a training with no --percentile, this one has --percentile 99.8\n" in result.stderr
    typed = ["--init", tmp_path / "scaled", "--percentile", "99.8"]
    assert "--init" not in invoke("train", *data, "--out", tmp_path / "last", *few, *typed).stderr
    typed = ["--init", tmp_path / "run", "--depth", "3"]
    result = invoke("train", *data, "--out", tmp_path / "other", *few, *typed, code=2)
    assert "'--init'" in result.stderr


def test_first_weights_of_another_kind_of_network_are_refused_by_its_name(invoke, balanced, data, tmp_path):
    for masks, weights, kinds in (
        ("--masks", "nuclei", ("masks (--masks)", "objects (--instances)")),
        ("--instances", balanced["EquivariantUNet"], ("objects (--instances)", "masks (--masks)")),
    ):
        typed = [*data[:2], masks, data[3], "--out", tmp_path / "run", "--steps", "1", "--init", weights]
        result = invoke("train", *typed, code=2)
        assert f"must be weights of a network for {kinds[0]}" in result.stderr
        assert f"These are of a network for {kinds[1]}." in result.stderr


def test_first_weights_are_read_once(invoke, balanced, data, tmp_path, monkeypatch):
    read, check = [], SegmenterConfig.check_shapes
    monkeypatch.setattr(SegmenterConfig, "check_shapes", lambda *given: read.append(check(*given)))
    few = ["--steps", "1", "--batch-size", "2", "--crop", "32", "--device", "cpu"]
    invoke("train", *data, "--out", tmp_path / "run", *few, "--init", balanced["EquivariantUNet"])
    assert len(read) == 3  # two are for the summary: the last checkpoint, and the best


def test_a_network_of_the_package_is_trained_further(invoke, data, tmp_path):
    few = ["--steps", "1", "--batch-size", "1", "--crop", "32", "--device", "cpu", "--learning-rate", "1e-12"]
    typed = [*data[:2], "--instances", data[3], "--out", tmp_path / "run", *few, "--init", "nuclei"]
    invoke("train", *typed, "--percentile", "99.8", "--black", "1")
    model, config, _ = load_checkpoint(tmp_path / "run/model.safetensors")
    theirs = load("nuclei")
    assert config.arguments.items() >= theirs.config.arguments.items()
    for name, parameter in theirs.model.named_parameters():
        assert torch.allclose(parameter, model.get_parameter(name), atol=1e-6)


def test_a_pickle_of_first_weights_is_refused_and_nothing_in_it_runs(invoke, data, tmp_path):
    class Malicious:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"state": Malicious()}, tmp_path / "weights.pt")
    result = invoke("train", *data, "--out", tmp_path / "run", *UNET, "--init", tmp_path / "weights.pt", code=2)
    assert "pickles are never opened" in result.stderr
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("option", "typed", "said"),
    [
        ("--arch", ["--arch", "resnet"], "does not have the form unet or smp:NAME:ENCODER"),
        ("--arch", ["--arch", "smp:Unet"], "does not have the form unet or smp:NAME:ENCODER"),
        ("--arch", ["--arch", "smp:MAnet:resnet18"], "name must be one of 'Unet'"),
        ("--arch", ["--arch", "smp:Unet:resnet81"], "The closest is 'resnet18'"),
        ("--arch", ["--arch", "smp:Unet:tu-hf-hub:a/b"], "does not have the form unet or smp:NAME:ENCODER"),
        ("--group", ["--arch", "smp:PSPNet:tu-test_resnet", "--group", "C8"], "group must be one of C1, C2"),
        ("--width", ["--arch", "smp:PSPNet:tu-test_resnet", "--width", "4"], "it is for --arch unet"),
        ("--open-taps", ["--open-taps"], "the taps of a unet are always open"),
        ("--pretrained", ["--pretrained", "imagenet"], "it is for --arch smp:NAME:ENCODER"),
        ("--init", ["--init", "nowhere.safetensors"], "There is no such file"),
        ("--precision", ["--precision", "8"], "precision must be one of '32', 'bf16-mixed', '16-mixed'"),
        ("--precision", ["--precision", "16-mixed"], "precision must be '32' or 'bf16-mixed' on the CPU"),
        ("--strategy", ["--strategy", "fsdp"], "strategy must be one of 'auto', 'ddp'"),
        ("--batch-size", ["--devices", "3"], "batch_size must be a multiple of 3"),
        ("--devices", ["--devices", "0"], "--devices"),
        ("--patience", ["--patience", "2", "--split", "{tmp}/train.csv"], "no image is for validation"),
        ("--every", ["--every", "0"], "--every"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(option, typed, said, invoke, data, tmp_path):
    (tmp_path / "train.csv").write_text("file,split\n" + "".join(f"{index:02},train\n" for index in range(4)))
    typed = [part.format(tmp=tmp_path) for part in typed]
    base = UNET if "--arch" not in typed else SMP
    result = invoke("train", *data, "--out", tmp_path / "run", *base, *typed, code=2)
    line = result.stderr.strip().splitlines()[-1]
    assert f"'{option}'" in line
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--arch", "smp:Unet:resnet18"], "the run has unet"),
        (["--patience", "3"], "has None"),
        (["--precision", "bf16-mixed"], "has 32"),
    ],
)
def test_other_settings_beside_resume_are_refused(typed, said, invoke, trained, data):
    result = invoke("train", *data, "--out", trained, "--resume", *typed, code=2)
    assert typed[0] in result.stderr
    assert said in result.stderr


def test_the_options_of_a_run_make_the_same_run(invoke, trained, data, tmp_path):
    """The fixture's images lie outside the current folder, so their paths are not in the file."""
    settings = json.loads((trained / "config.json").read_text())
    assert settings["images"] is None
    assert (settings["steps"], settings["group"], settings["seed"], settings["open_taps"]) == (4, "C8", 0, False)
    invoke("train", *data, "--out", tmp_path / "again", "--config", trained / "config.json")
    assert_same_run(tmp_path / "again", trained)
    invoke("train", *data, "--out", tmp_path / "other", "--config", trained / "config.json", "--steps", "2")
    assert read_run(tmp_path / "other").steps == 2
    assert read_run(tmp_path / "other").crop == 32


def test_paths_of_a_file_begin_at_the_data_folder(invoke, data, tmp_path, monkeypatch):
    folder = Path(data[1]).parent
    monkeypatch.chdir(folder)
    invoke("train", "--images", "images", "--masks", "masks", "--out", tmp_path / "run", *UNET)
    file = tmp_path / "run" / "config.json"
    assert json.loads(file.read_text())["masks"] == "masks"
    monkeypatch.chdir(tmp_path)
    invoke("train", "--config", file, "--data", folder, "--out", tmp_path / "again")
    assert_same_run(tmp_path / "again", tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stpes": 3}, "'stpes' is not an option; did you mean 'steps'?"),
        ({"out": "elsewhere"}, "'out' is not an option"),
        ({"steps": [3]}, "steps is [3]; it takes one string, number or truth value"),
        ({"steps": 3.5}, "'--steps': Input should be a valid integer"),
        ({"steps": True}, "'--steps': Input should be a valid integer"),
        ({"open_taps": "perhaps"}, "'--open-taps': Input should be a valid boolean"),
        ({"images": "../images"}, "leads out of"),
        ({"images": "/etc"}, "leads out of"),
        ({"init": "link/model.safetensors"}, "leads out of"),
        ([1], "holds a list"),
    ],
)
def test_a_wrong_file_of_options_is_refused(settings, said, invoke, data, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    typed = ["--config", tmp_path / "config.json", "--data", tmp_path / "data", "--out", tmp_path / "run"]
    result = invoke("train", *([] if "images" in settings else data), *typed, code=2)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["{", None])
def test_a_file_of_options_that_cannot_be_read_is_refused(content, invoke, data, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    result = invoke("train", *data, "--config", tmp_path / "config.json", "--out", tmp_path / "run", code=2)
    assert "--config" in result.stderr
    assert "cannot be read as JSON" in result.stderr


def test_the_log_for_tensorboard_is_the_log(invoke, data, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    invoke("train", *data, "--out", tmp_path / "run", *UNET, "--tensorboard")
    events = accumulators.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rows = rows_of(tmp_path / "run")
    for name, column in (("loss", 1), ("dice", 2)):
        expected = {int(row[0]): pytest.approx(float(row[column]), rel=1e-6) for row in rows if row[column]}
        assert {event.step: event.value for event in events.Scalars(name)} == expected
        assert expected


def test_tensorboard_that_is_missing_is_named(invoke, data, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else find(name, *rest)
    )
    result = invoke("train", *data, "--out", tmp_path / "run", *UNET, "--tensorboard", code=2)
    assert 'pip install "gconv_ga[tensorboard]"' in result.stderr


def test_two_processes_have_the_curve_of_one(invoke, data, tmp_path):
    """The same crops, batch norms and loss: what differs is the order in which float32 numbers are summed."""
    typed = ["train", *data, *TINY, "--steps", "6", "--every", "3", "--batch-size", "4"]
    command = [sys.executable, "-m", "gconv_ga.cli", *typed, "--out", str(tmp_path / "two"), "--devices", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("model.safetensors after 6 steps") == 1
    invoke(*typed, "--out", tmp_path / "one")
    assert names_of(tmp_path / "two") == names_of(tmp_path / "one")
    two, one = tmp_path / "two", tmp_path / "one"
    assert losses_of(two) == pytest.approx(losses_of(one), abs=2e-3)
    scores = [[float(row[2]) for row in rows_of(run) if row[2]] for run in (two, one)]
    assert len(scores[0]) == 2
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    invoke(*typed, "--out", tmp_path / "other", "--seed", "1")
    assert losses_of(tmp_path / "other") != pytest.approx(losses_of(one), abs=2e-3)


@pytest.mark.parametrize("group", ["D4", "D2"])
def test_first_weights_of_another_group_are_named_by_it(group, invoke, balanced, data, tmp_path):
    """D2 has as many elements as C4: the weights would fit, and mean something else."""
    typed = [*UNET, "--init", balanced["EquivariantUNet"], "--width", "2", "--group", group]
    result = invoke("train", *data, "--out", tmp_path / "run", *typed, code=2)
    assert f"weights of a network of the group {group}" in result.stderr
    assert "These are of C4." in result.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["a"], "is not a list of different names"),
        (["a,a"], "is not a list of different names"),
        (["a,,b"], "is not a list of different names"),
        (["a,b", "--classes", "3"], "there are 2 names, but 3 classes"),
        (["a,b", "--colors", "{tmp}/colors.json"], "the colours of --colors name the classes"),
    ],
)
def test_wrong_names_of_classes_are_refused(typed, said, invoke, data, tmp_path):
    (tmp_path / "colors.json").write_text('{"a": [0, 0, 0], "b": [1, 1, 1]}')
    typed = [part.format(tmp=tmp_path) for part in typed]
    result = invoke("train", *data, "--out", tmp_path / "run", *UNET, "--names", *typed, code=2)
    assert "'--names'" in result.stderr
    assert said in result.stderr
    assert not (tmp_path / "run").exists()


def test_mixed_sizes_name_the_image_that_decides_the_crop(invoke, folders, tmp_path):
    """Larger crops pad it; smaller images than the network takes are refused."""
    for folder in folders[1::2]:
        with Image.open(Path(folder) / "02.png") as file:
            file.crop((0, 0, 90, 40)).save(Path(folder) / "small.png")
    typed = ["train", *folders, "--width", 1, "--depth", 2, "--batch-size", 5, "--device", "cpu", "--steps", 1]
    result = invoke(*typed, "--out", tmp_path / "usual")
    assert "crops of 40 x 40 pixels: small.png is no larger" in result.stderr
    assert read_run(tmp_path / "usual").crop == 40
    result = invoke(*typed, "--out", tmp_path / "large", "--crop", 100)
    assert "images smaller than 100 x 100 pixels, such as small.png, are padded by reflection" in result.stderr
    assert np.isfinite(losses_of(tmp_path / "large")).all()
    result = invoke(*typed, "--out", tmp_path / "deep", "--crop", 100, "--depth", 7, code=2)
    assert "'--depth': 7 levels need crops and images of 64 pixels, but there are 40" in result.stderr
