"""The examples in docstrings run as they stand: pasted into a fresh Python, without the names of their module."""

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from house import ROOT, package_sources


def module_name(path: Path) -> str:
    """The module of a file of the package, as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def examples(module: ModuleType) -> Iterator[doctest.DocTest]:
    """The docstrings of a module that hold examples, each with an empty namespace."""
    yield from (test for test in doctest.DocTestFinder().find(module, globs={}) if test.examples)


def run_as_pasted(test: doctest.DocTest) -> str:
    """Runs an example in a namespace of its own; returns what went wrong, empty if nothing did."""
    said: list[str] = []
    test.globs = {"__name__": "__main__"}
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    return "".join(said)


MODULES = [module_name(path) for path in package_sources() if path.name != "__main__.py"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_in_a_fresh_python(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("gconv_ga"):
            raise
        pytest.skip(f"{name} needs {error.name}, from an extra that is not installed")
    wrong = [said for test in examples(module) if (said := run_as_pasted(test))]
    assert not wrong, "\n".join(wrong)


def test_an_example_that_leaves_out_an_import_is_seen():
    module = ModuleType("module", doc=">>> double(2)\n4\n")
    module.double = lambda x: 2 * x
    (test,) = examples(module)
    assert "NameError" in run_as_pasted(test)


def test_an_example_with_a_wrong_result_is_seen():
    (test,) = examples(ModuleType("module", doc=">>> 1 + 1\n3\n"))
    assert "Expected:\n    3\nGot:\n    2" in run_as_pasted(test)
