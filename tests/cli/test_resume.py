"""``gconv-ga train --resume``: where the files come from, what is compared how, and training for longer."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from gconv_ga.segmenter import load_checkpoint
from gconv_ga.train import read_run

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu"]


@pytest.fixture
def project(data, tmp_path, monkeypatch):
    """The current folder, with images and masks in it."""
    shutil.copytree(Path(data[1]).parent, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


HERE = ["--images", "data/images", "--masks", "data/masks"]


def steps_of(run):
    return [int(line.split(",")[0]) for line in (run / "log.csv").read_text().splitlines()[1:]]


def test_a_run_is_resumed_by_its_folder_alone(invoke, project, monkeypatch):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    (project / "run" / "curves.png").unlink()  # written last
    invoke("train", "--out", "run", "--resume")
    assert (project / "run" / "curves.png").exists()
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    invoke("train", "--out", "../run", "--resume")


def test_files_that_have_moved_are_found_from_data_or_named(invoke, project, monkeypatch):
    """Where the files were is absolute in one file; the recorded options have paths relative to --data."""
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    (project / "moved").mkdir()
    shutil.move(project / "data", project / "moved" / "data")
    result = invoke("train", "--out", "run", "--resume", code=2)
    assert "'--images'" in result.stderr
    assert "--data" in result.stderr
    invoke("train", "--out", "run", "--resume", "--data", "moved")
    places = json.loads((project / "run" / "sources.json").read_text())
    assert places["images"] == str((project / "moved" / "data" / "images").resolve())
    invoke("train", "--out", "run", "--resume")
    shutil.move(project / "moved" / "data", project / "data")
    invoke("train", "--out", "run", "--resume", *HERE)
    invoke("train", "--out", "run", "--resume")


def test_a_run_of_before_has_no_file_of_places(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    (project / "run" / "sources.json").unlink()
    settings = json.loads((project / "run" / "run.json").read_text())
    settings["mask_code"] = settings.pop("mask_encoding")
    (project / "run" / "run.json").write_text(json.dumps(settings, indent=2))
    invoke("train", "--out", "run", "--resume")
    invoke("train", "--out", "run", "--resume", "--steps", 2)
    assert "mask_encoding" in json.loads((project / "run" / "run.json").read_text())
    assert steps_of(project / "run") == [1, 2]


def test_a_run_that_does_not_know_its_files_asks_for_them(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    for name in ("sources.json", "config.json"):
        (project / "run" / name).unlink()
    result = invoke("train", "--out", "run", "--resume", code=2)
    assert "'--images': give --images and --masks, or --table" in result.stderr
    invoke("train", "--out", "run", "--resume", *HERE)
    assert not (project / "run" / "config.json").exists()


def test_recorded_paths_do_not_lead_out_of_data(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    (project / "run" / "sources.json").unlink()
    settings = json.loads((project / "run" / "config.json").read_text())
    (project / "run" / "config.json").write_text(json.dumps({**settings, "images": "../../etc"}))
    result = invoke("train", "--out", "run", "--resume", code=2)
    assert "leads out of" in result.stderr


def test_a_table_typed_takes_the_place_of_the_folders(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    split = read_run(project / "run").split
    for name in split:
        shutil.copy(project / "data" / "images" / f"{name}.png", project / f"{name}.png")
    rows = [f"{name}.png,data/masks/{name}.png,{part}" for name, part in split.items()]
    (project / "table.csv").write_text("\n".join(["image,mask,split", *rows]))
    invoke("train", "--out", "run", "--resume", "--table", "table.csv")
    other = {"train": "val", "val": "train"}
    rows = [f"{name}.png,data/masks/{name}.png,{other[part]}" for name, part in split.items()]
    (project / "table.csv").write_text("\n".join(["image,mask,split", *rows]))
    result = invoke("train", "--out", "run", "--resume", "--table", "table.csv", code=2)
    assert "'--table': its column split differs" in result.stderr


def test_the_split_is_compared_by_what_it_assigns(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    split = read_run(project / "run").split
    rows = [f"{name}.png,{part}" for name, part in sorted(split.items(), reverse=True)]
    (project / "same.csv").write_text("\n".join(["file,split", *rows, "99.png,test"]))
    (project / "other.csv").write_text("\n".join(["file,split", *(f"{name}.png,train" for name in split)]))
    invoke("train", "--out", "run", "--resume", "--split", "same.csv")
    for file, said in (("other.csv", "the run has another split"), ("nowhere.csv", "cannot be read")):
        result = invoke("train", "--out", "run", "--resume", "--split", file, code=2)
        assert "'--split'" in result.stderr
        assert said in result.stderr


def test_first_weights_are_compared_by_their_hash(invoke, project, trained):
    shutil.copy(trained / "model.safetensors", project / "first.safetensors")
    shutil.copy(trained / "best.safetensors", project / "other.safetensors")
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY, "--init", "first.safetensors")
    digest = hashlib.sha256((project / "first.safetensors").read_bytes()).hexdigest()
    assert read_run(project / "run").init == f"sha256:{digest}"
    (project / "first.safetensors").rename(project / "renamed.safetensors")
    invoke("train", "--out", "run", "--resume")
    invoke("train", "--out", "run", "--resume", "--init", "renamed.safetensors")
    for file, said in (("other.safetensors", "other initial weights"), ("first.safetensors", "cannot be read")):
        result = invoke("train", "--out", "run", "--resume", "--init", file, code=2)
        assert "'--init'" in result.stderr
        assert said in result.stderr


def test_pretrained_weights_are_compared_by_name(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    settings = json.loads((project / "run" / "run.json").read_text())
    (project / "run" / "run.json").write_text(json.dumps({**settings, "init": "pretrained:imagenet"}))
    invoke("train", "--out", "run", "--resume", "--pretrained", "imagenet")
    result = invoke("train", "--out", "run", "--resume", "--pretrained", "ssl", code=2)
    assert "'--pretrained': the run has imagenet" in result.stderr


def test_a_file_of_options_fills_what_is_not_typed_and_refuses_nothing(invoke, project):
    """What the run itself has stays; of the file, the place of the images is new."""
    invoke("train", *HERE, "--out", "run", "--steps", 2, *TINY)
    before = read_run(project / "run")
    shutil.move(project / "data", project / "new")
    settings = {"images": "new/images", "masks": "new/masks", "steps": 9, "seed": 3, "width": 7, "split": "nowhere.csv"}
    (project / "options.json").write_text(json.dumps(settings))
    invoke("train", "--out", "run", "--resume", "--config", "options.json")
    assert read_run(project / "run") == before
    result = invoke("train", "--out", "run", "--resume", "--config", "options.json", "--seed", 3, code=2)
    assert "'--seed': the run has 0" in result.stderr
    own = ["--config", "run/config.json", "--images", "new/images", "--masks", "new/masks"]
    invoke("train", "--out", "run", "--resume", *own)


def test_the_devices_of_the_run_are_taken_unless_others_are_named(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 1, *TINY)
    settings = json.loads((project / "run" / "config.json").read_text())
    (project / "run" / "config.json").write_text(json.dumps({**settings, "device": "cuda:99"}))
    result = invoke("train", "--out", "run", "--resume", code=2)
    assert "'--device': device must be" in result.stderr
    invoke("train", "--out", "run", "--resume", "--device", "cpu")


def test_a_run_is_trained_for_longer(invoke, project):
    invoke("train", *HERE, "--out", "run", "--steps", 4, *TINY)
    log = (project / "run" / "log.csv").read_text()
    text = invoke("train", "--out", "run", "--resume", "--steps", 8).stdout
    assert "model.safetensors after 8 steps" in text
    assert read_run(project / "run").steps == 8
    assert json.loads((project / "run" / "config.json").read_text())["steps"] == 8
    assert steps_of(project / "run") == list(range(1, 9))
    assert (project / "run" / "log.csv").read_text().startswith(log)
    before = load_checkpoint(project / "run" / "model.safetensors").model.state_dict()
    for steps in (3, 7):
        result = invoke("train", "--out", "run", "--resume", "--steps", steps, code=2)
        assert "'--steps': the run has 8; it can be extended, not shortened" in result.stderr
    invoke("train", "--out", "run", "--resume", "--steps", 8)
    after = load_checkpoint(project / "run" / "model.safetensors").model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
