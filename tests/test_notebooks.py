"""Notebooks equal their sources and were run from top to bottom; figures have a command and are small."""

import importlib
import re

import pytest
from house import ROOT, inside

from gconv_ga import identities

nbformat = pytest.importorskip("nbformat")
jupytext = pytest.importorskip("jupytext")

FOLDER, FIGURES = ROOT / "notebooks", ROOT / "figures"
SOURCES = sorted(FOLDER.glob("*.py"))
MEGABYTE = 2**20
OUR_NAME = re.compile(r"`(gconv_ga(?:\.\w+)+)`")
LINK = re.compile(r"\]\(([\w./-]+\.(?:ipynb|py|md|gif)(?:#[\w-]+)?)\)")
SECTION = re.compile(r"\[(\d), ([^]]+)\]\((\w+)\.ipynb\)")
NO_STATEMENTS = ("ScaledSides", "Sides", "TranslatedSides", "asymmetric_kernel", "asymmetric_signal")


def faults(source, notebook):
    """Return the faults of a notebook, one line each.

    Args:
        source: Notebook read by jupytext from the Python file.
        notebook: Notebook with outputs.
    """
    found = []
    in_source, in_notebook = (
        [(cell.cell_type, cell.source.strip()) for cell in each.cells] for each in (source, notebook)
    )
    if in_source != in_notebook:
        found.append("its cells differ from those of the source: execute it again")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("its cells were not run once each, from top to bottom")
    outputs = [output for cell in cells for output in cell.outputs]
    if any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs):
        found.append("it contains an error or a warning")
    if not any("image/png" in output.get("data", {}) for output in outputs):
        found.append("it has no picture")
    text = "".join(output.get("text", "") for output in outputs)
    if re.search(r"/(home|root|tmp|usr)/", text):
        found.append("it shows a path of the machine on which it was run")
    return found


def unknown_names(page):
    """Return the names of the package in a page that cannot be imported."""
    unknown = []
    for name in sorted(set(OUR_NAME.findall(page))):
        package, *parts = name.split(".")
        found = importlib.import_module(package)
        for part in parts:
            try:
                found = getattr(found, part, None) or importlib.import_module(f"{found.__name__}.{part}")
            except (ModuleNotFoundError, AttributeError):
                unknown.append(name)
                break
    return unknown


def pair(source):
    return jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pytest.mark.parametrize("source", SOURCES, ids=inside)
def test_a_notebook_is_its_source_run_from_top_to_bottom(source):
    assert faults(*pair(source)) == []
    assert source.with_suffix(".ipynb").stat().st_size < 1.5 * MEGABYTE


def test_every_notebook_has_a_source_and_a_line_in_the_table():
    assert [path.stem for path in SOURCES] == sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+)\.ipynb\)", page) == [path.stem for path in SOURCES]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda cells: cells[1].update(source="1 + 1"), "its cells differ from those of the source"),
        (lambda cells: cells.pop(), "its cells differ from those of the source"),
        (lambda cells: cells[1].update(execution_count=7), "not run once each, from top to bottom"),
        (lambda cells: cells[1].update(execution_count=None), "not run once each, from top to bottom"),
        (
            lambda cells: cells[1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="warning")),
            "it contains an error or a warning",
        ),
        (
            lambda cells: cells[1].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])),
            "it contains an error or a warning",
        ),
        (
            lambda cells: cells[1].outputs.append(
                nbformat.v4.new_output("stream", name="stdout", text=f"in /{'tmp'}/x/y")
            ),
            "a path of the machine",
        ),
        (lambda cells: [cell.update(outputs=[]) for cell in cells if "outputs" in cell], "it has no picture"),
    ],
)
def test_a_damaged_notebook_is_refused(damage, fault):
    source, notebook = pair(SOURCES[0])
    damage(notebook.cells)
    assert any(fault in line for line in faults(source, notebook))


def test_the_glossary_names_things_that_exist():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(OUR_NAME.findall(page)) > 20
    assert unknown_names(page) == []
    assert unknown_names("`gconv_ga.GroupAverage` `gconv_ga.Gone` `gconv_ga.averaging.Frames`") == [
        "gconv_ga.Gone",
        "gconv_ga.averaging.Frames",
    ]


def link_faults(names, read):
    """Return what is wrong with the links at the ends of the notebooks, one line each.

    Args:
        names: Names of the notebooks in their order.
        read: Function from the name of a notebook to its text.
    """
    found = []
    for name, following in zip(names, [*names[1:], None], strict=True):
        end = read(name).rpartition("# %% [markdown]")[2]
        wanted = {f"{name}.py", "README.md#to-run-them"} | ({f"{following}.ipynb"} if following else set())
        found += [f"{name} does not link to {link}" for link in sorted(wanted - set(LINK.findall(end)))]
    return found


def test_every_notebook_links_to_the_next_one_and_to_its_source():
    texts = {path.stem: path.read_text(encoding="utf-8").replace("\n# ", " ") for path in SOURCES}
    assert link_faults(list(texts), texts.get) == []
    for text in texts.values():
        for link in LINK.findall(text):
            assert (FOLDER / link.partition("#")[0]).exists(), link
    assert "# To run them" in (FOLDER / "README.md").read_text(encoding="utf-8")
    first, second = list(texts)[:2]
    damaged = texts | {first: texts[first].replace(f"({second}.ipynb)", "(03_the_bridge.ipynb)")}
    assert link_faults(list(texts), damaged.get) == [f"{first} does not link to {second}.ipynb"]


def slide_faults(page):
    """Return what is wrong with the table of the slides, one line each."""
    found = [f"{name} does not exist" for name in unknown_names(page)]
    statements = [f"gconv_ga.identities.{name}" for name in identities.__all__ if name not in NO_STATEMENTS]
    found += [f"{name} is missing" for name in statements if f"`{name}`" not in page]
    for number, section, notebook in SECTION.findall(page):
        text = (FOLDER / f"{notebook}.py").read_text(encoding="utf-8")
        if int(number) != int(notebook[:2]) or f"# ## {section}\n" not in text:
            found.append(f"{notebook} has no section {number}, {section}")
    return found


def test_the_table_of_the_slides_names_functions_and_sections_that_exist():
    page = (FOLDER / "slides.md").read_text(encoding="utf-8")
    assert len(SECTION.findall(page)) == page.count("\n| ") - 2  # all rows but the head
    assert slide_faults(page) == []
    damaged = page.replace("kernel_rotation", "kernel_turn").replace("[5, The proof]", "[5, The evidence]")
    faults = slide_faults(damaged)
    assert {"gconv_ga.identities.kernel_turn does not exist", "gconv_ga.identities.kernel_rotation is missing"} < {
        *faults
    }
    assert "05_preprocessing has no section 5, The evidence" in faults


def test_every_figure_has_its_command_and_is_small():
    page = (FIGURES / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w.-]+)`", page, re.MULTILINE))
    present = {path.name for path in FIGURES.iterdir() if path.suffix in (".png", ".gif", ".svg")}
    assert present <= listed
    for script in re.findall(r"`python (figures/\w+\.py)", page):
        assert (ROOT / script).exists()
    for name in present:
        assert (FIGURES / name).stat().st_size < 2_000_000
