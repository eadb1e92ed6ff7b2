"""The command line: help, exit codes, and refusals in one line that load nothing heavy."""

import json
import os
import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import gconv_ga
from gconv_ga.cli import main
from gconv_ga.cli._app import app


def run(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"NO_COLOR": "1", "COLUMNS": "200"})


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_the_commands(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert "demo" in result.output
    assert "Exit codes: 0 done" in result.output


def test_help_of_the_demo_lists_its_options_and_an_example():
    result = run("demo", "--help")
    assert result.exit_code == 0
    assert "Example: gconv-ga demo --group D4" in result.output
    for option in ("--group", "--steps", "--seed", "--device", "--out", "--data", "--debug"):
        assert option in result.output


def test_version():
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"gconv_ga {gconv_ga.__version__}\n")


def python(program, **options):
    """A fresh interpreter that imports what this one imports."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


WRONG = {
    "--group": [
        (["--group", "E4"], "group must be a group or its name"),
        (["--group", "C1"], "C1 contains no rotation"),
    ],
    "--steps": [(["--steps", "0"], "greater than or equal to 1"), (["--steps", "many"], "a valid integer")],
    "--seed": [
        (["--seed", "-1"], "greater than or equal to 0"),
        (["--seed", "4294967296"], "less than or equal to 4294967295"),
    ],
    "--device": [(["--device", "abacus"], "device must be 'auto' or a device of this machine")],
    "--data": [(["--data", "cells"], "'cells' is not one of")],
    "--out": [(["--out", "{file}"], "cannot be made a folder"), (["--out", "{file}/new"], "cannot be made a folder")],
    "--grp": [(["--grp", "C4"], "No such option")],
}


@pytest.mark.parametrize(
    ("option", "arguments", "reason"),
    [(option, *case) for option, cases in WRONG.items() for case in cases],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_option_is_named_in_one_line(option, arguments, reason, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    typed = [argument.format(file=file) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--steps", "1", "--out", str(tmp_path / "out"), *typed])
    output = capsys.readouterr()
    assert ended.value.code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("gconv-ga: ")
    assert option in output.err
    assert reason in output.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["models", "cells"], "'[NAME]': 'cells' is not one of 'nuclei', 'histology'."),
        (["sample", "--data", "cells"], "'--data': 'cells' is not one of 'nuclei', 'histology'."),
        (["predict", "--other-numbers", "x"], "'--other-numbers': 'x' is not one of 'refuse', 'scale', 'keep'."),
    ],
)
def test_a_word_that_is_no_choice_is_refused_in_plain_words(typed, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"gconv-ga: Invalid value for {said}\n"


@pytest.mark.parametrize("command", ["sample", "demo"])
def test_ctrl_c_is_said_once(command, monkeypatch, tmp_path, capsys):
    """Where a command has nothing more to say than that it was stopped."""

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("gconv_ga.images.write_sample", stopped)
    monkeypatch.setattr("gconv_ga.cli._demo.load_sample", stopped)
    with pytest.raises(SystemExit) as ended:
        main([command, "--out", str(tmp_path)])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "gconv-ga: stopped by Ctrl-C\n"


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["dmo"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "gconv-ga: No such command 'dmo'. Did you mean 'demo'?\n"


@pytest.fixture
def broken(monkeypatch):
    """A command that fails by a fault of ours."""

    def fail(*arguments, **options):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("gconv_ga.cli._demo.load_sample", fail)


def test_a_fault_of_ours_is_one_line_too(broken, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(tmp_path)])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "gconv-ga: RuntimeError: two lines (--debug shows the traceback)\n"


@pytest.mark.parametrize("arguments", [["--debug", "demo"], ["demo", "--debug"]])
def test_debug_shows_where(arguments, broken, tmp_path):
    with pytest.raises(RuntimeError, match=r"two\nlines"):
        main([*arguments, "--out", str(tmp_path)])


def test_a_group_without_a_network_is_refused(monkeypatch, tmp_path, capsys):
    def none(*arguments):
        raise NotImplementedError("no network for C5 yet")

    monkeypatch.setattr("gconv_ga.cli._demo.networks_to_compare", none)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--group", "C5", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "gconv-ga: Invalid value for '--group': no network for C5 yet\n"


MISSING = """
import sys
sys.modules["{package}"] = None  # as if it were not installed
from gconv_ga.cli import main
main(["demo", "--steps", "1"])
"""


@pytest.mark.parametrize("package", ["typer", "PIL", "pytorch_lightning"])
def test_a_missing_extra_is_named_in_one_line(package, tmp_path):
    result = python(MISSING.format(package=package), cwd=tmp_path)
    line = rf'gconv-ga: gconv_ga\.\w+ needs {package}, which is not installed\. Run: pip install "gconv_ga\[train\]"\n'
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(line, result.stderr)
    assert list(tmp_path.iterdir()) == []


COMMANDS = sorted(typer.main.get_command(app).commands)
HEAVY = ("torch", "numpy", "torchvision", "matplotlib", "pytorch_lightning")
HELP = ["", "--help", "--version", *(f"{command} --help" for command in COMMANDS)]
REFUSED = [
    "dmo", "--vresion", *(f"{command} --no-such-option" for command in COMMANDS),
    "demo --steps many", "demo --steps 0", "demo --group E4", "demo --group C1", "demo --data cells",
    "sample --out data --data cells",
    "train --out run --steps 0", "train --out run --learning-rate fast", "train --out run --group E4",
    "train --out run --pooling none",
    "predict --run run --images images --out out --tile 2", "predict --run run --images images --out out --average E4",
    "evaluate --run run --out out --part some", "evaluate --run run --out out --images images",
    "check", "check --run a --model b", "check --run a --group E4", "check --run a --parts some", "check --size 64",
    "export --run run --out net.pt",
]  # fmt: skip
LOADED = """
import contextlib, functools, io, json, sys
import typer.main
from gconv_ga.cli import main

typer.main.get_command = functools.cache(typer.main.get_command)  # of sixty lines

def heavy():
    return [name for name in {heavy} if name in sys.modules]

results = {{"": [0, heavy()]}}
for typed in {lines}:
    before = heavy()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(typed.split())
        except SystemExit as ended:
            results[typed] = [ended.code, [name for name in heavy() if name not in before]]
print(json.dumps(results))
"""
CONTROL = "demo --device abacus"  # torch is asked for the devices


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Exit code and heavy packages imported, for each line, in one fresh interpreter."""
    program = LOADED.format(heavy=HEAVY, lines=[*HELP, *REFUSED, CONTROL])
    result = python(program, cwd=tmp_path_factory.mktemp("empty"))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("typed", HELP)
def test_help_loads_nothing_heavy(typed, loaded):
    assert loaded[typed] == [0, []]


@pytest.mark.parametrize("typed", REFUSED)
def test_a_refusal_loads_nothing_heavy(typed, loaded):
    assert loaded[typed] == [2, []]


def test_a_heavy_package_would_be_seen(loaded):
    code, packages = loaded[CONTROL]
    assert code == 2
    assert "torch" in packages


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_it_would_take(command, invoke):
    text = " ".join(invoke(command, "--help").output.replace("│", " ").split())
    examples = [part.split(" ╭")[0] for part in text.split("Example: ")[1:]]
    assert examples
    for example in examples:
        assert example.startswith(f"gconv-ga {command} ")
