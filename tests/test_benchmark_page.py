"""The tables of benchmarks/README.md that a command puts there are those of the committed rows."""

import importlib
import io
from types import ModuleType

import pytest
from house import ROOT

for _package in ("pytorch_lightning", "segmentation_models_pytorch", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")

ONE = "| a | b |\n|---|---|\n| 1 | 2 |\n\nText.\n\n| c |\n|---|\n| 3 |\n"
TWO = "| a | b |\n|---|---|\n| 5 | 6 |\n"
PAGE = f"# Page\n\n## one\n\n{ONE}\n## two\n\n{TWO}"


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.fixture
def page_tables() -> ModuleType:
    return importlib.import_module("page_tables")


@pytest.mark.parametrize(("name", "section"), [("study", "study"), ("recipe", "study")])
def test_the_page_has_the_tables_of_the_committed_rows(name: str, section: str, page_tables, capsys) -> None:
    benchmark = importlib.import_module(name)
    benchmark.main(["--table", str(ROOT / "benchmarks" / "results" / f"{name}.jsonl")])
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    again, _ = page_tables.replaced(page, section, printed)
    assert again == page
    # A page with another number is not the page of these rows.
    line = next(line for line in printed.splitlines() if line.count("0.") > 3 and line in page)
    broken = page.replace(line, line.replace("0.", "1."))
    assert broken != page == page_tables.replaced(broken, section, printed)[0]


def test_a_table_replaces_the_one_of_its_titles_in_its_section(page_tables, monkeypatch, tmp_path, capsys) -> None:
    printed = (
        "Title:\n\n| a | b |\n|---|---|\n| 7 | 8 |\n| 9 | 10 |\n\n| d |\n|---|\n\n| a | b |\n|---|---|\n| 0 | 0 |\n"
    )
    path = tmp_path / "README.md"
    path.write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(page_tables, "PAGE", path)
    monkeypatch.setattr("sys.stdin", io.StringIO(printed))
    page_tables.main(["one"])
    assert path.read_text(encoding="utf-8") == PAGE.replace("| 1 | 2 |", "| 7 | 8 |\n| 9 | 10 |")
    assert capsys.readouterr().err == "no place for: | d |\n"


@pytest.mark.parametrize(
    ("page", "section", "words"),
    [(PAGE, "three", "section must be a heading"), (PAGE.replace("## two", "### two"), "one", "2 tables")],
)
def test_what_has_no_single_place_is_refused(page: str, section: str, words: str, page_tables) -> None:
    with pytest.raises(ValueError, match=words):
        page_tables.replaced(page, section, "| a | b |\n|---|---|\n| 7 | 8 |\n")
