"""The files of the project: limited length, private in their room, declared dependencies, no machine's paths."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import PACKAGE, PROJECT, ROOT, declared_names, inside, package_sources

MAX_LINES = 600
OUTER_ROOMS = (
    "images",
    "objects",
    "plots",
    "interop",
    "segmenter",
    "predict",
    "pretrained",
    "evaluate",
    "play",
    "train",
    "cli",
)


@pytest.mark.parametrize("path", package_sources(), ids=inside)
def test_files_have_a_docstring_and_limited_length(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("path", package_sources(), ids=inside)
def test_files_in_a_room_are_private(path):
    """Each public name has one import path: its room, or a module that the room lists among its names."""
    if not path.name.startswith("_"):
        window = (path.parent / "__init__.py").read_text(encoding="utf-8")
        assert path.stem in declared_names(window), "put an underscore before the file's name"


def third_party_imports(source: str) -> set[str]:
    """The top-level packages that a file imports, inside functions too, other than Python's own and ours."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names


def core_sources() -> list[Path]:
    """The files that a plain installation, without extras, must be able to load."""
    return [path for path in package_sources() if path.relative_to(PACKAGE).parts[0] not in OUTER_ROOMS]


@pytest.mark.parametrize("path", core_sources(), ids=inside)
def test_the_core_imports_what_it_declares(path):
    declared = {re.split(r"[^\w-]", need)[0].replace("-", "_") for need in PROJECT["project"]["dependencies"]}
    assert third_party_imports(path.read_text(encoding="utf-8")) <= declared


def test_an_undeclared_import_is_seen():
    source = "import math\nfrom torch import nn\nfrom . import x\ndef f():\n    import scipy.linalg\n"
    assert third_party_imports(source) == {"torch", "scipy"}


# Folders and hosts of one machine. The names are cut in two here, so that this file passes its own test.
_FOLDERS = "|".join(("wo" + "rk", "ro" + "ot", "tm" + "p", "ho" + "me", "op" + "t"))
_HOSTS = "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "debian" + r"\.org"))
MACHINE = re.compile(rf"(?<![\w.$}}~/-])/(?:{_FOLDERS})(?![\w-])|{_HOSTS}", re.MULTILINE)


def is_text(path: Path) -> bool:
    """Whether its beginning is that of a text."""
    return b"\0" not in path.read_bytes()[:4096]


def project_files() -> list[Path]:
    """The files that git tracks, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


def strays(names: list[str]) -> list[str]:
    """Of files that are no text, those that lie where neither pictures nor weights belong."""
    places = ("figures/", "gconv_ga/images/sample/", "gconv_ga/play/networks/", "gconv_ga/pretrained/")
    return [name for name in names if not name.startswith(places)]


def test_pictures_lie_where_they_belong():
    names = [inside(path) for path in project_files() if not is_text(path)]
    assert "figures/demo.png" in names
    assert strays(names) == []
    assert strays(["figures/demo.png", "trial.jpg", "benchmarks/results/x.npy"]) == [
        "trial.jpg",
        "benchmarks/results/x.npy",
    ]


def test_no_file_knows_the_machine_it_was_written_on():
    texts = [path for path in project_files() if is_text(path)]
    found = {inside(path): MACHINE.findall(path.read_text(encoding="utf-8")) for path in texts}
    assert {name: places for name, places in found.items() if places} == {}
    assert {"README.md", ".ci/run", "tests/house.py", "gconv_ga/__init__.py"} <= set(found)


@pytest.mark.parametrize("text", ["see /{}/main", "`/{}`", "open('/{}/x')", "cd /{}", "/{}."])
@pytest.mark.parametrize("folder", _FOLDERS.split("|"))
def test_a_folder_of_the_machine_is_seen(text, folder):
    assert MACHINE.search(text.format(folder))


@pytest.mark.parametrize("text", ["the frame{}s", "a.b{}/c", '"$dir{}"', "https://a.b{}/1", "x {}ing"])
@pytest.mark.parametrize("folder", _FOLDERS.split("|"))
def test_other_slashes_are_no_folder_of_the_machine(text, folder):
    assert not MACHINE.search(text.format("/" + folder))
