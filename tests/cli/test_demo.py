"""The demonstration from end to end, in small: its table, its files, Ctrl-C."""

import json
import signal

import pytest
import torch
from forked import Forked
from PIL import Image
from typer.testing import CliRunner

from gconv_ga.cli import _demo
from gconv_ga.cli._app import app
from gconv_ga.cli._demo import networks_to_compare, prepare
from gconv_ga.evaluate import dice
from gconv_ga.images import SAMPLES, load_sample
from gconv_ga.predict import predict_labels
from gconv_ga.segmenter import load_checkpoint


def demo(folder, *arguments):
    wide = {"NO_COLOR": "1", "COLUMNS": "120"}
    return CliRunner().invoke(app, ["demo", "--device", "cpu", "--out", str(folder), *arguments], env=wide)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One short run: the folder, and what was printed."""
    folder = tmp_path_factory.mktemp("run") / "demo"
    result = demo(folder, "--steps", "60", "--seed", "1")
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture(scope="module")
def results(done):
    return json.loads((done[0] / "results.json").read_text())


def test_the_folder_holds_what_the_closing_words_name(done):
    folder, result = done
    checkpoints = {f"{key}.safetensors" for key in ("equivariant", "plain", "plain-unaugmented")}
    assert {path.name for path in folder.iterdir()} == {"demo.png", "results.json", *checkpoints}
    assert all(path.name in result.output for path in folder.iterdir())


def test_the_numbers_are_those_of_the_run(results):
    assert (results["group"], results["data"], results["steps"], results["seed"]) == ("C4", "nuclei", 60, 1)
    assert [each["augmentation"] for each in results["networks"]] == ["D4", "D4", None]
    ours, baseline, unaugmented = results["networks"]
    assert baseline["arguments"] == unaugmented["arguments"]
    assert ours["parameters"] / baseline["parameters"] == pytest.approx(1 / 4, rel=0.01)


def test_the_equivariant_network_changes_no_label(results):
    ours, *plain = (each["scores"] for each in results["networks"])
    assert ours["upright"] > 0.3, "an empty mask would not change either"
    assert ours["changed"] < 1e-4
    assert ours["rotated"] == pytest.approx(ours["upright"], abs=1e-3)
    assert all(scores["changed"] > ours["changed"] for scores in plain)


def test_the_table_shows_the_numbers(done, results):
    lines = [line for line in done[1].output.splitlines() if "│" in line]
    for each in results["networks"]:
        (line,) = [line for line in lines if f"│ {each['name']} " in line]
        scores = each["scores"]
        for cell in (
            f"{scores['upright']:.3f}", f"{scores['rotated']:.3f}", f"{100 * scores['changed']:.3f} %",
            f"{each['parameters']:,}",
        ):  # fmt: skip
            assert f" {cell} " in line


def test_the_checkpoints_give_the_same_scores(done, results):
    test = load_sample("nuclei").test
    for each in results["networks"]:
        model, config, step = load_checkpoint(done[0] / each["checkpoint"])
        assert (config.architecture, config.arguments, step) == (each["architecture"], each["arguments"], 60)
        score = dice(predict_labels(model, test.images), test.masks, classes=2)
        assert score == pytest.approx(each["scores"]["upright"], abs=1e-4)


def test_the_picture_is_a_picture(done):
    with Image.open(done[0] / "demo.png") as file:
        assert (file.format, file.size) == ("PNG", (2112, 1336))
    assert (done[0] / "demo.png").stat().st_size < 400_000


def test_the_closing_words_name_commands_that_exist(done):
    lines = [line.split() for line in done[1].output.splitlines() if line.startswith("  gconv-ga")]
    assert len(lines) == 3
    for _, command, *options in lines:
        result = CliRunner().invoke(app, [command, *options, "--help"])
        assert result.exit_code == 0


def test_what_is_to_be_tried_in_python_runs(done, capsys):
    (line,) = [line for line in done[1].output.splitlines() if line.startswith("  python -c")]
    code = line.partition('"')[2].rpartition('"')[0]
    exec(code, {"__name__": "__main__"})
    assert "EquivariantUNet" in capsys.readouterr().out


@pytest.mark.parametrize(("group", "data"), [("D4", "histology"), ("d1", "nuclei")])
def test_other_groups_and_data(group, data, tmp_path):
    result = demo(tmp_path, "--steps", "1", "--group", group, "--data", data)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["group"], results["data"]) == (group.upper(), data)
    assert results["networks"][0]["scores"]["changed"] < 1e-4


@pytest.mark.parametrize(("group", "width", "kernel_size"), [("C2", 8, 3), ("D4", 2, 3), ("C8", 2, 5), ("C16", 1, 5)])
def test_the_baseline_is_as_wide_for_every_group(group, width, kernel_size):
    ours, baseline, unaugmented = (
        each.config.arguments for each in networks_to_compare(group, load_sample("histology"))
    )
    assert (ours["group"], ours["width"], ours["kernel_size"], ours["in_channels"]) == (group, width, kernel_size, 3)
    assert (
        baseline == unaugmented == {"in_channels": 3, "classes": 2, "width": 16, "depth": 3, "kernel_size": kernel_size}
    )


def test_the_choice_of_data_is_that_of_the_package():
    result = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "200"})
    assert all(name in result.output for name in SAMPLES)


def test_ctrl_c_keeps_the_last_checkpoint_and_says_where(tmp_path):
    checkpoint = tmp_path / "run" / "equivariant.safetensors"
    typed = ["demo", "--device", "cpu", "--steps", "5000", "--out", "run"]
    with Forked(tmp_path, *typed, cwd=tmp_path) as process:
        process.wait_for(checkpoint)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert process.output == ""
    step = load_checkpoint(checkpoint).step
    last = process.errors.strip().splitlines()[-1]
    assert last == f"gconv-ga: stopped; saved so far: run/equivariant.safetensors (step {step})"
    assert "Traceback" not in process.errors


def test_ctrl_c_before_the_first_checkpoint_says_so(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("gconv_ga.cli._demo.fit", interrupted)
    result = demo(tmp_path, "--steps", "30")
    assert result.exit_code == 130
    assert result.stderr.endswith("gconv-ga: stopped; nothing is saved before step 25\n")
    assert list(tmp_path.iterdir()) == []


def test_the_image_shown_is_the_one_that_changes_most(done, monkeypatch):
    """Counted anew from the checkpoints."""
    seen = {}

    def look(image, truth, predictions, **options):
        seen.update(image=image, predictions=predictions)
        raise StopIteration

    monkeypatch.setattr(_demo, "demo_figure", look)
    comparison = prepare("C4", "nuclei", steps=20, seed=1, device=torch.device("cpu"), folder=done[0])
    models = [load_checkpoint(comparison.checkpoint(each)).model for each in comparison.networks]

    class Result:
        def __init__(self, network, model):
            self.network, self.model = network, model

    with pytest.raises(StopIteration):
        _demo.draw(comparison, [Result(*pair) for pair in zip(comparison.networks, models, strict=True)])
    images = comparison.sample.test.images
    upright, turned = (predict_labels(models[1], x) for x in (images, images.rot90(1, (-2, -1))))
    counts = (turned.rot90(-1, (-2, -1)) != upright).sum(dim=(1, 2))
    assert torch.equal(seen["image"], images[counts.argmax()])
    first, second = seen["predictions"]["baseline, augmented"]
    assert int((second.rot90(-1, (-2, -1)) != first).sum()) == counts.max()
