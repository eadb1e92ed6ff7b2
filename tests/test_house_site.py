"""The documentation site: every public module has its page, every page its place, and links lead somewhere."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from house import PROJECT, ROOT, public_modules

DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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


def notebook_pages() -> list[str]:
    """The pages that docs/notebook_pages.py makes."""
    return [f"notebooks/{name}.md" for name in ["index", "slides", *(path.stem for path in NOTEBOOKS)]]


def test_every_page_has_a_place():
    written = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(NAV) == sorted(written + notebook_pages())


def broken_links(page: Path, text: str) -> list[str]:
    """The links between pages of the site that lead nowhere; figures come from the folder of that name."""
    targets = [target for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text) if target not in notebook_pages()]
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


def hook(name: str):
    """A hook of the site, as a module."""
    for package in ("griffe", "latex2mathml", "mkdocs"):
        pytest.importorskip(package, reason=f"{package}, from the extra docs, is not installed")
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks():
    return hook("hooks")


@pytest.fixture(scope="module")
def pages():
    return hook("notebook_pages")


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


def test_formulas_are_drawn(hooks):
    page = SimpleNamespace(toc=[SimpleNamespace(title=r"Distribute \(L_g\)", children=[])])
    drawn = hooks.on_page_content(r'x <span class="arithmatex">\(a &lt; \rho\)</span> y', page=page)
    assert page.toc[0].title == "Distribute L_g"
    assert drawn.startswith("x <math")
    assert "<mo>&lt;</mo>" in drawn.replace("&#x0003C;", "&lt;")
    block = r'<div class="arithmatex">\[\begin{aligned} a &amp;= b \\ &amp;= c \end{aligned}\]</div>'
    drawn = hooks.on_page_content(block, page=page)
    assert drawn.startswith('<div class="formula"><math')
    assert drawn.count("<mtr>") == 2  # two lines, no sign of alignment left
    assert "<mi>&" not in drawn


def test_a_notebook_becomes_a_page_with_its_outputs(pages):
    output = {"output_type": "execute_result", "data": {"image/png": "QUJD", "text/plain": ["<Figure>"]}}
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# 1. A\n", "Text"]},
            {
                "cell_type": "code",
                "source": ["%matplotlib inline\n", "a"],
                "outputs": [{"output_type": "stream", "text": ["3\n"]}, output],
            },
            {"cell_type": "markdown", "source": ["Next: [2. B](02_b.ipynb), [how](README.md#to-run-them)"]},
        ]
    }
    page, pictures = pages.notebook_page(notebook, "01_a")
    assert pictures == {"01_a-1.png": b"ABC"}
    assert "````python\na\n````\n\n````text\n3\n````\n\n![Figure: 1. A](01_a-1.png)" in page
    assert "(01_a.ipynb)" in page  # the copy to run
    assert "Next: [2. B](02_b.md), [how](index.md#to-run-them)" in page


def test_links_to_a_section_of_a_notebook_lead_to_it(pages):
    assert (
        pages.site_links("[5, $n$ numbers](05_x.ipynb), [x](x.py)") == "[5, $n$ numbers](05_x.md#n-numbers), [x](x.py)"
    )


def test_rows_of_the_glossary_link_to_the_notebooks(pages):
    row = "| a | b | `c` (1, 2) |\n"
    linked = pages.on_page_markdown(f"{row}## The bridge\n")
    assert "[1](notebooks/01_group_averaging.md), [2](notebooks/02_" in linked
    assert pages.on_page_markdown(row) == row  # another page


def test_names_of_the_library_lead_to_the_reference(pages):
    linked = pages.link_names("`gconv_ga.identities.kernel_rotation`, `gconv_ga`, `torch.nn.Conv2d`")
    name = "gconv_ga.identities.kernel_rotation"
    assert linked == f"[<code>kernel_<wbr>rotation</code>][{name}], `gconv_ga`, `torch.nn.Conv2d`"


def test_the_sources_of_the_notebooks_are_in_the_site():
    files = pytest.importorskip("mkdocs.structure.files", reason="mkdocs, from the extra docs, is not installed")
    load_config = pytest.importorskip("mkdocs.config").load_config
    config = load_config(str(ROOT / "mkdocs.yml"))
    names = [f"notebooks/{path.stem}{suffix}" for path in NOTEBOOKS for suffix in (".py", ".ipynb")]
    copies = [files.File(name, None, "site", use_directory_urls=False) for name in [*names, "hooks.py"]]
    files.set_exclusions(copies, config)
    assert [copy.src_uri for copy in copies if copy.inclusion.is_excluded()] == ["hooks.py"]
