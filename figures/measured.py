"""Draw the cost and the benefit of equivariance, losses included, from benchmarks/results.

Usage: python figures/measured.py [FILE]
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from networks import RESULTS as NETWORKS
from networks import draw_steps, tidy

from gconv_ga.plots import PALETTE, save_figure

RESULTS = NETWORKS.parent
BASELINE = "plain, augmented"  # its name in the results
SETS = ("nuclei", "histology", "bloodcells", "retina")
COUNTS = (2, 4, 8, 16, 0)  # 0: all
LIMIT = 0.12  # of the first panel; few trainings lie beyond, and would flatten all others


def read(name: str) -> list[dict[str, Any]]:
    """Return the rows of one study, without trial runs."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if not row["quick"]]


def draw_outliers(axes: Axes, outliers: list[tuple[float, float, str]]) -> None:
    """Draw trainings whose gains lie beyond the panel, by place, gain and colour: one below the other at its edge."""
    for up in (True, False):
        rows: dict[int, int] = {}  # how many have been drawn at a place
        for place, gain, colour in sorted(outliers, reverse=up, key=lambda each: each[1]):
            if (gain > 0) == up:
                row = rows[round(place)] = rows.get(round(place), 0) + 1
                height = (1 if up else -1) * LIMIT * (1.1 - 0.12 * row)
                axes.plot(place, height, "^" if up else "v", color=colour, markersize=5)
                axes.text(place + 0.35, height, f"{gain:+.2f}", color=colour, fontsize=8, va="center")


def draw_labels(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the Dice gain over the baseline by labelled images: a dot per training, a line through the means.

    Trainings beyond `LIMIT` are triangles at the edge, with their number; the means include them.
    """
    at = {(row["task"], row["method"], row["images"], row["seed"]): row["dice"] for row in rows}
    axes.axhline(0, color=PALETTE[7], linewidth=1)
    outliers: list[tuple[float, float, str]] = []
    for column, task in enumerate(SETS):
        for colour, method, shift in ((PALETTE[0], "C4", -0.2), (PALETTE[1], "D4", 0), (PALETTE[2], "C8", 0.2)):
            means = {}
            for place, images in enumerate(COUNTS, start=column * (len(COUNTS) + 1)):
                if (task, images) == ("retina", 16):
                    continue  # it has 14
                gains = [
                    score - at[task, BASELINE, images, seed]
                    for (*cell, seed), score in at.items()
                    if cell == [task, method, images] and (task, BASELINE, images, seed) in at
                ]
                inside = [gain for gain in gains if abs(gain) <= LIMIT]
                axes.plot([place + shift] * len(inside), inside, "o", color=colour, markersize=3, alpha=0.5)
                outliers += [(place + shift, gain, colour) for gain in gains if abs(gain) > LIMIT]
                if gains:
                    means[place + shift] = sum(gains) / len(gains)
            axes.plot(list(means), list(means.values()), color=colour, linewidth=2, label=method)
    places = [column * (len(COUNTS) + 1) + place for column in range(len(SETS)) for place in range(len(COUNTS))]
    axes.set_ylim(-1.08 * LIMIT, 1.08 * LIMIT)
    axes.set_xticks(places, [str(images or "all") for images in COUNTS] * len(SETS))
    for column, task in enumerate(SETS):
        axes.text(column * (len(COUNTS) + 1) + 2, -0.11, task, ha="center", va="top", fontsize=9,
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.legend(*(each[:3] for each in axes.get_legend_handles_labels()), frameon=False, fontsize=9, loc="lower left")
    draw_outliers(axes, outliers)
    tidy(axes, "Dice gain over the compute-matched baseline, by labelled images")
    axes.tick_params("x", labelsize=7)


def draw_angles(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the Dice gain of C8 networks over those of escnn at 45 degrees."""
    at = {(row["task"], row["method"], row["seed"]): row["dice 45"] for row in rows}
    axes.axhline(0, color=PALETTE[7], linewidth=1)
    ticks = []
    for column, (task, size) in enumerate((task, size) for task in SETS[:2] for size in ("k=3", "k=5")):
        ticks.append(f"{task}\n{size}")
        for seed in range(3):
            gain = at[task, f"ours, {size}", seed] - at[task, f"escnn, {size}", seed]
            axes.plot(column + 0.15 * (seed - 1), gain, "o", color=PALETTE[0], markersize=5)
    axes.set_xticks(range(len(ticks)), ticks)
    tidy(axes, "Dice gain over escnn, C8 at 45 degrees")


def main(path: Path) -> None:
    """Draw the three panels."""
    figure = Figure(figsize=(12, 3.3), dpi=140, facecolor="white", layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(7, 4, 4))
    draw_labels(first, [row for row in read("label_efficiency") if row["head"] == "frequencies"])
    draw_angles(second, read("any_angle"))
    draw_steps(third, json.loads(NETWORKS.read_text(encoding="utf-8"))["steps"]["rows"])
    tidy(third, "training step / baseline's")
    save_figure(figure, path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
