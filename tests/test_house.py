"""The package seen from outside: what it loads, and what it calls public."""

import ast
import functools
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from house import PROJECT, ROOT, declared_names, load, public_modules, public_names, room_names

PUBLIC_NAMES = (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8").split()


@functools.cache
def loaded_by(statement: str) -> set[str]:
    """The top-level packages, without Python's own, that a fresh interpreter has loaded after ``statement``."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in run.stdout.split()} - sys.stdlib_module_names


def test_the_root_loads_torch_and_nothing_heavier():
    assert loaded_by("import torch; from gconv_ga import *") - loaded_by("import torch") == {"gconv_ga"}


def test_a_heavy_import_is_seen():
    assert "hypothesis" in loaded_by("import json, hypothesis") - loaded_by("import json")


@pytest.mark.parametrize("module", public_names())
def test_public_names_are_those_on_the_list(module):
    """To remove a name is a decision: take it off the list with a deprecation and a line in the changelog."""
    listed = {line for line in PUBLIC_NAMES if line.rpartition(".")[0] == module}
    current = {f"{module}.{name}" for name in public_names()[module]}
    add, take_off = sorted(current - listed), sorted(listed - current)
    assert not add + take_off, f"tests/public_names.txt: add {add}, take off {take_off}"


def test_the_list_of_public_names_is_sorted_and_knows_its_modules():
    assert sorted(set(PUBLIC_NAMES)) == PUBLIC_NAMES
    assert {line.rpartition(".")[0] for line in PUBLIC_NAMES} <= set(public_names())


def test_names_are_read_from_all():
    assert declared_names('from a import b\n__all__ = ["b", "c"]\n') == ["b", "c"]
    assert declared_names("b = 1\n") == []


@pytest.mark.parametrize("module", public_names())
def test_a_module_has_what_it_calls_public(module):
    names = public_names()[module]
    assert names, f"{module} must list its public names in __all__, a list of strings"
    room = load(module)
    assert room.__all__ == names
    assert [name for name in names if not hasattr(room, name)] == []


def hidden_rooms(public: dict[str, list[str]], rooms: list[str], root: object) -> set[str]:
    """The public names that are called like a room and are not that room, offered by the root."""
    alike = {f"{module}.{name}" for module, names in public.items() for name in names if name in rooms}
    return alike - {f"gconv_ga.{room}" for room in rooms if isinstance(getattr(root, room, None), ModuleType)}


def test_no_public_name_hides_a_room():
    """`gconv_ga.convert` must not depend on whether a module `convert` was imported before."""
    assert hidden_rooms(public_names(), room_names(), load("gconv_ga")) == set()


def test_a_hidden_room_is_seen():
    root = SimpleNamespace(models=ModuleType("models"), convert=len)
    public = {"gconv_ga": ["models", "convert", "C4"], "gconv_ga.nn": ["models"]}
    assert hidden_rooms(public, ["convert", "models"], root) == {"gconv_ga.convert", "gconv_ga.nn.models"}


def test_the_version_has_a_heading_in_the_changelog():
    version = re.escape(PROJECT["project"]["version"])
    assert re.search(rf"^## {version}(\s|$)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


LAZY = {module: path for module, path in public_modules().items() if "lazy_names(" in path.read_text(encoding="utf-8")}


@pytest.mark.parametrize("module", LAZY)
def test_type_checkers_see_what_a_lazy_room_offers(module):
    """The names are written down twice, for Python and for type checkers: both lists agree with ``__all__``."""
    tree = ast.parse(LAZY[module].read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name: "." * (line.level - 1) + (line.module or "") for line in block.body for alias in line.names}
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_names"]
    offered = {name: file for file, names in ast.literal_eval(call.args[1]).items() for name in names}
    assert set(seen) == set(declared_names(LAZY[module].read_text(encoding="utf-8")))
    assert {name: offered.get(name) for name in seen} == seen


def test_a_lazy_room_is_loaded_name_by_name():
    assert "torch" not in loaded_by("import gconv_ga; gconv_ga.C4")
    assert "torch" in loaded_by("from gconv_ga import GroupConv2d")
    with pytest.raises(AttributeError, match="module 'gconv_ga' has no attribute 'C5'"):
        load("gconv_ga").__getattr__("C5")
