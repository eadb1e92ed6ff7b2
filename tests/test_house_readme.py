"""README as a reader uses it: its code runs, its commands are the ones that CI runs and the package offers."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from house import PROJECT, ROOT, inside

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += [*sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/how_to/*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def script(name):
    """A script beside `.ci/run`, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme_command = script("readme_command")
look_into_wheel = script("look_into_wheel")
make_wheels = script("make_wheels")


def run_python_blocks(page: Path) -> int:
    """Runs the blocks of Python in a page, in their order and in one namespace; returns how many there are."""
    text = page.read_text(encoding="utf-8")
    namespace = {"__name__": "__main__"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for block in blocks:
        # Empty lines before the code: a traceback then gives the line of the page.
        above = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(above + block[1], page.name, "exec"), namespace)
    return len(blocks)


@pytest.mark.parametrize("page", PAGES, ids=inside)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = run_python_blocks(page)
    assert count > 0 or page.name != "README.md" or page.parent != ROOT


def test_a_broken_block_is_seen_with_its_line(tmp_path):
    page = tmp_path / "PAGE.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n```python\nassert x == 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_python_blocks(page)
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("PAGE.md", 9)


def test_the_second_command_is_the_one_that_ci_runs():
    command = readme_command.tests_command(README)
    assert command == readme_command.shell_blocks(README)[1]
    for part in ("python3 -m venv .venv", ".venv/bin/pip install", ".venv/bin/pytest"):
        assert part in command
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "python3 .ci/readme_command.py README.md" in run
    assert ".[train" not in run, "the command for the tests is written down in README alone"


@pytest.mark.parametrize(
    "page",
    [
        "# A\n\n```bash\na\n```\n",
        "## Run the tests\n\nNo block.\n\n## Next\n\n```bash\na\n```\n",
        "## Run the tests\n\n```bash\na\n```\n\n```bash\nb\n```\n",
        "## Run the tests\n\n```bash\na\n```\n\n## Run the tests\n\n```bash\nb\n```\n",
    ],
    ids=["no heading", "no block", "two blocks", "two headings"],
)
def test_a_page_without_one_clear_command_is_refused(page):
    with pytest.raises(ValueError, match="one heading 'Run the tests' with one block"):
        readme_command.tests_command(page)


def test_a_comment_in_a_command_is_no_heading():
    page = "# A\n\n## Run the tests\n\n```bash\n# first\na\n# second\nb\n```\n\n## Next\n"
    assert readme_command.tests_command(page) == "# first\na\n# second\nb"


def test_the_extras_and_scripts_in_the_commands_exist():
    commands = "\n".join(readme_command.shell_blocks(README))
    extras = {extra for found in re.findall(r"\.\[([\w,-]+)\]", commands) for extra in found.split(",")}
    assert extras
    assert extras <= set(PROJECT["project"]["optional-dependencies"])
    assert set(re.findall(r"\.venv/bin/(gconv[\w-]*)", commands)) == set(PROJECT["project"]["scripts"])


def parsed(command: str) -> str:
    """Reads a command of ours as the program would, without running it; returns the name of the subcommand."""
    app = pytest.importorskip("gconv_ga.cli._app").app
    name, *arguments = shlex.split(command)[1:]
    subcommand = pytest.importorskip("typer").main.get_command(app).commands[name]
    subcommand.make_context(name, arguments)
    return name


def our_commands(text: str) -> list[str]:
    """The lines of shell blocks, continued ones joined, that start the program."""
    lines = "\n".join(readme_command.shell_blocks(text)).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|\s|/)gconv-ga .*", line) for line in lines]
    return [match[0].strip() for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=inside)
def test_commands_are_those_of_the_program(page):
    names = [parsed(command) for command in our_commands(page.read_text(encoding="utf-8"))]
    if page == PAGES[0]:
        assert {"demo", "sample", "train", "evaluate", "predict", "export"} <= set(names)


@pytest.mark.parametrize(
    "command", ["gconv-ga train --out run --stpes 3", "gconv-ga train", "gconv-ga trains", "gconv-ga demo --steps x"]
)
def test_a_command_that_is_none_is_seen(command):
    typer = pytest.importorskip("typer")
    (found,) = our_commands(f"```bash\n.venv/bin/{command}\n```\n")
    with pytest.raises((typer.TyperException, KeyError)):
        parsed(found)


def test_the_compromised_releases_of_lightning_are_excluded():
    train = PROJECT["project"]["optional-dependencies"]["train"]
    (lightning,) = [need for need in train if need.startswith("pytorch-lightning")]
    assert {"!=2.6.2", "!=2.6.3"} <= set(lightning.removeprefix("pytorch-lightning").split(","))


WHEEL = [
    "gconv_ga/__init__.py",
    "gconv_ga/py.typed",
    "gconv_ga/data/a.png",
    "gconv_ga-0.1.0.dist-info/METADATA",
    "gconv_ga-0.1.0.dist-info/licenses/LICENSE",
]


def test_a_good_wheel_is_accepted():
    assert look_into_wheel.faults(WHEEL, set(WHEEL[:3])) == []


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([*WHEEL, "tests/conftest.py"], "tests/conftest.py: at the top"),
        ([*WHEEL, "gconv_gadget/__init__.py"], "gconv_gadget/__init__.py: at the top"),
        ([*WHEEL, "gconv_ga/left.py"], "gconv_ga/left.py: in the wheel, but not"),
        ([name for name in WHEEL if "data" not in name], "gconv_ga/data/a.png: missing from the wheel"),
        ([name for name in WHEEL if "typed" not in name], "gconv_ga/py.typed: missing"),
        ([name for name in WHEEL if "LICENSE" not in name], "LICENSE: missing"),
    ],
)
def test_a_bad_wheel_is_refused(names, fault):
    assert any(line.startswith(fault) for line in look_into_wheel.faults(names, set(WHEEL[:3])))


@pytest.mark.parametrize(
    ("symbols", "found"),
    [
        (b"libc.so.6\0memcpy@GLIBC_2.14\0free@GLIBC_2.2.5\0malloc@GLIBC_2.17\0", []),
        (b"libc.so.6\0memcpy@GLIBC_2.34\0", ["needs glibc 2.34"]),
        (b"libc.so.6\0libstdc++.so.6\0memcpy@GLIBC_2.14\0", ["needs libstdc++.so.6"]),
    ],
)
def test_libraries_that_need_more_than_the_tag_of_the_wheel_says_are_seen(symbols, found):
    assert make_wheels.faults(symbols) == found


def test_the_files_of_the_package_are_expected_in_the_wheel():
    expected = look_into_wheel.package_files(ROOT)
    assert {"gconv_ga/__init__.py", "gconv_ga/py.typed"} <= expected
    assert not any("__pycache__" in name for name in expected)
