"""benchmarks/rotated_digits.py: its networks, its rotated digits, its quick form and its table."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from house import ROOT

pytest.importorskip("torchvision", reason="torchvision, from the extra train, is not installed")


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("rotated_digits")


@pytest.mark.parametrize(("name", "symmetric"), [("Z2CNN", False), ("P4CNN (C4)", True), ("C16", True)])
def test_networks_have_the_symmetry_of_their_names(
    digits: ModuleType, generator: torch.Generator, name: str, symmetric: bool
) -> None:
    net = digits.METHODS[name].build().double().eval()
    x = torch.randn(4, 1, 28, 28, generator=generator, dtype=torch.float64)
    scores = net(x)
    assert scores.shape == (4, 10)
    error = (net(x.rot90(1, (-2, -1))) - scores).abs().max() / scores.std(0).max()
    assert error < 1e-10 if symmetric else error > 1e-3


def test_the_networks_of_the_paper_have_its_number_of_parameters(digits: ModuleType) -> None:
    # Cohen and Welling 2016, section 8.1: both have about 25 thousand.
    for name in digits.PUBLISHED:
        assert sum(p.numel() for p in digits.METHODS[name].build().parameters()) == pytest.approx(25e3, rel=0.15)


def test_test_digits_are_rotated_several_times_and_unseen(digits: ModuleType) -> None:
    # Each image is a disc of its own grey, which rotations keep.
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    disc = (y**2 + x**2 < 36).float()
    images = torch.arange(1, 21).view(-1, 1, 1, 1) * disc
    train, test = digits.split(images, torch.arange(1, 21), seed=3, training=15)
    assert (len(train.images), len(test.images)) == (15, 5 * digits.TEST_ANGLES)
    assert not set(train.classes.tolist()) & set(test.classes.tolist())
    assert train.images.mean().abs() < 1e-5
    for part in (train, test):
        centre = part.images[:, 0, 13, 13]
        slope = (centre - part.images.min()) / part.classes
        torch.testing.assert_close(slope, slope[0].expand(len(slope)), rtol=1e-3, atol=0)
    again, _ = digits.split(images, torch.arange(1, 21), seed=3, training=15)
    other, _ = digits.split(images, torch.arange(1, 21), seed=4, training=15)
    assert torch.equal(train.images, again.images)
    assert not torch.equal(train.classes, other.classes)


def test_a_rotation_is_by_a_random_angle(digits: ModuleType, generator: torch.Generator) -> None:
    bar = torch.zeros(50, 1, 28, 28)
    bar[:, :, 13:15, 14:24] = 1  # points to the right
    rotated = digits.randomly_rotated(bar, generator)
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    mass = rotated.sum((1, 2, 3))
    angles = torch.atan2((rotated[:, 0] * y).sum((1, 2)) / mass, (rotated[:, 0] * x).sum((1, 2)) / mass)
    quadrants = torch.bucketize(angles, torch.tensor([-1.57, 0, 1.57])).bincount(minlength=4)
    assert quadrants.min() > 4


def test_the_short_form_continues(digits: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "rows.jsonl"
    call = ["--quick", "--networks", "Z2CNN", "C8", "--out", str(out)]
    rows = digits.main(call)
    assert [row["network"] for row in rows] == ["Z2CNN", "C8"]
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    out.write_text(lines[0] + "\n" + lines[1][:9])
    assert [row["error"] for row in digits.main(call)] == [row["error"] for row in rows]
    assert out.read_text().splitlines()[0] == lines[0]
    assert digits.main(["--table", str(out)]) == []  # those are other runs


def test_ratios_are_those_of_the_same_seeds(digits: ModuleType) -> None:
    def row(network: str, seed: int, error: float) -> dict:
        rest = {"parameters": 7, "multiply-adds": 3e6, "seconds": 2.0}
        return {"network": network, "seed": seed, "error": error} | rest

    rows = [row("Z2CNN", 0, 4.0), row("Z2CNN", 1, 6.0), row("P4CNN (C4)", 1, 3.0), row("C8", 0, 1.0), row("C8", 1, 2.0)]
    assert digits.table(rows).splitlines()[2:] == [
        "| Z2CNN | 2 | 5.00 | 4.00 | 6.00 | 1.00 | 5.03 | 1.00 | 7 | 3.0 | 2 |",
        "| P4CNN (C4) | 1 | 3.00 | 3.00 | 3.00 | 0.50 | 2.28 | 0.45 | 7 | 3.0 | 2 |",
        "| C8 | 2 | 1.50 | 1.00 | 2.00 | 0.30 | - | - | 7 | 3.0 | 2 |",
    ]
