"""Files that are complete under their name, or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """A file that is written beside its name, and gets the name when all is well; else nothing of it stays.

    Args:
        path: The file; its folder is made if need be. A file of that name is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut leaves an empty file under the new name
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> Path:
    """Writes beside the file, then renames: who reads ``path`` finds the old content or the new one, never a part."""
    with growing(path) as file:
        file.write(content)
    return path
