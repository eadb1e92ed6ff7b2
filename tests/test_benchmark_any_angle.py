"""benchmarks/any_angle.py: its quick form without escnn, and its rotation of images."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from house import ROOT
from torch import nn

for _package in ("pytorch_lightning", "scipy", "segmentation_models_pytorch", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("any_angle")


def test_in_short(bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "rows.jsonl"
    call = ["--quick", "--tasks", "nuclei", "--methods", "plain", "ours, k=3", "--out", str(out)]
    plain, ours = bench.main(call)
    assert (plain["method"], ours["method"]) == ("plain", "ours, k=3")
    assert min(plain["dice"], ours["dice"]) > 0.2, "the labels of an empty mask would not change either"
    assert ours["changed, 90 degrees"] < 1e-4 < plain["changed, 90 degrees"]
    assert capsys.readouterr().out.count("\n| nuclei |") == 2
    lines = out.read_text().splitlines()
    out.write_text(lines[0] + "\n" + lines[1][:20])  # interrupted while writing
    again = bench.main(call)
    assert out.read_text().splitlines()[0] == lines[0]
    assert [row["dice 45"] for row in again] == [plain["dice 45"], ours["dice 45"]]
    assert bench.main(["--quick", "--table", str(out)]) == again


def test_images_are_rotated_counter_clockwise(bench: ModuleType) -> None:
    image = torch.rand(2, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(bench.rotate(image, 90, 3), torch.rot90(image, 1, (-2, -1)))
    assert not torch.allclose(bench.rotate(image, 90, 3), torch.rot90(image, -1, (-2, -1)))


@pytest.mark.parametrize("side", [64, 128, 256])
def test_all_that_is_compared_is_in_view_at_every_angle(bench: ModuleType, side: int) -> None:
    view = bench.View(side)
    away = (torch.arange(side) - (side - 1) / 2).square()
    out_of_view = (away + away.unsqueeze(1) > ((side - 1) / 2) ** 2).unsqueeze(
        0
    )  # can be rotated into view from outside
    assert not view(out_of_view).any()
    assert view.disc.shape == (view.side, view.side)
    assert view.disc.any()
    assert torch.equal(view.disc, torch.rot90(view.disc))


def test_a_network_that_is_not_equivariant_is_caught(bench: ModuleType) -> None:
    """A network that labels a pixel as foreground if it is brighter than the pixel above it is not equivariant."""
    tasks = importlib.import_module("segmentation_tasks")
    task = tasks.load_task(tasks.quick_parts("nuclei"), "nuclei")

    class Up(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat((torch.zeros_like(x), 9 * (x - x.roll(1, -2))), 1)

    class Level(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat((torch.zeros_like(x), 9 * (x - 1)), 1)

    angles = torch.tensor([[30.0]] * len(task.test.images))
    up, level = (bench.score(net, task, angles) for net in (Up(), Level()))
    assert up["changed"] > 0.2 > 0.05 > level["changed"]
    assert up["changed, 90 degrees"] > 0.2
    assert level["changed, 90 degrees"] == 0
    assert level["dice 45"] == pytest.approx(level["dice"], abs=0.1)


def test_the_blur_is_equivariant(bench: ModuleType) -> None:
    x = torch.randn(1, 2, 4, 9, 12, dtype=torch.float64)
    blur = importlib.import_module("any_angle_networks").Blur()
    torch.testing.assert_close(blur(torch.rot90(x, 1, (-2, -1))), torch.rot90(blur(x), 1, (-2, -1)))
    assert not torch.allclose(blur(x), x, atol=0.1)
