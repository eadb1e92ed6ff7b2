"""Atomic writes: a file is complete under its name, or it is not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".*.part"  # pattern of the files that a killed program leaves behind


@contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that is renamed to it on success and removed on failure.

    Args:
        path: File to write. Its folder is made if need be, and an existing file is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the new name
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` and return the path; a reader finds the old content or the new, never a part.

    Args:
        path: File to write, as for `growing`.
        content: All bytes of the file.
    """
    with growing(path) as file:
        file.write(content)
    return path


def remove_unfinished(folder: Path) -> None:
    """Remove what a program that was killed while writing has left in a folder.

    Args:
        folder: Folder in which nothing else is being written.
    """
    for path in folder.glob(UNFINISHED):
        path.unlink()
