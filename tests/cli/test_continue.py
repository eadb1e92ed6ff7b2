"""Commands that were interrupted do what is missing, and never take for done what is of other settings or sources."""

import json
import os
import shutil
from pathlib import Path

import pytest

import gconv_ga.evaluate
import gconv_ga.predict
from gconv_ga.images import read_mask


def copy(data, folder, count=3):
    for kind, source in (("images", data[1]), ("masks", data[3])):
        (folder / kind).mkdir()
        for index in range(count):
            shutil.copy(Path(source) / f"{index:02}.png", folder / kind)
    return folder / "images"


@pytest.fixture
def images(data, tmp_path):
    return copy(data, tmp_path)


@pytest.fixture
def counted(monkeypatch):
    """Names of the files that are predicted, in order; the one of a given number is interrupted, and not counted."""
    calls, until, original = [], [None], gconv_ga.predict.predict_to_file

    def predict(network, image, target, **options):
        if len(calls) == until[0]:
            raise KeyboardInterrupt
        calls.append(target.name)
        return original(network, image, target, **options)

    monkeypatch.setattr(gconv_ga.predict, "predict_to_file", predict)
    return calls, until


def test_predictions_of_images_that_were_replaced_are_made_again(invoke, balanced, images, counted, tmp_path):
    typed = ["predict", "--run", balanced["UNet"], "--images", images, "--out", tmp_path / "out", "--probabilities"]
    calls, until = counted
    until[0] = 2
    invoke(*typed, code=130)
    until[0] = None
    assert "1 image done, 2 skipped" in invoke(*typed).stdout
    assert calls == ["00.png", "01.png", "02.png"]
    for harm in ("date", "content", "prediction", "record"):
        calls.clear()
        if harm == "date":
            os.utime(images / "01.png", ns=(1, 1))
        elif harm == "content":
            shutil.copy(images / "02.png", images / "01.png")
        elif harm == "prediction":
            (tmp_path / "out" / "01.png").unlink()
        else:
            journal = tmp_path / "out" / "predict.jsonl"
            lines = journal.read_text().splitlines(keepends=True)
            journal.write_text("".join(line for line in lines if '"01"' not in line))
        assert "1 image done, 2 skipped" in invoke(*typed).stdout, harm
        assert calls == ["01.png"], harm


def test_the_prediction_of_an_image_that_is_damaged_by_now_is_gone(invoke, balanced, images, tmp_path):
    typed = ["predict", "--run", balanced["UNet"], "--images", images, "--out", tmp_path / "out", "--probabilities"]
    invoke(*typed)
    (images / "01.png").write_text("no image")
    assert "01.png" in invoke(*typed, code=1).stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("0*")) == ["00.npy", "00.png", "02.npy", "02.png"]


def test_other_predictions_are_replaced_where_that_is_asked_for(invoke, balanced, images, counted, tmp_path):
    calls, until = counted
    typed = ["predict", "--images", images, "--out", tmp_path / "out"]
    invoke(*typed, "--run", balanced["UNet"], "--probabilities")
    shutil.copy(images / "00.png", tmp_path / "out" / "mine.png")
    for other in (["--run", balanced["UNet"]], ["--run", balanced["EquivariantUNet"], "--probabilities"]):
        assert "--overwrite" in invoke(*typed, *other, code=2).stderr
    assert len(list((tmp_path / "out").glob("*.npy"))) == 3
    calls.clear()
    until[0] = 1
    other = ["--run", balanced["EquivariantUNet"], "--tile", "64", "--overwrite"]
    invoke(*typed, *other, code=130)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*")) == [
        "00.png", "mine.png", "predict.json", "predict.jsonl"
    ]  # fmt: skip
    until[0] = None
    assert "2 images done, 1 skipped" in invoke(*typed, *other).stdout
    assert calls == ["00.png", "01.png", "02.png"]
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["tile"] == 64
    invoke("predict", "--images", images, "--out", tmp_path / "new", *other)
    for path in (tmp_path / "new").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_an_evaluation_scores_what_is_missing(invoke, balanced, images, tmp_path, monkeypatch):
    """Interrupted again and again: the images whose scores are begun show what was kept."""
    names = {int(read_mask(tmp_path / "masks" / f"{name}.png").sum()): name for name in ("00", "01", "02")}
    assert len(names) == 3
    begun, until, original = [], [9], gconv_ga.evaluate.evaluate_image

    def score(model, image, mask, **options):
        begun.append(names[int(mask.sum())])
        if len(begun) > until[0]:
            raise KeyboardInterrupt
        return original(model, image, mask, **options)

    typed = ["evaluate", "--images", images, "--masks", tmp_path / "masks", "--device", "cpu", "--run"]
    one, other = balanced["EquivariantUNet"], balanced["UNet"]
    monkeypatch.setattr(gconv_ga.evaluate, "evaluate_image", score)
    for options, until[0], expected in (
        ([one], 2, ["00", "01", "02"]),
        ([one], 0, ["02"]),
        ([one, "replaced"], 0, ["00"]),
        ([other], 1, ["00", "01"]),
        ([other], 0, ["01"]),
        ([other, "--tile", "64"], 0, ["00"]),
        ([one], 1, ["00", "01"]),
    ):
        begun.clear()
        if "replaced" in options:
            os.utime(images / "00.png", ns=(1, 1))
            options.remove("replaced")
        invoke(*typed, *options, "--out", tmp_path / "out", code=130)
        assert begun == expected
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluate.jsonl"]
    until[0] = 9
    begun.clear()
    said = invoke(*typed, one, "--out", tmp_path / "out").stdout
    assert begun == ["01", "02"]
    assert invoke(*typed, one, "--out", tmp_path / "whole").stdout.replace("whole", "out").split() == said.split()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    for name in ("report.html", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
