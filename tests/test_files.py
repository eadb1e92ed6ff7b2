"""Files that are there as a whole or not at all, locks, and names for display."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gconv_ga._files import UNFINISHED, alone_in, growing, printable, remove_unfinished, write_atomically


def start(program, *arguments):
    """Another program that has the package, and whose first line of output has been read."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


WRITES = """
import sys, time
from pathlib import Path
from gconv_ga._files import growing
with growing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""
HOLDS = """
import sys, time
from pathlib import Path
from gconv_ga._files import alone_in
with alone_in(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_program_has_left_is_removed_and_what_one_is_writing_is_not(tmp_path):
    (tmp_path / ".notes.part").touch()  # of another program
    with start(WRITES, tmp_path / "a.bin") as process:
        (unfinished,) = [name for name in names(tmp_path) if name.endswith(UNFINISHED)]
        remove_unfinished(tmp_path)
        assert names(tmp_path) == sorted([unfinished, ".notes.part"])
        process.kill()
    assert unfinished in names(tmp_path)
    remove_unfinished(tmp_path)
    assert names(tmp_path) == [".notes.part"]
    remove_unfinished(tmp_path / "nowhere")


def test_a_locked_folder_is_refused_until_its_program_is_killed(tmp_path):
    with start(HOLDS, tmp_path) as process:
        with pytest.raises(BlockingIOError, match="another program is at work in this folder"), alone_in(tmp_path):
            pass
        process.kill()
    with alone_in(tmp_path), alone_in(tmp_path):  # of the killed program the file is left, not the lock
        assert names(tmp_path) == [".lock"]
    assert names(tmp_path) == []


def test_nothing_is_locked_on_windows(tmp_path, monkeypatch):
    """Where the file of a lock could not be removed while it is open."""
    monkeypatch.setattr("sys.platform", "win32")
    with alone_in(tmp_path):
        assert names(tmp_path) == []


def test_a_name_of_255_bytes_is_written(tmp_path):
    name = "ü" * 125 + "x.png"
    assert len(os.fsencode(name)) == 255
    with growing(tmp_path / name) as file, growing(tmp_path / f"{name[:-4]}.npy") as beside:
        file.write(b"1")
        beside.write(b"2")
    assert {path.suffix: path.read_bytes() for path in tmp_path.iterdir()} == {".png": b"1", ".npy": b"2"}


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_names_the_file_and_leaves_what_was_there(where, tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "a.bin", b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "fsync":
        monkeypatch.setattr("os.fsync", full)

    def write_half():
        with growing(path) as file:
            file.write(b"half")
            if where == "write":
                full()

    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        write_half()
    assert (names(tmp_path), path.read_bytes()) == (["a.bin"], b"before")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b.png", "a b.png"), ("Müller[1].png", "Müller[1].png"), ("a\x1b[2J\n", "a\\x1b[2J\\n")],
)  # fmt: skip
def test_a_name_is_shown_so_that_a_terminal_takes_it(name, shown):
    assert printable(name) == shown


def test_a_name_that_is_not_utf_8_is_shown_by_its_bytes():
    assert printable(Path(os.fsdecode(b"caf\xe9.png"))) == "caf\\xe9.png"


def test_a_program_that_is_asked_to_end_removes_what_it_was_writing(tmp_path):
    """SIGTERM at the command line raises, so that files are cleaned up; by default the program would just be gone."""
    program = WRITES.replace("import sys, time", "import sys, time\nfrom gconv_ga.cli._app import terminated_by_exit")
    program = program.replace("with growing", "with terminated_by_exit(), growing")
    with start(program, tmp_path / "a.bin") as process:
        process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
    assert process.returncode == 143
    assert names(tmp_path) == []
