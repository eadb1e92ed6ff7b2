"""Look into a built wheel: the package and nothing else at its top, and in it everything that the package needs.

Usage: python3 .ci/look_into_wheel.py WHEEL SOURCE_FOLDER
"""

import re
import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "gconv_ga"


def faults(names: list[str], expected: set[str]) -> list[str]:
    """What is wrong with a wheel's contents, one line each.

    Args:
        names: The files in the wheel.
        expected: The files of the package, as the repository has them.
    """
    found = [
        f"{name}: at the top of a wheel only {PACKAGE}/ and its dist-info belong"
        for name in names
        if not re.match(rf"{PACKAGE}(-[^/]+\.dist-info)?/", name)
    ]
    packed = {name for name in names if name.startswith(f"{PACKAGE}/")}
    found += [f"{name}: missing from the wheel" for name in sorted(expected - packed)]
    found += [f"{name}: in the wheel, but not in the repository" for name in sorted(packed - expected)]
    found += [f"{needed}: missing" for needed in sorted({f"{PACKAGE}/__init__.py", f"{PACKAGE}/py.typed"} - packed)]
    if not any(name.endswith("/LICENSE") for name in names):
        found.append("LICENSE: missing")
    return found


def package_files(source: Path) -> set[str]:
    """The files of the package in a folder, without what Python leaves there."""
    files = (path for path in (source / PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(source).as_posix() for path in files}


if __name__ == "__main__":
    with ZipFile(sys.argv[1]) as wheel:
        contents = wheel.namelist()
    wrong = faults(contents, package_files(Path(sys.argv[2])))
    print(*wrong, f"{Path(sys.argv[1]).name}: {len(contents)} files, {len(wrong)} faults", sep="\n")
    sys.exit(bool(wrong))
