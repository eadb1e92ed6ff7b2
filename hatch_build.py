"""Builds the library of the Fourier algorithm where a C++ compiler is found; installing never fails for want of one."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("gconv_ga") / "nn" / "native"
SOURCE = "group_conv.cpp"
# No exceptions and no type information: the library then needs libc alone. Not -ffast-math: it would change how the
# whole process treats denormal numbers.
FLAGS = [
    "-std=c++17",
    "-O2",
    "-fno-math-errno",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
]


def targets(machine: str) -> dict[str, list[str]]:
    """Return the libraries for a kind of processor, and the flags of each."""
    if machine in ("x86_64", "amd64"):
        return {f"group_conv_x86_64_{level}": [f"-march=x86-64-{level}"] for level in ("v3", "v4")}
    return {f"group_conv_{machine}": []}


def compiler() -> list[str] | None:
    """Return the command of a C++ compiler; None if there is none. CXX overrules."""
    named = os.environ.get("CXX", "").split()
    for command in (named, ["g++"], ["clang++"], ["c++"]):
        if command and shutil.which(command[0]):
            return command
    return None


def build(root: Path, machine: str | None = None) -> list[str]:
    """Build a machine's libraries that are missing or older than their source; return the names of those there are."""
    command = compiler()
    if sys.platform not in ("linux", "darwin") or command is None:
        return []
    folder, source = root / FOLDER, root / FOLDER / SOURCE
    suffix = ".so" if sys.platform == "linux" else ".dylib"
    wanted = targets((machine or platform.machine()).lower())
    running = {}
    for name, flags in wanted.items():
        library = folder / f"{name}{suffix}"
        if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
            beside = library.with_suffix(".part")
            line = [*command, *FLAGS, *flags, str(source), "-o", str(beside)]
            running[name] = (library, beside, subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    for library, beside, process in running.values():
        _, errors = process.communicate()
        if process.returncode == 0:
            beside.replace(library)
        else:
            print(
                f"{library.name} was not built; the dense algorithm is used: {errors.decode(errors='replace')[-500:]}"
            )
    return sorted(f"{name}{suffix}" for name in wanted if (folder / f"{name}{suffix}").exists())


class BuildHook(BuildHookInterface):
    """Called by hatchling."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the files of a wheel are collected; an editable installation finds them in the source tree."""
        if self.target_name != "wheel":
            return
        # A wheel for other machines than this one: .ci/make_wheels.py.
        machine, wheel_platform = os.environ.get("GCONV_GA_MACHINE"), os.environ.get("GCONV_GA_PLATFORM")
        built = build(Path(self.root), machine)
        if built:
            build_data["artifacts"] += [f"{FOLDER.as_posix()}/{name}" for name in built]
            build_data["pure_python"] = False
            here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{wheel_platform or here}"
