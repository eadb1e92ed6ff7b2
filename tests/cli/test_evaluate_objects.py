"""``gconv-ga evaluate --instances`` and ``--against``: the figures of the library, beside those of another run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.cli._evaluate_scores import _reflects
from gconv_ga.evaluate import evaluate_objects
from gconv_ga.images import Normalization, Reading, read_image, read_mask
from gconv_ga.objects import decode
from gconv_ga.segmenter import Checkpoint, SegmenterConfig, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def instances(data, tmp_path_factory):
    """The true objects of the first two images: the masks, cut."""
    folder = tmp_path_factory.mktemp("true")
    for kind in ("images", "masks", "instances"):
        (folder / kind).mkdir()
    for file in sorted(Path(data[3]).iterdir())[:2]:
        objects = decode(read_mask(file)).labels.numpy()
        Image.fromarray(objects.astype(np.uint16)).save(folder / "instances" / file.name)
        for place, kind in ((1, "images"), (3, "masks")):
            with Image.open(Path(data[place]) / file.name) as picture:
                picture.save(folder / kind / file.name)
    return folder


@pytest.fixture
def evaluated(invoke, balanced, instances, tmp_path):
    def run(*options, network="EquivariantUNet", code=0):
        typed = ["evaluate", "--run", balanced[network], "--images", instances / "images", "--device", "cpu"]
        result = invoke(*typed, "--instances", instances / "instances", "--out", tmp_path / "out", *options, code=code)
        return result if code else json.loads((tmp_path / "out/report.json").read_text())

    return run


def test_the_figures_are_those_of_the_library(evaluated, balanced, instances, tmp_path):
    report = evaluated()
    model, config, _ = load_checkpoint(balanced["EquivariantUNet"])
    for file in sorted((instances / "images").iterdir()):
        image, true = config.normalization(read_image(file)), read_mask(instances / "instances" / file.name)
        scores, changes = evaluate_objects(model, image, true)
        found = report["by_image"][file.stem]["objects"]
        assert (found["found"], found["true"]) == (scores.found, scores.true)
        assert found["average_precision"]["0.50"] == scores.average_precision[0]
        assert found["panoptic_quality"] == scores.panoptic_quality
        assert found["changed_pixels"] == found["partnerless"] == 0 == changes[0].pixels
    assert report["objects"]["true"] == sum(int(read_mask(file).max()) for file in (instances / "instances").iterdir())
    page = (tmp_path / "out/report.html").read_text()
    assert "AP at IoU 0.5" in page
    assert page.count("<img") == 3, "the chart and two images"


@pytest.mark.parametrize("with_masks", [False, True], ids=["in the objects", "in the masks"])
def test_ignored_pixels_are_no_object(with_masks, invoke, balanced, instances, tmp_path):
    """Each image has a square of them, in the file that is the mask."""
    kind = "masks" if with_masks else "instances"
    (tmp_path / kind).mkdir()
    for file in (instances / kind).iterdir():
        values = np.array(Image.open(file))
        values[:50, :50] = 200
        Image.fromarray(values).save(tmp_path / kind / file.name)
    typed = ["--instances", instances / "instances" if with_masks else tmp_path / "instances", "--ignore-index", 200]
    typed += ["--masks", tmp_path / "masks"] if with_masks else []
    network, config, _ = load_checkpoint(balanced["EquivariantUNet"])
    invoke("evaluate", "--run", balanced["EquivariantUNet"], "--images", instances / "images", *typed,
           "--out", tmp_path / "out", "--device", "cpu")  # fmt: skip
    report = json.loads((tmp_path / "out/report.json").read_text())
    for file in sorted((instances / "images").iterdir()):
        true = read_mask(instances / "instances" / file.name)
        true[:50, :50] = 0
        ignored = torch.zeros_like(true, dtype=torch.bool)
        ignored[:50, :50] = True
        scores, _ = evaluate_objects(network, config.normalization(read_image(file)), true, ignored=ignored)
        found = report["by_image"][file.stem]["objects"]
        assert found["true"] == len(true.unique()) - 1
        assert (found["found"], found["panoptic_quality"]) == (scores.found, scores.panoptic_quality)


def test_masks_are_the_objects_unless_they_are_given(evaluated, instances):
    alone = evaluated()
    both = evaluated("--masks", instances / "masks")
    assert both["objects"] == alone["objects"]
    assert both["dice"].keys() == alone["dice"].keys()
    inverted = instances.parent / "inverted"
    inverted.mkdir(exist_ok=True)
    for file in (instances / "masks").iterdir():
        Image.fromarray((1 - read_mask(file).numpy()).astype(np.uint8)).save(inverted / file.name)
    other = evaluated("--masks", inverted)
    assert other["objects"] == alone["objects"]
    assert other["mean"]["dice"] != pytest.approx(alone["mean"]["dice"], abs=1e-3)


def test_another_run_stands_beside(evaluated, balanced, tmp_path):
    report = evaluated("--against", balanced["UNet"])
    assert report["objects"]["changed_pixels"] == 0 < report["against"]["objects"]["changed_pixels"]
    assert report["run"] != report["against"]["run"]
    assert "against" not in report["against"]
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("UNet.safetensors") > 2
    alone = evaluated(network="UNet")
    assert {**alone, "run": ""} == {**report["against"], "run": ""}


def test_both_runs_are_printed(invoke, balanced, instances, tmp_path):
    typed = ["evaluate", "--images", instances / "images", "--instances", instances / "instances", "--device", "cpu"]
    runs = [balanced[name] for name in ("EquivariantUNet", "UNet")]
    alone = [invoke(*typed, "--run", run, "--out", tmp_path / run.stem).stdout.splitlines() for run in runs]
    both = invoke(*typed, "--run", runs[0], "--against", runs[1], "--out", tmp_path / "both").stdout.splitlines()
    assert both[:-1] == [f"{runs[0]}:", *alone[0][:-1], f"{runs[1]}:", *alone[1][:-1]]
    assert both[-1] == alone[0][-1].replace(str(tmp_path / runs[0].stem), str(tmp_path / "both"))
    assert [line.split()[0] for line in alone[0]] == ["Dice", "Objects:", "Worst"]


def test_each_run_reads_the_channels_of_its_training(invoke, balanced, instances, tmp_path):
    model, config, _ = load_checkpoint(balanced["EquivariantUNet"])
    (tmp_path / "images").mkdir()
    for file in (instances / "images").iterdir():
        pixels = read_image(file).numpy().astype(np.uint8)
        np.save(tmp_path / "images" / f"{file.stem}.npy", np.concatenate([pixels, 255 - pixels]))
    for channel in (0, 1):
        own = replace(config, reading=Reading(channels=(channel,), numbers="uint8"))
        save_checkpoint(tmp_path / f"{channel}.safetensors", model, own)

    def report(*typed):
        files = ["--images", tmp_path / "images", "--masks", instances / "masks", "--out", tmp_path / "out"]
        invoke("evaluate", *files, "--device", "cpu", *typed)
        return json.loads((tmp_path / "out/report.json").read_text())

    first, second = tmp_path / "0.safetensors", tmp_path / "1.safetensors"
    assert report("--run", first, "--against", second)["against"] == report("--run", second)
    assert report("--run", second)["mean"] != report("--run", first)["mean"]


def test_another_run_of_other_classes_is_refused(evaluated, balanced, tmp_path):
    config = load_checkpoint(balanced["UNet"]).config
    for name, change in (("classes", {"classes": 3}), ("channels", {"in_channels": 3})):
        arguments = {**config.arguments, **change}
        mean, std = ([1.0] * arguments["in_channels"] for _ in range(2))
        normalization = type(config.normalization)(mean, std)
        other = SegmenterConfig("UNet", arguments, ["a", "b", "c"][: arguments["classes"]], normalization)
        save_checkpoint(tmp_path / f"{name}.safetensors", other.build(), other)
        result = evaluated("--against", tmp_path / f"{name}.safetensors", code=2)
        assert "'--against'" in result.stderr
        assert name in result.stderr
    model, config, _ = load_checkpoint(balanced["EquivariantUNet"])
    save_checkpoint(tmp_path / "order.safetensors", model, replace(config, classes=config.classes[::-1]))
    result = evaluated("--against", tmp_path / "order.safetensors", code=2)
    assert "'--against': it has the classes of --run in another order: cell, " in result.stderr


def test_objects_that_do_not_fit_are_refused(evaluated, instances, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    Image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save(wrong / "00.png")
    result = evaluated("--masks", instances / "masks", "--instances", wrong, code=2)
    assert "no objects of this name" in result.stderr
    Image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save(wrong / "01.png")
    result = evaluated("--masks", instances / "masks", "--instances", wrong, code=2)
    assert "image 128x128, mask 5x5" in result.stderr
    assert not (tmp_path / "out").exists()


def test_objects_of_folders_in_folders_are_told_apart(invoke, balanced, instances, tmp_path):
    """Two images of one name, each with the objects that lie where it lies."""
    for kind in ("images", "masks", "instances"):
        for name in ("00", "01"):
            place = tmp_path / kind / name / "x.png"
            place.parent.mkdir(parents=True)
            with Image.open(instances / kind / f"{name}.png") as file:
                file.save(place)
    typed = [part for kind in ("images", "masks", "instances") for part in (f"--{kind}", tmp_path / kind)]
    command = ["evaluate", "--run", balanced["EquivariantUNet"], *typed, "--recursive", "--out", tmp_path / "out"]
    invoke(*command)
    found = json.loads((tmp_path / "out/report.json").read_text())["by_image"]
    true = {name: int(read_mask(instances / "instances" / f"{name}.png").max()) for name in ("00", "01")}
    assert true["00"] != true["01"]
    assert {name: each["objects"]["true"] for name, each in found.items()} == {f"{k}/x": n for k, n in true.items()}
    np.save(tmp_path / "instances/00/x.npy", np.zeros((128, 128), dtype=np.uint16))
    result = invoke(*command, code=2)
    assert "the name of several files" in result.stderr


@pytest.mark.parametrize(
    ("architecture", "group", "reflects"),
    [
        ("EquivariantUNet", "C4", False), ("EquivariantUNet", "D4", True), ("ObjectUNet", "D8", True),
        ("ObjectUNet", "D2", False), ("ObjectUNet", None, False), ("UNet", ..., False), ("ObjectUNet", ..., False),
    ],
)  # fmt: skip
def test_reflections_are_compared_if_the_group_has_them(architecture, group, reflects):
    arguments = {"in_channels": 1, "classes": 2} | ({} if group is ... else {"group": group})
    config = SegmenterConfig(architecture, arguments, ("none", "cell"), Normalization([0.0], [1.0]))
    assert _reflects(Checkpoint(None, config, 0)) == reflects
