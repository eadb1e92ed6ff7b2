"""Hooks of the site: formulas become MathML, files of the repository are included, titles are those of griffe."""

import html
import logging
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PLAY = "rotate.html"  # the page of `gconv-ga play`
INCLUDE = re.compile(r"^<!-- include (\S+?)(?: from (#.*?))? -->$", re.MULTILINE)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add the figures of the repository, and the page to play with where the extra ``train`` is installed."""
    for path in sorted((ROOT / "figures").iterdir()):
        if path.suffix in (".png", ".gif"):
            files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    try:
        from gconv_ga.play import play_page
    except ModuleNotFoundError as error:
        logging.getLogger("mkdocs.hooks").info("The page to play with is left out: %s", error)
    else:
        files.append(File.generated(config, PLAY, content=play_page()))


def on_page_markdown(markdown: str, *, files: Files, **_: Any) -> str:
    """Replace ``<!-- include FILE -->`` by the file, or by what follows a heading of it; link the page to play with."""
    link = f"[**Open the page**]({PLAY}) (0.4 MB; it needs no other file)." if files.get_file_from_path(PLAY) else ""
    markdown = markdown.replace("<!-- play -->", link)
    return INCLUDE.sub(lambda found: included(found[1], found[2]), markdown)


def included(name: str, heading: str | None) -> str:
    """Return a file of the repository without its first heading, or the section under another heading."""
    text = (ROOT / name).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"{heading}\n" if heading else "\n")
    if not found:
        raise ValueError(f"{name} has no heading {heading!r}")
    if heading:
        level = len(heading) - len(heading.lstrip("#"))
        rest = re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return rest.replace("](../figures/", "](figures/")


def on_page_content(content: str, *, page: Page, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw without a script; in the table of contents they stay letters."""
    entries = list(page.toc)
    while entries:
        entry = entries.pop()
        entry.title = re.sub(r"\\\((.*?)\\\)", lambda found: found[1].replace("\\", ""), entry.title)
        entries += entry.children
    return FORMULA.sub(drawn, content)


def drawn(found: re.Match[str]) -> str:
    """Return a formula as MathML, one between lines in a block that scrolls where it is wider than the page."""
    formula = html.unescape(found[2]).replace("{aligned}", "{align*}")  # latex2mathml knows the latter alone
    if found[1] == "span":
        return convert(formula)
    return f'<div class="formula">{convert(formula, display="block")}</div>'


class Titles(griffe.Extension):
    """Sections of our docstrings under the titles that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Call an Example what griffe calls it: Examples, which it shows as code."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
