"""benchmarks/finetuning.py and label_efficiency.py: their quick forms, their sets and scores, and their tables."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from house import ROOT
from torch import Tensor, nn

from gconv_ga.images import Split
from gconv_ga.nn import GroupConv2d

for _package in ("pytorch_lightning", "segmentation_models_pytorch", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")

# Numbers of training images, test images and classes.
SETS = {"nuclei": (48, 24, 2), "histology": (36, 17, 2), "bloodcells": (80, 30, 3), "retina": (14, 7, 2)}
EXACT = ("C4", "D4", "C4, m=1", "D4, m=1", "C4, opened", "plain, augmented, averaged at test")


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.fixture
def tasks() -> ModuleType:
    return importlib.import_module("segmentation_tasks")


@pytest.fixture
def finetuning() -> ModuleType:
    return importlib.import_module("finetuning")


@pytest.fixture
def labels() -> ModuleType:
    return importlib.import_module("label_efficiency")


def without_seconds(row: dict) -> dict:
    return {key: value for key, value in row.items() if "seconds" not in key}


def assert_continues(main: Callable[[list[str]], list[dict]], call: list[str], out: Path, rows: list[dict]) -> None:
    """A run interrupted while writing its last row computes that row again, and no other."""
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    out.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    again = main(call)
    assert out.read_text().splitlines()[:-1] == lines[:-1]
    assert [without_seconds(row) for row in again] == [without_seconds(row) for row in rows]


def test_fine_tuning_in_short(finetuning: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "rows.jsonl"
    call = ["--quick", "--seeds", "1", "--tasks", "nuclei", "--out", str(out)]
    rows = finetuning.main(call)
    assert [row["method"] for row in rows] == list(finetuning.METHODS)
    for row in rows:
        exact = row["method"] in EXACT
        assert row["changed"] < 1e-3 if exact else row["changed"] > 1e-2
        assert row["dice turned"] == pytest.approx(row["dice"], abs=1e-3 if exact else 1)
    found = {row["method"]: row for row in rows}
    # With all taps each element of C4 sees all four: nearly four times the parameters and multiply-adds.
    assert 3.5 < found["C4, opened"]["multiply-adds"] / found["C4, m=1"]["multiply-adds"] < 4
    assert 3.5 < found["C4, opened"]["parameters"] / found["C4, m=1"]["parameters"] < 4
    assert found["C4, m=1"]["parameters"] == found["plain"]["parameters"]
    assert found["C4"]["dice"] != found["C4, m=1"]["dice"]
    assert capsys.readouterr().out.count("\n| nuclei |") == 2 * len(rows)  # in the tables of means and of seeds
    assert_continues(finetuning.main, call, out, rows)


def test_taps_learn_slower(finetuning: ModuleType, tasks: ModuleType) -> None:
    task = tasks.load_task(tasks.quick_parts("nuclei"), "nuclei", images=2, crop=32)
    plain = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1))
    rates = []

    class Watched(finetuning.TapRates):
        def on_train_batch_end(self, *args: object) -> None:
            rates.append([group["lr"] for group in self.optimizers().param_groups])

    net = finetuning.candidate("C4, opened", plain, task)
    tasks.train(net, task, steps=4, seed=0, segmenter=Watched)
    assert len(rates) == 4
    assert all(taps == pytest.approx(weights / 4) for weights, taps in rates)
    assert all(bool(conv.taps.any()) for conv in net.convolutions().values())


def test_label_efficiency_in_short(labels: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "rows.jsonl"
    methods = ["plain, augmented", "C4", "averaged in training, C4", "converted to C4, fine-tuned"]
    call = ["--quick", "--methods", *methods, "--out", str(out)]
    rows = labels.main(call)
    assert len(rows) == 2 * (len(methods) + 1)
    for row in rows:
        assert row["changed"] < 1e-3 if row["method"] != "plain, augmented" else row["changed"] > 1e-2
    assert capsys.readouterr().out.count("\n| nuclei |") == len(methods) + 1
    assert_continues(labels.main, call, out, rows)
    assert labels.main(["--quick", "--table", str(out)]) == labels.main(call)
    table = ["--quick", "--methods", "C4", "--table", str(out)]
    assert labels.main(table) == [row for row in rows if row["method"] == "C4"]
    assert labels.main(["--quick", "--head", "random", "--table", str(out)]) == []  # those are other runs


def test_averaging_at_test_can_come_later(labels: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    call = ["--quick", "--methods", "plain, augmented", "--out", str(tmp_path / "rows.jsonl")]
    rows = labels.main([*call, "--no-average"])
    assert [row["method"] for row in rows] == ["plain, augmented"] * 2
    assert labels.main([*call, "--no-average"]) == rows  # nothing is computed again
    more = labels.main([*call, "--score", "iou"])
    assert more[:2] == rows
    assert [row["method"] for row in more[2:]] == [labels.AT_TEST] * 2
    assert f"| {more[2]['iou']:.3f} |" in capsys.readouterr().out


def test_networks_have_the_size_of_their_names(labels: ModuleType, tasks: ModuleType) -> None:
    task = tasks.load_task(tasks.quick_parts("histology"), "histology")
    sizes = {name: tasks.size_of(method.build(3, 2, method.width(16)), task) for name, method in labels.METHODS.items()}
    whole = sizes["plain, augmented"]
    for name, size in sizes.items():
        work = size["multiply-adds"] / whole["multiply-adds"]
        if "parameters of" in name or name.startswith("converted"):  # measured before its conversion
            assert size["parameters"] == pytest.approx(sizes["D4" if "D4" in name else "C4"]["parameters"], rel=0.15)
        else:  # widths are whole numbers
            assert work == pytest.approx(4 if "4 x" in name else 1, rel=0.17)


def test_taps_by_level(labels: ModuleType) -> None:
    net = labels.METHODS["C4, one tap at the finest level"].build(3, 2, 5)
    taps = [[len(m.taps) for m in part.modules() if isinstance(m, GroupConv2d)] for part in net.encoder.blocks]
    assert taps == [[1], [4, 4], [4, 4]]  # the very first layer lifts
    taps = [[len(m.taps) for m in part.modules() if isinstance(m, GroupConv2d)] for part in net.decoder.blocks]
    assert taps == [[4, 4], [1, 1]]
    x = torch.randn(1, 3, 21, 16)
    net.eval()
    torch.testing.assert_close(net(x.rot90(1, (-2, -1))), net(x).rot90(1, (-2, -1)))
    assert net(x).std() > 1e-3


def test_the_grid_has_every_cell_once(labels: ModuleType) -> None:
    cells = list(labels.grid(seeds=3))
    assert len(set(cells)) == len(cells) == len(labels.METHODS) * 4 * 5 * 3
    # The first cells make a table: one seed of every set with 4 and 8 images.
    assert {cell[1:3] for cell in cells[:24]} == {(task, images) for task in SETS for images in (4, 8)}


def test_gains_are_those_of_pairs(labels: ModuleType) -> None:
    def row(method: str, images: int, seed: int, dice: float) -> dict:
        return {"task": "retina", "method": method, "images": images, "seed": seed, "dice": dice, "iou": dice / 2}

    rows = [row("plain, augmented", 8, 0, 0.5), row("plain, augmented", 8, 1, 0.7), row("plain, augmented", 4, 0, 0.1)]
    rows += [row("C4", 4, 0, 0.6), row("C4", 4, 1, 0.65), row("C4", 4, 2, 0.9)]
    for key, same, half in (("dice", "+0.500", "+0.025"), ("iou", "+0.250", "+0.013")):
        assert labels.gain_table(rows, key).splitlines()[2:] == [
            f"| C4 | 4 | - | - | - | - | - | - | {same} | 1/1 |",
            f"| C4 | 4 against 8 | - | - | - | - | - | - | {half} | 1/2 |",
        ]


@pytest.mark.parametrize("name", SETS)
def test_sets_as_they_are_in_their_folders(
    name: str, tasks: ModuleType, shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "DATA", shared_data(name).parent)
    parts = tasks.read_parts(name)
    train, test, classes = SETS[name]
    assert (len(parts["train"]), len(parts["test"]), tasks.KINDS[name].classes) == (train, test, classes)
    assert set(parts["train"].masks.unique().tolist()) == set(range(classes))
    few, more = (tasks.load_task(parts, name, images, seed=1) for images in (4, 8))
    assert len(few.train) == 4
    # The same images, normalized with different statistics.
    assert torch.equal(few.train.masks, more.train.masks[:4])
    assert not torch.equal(few.train.images, more.train.images[:4])
    pixels = few.train.images.transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(pixels.mean(1), torch.zeros(len(pixels), dtype=torch.float64), rtol=0, atol=1e-4)
    other = tasks.load_task(parts, name, 4, seed=2)
    assert not torch.equal(few.train.masks, other.train.masks)


class Shifted(nn.Module):
    """Labels a pixel as foreground if the pixel `shift` to its left is bright."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(x), x.roll(self.shift, -1) - 0.5), 1)


def test_scores_tell_an_equivariant_network_from_another(tasks: ModuleType, generator: torch.Generator) -> None:
    images = torch.rand(3, 1, 16, 16, generator=generator)
    masks = (images[:, 0] > 0.7).long()
    task = tasks.Task("nuclei", tasks.KINDS["nuclei"], Split(images, masks), Split(images, masks))
    bright = tasks.score(Shifted(0), task)
    called = images[:, 0] > 0.5
    both, either = (called & masks.bool()).sum((1, 2)), (called | masks.bool()).sum((1, 2))
    assert bright["iou"] == pytest.approx(float((both / either).mean()))
    assert bright["dice"] == pytest.approx(float((2 * both / (both + either)).mean()))
    assert (bright["changed"], bright["iou turned"]) == (0, bright["iou"])
    assert tasks.score(Shifted(1), task)["changed"] > 0.3


def test_a_class_absent_from_an_image_is_excluded(tasks: ModuleType) -> None:
    labels = torch.tensor([[[0, 1, 1, 0]], [[0, 2, 2, 2]]])
    masks = torch.tensor([[[0, 1, 0, 0]], [[0, 2, 2, 0]]])
    assert tasks.iou(labels, masks, 3) == pytest.approx((1 / 2 + 2 / 3) / 2)
