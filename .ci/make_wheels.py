"""Make the wheels for Linux on x86-64 and ARM, each with its libraries of the Fourier algorithm.

Usage: python3 .ci/make_wheels.py FOLDER

The one of this machine is compiled by its own compiler (g++ makes code that is faster by a fifth than clang's), the
other one by the compiler in the package "ziglang", which has to be installed, as has "build". The libraries may need
nothing but symbols of glibc 2.17, which is what the tag of the wheels promises; this is looked up in them.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
GLIBC = (2, 17)
MACHINES = ("x86_64", "aarch64")


def make_wheel(machine: str, folder: Path) -> Path:
    """Make the wheel of a machine and return its path."""
    settings = {"GCONV_GA_MACHINE": machine, "GCONV_GA_PLATFORM": f"manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"}
    if machine != platform.machine():
        target = f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
        settings["CXX"] = f"{sys.executable} -m ziglang c++ -target {target} -g0 -s"
    with TemporaryDirectory() as out:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, str(ROOT)]
        subprocess.run(command, check=True, env=os.environ | settings, stdout=subprocess.DEVNULL)
        made = next(Path(out).glob("*.whl"))
        return made.replace(folder / made.name)


def faults(library: bytes) -> list[str]:
    """Return what in a library breaks the promise of the wheel's tag."""
    found = {tuple(map(int, match)) for match in re.findall(rb"GLIBC_(\d+)\.(\d+)", library)}
    names = set(re.findall(rb"lib[\w+-]+\.so[.\d]*", library)) - {b"libc.so.6", b"libc.so"}
    too_new = [f"needs glibc {major}.{minor}" for major, minor in sorted(found) if (major, minor) > GLIBC]
    return too_new + [f"needs {name.decode()}" for name in sorted(names)]


def main(folder: Path) -> int:
    """Make the wheels; return 1 if one has no library, or one that needs more than it may."""
    folder.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for machine in MACHINES:
        path = make_wheel(machine, folder)
        with ZipFile(path) as wheel:
            libraries = {name: wheel.read(name) for name in wheel.namelist() if name.endswith(".so")}
        found = [f"{name} {fault}" for name, library in libraries.items() for fault in faults(library)]
        found += [] if libraries else ["no library in it"]
        wrong += len(found)
        print(*found, f"{path.name}: {len(libraries)} libraries, {len(found)} faults", sep="\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
