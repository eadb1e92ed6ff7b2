"""Record of the files that a command has finished, so that the same command, run again, does only what is missing."""

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._files import write_atomically
from ._validate import invalid

if sys.platform != "win32":
    import fcntl


def source_stamp(*files: Path) -> list[list[int]]:
    """Return size in bytes and time of modification in nanoseconds of each file; both change when a file is replaced.

    Args:
        files: Files.

    Raises:
        ValueError: There is no such file; a link may lead nowhere.

    Example:
        >>> from gconv_ga._journal import source_stamp
        >>> source_stamp()
        []
    """
    try:
        return [[about.st_size, about.st_mtime_ns] for about in (file.stat() for file in files)]
    except OSError as error:
        names = [str(file) for file in files]
        raise invalid("files", "files that are there", names, f"the system says: {error.strerror}") from None


class Journal:
    """File with a line for each finished piece of work: its name, the stamp of its sources, and its result.

    The first line holds the settings. A file of other settings is begun anew, so that nothing in it is taken for a
    result of these settings. A line is on the disk before the next piece of work is counted as done, and one that a
    killed program has left half written is ignored. Several programs with the same settings may add lines.

    Args:
        file: The file, JSON lines. It is made if need be, its folder is not.
        settings: What all results depend on, as JSON can hold it.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self.file = file
        self._entries: dict[str, dict[str, Any]] = {}
        first, *rest = _objects(file)
        head = {"settings": json.loads(json.dumps(settings))}
        if first == head:
            self._entries = {entry["name"]: entry for entry in rest if "name" in entry}
        else:
            write_atomically(file, _line(head))

    def names(self) -> list[str]:
        """Return the names of all pieces of work in it."""
        return list(self._entries)

    def result(self, name: str, stamp: Sequence[Sequence[int]]) -> Any:
        """Return the result of a piece of work, or None if it is not done or its sources have another stamp by now.

        Args:
            name: Name of the piece.
            stamp: Stamp of its sources, `source_stamp`.
        """
        entry = self._entries.get(name)
        return entry["result"] if entry is not None and entry["stamp"] == [list(each) for each in stamp] else None

    def add(self, name: str, stamp: Sequence[Sequence[int]], result: Any = True) -> None:
        """Record a piece of work as done.

        Args:
            name: Name of the piece.
            stamp: Stamp that its sources had before they were read.
            result: Its result, as JSON can hold it; not None.
        """
        entry = {"name": name, "stamp": [list(each) for each in stamp], "result": result}
        with self.file.open("r+b") as file:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            torn = file.read(1) not in (b"\n", b"")  # the line that a killed program was writing
            file.write((b"\n" if torn else b"") + _line(entry))
            file.flush()
            os.fsync(file.fileno())
        self._entries[name] = entry

    def remove(self) -> None:
        """Remove the file: what it records is not needed any more."""
        self.file.unlink(missing_ok=True)


def _line(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _objects(file: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in a file, an empty one for each line that holds none, and at least one."""
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    return [_object(line) for line in lines] or [{}]


def _object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
