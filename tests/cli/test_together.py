"""``gconv-ga predict`` and ``evaluate`` in several processes: files as of one; a kill is named and made good."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

START = """
import sys
from gconv_ga.cli import main
main(sys.argv[1:])
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments, **environment):
    """Start a command as a job of its own."""
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "150", **environment}
    for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):  # of trainings in this process
        everything = {key: value for key, value in everything.items() if key != name or key in environment}
    command = [sys.executable, "-m", "gconv_ga.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=everything, stdout=-1, stderr=-1, text=True)


def output(*processes):
    """Wait for processes; return the exit code and the two outputs of each."""
    try:
        said = [process.communicate(timeout=250) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]


def contents(folder):
    """All files below a folder but the journal, whose lines are in the order in which the work was done."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    journal = files.pop(Path("predict.jsonl"), b"")
    return files, sorted(journal.splitlines())


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def images(data, tmp_path):
    """Eight images, one of which cannot be read, and one in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for index, place in enumerate(["0", "1", "2", "3", "more/4", "5", "6"]):
        shutil.copy(Path(data[1]) / f"{index % 4:02}.png", folder / f"{place}.png")
    (folder / "bad.png").write_text("no image")
    return folder


def test_two_nodes_of_two_processes_write_what_one_process_writes(invoke, balanced, images, tmp_path):
    """Four processes on loopback: each node is started by its own command, as on two machines that share a disc."""
    typed = ["predict", "--run", balanced["EquivariantUNet"], "--images", images, "--recursive", "--device", "cpu"]
    typed += ["--probabilities", "--overlay", "--objects", "--geojson", "--tile", "64", "--out"]
    together = ["--devices", "2", "--nodes", "2", "--strategy", "ddp"]
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first, second = output(*(start(*typed, tmp_path / "four", *together, NODE_RANK=node, **found) for node in "01"))
    result = invoke(*typed, tmp_path / "one", code=1)
    assert (first[0], first[1].splitlines()) == (1, result.stdout.splitlines())
    assert first[2].splitlines() == result.stderr.replace("/one", "/four").splitlines()
    assert second == (0, "", "")
    assert "1 of 8 images cannot be predicted; the others are done" in first[2]
    files, journal = contents(tmp_path / "four")
    assert len(files) == 7 * 6 + 1
    assert len(journal) == 8
    assert (files, journal) == contents(tmp_path / "one")


def test_two_processes_report_what_one_process_reports(invoke, balanced, data, tmp_path):
    typed = ["evaluate", "--run", balanced["EquivariantUNet"], *data, "--against", balanced["UNet"], "--device", "cpu"]
    masks = Path(data[3])
    typed += ["--instances", masks, "--out"]
    ((code, said, errors),) = output(start(*typed, tmp_path / "two", "--devices", "2"))
    assert code == 0, errors
    one = invoke(*typed, tmp_path / "one").stdout
    assert said.replace("/two", "/one").split() == one.split()
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["report.html", "report.json"]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_killed_process_is_named_and_the_same_command_does_the_rest(invoke, balanced, data, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(40):
        shutil.copy(Path(data[1]) / f"{index % 4:02}.png", images / f"{index:02}.png")
    typed = ["predict", "--run", balanced["EquivariantUNet"], "--images", images, "--device", "cpu"]
    typed += ["--tile", "16", "--average", "D4", "--out", tmp_path / "out"]
    job = start(*typed, "--devices", "2")
    journal = tmp_path / "out" / "predict.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    (worker,) = children(job.pid)
    os.kill(worker, signal.SIGKILL)
    ((code, said, errors),) = output(job)
    assert (code, said) == (1, "")
    name = f"process 1 of 2 (counted from 0; on {socket.gethostname()}, pid {worker}) was killed by SIGKILL"
    assert f"gconv-ga: {name}; the other processes finish what they have begun" in errors
    assert f"gconv-ga: stopped: {name}. The same command does what is missing" in errors
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    count = journal.read_bytes().count(b"\n") - 1
    assert 2 <= count < 40
    again = invoke(*typed).stdout
    assert f"{40 - count} images done, {count} skipped" in again
    kept = [path for path, when in done.items() if path.stat().st_mtime_ns == when]
    assert len(kept) == count
    assert np.ptp([path.stat().st_size for path in (tmp_path / "out").glob("*.png")]) >= 0
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
