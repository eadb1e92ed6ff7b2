"""benchmarks/training_options.py: its quick form and its tables, and that an interrupted run is continued."""

import importlib

import pytest
from house import ROOT

for _package in ("pytorch_lightning", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("training_options")


def test_the_options_in_short(benchmark, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    options = ["none", "augment strong", "balance crops", "balance weights", "boundary 2"]
    call = ["--quick", "--options", *options, "--out", str(out)]
    rows = benchmark.main([*call, "--most", "3"])
    assert len(rows) == 3
    rows = benchmark.main(call)
    assert [row["option"] for row in rows] == options
    assert len({row["dice"] for row in rows}) == len(rows), "each option changes the training"
    assert benchmark.main(["--quick", "--table", str(out)]) == rows
    printed = capsys.readouterr().out
    assert printed.count("| none | 1 | 0.") >= 3
    assert "| boundary 2 | 1 | +0." in printed or "| boundary 2 | 1 | -0." in printed
