"""The rules of the rooms, in `pyproject.toml`, refuse what they are there to refuse: on a package of empty rooms."""

import os
import shutil
import subprocess
import sys

import pytest
from house import ROOT

pytest.importorskip("importlinter", reason="import-linter, from the extra test, is not installed")

ROOMS = ["actions", "averaging", "checks", "cli", "conversion", "evaluate", "filters", "frames", "groups", "identities"]
ROOMS += [
    "images",
    "interop",
    "models",
    "nn",
    "objects",
    "play",
    "plots",
    "predict",
    "pretrained",
    "segmenter",
    "train",
]


def lint(folder, *files):
    """The closing report on a package of empty rooms with some files in it, each given as (path, source)."""
    for room in ROOMS:
        (folder / "gconv_ga" / room).mkdir(parents=True)
        (folder / "gconv_ga" / room / "__init__.py").touch()
        (folder / "gconv_ga" / room / "_file.py").touch()
    (folder / "gconv_ga" / "models" / "__init__.py").write_text("from .. import pretrained\n")  # the one exception
    for path in ("__init__.py", "_files.py", "_journal.py", "_lazy.py", "_validate.py"):
        (folder / "gconv_ga" / path).touch()
    for path, source in files:
        (folder / "gconv_ga" / path).write_text(source + "\n")
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    return run.returncode, run.stdout + run.stderr


def test_downward_imports_are_kept(tmp_path):
    files = [
        ("__init__.py", "from . import models\nfrom .groups import C4"),
        ("nn/_file.py", "from .. import groups\nfrom ..filters import x\nfrom .._validate import y\nimport torch"),
        ("identities/_file.py", "from ..nn import x\nfrom ..averaging import y"),
        ("images/_file.py", "import torchvision"),
        ("plots/_file.py", "import matplotlib.pyplot"),
        ("interop/_file.py", "import escnn.nn"),
        ("train/_file.py", "import pytorch_lightning\nfrom ..evaluate import x"),
        ("evaluate/_file.py", "import jinja2\nfrom ..predict import x"),
        ("cli/_file.py", "import typer\nimport rich\nfrom ..train import x"),
    ]
    code, report = lint(tmp_path, *files)
    assert code == 0, report
    assert "4 kept, 0 broken" in report


@pytest.mark.parametrize(
    ("path", "source", "contract"),
    [
        ("groups/_file.py", "from ..nn import x", "Rooms import downward only"),
        ("nn/_file.py", "from ..averaging import x", "Rooms import downward only"),
        ("averaging/_file.py", "from ..frames import x", "Rooms import downward only"),
        ("predict/_file.py", "from ..evaluate import x", "Rooms import downward only"),
        ("images/_file.py", "def f():\n    from ..plots import x", "Rooms import downward only"),
        ("newroom.py", "x = 1", "Rooms import downward only"),
        ("nn/_file.py", "from ..groups._file import x", "Files in a room are private"),
        ("nn/_file.py", "from .. import C4", "Inside the package nobody imports from the root"),
        ("nn/_file.py", "from gconv_ga import C4", "Inside the package nobody imports from the root"),
        ("nn/_file.py", "def f():\n    import torchvision.transforms", "Heavy packages stay in the outer rooms"),
        ("__init__.py", "import numpy", "Heavy packages stay in the outer rooms"),
        ("plots/_file.py", "import escnn", "Heavy packages stay in the outer rooms"),
    ],
)
def test_a_broken_rule_is_seen(tmp_path, path, source, contract):
    code, report = lint(tmp_path, (path, source))
    assert code == 1, report
    (broken,) = [line for line in report.splitlines() if "BROKEN" in line]
    assert broken.startswith(contract)
