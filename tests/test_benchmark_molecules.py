"""benchmarks/molecules.py: its quick form runs, continues when interrupted, and tells exact from inexact networks."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from clouds import PYRIDINE, read_extxyz
from frame_modules import random_motion
from house import ROOT

# The methods that can predict positions.
MOVING = {"plain", "augmented", "augmented, averaged at test", "averaged", "updates", "sampled", "egnn"}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("molecules")


@pytest.fixture
def tasks(benchmark: ModuleType) -> ModuleType:
    return importlib.import_module("molecule_tasks")


@pytest.mark.parametrize("task", ["nbody", "qm7", "ethanol"])
def test_the_short_form(
    task: str, benchmark: ModuleType, tmp_path: Path, shared_data: Callable[[str], Path], capsys: pytest.CaptureFixture
) -> None:
    if task != "nbody":
        pytest.importorskip("ase", reason="ASE, from the extra molecules, is not installed")
        shared_data("molecules")
    out = tmp_path / "rows.jsonl"
    call = ["--quick", "--seeds", "1", "--tasks", task, "--out", str(out)]
    rows = benchmark.main(call)
    assert {row["method"] for row in rows} == (MOVING if task == "nbody" else MOVING | {"distances"})
    for row in rows:
        # Exact networks also have the same errors on transformed samples, up to float32.
        exact = row["method"] in benchmark.EXACT
        assert row["equivariance"] < 1e-3 if exact else row["equivariance"] > 1e-2
        for key, value in row["as stored"].items():
            assert 0 < value < 1e4
            if exact and key != "forces":  # the absolute value of a component is not invariant
                assert row["turned"][key] == pytest.approx(value, rel=1e-4)
    # One line per row and quantity in the table of errors, one per row in the table of costs.
    assert capsys.readouterr().out.count(f"\n| {task} |") == len(rows) * (1 + len(rows[0]["as stored"]))
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    # An interrupted run continues with the missing row.
    out.write_text("\n".join(lines[:-1]) + "\n")
    again = benchmark.main(call)
    assert len(out.read_text().splitlines()) == len(lines)
    assert again[-1]["as stored"] == rows[-1]["as stored"]


def test_the_page_shows_the_committed_rows(benchmark: ModuleType) -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    lines = (ROOT / "benchmarks" / "results" / "molecules.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    runs = [(row["task"], row["method"], row["seed"]) for row in rows]
    assert len(set(runs)) == len(runs)  # one budget for each task, and no run twice
    methods = len(MOVING) + 2 * len(MOVING | {"distances"})
    forces = len(MOVING | {"distances"})  # errors of ethanol have two lines
    for table, count in ((benchmark.error_table, methods + forces), (benchmark.cost_table, methods)):
        tables = [table([row for row in rows if row["budget"] == b]) for b in {row["budget"] for row in rows}]
        expected = [line for each in tables for line in each.splitlines()[2:]]
        assert len(expected) == count
        assert [line for line in expected if line not in page] == []
    for row in rows:
        # Relative to the forces, or to the energies after the fit of the elements; in float32.
        assert (row["equivariance"] < 1e-5) == (row["method"] in benchmark.EXACT), row


def test_the_simulation_keeps_what_nature_keeps(tasks: ModuleType) -> None:
    coarse, fine = (tasks.simulate(20, seed=0, step=step) for step in (0.005, 0.001))
    assert float((coarse.points - fine.points).abs().max()) < 2e-3
    assert float((coarse.points - coarse.x).abs().max()) > 1
    # No external force: the mean moves with the mean velocity.
    mean = coarse.x.mean(1) + 1.5 * coarse.v[:, :, 0].mean(1)
    torch.testing.assert_close(coarse.points.mean(1), mean, rtol=0, atol=1e-5)
    assert len(torch.unique(coarse.features)) == 2


def test_samples_are_transformed_as_a_whole(tasks: ModuleType) -> None:
    samples = tasks.simulate(3, seed=0)
    turn = random_motion(3, "O", mirrored=True).rotation.float()
    transformed = samples.transform(turn.expand(3, 3, 3))
    for part in ("x", "points"):
        torch.testing.assert_close(getattr(transformed, part)[1, 2], turn @ getattr(samples, part)[1, 2])
    torch.testing.assert_close(transformed.v[2, 4, 0], turn @ samples.v[2, 4, 0])
    assert torch.equal(transformed.features, samples.features)


def test_molecules_as_they_are_in_the_file(tasks: ModuleType, shared_data: Callable[[str], Path]) -> None:
    pytest.importorskip("ase", reason="ASE, from the extra molecules, is not installed")
    shared_data("molecules")
    ethanol, qm7 = tasks.load_task("ethanol", quick=False), tasks.load_task("qm7", quick=False)
    assert [len(part.x) for part in (ethanol.train, ethanol.val, ethanol.test)] == [300, 30, 70]
    assert [len(part.x) for part in (qm7.train, qm7.val, qm7.test)] == [700, 100, 200]
    lines = (shared_data("molecules") / "ethanol_md_400.extxyz").read_text().splitlines()
    symbol, *numbers = lines[3].split()
    assert symbol == "HCO"[int(ethanol.train.features[0, 1].argmax())]
    numbers = torch.tensor([float(number) for number in numbers])
    torch.testing.assert_close(ethanol.train.x[0, 1], numbers[:3])
    torch.testing.assert_close(ethanol.train.forces[0, 1] * ethanol.unit, numbers[3:])
    assert float(ethanol.train.forces.square().sum(-1).mean()) == pytest.approx(1, rel=1e-5)
    assert float(qm7.train.energy.std()) == pytest.approx(1, rel=1e-5)
    counts = qm7.train.features.sum(1)
    assert torch.equal(counts.sum(1).long(), qm7.train.mask.sum(1))
    # The residual energy is orthogonal to the numbers of atoms.
    assert float((qm7.train.energy @ counts).abs().max()) < 1e-4 * float(counts.norm() * qm7.train.energy.norm())


def test_ase_reads_what_our_own_reader_reads(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    ase = pytest.importorskip("ase.io", reason="ASE, from the extra molecules, is not installed")
    path = shared_data("molecules") / "g2.extxyz"
    ours, theirs = read_extxyz(path), ase.read(path, ":")
    assert len(ours) == len(theirs) == 148
    for atoms in theirs:
        assert torch.equal(torch.from_numpy(atoms.positions), ours[atoms.info["name"]])
    plain = tmp_path / "pyridine.xyz"
    lines = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip("NCCCCCHHHHH", PYRIDINE.tolist(), strict=True)]
    plain.write_text("\n".join(("11", "pyridine", *lines)) + "\n")
    assert torch.equal(torch.from_numpy(ase.read(plain).positions), PYRIDINE)
