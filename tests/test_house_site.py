"""The documentation site: every public module has its page, every page its place, and links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
from house import PROJECT, ROOT, public_modules

DOCS = ROOT / "docs"
NAV = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def reference_page(module: str) -> str:
    return f"reference/{module.removeprefix('gconv_ga.')}.md"


def test_every_public_module_has_a_page():
    pages = {reference_page(module): module for module in sorted(public_modules())}
    found = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("reference/*.md")}
    assert found - {"reference/index.md"} == set(pages)
    for page, module in pages.items():
        assert (DOCS / page).read_text(encoding="utf-8") == f"# {module}\n\n::: {module}\n"
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\S+?)\)", index) == [page.removeprefix("reference/") for page in pages]


def test_every_page_has_a_place():
    assert sorted(NAV) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def broken_links(page: Path, text: str) -> list[str]:
    """The links between pages of the site that lead nowhere; figures come from the folder of that name."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    places = {target: ROOT / target if target.startswith("figures/") else page.parent / target for target in targets}
    return [target for target, place in places.items() if not place.is_file()]


def test_links_lead_somewhere():
    found = {page: broken_links(page, page.read_text(encoding="utf-8")) for page in DOCS.rglob("*.md")}
    assert [links for links in found.values() if links] == []
    assert broken_links(DOCS / "index.md", "[a](play.md) [b](absent.md#x) ![c](figures/none.png)") == [
        "absent.md",
        "figures/none.png",
    ]


def test_citation_names_the_version():
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in (DOCS / "citation.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hooks():
    for name in ("griffe", "latex2mathml", "mkdocs"):
        pytest.importorskip(name, reason=f"{name}, from the extra docs, is not installed")
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_are_included_and_formulas_drawn(hooks):
    files = pytest.importorskip("mkdocs.structure.files").Files([])
    page = hooks.on_page_markdown("a\n<!-- include notebooks/README.md from # Glossary -->\nb", files=files)
    assert "## Symmetry" in page
    assert "| notebook |" not in page
    page = hooks.on_page_markdown("<!-- include README.md from ## Use it -->", files=files)
    assert "**A point cloud.**" in page
    assert "## What was measured" not in page
    with pytest.raises(ValueError, match="no heading '# Absent'"):
        hooks.on_page_markdown("<!-- include notebooks/README.md from # Absent -->", files=files)
    drawn = hooks.on_page_content(r'x <span class="arithmatex">\(a &lt; \rho\)</span> y')
    assert drawn.startswith("x <math")
    assert "<mo>&lt;</mo>" in drawn.replace("&#x0003C;", "&lt;")
