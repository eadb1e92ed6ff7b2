"""Each option of ``gconv-ga train`` is one field: it has its default and help, arrives in the run, and is compared."""

import json
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, get_args, get_origin

import pytest
import typer

from gconv_ga.cli._train_command import train
from gconv_ga.cli._train_options import (
    CallOptions,
    DataOptions,
    LogOptions,
    NetworkOptions,
    option_fields,
    path_options,
    recorded_options,
    with_options,
)
from gconv_ga.cli._train_runs import FREE
from gconv_ga.segmenter import Machines
from gconv_ga.train import RunConfig, read_run

CLASSES = (DataOptions, NetworkOptions, RunConfig, Machines, LogOptions, CallOptions)
OPTIONS = {field.name: field for kind in CLASSES for field in option_fields(kind)}
# Fields of RunConfig that are no options of their own: they are made of others, or cannot be typed (symmetry).
MADE_OF_OTHERS = ["segmenter", "split", "crop", "symmetry", "mask_encoding", "init"]
DEFAULTS = {"steps": 1000, "batch_size": 8, "device": "auto"}  # that are not those of the dataclass
TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu", "--steps", "4"]
SMP = ["--arch", "smp:PSPNet:tu-test_resnet", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


def arguments_of(call):
    return call.config.segmenter.arguments


# What is typed, what is looked up in the run, and what must be found there. "data" is the folder of images and masks.
SEEN = {
    "images": ("{tmp}/images", lambda call: {pair.image.parent for pair in call.pairs}, "{tmp}/images"),
    "masks": ("{tmp}/masks", lambda call: {pair.mask.parent for pair in call.pairs}, "{tmp}/masks"),
    "instances": ("{tmp}/masks", lambda call: {pair.mask.parent for pair in call.pairs}, "{tmp}/masks"),
    "mask_suffix": ("_m", lambda call: {pair.mask.stem[2:] for pair in call.pairs}, {"_m"}),
    "recursive": (None, lambda call: all(pair.title for pair in call.pairs), True),
    "table": ("{tmp}/table.csv", lambda call: sorted(call.config.split), ["images/00", "images/01"]),
    "colors": ("{tmp}/colors.json", lambda call: call.config.mask_encoding.names, ("glass", "cell")),
    "ignore_index": ("9", lambda call: call.config.mask_encoding.ignore_index, 9),
    "classes": ("2", lambda call: len(call.config.segmenter.classes), 2),
    "names": ("glass, cell", lambda call: call.config.segmenter.classes, ("glass", "cell")),
    "split": ("{tmp}/split.csv", lambda call: call.config.names("test"), ["01"]),
    "channels": ("0", lambda call: call.config.segmenter.reading.channels, (0,)),
    "page": ("0", lambda call: call.config.segmenter.reading.page, 0),
    "other_numbers": ("scale", lambda call: call.config.segmenter.reading.other_numbers, "scale"),
    "max_pixels": ("20000", lambda call: call.config.segmenter.reading.max_pixels, 20000),
    "percentile": ("99.5", lambda call: call.config.segmenter.normalization.percentile, 99.5),
    "black": ("1", lambda call: call.config.segmenter.normalization.black, 1.0),
    "pixel_size": ("0.5", lambda call: call.config.segmenter.pixel_size, 0.5),
    "crop": ("24", lambda call: call.config.crop, 24),
    "arch": ("smp:PSPNet:tu-test_resnet", lambda call: arguments_of(call)["encoder"], "tu-test_resnet"),
    "group": ("D4", lambda call: arguments_of(call)["group"], "D4"),
    "width": ("3", lambda call: arguments_of(call)["width"], 3),
    "depth": ("1", lambda call: arguments_of(call)["depth"], 1),
    "pooling": ("max_blur", lambda call: arguments_of(call)["pooling"], "max_blur"),
    "open_taps": (None, lambda call: arguments_of(call)["open_taps"], True),
    "pretrained": ("imagenet", lambda call: (call.config.init, call.init), ("pretrained:imagenet", {"a": 1})),
    "init": ("{trained}", lambda call: (call.config.init[:7], len(call.init) > 9), ("sha256:", True)),
    "steps": ("7", lambda call: call.config.steps, 7),
    "batch_size": ("3", lambda call: call.config.batch_size, 3),
    "learning_rate": ("0.5", lambda call: call.config.learning_rate, 0.5),
    "augment": ("strong,scale", lambda call: call.config.augment, "strong,scale"),
    "balance": ("crops", lambda call: call.config.balance, "crops"),
    "boundary": ("2.5", lambda call: call.config.boundary, 2.5),
    "seed": ("5", lambda call: call.config.seed, 5),
    "every": ("2", lambda call: call.config.every, 2),
    "patience": ("6", lambda call: call.config.patience, 6),
    "precision": ("bf16-mixed", lambda call: call.config.precision, "bf16-mixed"),
    "device": ("cpu", lambda call: str(call.machines.device), "cpu"),
    "devices": ("2", lambda call: call.machines.devices, 2),
    "nodes": ("2", lambda call: call.machines.nodes, 2),
    "strategy": ("ddp", lambda call: call.machines.strategy, "ddp"),
    "tensorboard": (None, lambda call: call.tensorboard, True),
    "out": ("{tmp}/other", lambda call: call.folder, "{tmp}/other"),
    "config": ("{tmp}/options.json", lambda call: call.config.seed, 77),
    "data": ("{tmp}/nowhere", None, "nowhere"),
    "resume": (None, None, "There is no run.json in it"),
    "debug": (None, lambda call: call.config.steps, 4),  # what it does: test_cli.py
}  # fmt: skip


@pytest.fixture
def started(monkeypatch):
    """What `train_run` is called with; it does not train."""
    calls = []

    def train_run(folder, config, pairs, **options):
        calls.append(SimpleNamespace(folder=folder, config=config, pairs=pairs, **options))
        folder.joinpath("run.json").write_text(config.to_json())
        raise KeyboardInterrupt

    monkeypatch.setattr("gconv_ga.train.train_run", train_run)
    monkeypatch.setattr("gconv_ga.train.pretrained_weights", lambda config, name, seed: {"a": 1})
    return calls


@pytest.fixture
def given(data, tmp_path, trained):
    """Files that options may name, and what stands for them."""
    for name in ("images", "masks"):
        shutil.copytree(data[1 if name == "images" else 3], tmp_path / name)
    (tmp_path / "suffixed").mkdir()
    for mask in (tmp_path / "masks").iterdir():
        shutil.copy(mask, tmp_path / "suffixed" / f"{mask.stem}_m.png")
    (tmp_path / "table.csv").write_text(
        "image,mask,split\nimages/00.png,masks/00.png,train\nimages/01.png,masks/01.png,val\n"
    )
    (tmp_path / "split.csv").write_text("file,split\n00.png,train\n01.png,test\n02.png,val\n03.png,train\n")
    (tmp_path / "colors.json").write_text(json.dumps({"glass": [0, 0, 0], "cell": [1, 1, 1]}))
    (tmp_path / "options.json").write_text(json.dumps({"seed": 77}))
    return lambda text: (
        text.format(tmp=tmp_path, trained=trained / "model.safetensors") if isinstance(text, str) else text
    )


@pytest.fixture(scope="module")
def command():
    alone = typer.Typer()
    alone.command()(train)
    return {option.name: option for option in typer.main.get_command(alone).params}


def test_no_field_is_forgotten():
    lacking = [field.name for kind in CLASSES for field in fields(kind) if field not in option_fields(kind)]
    assert lacking == MADE_OF_OTHERS
    assert SEEN.keys() == OPTIONS.keys()


def test_paths_are_known_by_their_types():
    assert path_options() == ["images", "masks", "instances", "table", "colors", "split", "init"]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_field_is_an_option_with_its_default_and_help(name, command):
    field, option = OPTIONS[name], command[name]
    default = DEFAULTS.get(name, None if field.default is MISSING else field.default)
    about = get_args(field.type)[1].help if get_origin(field.type) is Annotated else field.metadata["help"]
    assert option.opts == [f"--{name.replace('_', '-')}"]
    assert option.secondary_opts == []
    assert option.help.startswith(about)
    assert option.required == (name == "out")
    assert (option.default or None) == (default or None)


@pytest.mark.parametrize("name", SEEN)
def test_what_is_typed_arrives_in_the_run(name, invoke, started, given, data, tmp_path):
    typed, look, expected = SEEN[name]
    options = ["--out", tmp_path / "run", *(TINY if name not in ("arch", "open_taps", "pretrained") else SMP)]
    options += {"table": [], "instances": data[:2]}.get(name, data)
    if name == "data":
        (tmp_path / "options.json").write_text(json.dumps({"images": "images"}))
        options = [*options[:-4], *data[2:], "--config", tmp_path / "options.json"]
    typed = [f"--{name.replace('_', '-')}", *([] if typed is None else [given(typed)])]
    typed += ["--batch-size", "2"] if name in ("devices", "nodes") else []
    typed += ["--masks", tmp_path / "suffixed"] if name == "mask_suffix" else []
    typed += ["--percentile", "99"] if name == "black" else []
    result = invoke("train", *options, *typed, code=130 if look else 2)
    if look is None:
        assert expected in result.stderr
        return
    (call,) = started
    found = look(call)
    expected = {Path(given(expected))} if name in ("images", "masks", "instances") else given(expected)
    assert (Path(expected) == found) if name == "out" else (found == expected)
    assert read_run(call.folder) == call.config
    recorded = json.loads((call.folder / "config.json").read_text())
    assert list(recorded) == recorded_options()


@pytest.mark.parametrize(
    ("typed", "group", "width"),
    [
        ([], "C8", 4), (["--group", "C4"], "C4", 8), (["--group", "D4"], "D4", 4), (["--group", "C1"], "C1", 32),
        (["--group", "C64"], "C64", 1), (["--width", "3"], "C8", 3), (["--group", "c4", "--width", "2"], "C4", 2),
    ],
)  # fmt: skip
def test_a_network_costs_the_same_with_every_group(typed, group, width, invoke, started, data, tmp_path):
    options = ["--depth", "2", "--crop", "32", "--device", "cpu", *data, "--out", tmp_path / "run"]
    invoke("train", *options, *typed, code=130)
    (call,) = started
    assert (arguments_of(call)["group"], arguments_of(call)["width"]) == (group, width)
    recorded = json.loads((call.folder / "config.json").read_text())
    assert (recorded["group"], recorded["width"]) == (group, width), "a later default changes nothing about the run"


def test_a_network_of_smp_has_c4_unless_another_group_is_typed(invoke, started, data, tmp_path):
    for typed, group in (([], "C4"), (["--group", "D4"], "D4")):
        invoke("train", *SMP, *data, "--out", tmp_path / group, *typed, code=130)
        assert arguments_of(started[-1])["group"] == group


DIFFERENT = {
    **{name: typed for name, (typed, *_) in SEEN.items() if name in recorded_options() and name not in FREE},
    "steps": "3",
    "classes": "3",
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_setting_that_differs_from_the_run_is_refused_by_name(name, invoke, started, given, trained):
    option = f"--{name.replace('_', '-')}"
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    typed = [option, *([] if DIFFERENT[name] is None else [given(DIFFERENT[name])])]
    result = invoke("train", "--out", trained, "--resume", *typed, code=2)
    assert f"'{option}'" in result.stderr
    assert "the run has" in result.stderr
    assert not started
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_free_options_are_those_of_the_place_and_the_machine():
    places = ["images", "masks", "instances", "table", "mask_suffix", "recursive"]
    assert sorted(FREE) == sorted([*places, "device", "devices", "nodes", "strategy", "tensorboard"])


@pytest.mark.parametrize("name", FREE)
def test_what_is_no_setting_of_the_run_may_differ(name, invoke, started, given, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    typed, look, expected = SEEN[name]
    if name == "table":  # of all the files of the run, under the names they have there
        rows = [f"{index:02}.png,{index:02}_mask.png" for index in range(4)]
        for index in range(4):
            shutil.copy(tmp_path / "images" / f"{index:02}.png", tmp_path / f"{index:02}.png")
            shutil.copy(tmp_path / "masks" / f"{index:02}.png", tmp_path / f"{index:02}_mask.png")
        (tmp_path / "table.csv").write_text("\n".join(["image,mask", *rows]))
        look, expected = (lambda call: {pair.image.parent for pair in call.pairs}), "{tmp}"
    option = [f"--{name.replace('_', '-')}", *([] if typed is None else [given(typed)])]
    option += ["--masks", tmp_path / "suffixed"] if name == "mask_suffix" else []
    invoke("train", "--out", tmp_path / "run", "--resume", *option, code=130)
    (call,) = started
    paths = name in ("images", "masks", "instances", "table")
    assert look(call) == ({Path(given(expected))} if paths else expected)
    assert call.config == read_run(trained)


def test_the_settings_of_the_run_may_be_typed(invoke, started, given, trained, tmp_path):
    config, rows = read_run(trained), ["file,split"]
    rows += [f"{name}.png,{part}" for name, part in config.split.items()]
    (tmp_path / "own.csv").write_text("\n".join(rows))
    (tmp_path / "run").mkdir()
    for path in trained.iterdir():
        shutil.copy(path, tmp_path / "run")
    typed = [*TINY, *("--group", "C8"), *("--classes", "2"), *("--seed", "0"), *("--learning-rate", "0.01")]
    typed += [*("--arch", "unet"), *("--precision", "32"), *("--split", tmp_path / "own.csv"), *("--pooling", "max")]
    invoke("train", "--out", tmp_path / "run", "--resume", *typed, code=130)
    assert started[0].config == config


HEAVY = {"torch", "numpy", "pytorch_lightning", "torchvision", "matplotlib", "segmentation_models_pytorch", "PIL"}


@pytest.mark.parametrize(
    "statement",
    [
        "import gconv_ga.cli._train_command",
        "from gconv_ga.train import RunConfig; from gconv_ga.segmenter import Machines, PRECISIONS",
    ],
)
def test_the_options_load_nothing_heavy(statement):
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & {name.partition(".")[0] for name in result.stdout.split()}


def test_an_option_that_is_there_twice_is_a_fault(monkeypatch):
    monkeypatch.setattr("gconv_ga.cli._train_options.RECORDED", (DataOptions, DataOptions))
    with pytest.raises(ValueError, match="duplicate parameter name"):
        with_options(lambda **values: None)
