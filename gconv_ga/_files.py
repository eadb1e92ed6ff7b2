"""Atomic writes: a file is complete under its name, or it is not there at all. Locks, and names for display."""

import errno
import hashlib
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":  # there, a file that is open cannot be removed, and no folder is locked
    import fcntl

UNFINISHED = ".gconv_ga-part"  # ending of the files that a killed program leaves behind
LOCK = ".lock"
_counter = itertools.count()
_held = set[Path]()  # files of the locks that this program holds


@contextmanager
def growing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that is renamed to it on success and removed on failure.

    Args:
        path: File to write. Its folder is made if need be, and an existing file is replaced.

    Raises:
        OSError: The disk is full, or the file cannot be written; the error names it.
    """
    # Of the name only the beginning, which leaves room for the rest within the 255 bytes that systems allow.
    beside = path.with_name(f".{path.name[:40]}.{os.getpid()}-{next(_counter)}{UNFINISHED}")
    with naming_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                _lock(file)  # `remove_unfinished` of another program then leaves it alone
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


def sha256_of(file: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal.

    Args:
        file: The file.
    """
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def naming_file(path: Path | str) -> Iterator[None]:
    """Put the name of a file into an `OSError` that has none: a failed write, as on a full disk, does not say where."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what a program that was killed while writing has left in a folder; files being written now are kept.

    Args:
        folder: The folder; it need not exist.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(".") and path.name.endswith(UNFINISHED):
            with suppress(OSError), path.open("rb") as file:
                if _lock(file):
                    path.unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder against other programs that do the same; the lock ends with the program, however that ends.

    A program that holds the lock may ask for it again. The lock is advisory (``flock`` on the file ``.lock``). Where
    the file system has no such locks, and on Windows, nothing is locked.

    Args:
        folder: The folder; it must exist.

    Raises:
        BlockingIOError: Another program holds the lock.
    """
    path = folder.resolve() / LOCK
    if path in _held or sys.platform == "win32":
        yield
        return
    while True:
        with path.open("ab") as file:
            if _lock(file) is False:
                raise BlockingIOError(errno.EAGAIN, "another program is at work in this folder", str(folder))
            is_there = False  # unless the program that held the lock before has removed the file meanwhile
            with suppress(FileNotFoundError):
                is_there = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            if is_there:
                _held.add(path)
                try:
                    yield
                finally:
                    _held.discard(path)
                    path.unlink(missing_ok=True)
                return


def _lock(file: BinaryIO) -> bool | None:
    """Lock an open file, without waiting; False if another program has locked it, None if there are no locks."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
    return True


def printable(name: object) -> str:
    r"""Return a name for display: what no terminal or page can show, and what moves a cursor, as ``\x..``.

    Args:
        name: File name or path.

    Example:
        >>> from gconv_ga._files import printable
        >>> print(printable("a\x1bb"), printable(b"caf\xe9".decode("utf-8", "surrogateescape")))
        a\x1bb caf\xe9
    """
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
