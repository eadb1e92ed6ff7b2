"""benchmarks/objects.py: its quick form, its tables, and that an interrupted run is continued."""

import importlib
import json

import pytest
from house import ROOT

from gconv_ga import images, segmenter

for _package in ("pytorch_lightning", "skimage", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")


@pytest.fixture
def objects(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("objects")


def test_the_study_in_short(objects, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    methods = ["plain, augmented", "C4", "D4"]
    call = ["--quick", "--tasks", "nuclei", "--methods", *methods, "--out", str(out), "--weights", str(tmp_path)]
    rows = objects.main(call)
    assert [row["method"] for row in rows] == methods
    for row in rows:
        exact = row["method"] != "plain, augmented"
        assert row["moved pixels"] == row["partnerless"] == 0 if exact else row["moved pixels"] > 0.01
        assert 0 <= row["AP"] <= row["AP50"] <= 1
    assert rows[1]["parameters"] < rows[0]["parameters"]
    assert capsys.readouterr().out.count("\n| nuclei |") == 2 * len(rows)
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    again = objects.main(call)
    assert out.read_text().splitlines()[:-1] == lines[:-1]
    assert [row["AP"] for row in again] == [row["AP"] for row in rows]
    assert objects.main(["--quick", "--tasks", "nuclei", "--table", str(out)]) == again
    assert json.loads(lines[0]) == rows[0]
    kept = {path.stem: segmenter.load_checkpoint(path) for path in tmp_path.glob("*.safetensors")}
    assert sorted(kept) == ["nuclei_2_C4_0", "nuclei_2_D4_0", "nuclei_2_plain_0"]
    assert all(checkpoint.config.decoder.method == "watershed" for checkpoint in kept.values())


def test_widths_match_the_multiply_adds(objects):
    grey = images.Normalization([0.5], [0.2])
    widths = {method: objects.describe(method, grey, 16).arguments["width"] for method in objects.METHODS}
    assert widths == {"plain, augmented": 16, "C4": 4, "D4": 2, "C8": 2}


def test_exactness_in_short(objects, tmp_path, capsys):
    out, module = tmp_path / "rows.jsonl", importlib.import_module("objects_exact")
    rows = module.main(["--quick", "--out", str(out)])
    assert [(row["method"], row["tiled"]) for row in rows] == [
        (method, tiled) for method in ("C4", "D4", "plain, augmented") for tiled in (False, True)
    ]
    for row in rows:
        assert row["objects"] > row["images"] == 2
        assert row["comparisons"] == 2 * (7 if row["method"] == "D4" else 3)
        exact = row["method"] != "plain, augmented"
        assert (row["moved pixels"], row["changed images"]) == (0, 0) if exact else row["moved pixels"] > 100
    assert capsys.readouterr().out.count("\n| histology |") == 6
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    assert module.main(["--quick", "--out", str(out)]) == rows
