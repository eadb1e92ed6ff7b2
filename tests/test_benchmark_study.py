"""benchmarks/study.py: its grid and how it continues, its search, its networks, its selection and its tables."""

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from house import ROOT
from torch import nn

from gconv_ga.filters import steerable_basis
from gconv_ga.groups import C1, C4
from gconv_ga.nn import GroupConv2d

for _package in ("pytorch_lightning", "segmentation_models_pytorch", "torchmetrics", "torchvision"):
    pytest.importorskip(_package, reason=f"{_package}, from the extra train, is not installed")


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.fixture
def study() -> ModuleType:
    return importlib.import_module("study")


@pytest.fixture
def candidates() -> ModuleType:
    return importlib.import_module("study_candidates")


@pytest.fixture
def training() -> ModuleType:
    return importlib.import_module("study_training")


def small_plan(study: ModuleType):
    """Two budgets of two networks on one set; the longer one searches decays only."""
    stages = [study.Stage(range(2), (steps,), (8,), ("retina",), (1,), ("plain", "C8")) for steps in (20, 60)]
    return study.Plan(
        stages, ("retina",), 8, (1e-2, 3e-3), (1e-2, 1e-1), (study.Setting(schedule="polynomial"),), ((60, 20),)
    )


def fill(study: ModuleType, plan, dice, rows: list[dict]) -> list[dict]:
    """Add the rows that lack, each with a Dice that is a function of the cell."""
    while (cell := study.next_cell(plan, rows)) is not None:
        assert cell not in map(study.Cell.of, rows)
        rows.append(asdict(cell) | {"held out": dice(cell)})
    return rows


def test_the_search_precedes_each_budget_and_its_best_setting_is_used(study: ModuleType) -> None:
    plan = small_plan(study)
    rows = fill(
        study, plan, lambda cell: (cell.rate == 3e-3) + (cell.decay == (1e-1 if cell.steps == 60 else 1e-2)), []
    )
    cells = [study.Cell.of(row) for row in rows]
    assert len(set(cells)) == len(cells)
    # Two rates, another decay, another schedule, then what the grid lacks: seed 0 of plain is the best of the search.
    assert [(c.rate, c.decay, c.schedule, c.candidate, c.seed) for c in cells[:7]] == [
        (1e-2, 1e-2, "cycle", "plain", 0),
        (3e-3, 1e-2, "cycle", "plain", 0),
        (3e-3, 1e-1, "cycle", "plain", 0),
        (3e-3, 1e-2, "polynomial", "plain", 0),
        (3e-3, 1e-2, "cycle", "C8", 0),
        (3e-3, 1e-2, "cycle", "plain", 1),
        (3e-3, 1e-2, "cycle", "C8", 1),
    ]
    assert [(c.rate, c.decay, c.schedule, c.candidate, c.seed) for c in cells[7:]] == [
        (3e-3, 1e-2, "cycle", "plain", 0),
        (3e-3, 1e-1, "cycle", "plain", 0),
        (3e-3, 1e-1, "cycle", "C8", 0),
        (3e-3, 1e-1, "cycle", "plain", 1),
        (3e-3, 1e-1, "cycle", "C8", 1),
    ]
    other = fill(study, plan, lambda cell: cell.rate, [])
    assert {row["rate"] for row in other if row["candidate"] == "C8"} == {1e-2}


@pytest.mark.parametrize("lost", [0, 3, 8, 11])
def test_a_lost_row_is_the_next_run_and_the_only_one(study: ModuleType, lost: int) -> None:
    plan = small_plan(study)
    rows = fill(study, plan, lambda cell: cell.rate, [])
    left = rows[:lost] + rows[lost + 1 :]
    assert asdict(study.next_cell(plan, left)).items() <= rows[lost].items()
    assert study.next_cell(plan, rows) is None
    # A run of another kind does not stand in for it.
    assert study.next_cell(plan, [*left, rows[lost] | {"seed": 9}]) == study.Cell.of(rows[lost])


def test_what_runs_already_is_not_run_twice(study: ModuleType) -> None:
    plan, rows, order = small_plan(study), [], []
    fill(study, plan, lambda cell: cell.rate, order)
    # Two rates are tried at the same time; nothing else of the search can start before both are known.
    one = study.next_cell(plan, rows)
    other = study.next_cell(plan, rows, [one])
    assert [one, other] == [study.Cell.of(row) for row in order[:2]]
    assert study.next_cell(plan, rows, [one, other]) is None
    assert study.next_cell(plan, order[:1], [other]) is None
    # After the search, and with the last run of the grid going on.
    running = list(map(study.Cell.of, order[4:6]))
    assert study.next_cell(plan, order[:4], running) == study.Cell.of(order[6])
    assert study.next_cell(plan, order[:-1], [study.Cell.of(order[-1])]) is None


def test_the_grid_begins_with_what_decides_and_has_everything(study: ModuleType) -> None:
    cells = list(dict.fromkeys(cell for stage in study.PLAN.stages for cell in stage.cells()))
    first = cells[:18]
    assert {cell[1:4] for cell in first} == {(300, 8, "histology"), (300, 8, "bloodcells")}
    assert {cell[5] for cell in first} == {"plain", "plain smooth", "C8"}
    # Seven networks have three widths, D8 two.
    assert len(cells) == 5 * 3 * 2 * 4 * (7 * 3 + 2)


def test_the_short_form_continues(study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "rows.jsonl"
    rows = study.main(["--quick", "--out", str(out)])
    assert [(row["candidate"], row["rate"]) for row in rows[:2]] == [("plain", 1e-2), ("plain", 3e-3)]
    best = max(rows[:2], key=lambda row: row["held out"])
    assert [row["rate"] for row in rows[2:]] == [best["rate"]]
    for row in rows:
        assert row["selected step"] == 10 - row["validation"][::-1].index(max(row["validation"]))
        assert (row["selected"] == row["last"]) or row["selected step"] < 10
        assert (row["averaged"] is None) == (row["candidate"] == "C8")
    lines = out.read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    out.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])  # killed while it wrote
    again = study.main(["--quick", "--out", str(out)])
    assert out.read_text().splitlines()[:-1] == lines[:-1]
    unlike = {key for key in rows[-1] if again[-1][key] != rows[-1][key]}
    assert unlike <= {"seconds", "steps per second"}
    capsys.readouterr()
    assert study.main(["--quick", "--table", str(out)]) == again
    assert "| nuclei | 2 | 10 | C8 | 1 |" in capsys.readouterr().out
    assert study.main(["--table", str(out)]) == []  # those are other runs


def test_networks_have_the_work_of_their_names(candidates: ModuleType) -> None:
    tasks = importlib.import_module("segmentation_tasks")
    task = tasks.load_task(tasks.quick_parts("histology"), "histology")
    sizes = {
        (name, work): tasks.size_of(spec.build(3, 2, work), task)["multiply-adds"] / work
        for name, spec in candidates.CANDIDATES.items()
        for work in spec.works()
    }
    for (name, work), size in sizes.items():
        # Widths are whole numbers: C8 with twice the work has 3 fields, not 2.8.
        assert size == pytest.approx(sizes["plain", 1], rel=0.17), (name, work)
    assert ("D8", 2) not in sizes


def test_borrowed_filters_are_functions_of_the_larger_group(candidates: ModuleType) -> None:
    whole = steerable_basis("C8", 3)
    for group, step in ((C1, 8), (C4, 2)):
        basis = candidates.BorrowedFilters(group, (3, 3)).basis
        assert torch.equal(basis.kernels, whole.kernels[:, ::step])
        # With all functions the approximate energies are those of the larger group.
        assert basis.energy == pytest.approx(whole.energy)
        assert basis.rectified_energy == pytest.approx(whole.rectified_energy)
        assert basis.spread == pytest.approx(whole.spread)
    assert set(steerable_basis("C1", 3, functions=7).gain) != set(whole.gain)


@pytest.mark.parametrize(
    ("name", "symmetric"), [("C4 smooth", True), ("rings", True), ("plain smooth", False), ("plain", False)]
)
def test_networks_have_the_symmetry_of_their_names(
    candidates: ModuleType, generator: torch.Generator, name: str, symmetric: bool
) -> None:
    net = candidates.CANDIDATES[name].build(1, 2, 1).double().eval()
    x = torch.randn(1, 1, 16, 24, generator=generator).double()
    error = (net(x.rot90(1, (-2, -1))) - net(x).rot90(1, (-2, -1))).abs().max() / net(x).std()
    assert error < 1e-10 if symmetric else error > 1e-2
    flipped = (net(x.flip(-1)) - net(x).flip(-1)).abs().max() / net(x).std()
    assert flipped < 1e-10 if name == "rings" else flipped > 1e-2


def test_rings_start_with_an_output_of_the_size_of_the_input(
    candidates: ModuleType, generator: torch.Generator
) -> None:
    @torch.no_grad()
    def gain(filters) -> float:
        conv = GroupConv2d(32, 64, 5, padding=2, bias=False, group="C1", filters=filters)
        # The mean of a rectified image is what smooth kernels see most of.
        x = torch.randn(1, 32, 1, 24, 24, generator=generator).relu()
        return float(conv(x)[..., 2:-2, 2:-2].square().mean() / x.square().mean())

    rings = gain(candidates.BorrowedFilters(C1, (5, 5), invariant=True))
    # Three functions carry what fifteen do.
    assert rings == pytest.approx(gain(candidates.BorrowedFilters(C1, (5, 5))), rel=0.5)


def test_weights_are_those_of_the_best_validation(
    training: ModuleType, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    tasks = importlib.import_module("segmentation_tasks")
    task = training.draw(tasks.quick_parts("nuclei"), "nuclei", 2, seed=0, crop=16, validation=1).task
    model = nn.Conv2d(1, 2, 1)
    seen, scores = [], iter([0.1, 0.7, 0.7, 0.3, 0.2])

    def score(network: nn.Module) -> float:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return next(scores)

    selection = training.Selection(score, every=2)
    stream = training.CropStream(task.train, length=10, crop=16)
    training.fit(training.StudySegmenter(model, training.Setting()), stream, batch_size=1, callbacks=[selection])
    assert (selection.scores, selection.step) == ([0.1, 0.7, 0.7, 0.3, 0.2], 6)  # the later of two equal ones
    assert all(torch.equal(selection.weights[name], seen[2][name]) for name in seen[2])
    assert not torch.equal(selection.weights["weight"], model.weight)


@pytest.mark.parametrize(("schedule", "kind"), [("polynomial", torch.optim.AdamW), ("SGD", torch.optim.SGD)])
def test_polynomial_rates_fall_to_zero(training: ModuleType, schedule: str, kind: type) -> None:
    tasks = importlib.import_module("segmentation_tasks")
    task = training.draw(tasks.quick_parts("nuclei"), "nuclei", 2, seed=0, crop=16, validation=1).task
    rates = []

    class Watched(training.StudySegmenter):
        def on_train_batch_start(self, *args: object) -> None:
            (group,) = self.optimizers().param_groups
            assert isinstance(self.optimizers().optimizer, kind)
            rates.append((group["lr"], group["weight_decay"]))

    stream = training.CropStream(task.train, length=4, crop=16)
    setting = training.Setting(2e-2, 3e-5, schedule)
    training.fit(Watched(nn.Conv2d(1, 2, 1), setting), stream, batch_size=1)
    assert rates == [pytest.approx((2e-2 * (1 - step / 4) ** 0.9, 3e-5)) for step in range(4)]


def test_validation_images_are_not_for_training(training: ModuleType) -> None:
    tasks = importlib.import_module("segmentation_tasks")
    parts = tasks.quick_parts("histology")
    count = len(parts["train"])
    few, whole = (training.draw(parts, "histology", images, seed=1, validation=2) for images in (3, None))
    assert torch.equal(few.task.train.images, tasks.load_task(parts, "histology", 3, seed=1).train.images)
    sizes = [(len(each.task.train), len(each.validation), len(each.held_out)) for each in (few, whole)]
    assert sizes == [(3, 2, count - 3), (count - 2, 2, 2)]
    for each in (few, whole):
        assert torch.equal(each.validation.masks, each.held_out.masks[:2])
        assert not any(torch.equal(a, b) for a in each.task.train.masks for b in each.held_out.masks)


def test_gains_are_those_of_pairs_with_the_chosen_setting(study: ModuleType) -> None:
    tables = importlib.import_module("study_tables")

    def row(candidate: str, seed: int, last: float, selected: float, decay: float = 1e-2, work: int = 1) -> dict:
        cell = study.Cell("retina", 8, 300, candidate, work, seed, 1e-2, decay, "cycle")
        averaged = last + 0.05 if candidate == "plain" else None
        return asdict(cell) | {"last": last, "selected": selected, "averaged": averaged, "held out": last}

    rows = [
        row("plain", 0, 0.9, 0.9, decay=1e-1),  # of the search
        row("plain", 0, 0.5, 0.6),
        row("plain", 1, 0.7, 0.7),
        row("plain smooth", 0, 0.6, 0.6),
        row("C8", 0, 0.8, 0.8),
        row("C8", 1, 0.6, 0.7),
        row("C8", 2, 0.9, 0.9),
    ]
    chosen = tables.with_chosen_setting(rows)
    assert chosen == rows[1:]
    smooth, c8 = tables.gain_table(chosen).splitlines()[2:]
    assert smooth.startswith("| retina | 8 | 300 | plain smooth | +0.100 | +0.100 | +0.100 | 1/1 | +0.000 |")
    assert smooth.endswith("| 0/1 | +0.050 | 1/1 |")  # against plain, averaged at test
    assert c8.startswith("| retina | 8 | 300 | C8 | +0.100 | -0.100 | +0.300 | 1/2 | +0.100 | +0.000 | +0.200 | 1/2 |")
    # Smoothness and symmetry, of the one seed that all three have, and selection of plain and C8.
    assert tables.parts_table(chosen).splitlines()[2:] == [
        "| retina | 8 | 300 | 1 | +0.100 | +0.200 | +0.000 | +0.200 | +0.100 | +0.000 |"
    ]
    assert tables.search_table(rows).splitlines()[2:] == [
        "| 300 | 0.01 | 0.01 | cycle | 0.500 |",
        "| 300 | 0.01 | 0.1 | cycle | 0.900 |",
    ]
    # A set with one setting had no search.
    assert tables.search_table([*rows, row("plain", 0, 0.5, 0.6) | {"task": "nuclei"}]) == tables.search_table(rows)
    more = [("C8", 0.5, 4), ("plain", 0.45, 2), ("plain", 0.6, 4)]
    wider = [*chosen, *(row(name, 0, last, 0.5, work=work) for name, last, work in more)]
    (line,) = [line for line in tables.work_table(wider).splitlines() if "| C8 | 4 |" in line]
    assert line.startswith("| retina | 8 | 300 | C8 | 4 | -0.100 | 0/1 | +0.050 | 1/1 |")


def test_times_are_measured_for_every_network(candidates: ModuleType) -> None:
    times = importlib.import_module("study_times").read_times()
    assert set(times) == {
        f"{name}, {work} x the work" for name, spec in candidates.CANDIDATES.items() for work in spec.works()
    }
