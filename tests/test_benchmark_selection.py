"""The comparison of rules that keep a checkpoint: the rules by hand, and a quick run that is continued."""

import importlib
import json

import pytest
from house import ROOT

for _package in ("pytorch_lightning", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")

SCORES = [[0.9, 0.5, 0.7, 0.7], [0.2, 0.2, 0.2, 0.2], [0.6, 0.6, 0.6, 0.6], [0.5, 0.5, 0.9, 0.4], [0.5, 0.5, 0.5, 0.5]]


@pytest.fixture
def selection(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("selection")


@pytest.mark.parametrize(
    ("rule", "images", "time"),
    [
        ("last", 4, 4), ("best", 4, 0), ("best", 2, 0), ("best of the last half", 4, 2),
        ("best of the last three", 2, 2), ("best if beyond the standard error", 4, 0),
    ],
)  # fmt: skip
def test_what_a_rule_keeps(rule, images, time, selection):
    assert selection.RULES[rule](SCORES, images) == time


def test_a_lead_within_the_noise_is_none(selection):
    """Over the last state the first one leads by 0.1 with a standard error of 0.1, or with none."""
    noisy = [[0.8, 0.4, 0.8, 0.4], [0.5, 0.5, 0.5, 0.5]]
    assert selection.beyond_noise(noisy, 4) == 1
    assert selection.beyond_noise([[0.6] * 4, [0.5] * 4], 4) == 0
    assert selection.best_from(noisy, 0, 4) == 0


def test_a_quick_run_is_continued_and_its_table_is_printed(selection, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    typed = ["--quick", "--tasks", "nuclei", "--methods", "C8", "--out", str(out), "--seeds"]
    selection.main([*typed, "1"])
    before = out.read_text()
    (row,) = map(json.loads, before.splitlines())
    assert (len(row["validation"]), len(row["test"])) == (10, 10)
    rows = selection.main([*typed, "1"])
    assert out.read_text() == before
    assert len(rows) == 1
    assert "| last | +0.0000 | +0.0000 | - | - | - | +0.000 | +0.000 | 0 | 0 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        selection.main([])
