"""The comparison of settings around the defaults of ``gconv-ga train``: its base, its table, and a quick run."""

import dataclasses
import importlib
import inspect

import pytest
from house import ROOT

for _package in ("pytorch_lightning", "torchmetrics", "torchvision", "typer"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("recipe")


def test_the_base_differs_from_the_defaults_of_train_in_its_steps_alone(recipe):
    from gconv_ga.cli._train_options import NetworkOptions
    from gconv_ga.cli._train_runs import LARGEST_CROP
    from gconv_ga.train import RunConfig, Segmenter

    defaults = {
        field.name: field.metadata.get("default", field.default)
        for options in (RunConfig, NetworkOptions)
        for field in dataclasses.fields(options)
    }
    base = recipe.OPTIONS[recipe.BASE]
    assert base.crop == LARGEST_CROP
    assert (base.batch, base.depth, base.rate) == tuple(
        defaults[name] for name in ("batch_size", "depth", "learning_rate")
    )
    assert base.steps < defaults["steps"]
    assert defaults["steps"] in {option.steps for option in recipe.OPTIONS.values()}
    assert base.decay == inspect.signature(Segmenter).parameters["weight_decay"].default
    changed = [
        [name for name, value in dataclasses.asdict(option).items() if value != getattr(base, name)]
        for option in recipe.OPTIONS.values()
    ]
    assert [len(names) for names in changed] == [2 if names == ["crop", "batch"] else bool(names) for names in changed]


def test_the_table_pairs_rows_of_a_set_and_a_seed(recipe):
    def row(option, seed, kept, seconds):
        return {"option": option, "task": "nuclei", "seed": seed, "kept": kept, "last": kept, "seconds": seconds}

    rows = [row("base", 0, 0.8, 10), row("base", 1, 0.6, 10), row("depth 3", 0, 0.9, 5), row("depth 3", 2, 0.1, 5)]
    kept, _ = recipe.tables(rows)
    assert "| base | 0.700 | - | - | - | 0.600 | 0.800 | - | 1.00 |" in kept
    assert "| depth 3 | +0.100 | - | - | - | +0.100 | +0.100 | 1/1 | 0.50 |" in kept


def test_a_quick_run_is_continued(recipe, tmp_path):
    out = tmp_path / "rows.jsonl"
    typed = ["--quick", "--tasks", "nuclei", "--options", "base", "--seeds", "1", "--out", str(out)]
    recipe.main(typed)
    before = out.read_text()
    (row,) = recipe.main(typed)
    assert out.read_text() == before
    assert 0 < row["kept"] <= 1
    with pytest.raises(SystemExit):
        recipe.main([])
