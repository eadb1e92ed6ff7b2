"""What the symmetry costs and what it brings, losses included, from benchmarks/results.

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
PLAIN = "plain, augmented"
SETS = ("nuclei", "histology", "bloodcells", "retina")


def read(name: str) -> list[dict[str, Any]]:
    """The rows of one study, without trial runs."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if not row["quick"]]


def draw_labels(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Dice of networks with few labels, over the plain one's."""
    at = {(row["task"], row["method"], row["images"], row["seed"]): row["dice"] for row in rows}
    axes.axhline(0, color=PALETTE[7], linewidth=1)
    for (task, method, images, seed), score in at.items():
        place = {("C4", 4): -0.3, ("C4", 8): -0.1, ("D4", 4): 0.1, ("D4", 8): 0.3}.get((method, images))
        if place is None or (task, PLAIN, images, seed) not in at:
            continue
        colour = PALETTE[0 if method == "C4" else 1]
        gain = score - at[task, PLAIN, images, seed]
        face = colour if images == 8 else "none"
        axes.plot(SETS.index(task) + place, gain, "o", color=colour, markerfacecolor=face, markersize=5)
    for place, method in ((0.02, "C4"), (0.12, "D4")):
        axes.text(place, 0.98, method, color=PALETTE[0 if method == "C4" else 1], va="top", transform=axes.transAxes)
    axes.text(0.24, 0.98, "○ 4, ● 8 labelled images", fontsize=8, va="top", transform=axes.transAxes)
    axes.set_xticks(range(len(SETS)), SETS)
    tidy(axes, "few labels: Dice over plain, equal work")


def draw_angles(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Dice of C8 networks at 45 degrees, over that of escnn's."""
    at = {(row["task"], row["method"], row["seed"]): row["dice 45"] for row in rows}
    axes.axhline(0, color=PALETTE[7], linewidth=1)
    ticks = []
    for column, (task, size) in enumerate((task, size) for task in SETS[:2] for size in ("k=3", "k=5")):
        ticks.append(f"{task}\n{size}")
        for seed in range(3):
            gain = at[task, f"ours, {size}", seed] - at[task, f"escnn, {size}", seed]
            axes.plot(column + 0.15 * (seed - 1), gain, "o", color=PALETTE[0], markersize=5)
    axes.set_xticks(range(len(ticks)), ticks)
    tidy(axes, "C8 at 45 degrees: Dice over escnn's")


def main(path: Path) -> None:
    """Three panels."""
    figure = Figure(figsize=(11, 3.2), dpi=140, facecolor="white", layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(5, 4, 4))
    draw_labels(first, [row for row in read("label_efficiency") if row["head"] == "frequencies"])
    draw_angles(second, read("any_angle"))
    draw_steps(third, json.loads(NETWORKS.read_text(encoding="utf-8"))["steps"]["rows"])
    tidy(third, "step / plain, 128 px (dotted: 1.05)")
    save_figure(figure, path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
