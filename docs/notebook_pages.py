"""Hook of the site: the executed notebooks become pages, from the outputs that are stored beside their sources.

Nothing is executed here: a test compares each notebook with its source, and CI runs the sources.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parent.parent / "notebooks"
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
NOTEBOOK = re.compile(r"\[(?:(\d), )?([^]]+)\]\((\w+)\.ipynb\)")
FORMULA = re.compile(r"^(\$\$.*?\$\$)$", re.DOTALL | re.MULTILINE)
OUR_NAME = re.compile(r"`(gconv_ga(?:\.\w+)*\.(\w+))`")
NUMBERS = re.compile(r" \(\d(?:, \d)*\)(?= \|$)", re.MULTILINE)  # the notebooks of a row of the glossary


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add a page and a copy to run for each notebook, their pictures, their table, and the table of the slides."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        page, pictures = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
        for copy in (path, path.with_suffix(".py")):
            files.append(File.generated(config, f"notebooks/{copy.name}", abs_src_path=str(copy)))
    index = (FOLDER / "README.md").read_text(encoding="utf-8").partition("\n# Glossary\n")[0]
    files.append(File.generated(config, "notebooks/index.md", content=site_links(index.replace("\n# ", "\n## "))))
    slides = "---\nhide: [toc]\n---\n\n" + (FOLDER / "slides.md").read_text(encoding="utf-8")  # a wide table
    files.append(File.generated(config, "notebooks/slides.md", content=link_names(site_links(slides))))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link the numbers of notebooks and the names of the library in the tables of the glossary."""
    if "\n## The bridge\n" not in markdown:
        return markdown
    pages = {path.stem[1]: f"notebooks/{path.stem}.md" for path in FOLDER.glob("*.ipynb")}
    markdown = NUMBERS.sub(lambda found: re.sub(r"\d", lambda n: f"[{n[0]}]({pages[n[0]]})", found[0]), markdown)
    return link_names(markdown)


def link_names(text: str) -> str:
    """Let names of the library lead to the reference, and show their last part, which breaks at its underscores."""
    return OUR_NAME.sub(lambda found: f"[<code>{found[2].replace('_', '_<wbr>')}</code>][{found[1]}]", text)


def site_links(text: str) -> str:
    """Let links to notebooks lead to their pages, those that name a section to the section."""

    def link(found: re.Match[str]) -> str:
        number, title, name = found.groups()
        section = f"#{slugify(title.replace('$', ''), '-')}" if number else ""
        return f"[{f'{number}, ' if number else ''}{title}]({name}.md{section})"

    return NOTEBOOK.sub(link, text).replace("](README.md", "](index.md")


def notebook_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return the page of an executed notebook in Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    title = name
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            title = (HEADING.findall(source) or [title])[-1]
            parts.append(FORMULA.sub(r"\n\1\n", site_links(source)))
            if len(parts) == 1:
                parts.append(f"[Notebook]({name}.ipynb) · [source]({name}.py) · [how to run it](index.md#to-run-them)")
            continue
        parts.append(fenced(source.removeprefix("%matplotlib inline\n"), "python"))
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(fenced("".join(output["text"]), "text"))
            elif "image/png" in output["data"]:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![Figure: {re.sub(r'[$]', '', title)}]({picture})")
            else:
                parts.append(fenced("".join(output["data"]["text/plain"]), "text"))
    return "\n\n".join(parts) + "\n", pictures


def fenced(text: str, language: str) -> str:
    """Return a block of code or of output."""
    return f"````{language}\n{text.rstrip()}\n````"
