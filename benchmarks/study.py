"""Measure what symmetry is worth in segmentation: against a tuned baseline, by training budget. See README.md.

    nohup python benchmarks/study.py --out benchmarks/results/study.jsonl --processes 2 &
    python benchmarks/study.py --table benchmarks/results/study.jsonl

The grid takes days and starts with the runs that decide. It can be killed at any time and continued: a row is appended
when its run is complete, and runs whose row is in the file are not repeated.
"""

import argparse
import math
import multiprocessing
import subprocess
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from result_rows import append_row, read_rows
from segmentation_tasks import TASKS, quick_parts, read_parts, size_of
from study_candidates import AVERAGED, CANDIDATES, WORKS
from study_tables import tables
from study_training import VALIDATION, Setting, draw, train_and_score

from gconv_ga.nn import algorithms
from gconv_ga.train import start_at_frequencies

ALL = 0  # stands for all training images in place of a number of images
Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run: what it is of, and its optimizer. Its fields are the key of its row."""

    task: str
    images: int
    steps: int
    candidate: str
    work: int
    seed: int
    rate: float
    decay: float
    schedule: str
    quick: bool = False

    @classmethod
    def of(cls, row: Row) -> "Cell":
        """Return the cell of a row."""
        return cls(**{each.name: row[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Stage:
    """Part of the grid: all combinations, the last field varying fastest."""

    seeds: Sequence[int]
    steps: Sequence[int]
    images: Sequence[int]
    tasks: Sequence[str]
    works: Sequence[int]
    candidates: Sequence[str]

    def cells(self) -> Iterator[tuple[int, int, int, str, int, str]]:
        """Yield the combinations in which the width of the candidate is not that of less work."""
        for each in product(self.seeds, self.steps, self.images, self.tasks, self.works, self.candidates):
            if each[4] in CANDIDATES[each[5]].works():
                yield each


@dataclass(frozen=True)
class Plan:
    """The grid, and the search for the optimizer of the baseline that precedes each budget.

    Args:
        stages: Parts of the grid, the first one first.
        tuned_on: Sets of the search.
        images: Number of images of the search.
        rates: Learning rates.
        decays: Weight decays.
        others: Further settings; one with the schedule "polynomial" has the rate and decay found so far.
        starts: By number of steps, the number of steps whose setting the search starts from; only decays are searched.
        quick: Whether images are small corners of the bundled sample.
    """

    stages: Sequence[Stage]
    tuned_on: Sequence[str] = ("histology", "bloodcells")
    images: int = 8
    rates: Sequence[float] = (1e-2, 3e-3, 3e-2)
    decays: Sequence[float] = (1e-2, 1e-1, 1.0)
    others: Sequence[Setting] = (Setting(schedule="polynomial"), Setting(1e-2, 3e-5, "SGD"))
    starts: tuple[tuple[int, int], ...] = ((3000, 1000),)
    quick: bool = False


FIRST = ("plain", "plain smooth", "C8")
DECISIVE = ("histology", "bloodcells")
OTHER = tuple(name for name in CANDIDATES if name not in FIRST)
STEPS = (300, 1000, 3000)
PLAN = Plan(
    (
        Stage(range(3), (300,), (8,), DECISIVE, (1,), FIRST),
        Stage(range(3), (1000,), (8,), DECISIVE, (1,), FIRST),
        Stage(range(2), (3000,), (8,), DECISIVE, (1,), FIRST),
        Stage(range(3), (1000, 300), (8,), TASKS, (1,), FIRST),
        Stage(range(3), (1000,), (ALL,), TASKS, (1,), FIRST),
        Stage(range(3), STEPS, (8,), TASKS, (1,), FIRST),
        Stage(range(3), (1000, 300), (8,), DECISIVE, (1,), OTHER),
        Stage(range(3), (1000,), (8,), DECISIVE, (2, 4), ("plain", "C8", "D8")),
        Stage(range(3), (1000, 3000), (8,), TASKS, (1,), tuple(CANDIDATES)),
        Stage(range(3), STEPS, (ALL,), TASKS, (1,), FIRST),
        Stage(range(5), STEPS, (8, ALL), TASKS, (1,), FIRST),
        Stage(range(3), (1000, 3000), (8,), TASKS, WORKS, tuple(CANDIDATES)),
        Stage(range(5), STEPS, (8, ALL), TASKS, WORKS, tuple(CANDIDATES)),
    )
)
# One step of everything, in a minute: for tests.
QUICK = Plan(
    (Stage((0,), (10,), (2,), ("nuclei",), (1,), ("plain", "C8")),), ("nuclei",), 2, (1e-2, 3e-3), (1e-2,), (), (), True
)


def tuned(plan: Plan, rows: Sequence[Row], steps: int) -> tuple[Setting, list[Cell]]:
    """Return the setting with which the plain network does best, and the runs that still lack.

    One quantity is searched at a time: rate, decay, then the rest. Each score is the mean over the sets of the Dice of
    the last weights, with seed 0, on all images that are neither for training nor for the test.
    """
    known = {Cell.of(row): row["held out"] for row in rows}
    setting, start = Setting(), dict(plan.starts).get(steps)
    if start is not None:
        setting, missing = tuned(plan, rows, start)
        if missing:
            return setting, missing
    for number in range(3):
        options = [
            [] if start is not None else [replace(setting, rate=rate) for rate in plan.rates],
            [replace(setting, decay=decay) for decay in plan.decays],
            [] if start is not None else [
                replace(setting, schedule=other.schedule) if other.schedule == "polynomial" else other
                for other in plan.others
            ],
        ][number]  # fmt: skip
        if setting.schedule == "SGD":
            break
        options = [setting, *(option for option in options if option != setting)]
        cells = [
            [
                Cell(task, plan.images, steps, "plain", 1, 0, **asdict(option), quick=plan.quick)
                for task in plan.tuned_on
            ]
            for option in options
        ]
        missing = [cell for each in cells for cell in each if cell not in known]
        if missing:
            return setting, missing
        scores = [sum(known[cell] for cell in each) for each in cells]
        setting = options[scores.index(max(scores))]
    return setting, []


def next_cell(plan: Plan, rows: Sequence[Row], running: Collection[Cell] = ()) -> Cell | None:
    """Return the first run of the plan that is neither among the rows nor running; None if there is none now.

    A budget begins with its search for a setting, and its other runs with the end of that.
    """
    known = {Cell.of(row) for row in rows} | set(running)
    settings: dict[int, Setting] = {}
    for stage in plan.stages:
        for seed, steps, images, task, work, candidate in stage.cells():
            if steps not in settings:
                settings[steps], missing = tuned(plan, rows, steps)
                if missing:
                    return next((cell for cell in missing if cell not in known), None)
            setting = asdict(settings[steps])
            cell = Cell(task, images, steps, candidate, work, seed, **setting, quick=plan.quick)
            if cell not in known:
                return cell
    return None


def run(cell: Cell, parts: dict[str, Any]) -> Row:
    """Train, score and return the row of a cell."""
    candidate, crop, validation = CANDIDATES[cell.candidate], 32 if cell.quick else 0, 1 if cell.quick else VALIDATION
    images = draw(parts, cell.task, cell.images or None, cell.seed, crop, validation)
    task = images.task
    torch.manual_seed(cell.seed)
    model = candidate.build(task.test.images.shape[1], task.kind.classes, cell.work)
    start_at_frequencies(model, task.train.masks)
    row = asdict(cell) | {"width": candidate.width(cell.work)} | size_of(model, task)
    setting = Setting(cell.rate, cell.decay, cell.schedule)
    row |= train_and_score(
        model, images, steps=cell.steps, setting=setting, seed=cell.seed, averaged=cell.candidate in AVERAGED
    )
    # Which algorithm "auto", the default, may choose from depends on the machine.
    row["algorithms"] = algorithms()
    return rounded(row) | {"torch": torch.__version__, "commit": commit()}


def run_in_process(cell: Cell) -> Row:
    """Run a cell in one thread, so that times are those of one."""
    torch.set_num_threads(1)
    return run(cell, quick_parts(cell.task) if cell.quick else read_parts(cell.task))


def fill(plan: Plan, out: Path, processes: int, hours: float) -> None:
    """Run what the file lacks, and append each row when it is there."""
    running: dict[Future[Row], Cell] = {}
    spent = 0.0
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(running) < processes and spent < hours:
                cell = next_cell(plan, read_rows(out), running.values())
                if cell is None:
                    break
                running[pool.submit(run_in_process, cell)] = cell
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell, row = running.pop(future), future.result()
                append_row(out, row)
                spent += row["seconds"] / 3600
                what = f"{cell.task}, {cell.images or 'all'} images, {cell.steps} steps, {cell.candidate}"
                scores = f"{row['last']:.4f}, {row['selected']:.4f}"
                print(f"[{spent:.2f} h] {what}, seed {cell.seed}: {scores}", flush=True)


def rounded(row: Row) -> Row:
    """Return the row with measured numbers of six digits after the point, which the committed file is to hold."""
    return {
        key: round(value, 6)
        if isinstance(value, float)
        else [round(x, 6) for x in value]
        if key == "validation"
        else value
        for key, value in row.items()
    }


def commit() -> str | None:
    """Return the commit of the code, or None outside of a repository."""
    call = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(call, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run what the file lacks, or print the tables of its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON lines file to which rows are appended")
    parser.add_argument("--table", type=Path, help="print the tables of this file and run nothing")
    parser.add_argument(
        "--hours", type=float, default=math.inf, help="start no run after so many hours of training, of all processes"
    )
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--quick", action="store_true", help="ten steps of two networks, on corners of the sample")
    args = parser.parse_args(arguments)
    if (args.out is None) == (args.table is None):
        parser.error("give --out FILE or --table FILE")
    plan = QUICK if args.quick else PLAN
    if args.table is not None:
        rows = [row for row in read_rows(args.table) if row["quick"] == args.quick]
        print(*tables(rows), sep="\n\n")
        return rows
    fill(plan, args.out, args.processes, args.hours)
    return read_rows(args.out)


if __name__ == "__main__":
    main()
