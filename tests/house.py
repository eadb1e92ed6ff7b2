"""What the tests of the house share: where things are, and what the package declares."""

import ast
import importlib
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gconv_ga"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def room_names() -> list[str]:
    """The rooms: what is one step below the root."""
    folders = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    files = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    return sorted(folders + files)


def declared_names(source: str) -> list[str]:
    """The names in a module's ``__all__``, read without importing it: its room may need an extra."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(statement.value)]
    return []


def public_modules() -> dict[str, Path]:
    """The modules that a user imports from: the root, the rooms, and open files of a room, such as nn.functional."""
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in package_sources()}
    names = {path: part[:-1] if part[-1] == "__init__" else part for path, part in parts.items()}
    return {".".join(name): path for path, name in names.items() if not any(part[0] == "_" for part in name)}


def public_names() -> dict[str, list[str]]:
    """The public names of each of these modules."""
    return {module: declared_names(path.read_text(encoding="utf-8")) for module, path in public_modules().items()}


def load(module: str) -> ModuleType:
    """A module of ours; skips the test where an extra that it needs is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("gconv_ga"):
            raise
        pytest.skip(f"{module} needs {error.name}, from an extra that is not installed")


def package_sources() -> list[Path]:
    """The Python files of the package."""
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def inside(path: Path) -> str:
    """A path as the repository knows it; the id of a test."""
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":  # python tests/house.py > tests/public_names.txt, when a change of the list is decided
    print(*sorted(f"{module}.{name}" for module, names in public_names().items() for name in names), sep="\n")
