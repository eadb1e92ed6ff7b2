"""``gconv-ga predict`` and ``evaluate`` in several processes: files as of one; a kill is named and made good."""

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from forked import Forked
from PIL import Image

import gconv_ga.predict._slide as slide_file
from gconv_ga._files import UNFINISHED
from gconv_ga.images import Normalization, read_image
from gconv_ga.objects import Decoder
from gconv_ga.segmenter import SegmenterConfig, save_checkpoint

SIDE = 48  # of the units of a slide in pixels, in place of 1536
# Smaller units; and process 1 kills itself when it is given its third unit of work.
PROGRAM = f"""
import os, signal
import gconv_ga.predict._slide as slide_file
from gconv_ga.cli import main
from gconv_ga.cli._predict_files import Predictions

slide_file.UNIT = {SIDE}
given, work = [], Predictions.work

def counted(self, unit, *others):
    given.append(unit)
    if len(given) == 3 and os.environ.get("LOCAL_RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return work(self, unit, *others)

Predictions.work = counted
main()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_one_killed(folder, *arguments):
    """The exit code and the two outputs of a command that starts its second process itself; that one is killed."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "150"}
    inherited = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "NODE_RANK")}
    command = [sys.executable, program, *map(str, arguments)]
    done = subprocess.run(command, env={**inherited, **own}, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout, done.stderr


def outcomes(folder, *typed, nodes=1, devices=2):
    """The exit code and the two outputs of the processes of each node, started one by one as a launcher does."""
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "COLUMNS": "150"}
    with ExitStack() as ended:
        processes = [
            ended.enter_context(Forked(folder, *typed, NODE_RANK=node, LOCAL_RANK=local, **found))
            for node in map(str, range(nodes))
            for local in map(str, range(devices))
        ]
        return [(process.wait(), process.output, process.errors) for process in processes]


def contents(folder):
    """All files below a folder; of the journal the lines without their order, which is that of the work."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        path: sorted(content.splitlines()) if path.suffix == ".jsonl" else content for path, content in files.items()
    }


@pytest.fixture
def images(data, tmp_path):
    """Four images, one of which cannot be read and one lies in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for index, place in enumerate(["0", "1", "more/2"]):
        shutil.copy(Path(data[1]) / f"{index:02}.png", folder / f"{place}.png")
    (folder / "bad.png").write_text("no image")
    return folder


def test_two_nodes_of_two_processes_write_what_one_process_writes(invoke, balanced, images, tmp_path):
    """Four processes on loopback, as on two machines that share a disc."""
    typed = ["predict", "--run", balanced["EquivariantUNet"], "--images", images, "--recursive", "--device", "cpu"]
    typed += ["--probabilities", "--overlay", "--objects", "--geojson", "--tile", "64", "--out"]
    together = ["--devices", "2", "--nodes", "2", "--strategy", "ddp"]
    first, *others = outcomes(tmp_path, *typed, tmp_path / "four", *together, nodes=2)
    result = invoke(*typed, tmp_path / "one", code=1)
    assert (first[0], first[1]) == (1, result.stdout)
    assert first[2].splitlines() == result.stderr.replace("/one", "/four").splitlines()
    assert others == [(0, "", "")] * 3
    assert "1 of 4 images cannot be predicted; the others are done" in first[2]
    files = contents(tmp_path / "four")
    assert len(files) == 3 * 6 + 2
    assert files == contents(tmp_path / "one")


def test_two_processes_report_what_one_process_reports(invoke, balanced, data, tmp_path):
    for kind, source in (("images", data[1]), ("true", data[3])):
        (tmp_path / kind).mkdir()
        for index in range(3):
            shutil.copy(Path(source) / f"{index:02}.png", tmp_path / kind)
    typed = ["evaluate", "--run", balanced["EquivariantUNet"], "--against", balanced["UNet"], "--device", "cpu"]
    typed += ["--images", tmp_path / "images", "--instances", tmp_path / "true", "--out"]
    (code, said, errors), other = outcomes(tmp_path, *typed, tmp_path / "two", "--devices", "2")
    assert code == 0, errors
    assert other == (0, "", "")
    one = invoke(*typed, tmp_path / "one").stdout
    assert said.replace("/two", "/one").split() == one.split()
    files = contents(tmp_path / "two")
    assert sorted(map(str, files)) == ["report.html", "report.json"]
    assert files == contents(tmp_path / "one")


@pytest.fixture
def slide_run(data, tmp_path):
    """A slide, and a network whose objects are found by its distances."""
    (tmp_path / "images").mkdir()
    with Image.open(Path(data[1]) / "00.png") as image:
        image.save(tmp_path / "images" / "00.tif")
    arguments = {"in_channels": 1, "classes": 2, "width": 1, "depth": 2, "neck": 16, "group": "C4"}
    normalization, decoder = Normalization([24.0], [30.0]), Decoder("distance", smallest=3, rise=0.02)
    config = SegmenterConfig("ObjectUNet", arguments, ("background", "cell"), normalization, decoder=decoder)
    net = config.build(seed=0).eval()
    with torch.no_grad():
        other, cell = net(normalization(read_image(Path(data[1]) / "00.png"))[None])[0]
        net.segmentation_head.bias[1] -= (cell - other).median()
        net.distance_head.weight *= 5
        net.distance_head.bias += 1
    return tmp_path / "images", save_checkpoint(tmp_path / "run.safetensors", net, config)


@pytest.mark.parametrize(("nodes", "devices"), [(1, 4), (2, 2)])
def test_four_processes_write_the_slide_of_one(nodes, devices, invoke, slide_run, tmp_path, monkeypatch):
    """Four processes that share out the units of a slide: on one machine, and as two nodes on loopback."""
    images, run = slide_run
    typed = ["predict", "--run", run, "--images", images, "--device", "cpu", "--tile", "24"]
    typed += ["--slides", "--level", "0", "--objects", "--rois", "--out"]
    together = ["--devices", devices, "--nodes", nodes]
    monkeypatch.setattr(slide_file, "UNIT", SIDE)
    for code, _, errors in outcomes(tmp_path, *typed, tmp_path / "four", *together, nodes=nodes, devices=devices):
        assert code == 0, errors
    units = []
    monkeypatch.setattr(slide_file.SlideJob, "finish", counted_finish(slide_file.SlideJob.finish, units))
    invoke(*typed, tmp_path / "one")
    assert units[0] > 4
    files = contents(tmp_path / "four")
    assert len(files) == 7 + 2
    assert files == contents(tmp_path / "one")
    assert len(files[Path("00_objects.csv")].splitlines()) > 5


def counted_finish(finish, units):
    """`SlideJob.finish` that keeps the number of units of the slide."""

    def kept(job):
        units.append(len(job.units))
        return finish(job)

    return kept


def test_a_killed_process_is_named_and_the_same_command_does_the_rest(invoke, balanced, data, tmp_path, monkeypatch):
    """Two slides in units of a few tiles: of two processes, one is killed when it is given its third."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("00", "01"):
        with Image.open(Path(data[1]) / f"{name}.png") as image:
            image.save(images / f"{name}.tif")
    typed = ["predict", "--run", balanced["EquivariantUNet"], "--images", images, "--device", "cpu"]
    typed += ["--tile", "24", "--slides", "--level", "0", "--out"]
    code, said, errors = with_one_killed(tmp_path, *typed, tmp_path / "two", "--devices", "2")
    assert (code, said) == (1, ""), errors
    first, last = errors.splitlines()[-2:]
    assert first.startswith(f"gconv-ga: process 1 of 2 (counted from 0; on {socket.gethostname()}, pid ")
    assert ") was killed by SIGKILL; the other processes finish what they have begun" in first
    assert last.endswith(") was killed by SIGKILL. The same command does what is missing")

    done, predict = set(), slide_file.SlideJob._predict

    def counted(self, number):
        done.add(self.result(number).relative_to(tmp_path / self.path.relative_to(tmp_path).parts[0]))
        predict(self, number)

    monkeypatch.setattr(slide_file, "UNIT", SIDE)
    monkeypatch.setattr(slide_file.SlideJob, "_predict", counted)
    kept = {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("classes-*.npz")}
    whole = {path.name.removesuffix(".ome.tif") for path in (tmp_path / "two").rglob("*.ome.tif")}
    assert kept or whole
    invoke(*typed, tmp_path / "two")
    missing = done.copy()
    done.clear()
    invoke(*typed, tmp_path / "one")
    assert missing == {path for path in done - kept if path.parent.stem not in whole}
    assert 0 < len(missing) < len(done)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert not [path for path in (tmp_path / "two").rglob("*") if path.name.endswith(UNFINISHED)]
