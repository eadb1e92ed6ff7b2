"""Run the notebooks' sources from top to bottom, each in a new kernel, and write the notebooks with their outputs.

Usage: python .ci/make_notebooks.py [SOURCE ...]        (default: notebooks/*.py; the notebook goes beside its source)
"""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


def read(source: Path) -> NotebookNode:
    """The notebook of a source, without outputs; the same each time, where jupytext would draw random ids."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02}"
    notebook.metadata.pop("jupytext", None)
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Runs the notebook in a folder; an error in a cell is raised here. No times are kept: they differ each time."""
    NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.metadata.pop("language_info", None)
    return notebook


if __name__ == "__main__":
    # That a progress bar cannot be shown as a widget would be an output.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    for source in map(Path, sys.argv[1:] or sorted(map(str, FOLDER.glob("*.py")))):
        start = time.perf_counter()
        nbformat.write(execute(read(source), source.parent), source.with_suffix(".ipynb"))
        print(f"{time.perf_counter() - start:6.1f} s  {source.with_suffix('.ipynb')}", flush=True)
