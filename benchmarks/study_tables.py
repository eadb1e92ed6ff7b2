"""The tables of study.py: scores, gains over the baseline of the same seed, their parts, equal time, and the search."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from result_tables import markdown_table, mean_of, range_cells
from study_candidates import AVERAGED, CANDIDATES, WORKS
from study_times import label, read_times

Row = dict[str, Any]
PLAIN = "plain"
SETTING = ("rate", "decay", "schedule")
CELL = ("task", "images", "steps")


def tables(rows: Sequence[Row]) -> list[str]:
    """Return all tables of the rows of a file that have lines."""
    chosen = with_chosen_setting(rows)
    found = [
        score_table(chosen),
        gain_table(chosen),
        parts_table(chosen),
        work_table(chosen),
        cost_table(chosen),
        search_table(rows),
    ]
    return [table for table in found if table.count("\n") > 1]


def with_chosen_setting(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the grid: those with the setting that the other networks have, for their number of steps.

    Only the plain network is run with other settings, in the search.
    """
    chosen: dict[int, tuple[Any, ...]] = {}
    for row in rows:
        if row["candidate"] != PLAIN or row["steps"] not in chosen:
            chosen[row["steps"]] = setting(row)
    return [row for row in rows if setting(row) == chosen[row["steps"]]]


def setting(row: Row) -> tuple[Any, ...]:
    """Return the optimizer of a row."""
    return tuple(row[key] for key in SETTING)


def groups(rows: Sequence[Row], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    """Yield the values of the keys with their rows, in the order of first occurrence of candidates and sets."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    order = list(CANDIDATES)
    # Candidates in their own order; "all images", stored as 0, last.
    yield from sorted(
        found.items(),
        key=lambda item: [
            order.index(v) if k == "candidate" else (v or 10**9) if k == "images" else v
            for k, v in zip(keys, item[0], strict=True)
        ],
    )


def score_table(rows: Sequence[Row]) -> str:
    """Format test Dice with 1 x the work: last weights, the same averaged over D4 at test, selected weights."""
    lines = []
    for (task, images, steps, candidate), cell in groups(of_work(rows, 1), *CELL, "candidate"):
        row = [task, images or "all", steps, candidate, len(cell)]
        for key in ("last", "selected"):
            row += [f"{mean_of(cell, key):.3f}", *range_cells(cell, key, 3)]
        row.append(f"{mean_of(cell, 'averaged'):.3f}" if candidate in AVERAGED else "-")
        lines.append(row)
    scores = ["last weights", "lowest", "highest", "selected weights", "lowest", "highest", "last, averaged"]
    return markdown_table(["set", "images", "steps", "network", "seeds", *scores], lines)


def of_work(rows: Sequence[Row], work: int) -> list[Row]:
    """Return the rows with an amount of work."""
    return [row for row in rows if row["work"] == work]


def pairs(ours: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Return the rows of two networks with the same seed."""
    by_seed = {row["seed"]: row for row in theirs}
    return [(row, by_seed[row["seed"]]) for row in ours if row["seed"] in by_seed]


def gain_cells(found: Sequence[tuple[Row, Row]], key: str, other: str | None = None) -> list[str]:
    """Format the mean gain over pairs, the lowest, the highest, and the number of positive ones."""
    gains = [ours[key] - theirs[other or key] for ours, theirs in found]
    if not gains:
        return ["-"] * 4
    ahead = sum(gain > 0 for gain in gains)
    return [*(f"{gain:+.3f}" for gain in (statistics.mean(gains), min(gains), max(gains))), f"{ahead}/{len(gains)}"]


def gain_table(rows: Sequence[Row]) -> str:
    """Format the gains over the plain network of the same seed: last, selected, and against its average at test."""
    lines = []
    for cell_key, cell in groups(of_work(rows, 1), *CELL):
        by_candidate = {key[0]: found for key, found in groups(cell, "candidate")}
        for candidate, found in by_candidate.items():
            both = pairs(found, by_candidate.get(PLAIN, []))
            if candidate == PLAIN or not both:
                continue
            best = gain_cells(both, "last", "averaged")
            cells = [*gain_cells(both, "last"), *gain_cells(both, "selected"), best[0], best[3]]
            lines.append([cell_key[0], cell_key[1] or "all", cell_key[2], candidate, *cells])
    titles = ["lowest", "highest", "ahead"]
    return markdown_table(
        ["set", "images", "steps", "network", "last weights", *titles, "selected weights", *titles,
         "last weights, plain averaged at test", "ahead"],
        lines,
    )  # fmt: skip


def parts_table(rows: Sequence[Row]) -> str:
    """Format what the gain of C8 is made of: smooth kernels, the symmetry beyond them; and selection, of both."""
    lines = []
    for (task, images, steps), cell in groups(of_work(rows, 1), *CELL):
        found = {key[0]: values for key, values in groups(cell, "candidate")}
        plain, smooth, c8 = (found.get(name, []) for name in (PLAIN, "plain smooth", "C8"))
        seeds = {row["seed"] for row in plain} & {row["seed"] for row in smooth} & {row["seed"] for row in c8}
        if not seeds:
            continue
        plain, smooth, c8 = ([row for row in each if row["seed"] in seeds] for each in (plain, smooth, c8))
        cells: list[str] = []
        for key in ("last", "selected"):
            for ours, theirs in ((smooth, plain), (c8, smooth)):
                cells.append(gain_cells(pairs(ours, theirs), key)[0])
        cells += [gain_cells(pairs(each, each), "selected", "last")[0] for each in (plain, c8)]
        lines.append([task, images or "all", steps, len(seeds), *cells])
    parts = ["smoothness, last", "symmetry, last", "smoothness, selected", "symmetry, selected"]
    return markdown_table(["set", "images", "steps", "seeds", *parts, "selection, plain", "selection, C8"], lines)


def work_table(rows: Sequence[Row]) -> str:
    """Format gains at more work, over the plain network of as much work and over the one of the nearest step time."""
    times = {
        (candidate, work): min(read_times()[label(candidate, work)].values())
        for candidate, spec in CANDIDATES.items()
        for work in spec.works()
    }
    plain_works = [work for work in WORKS if any(row["candidate"] == PLAIN and row["work"] == work for row in rows)]
    lines = []
    for (task, images, steps, candidate, work), cell in groups(rows, *CELL, "candidate", "work"):
        if candidate == PLAIN or not plain_works:
            continue
        same = [row for row in rows if row["candidate"] == PLAIN and cell_of(row) == (task, images, steps)]
        time = times[candidate, work]
        nearest = min(plain_works, key=lambda other: abs(time - times[PLAIN, other]))
        equal_work, equal_time = (pairs(cell, of_work(same, other)) for other in (work, nearest))
        if (equal_work or equal_time) and (work, nearest) != (1, 1):
            cells = []
            for found in (equal_work, equal_time):
                cells += [gain_cells(found, "last")[i] for i in (0, 3)]
            ratio = f"{time / times[PLAIN, nearest]:.2f}"
            lines.append([task, images or "all", steps, candidate, work, *cells, ratio])
    return markdown_table(
        ["set", "images", "steps", "network", "work", "at equal work", "ahead", "at about equal time", "ahead",
         "time / plain's"],
        lines,
    )  # fmt: skip


def cell_of(row: Row) -> tuple[Any, ...]:
    """Return the set, the number of images and the number of steps of a row."""
    return tuple(row[key] for key in CELL)


def cost_table(rows: Sequence[Row]) -> str:
    """Format the size of the networks and the time of a step, as `study_times` measured it and in the runs."""
    lines = []
    for (candidate, work), found in groups(rows, "candidate", "work"):
        times = read_times()[label(candidate, work)]
        lines.append([
            candidate, work, found[0]["width"], f"{mean_of(found, 'parameters'):.0f}",
            f"{mean_of(found, 'multiply-adds'):.0f}", *(f"{times[name]:.2f}" if name in times else "-"
            for name in ("dense", "fourier")), len(found), f"{sum(row['seconds'] for row in found) / 3600:.1f}",
        ])  # fmt: skip
    return markdown_table(
        ["network", "work", "width", "parameters", "multiply-adds per pixel", "step time, dense", "step time, Fourier",
         "runs", "CPU hours"],
        lines,
    )  # fmt: skip


def search_table(rows: Sequence[Row]) -> str:
    """Format the search for the optimizer of the plain network: Dice of the last weights on images held out, seed 0."""
    first = [
        row for row in rows if row["candidate"] == PLAIN and (row["seed"], row["work"]) == (0, 1) and row["images"]
    ]
    settings = {where: {setting(row) for row in found} for where, found in groups(first, "steps", "task")}
    shown = [row for row in first if len(settings[row["steps"], row["task"]]) > 1]
    tasks = sorted({row["task"] for row in shown})
    lines = []
    for (steps, *how), found in groups(shown, "steps", *SETTING):
        scores = {row["task"]: f"{row['held out']:.3f}" for row in found}
        lines.append([steps, *how, *(scores.get(task, "-") for task in tasks)])
    return markdown_table(["steps", *SETTING, *tasks], lines)
