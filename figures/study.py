"""Draw what symmetry is worth by length of training, from benchmarks/results/study.jsonl.

Usage: python figures/study.py [FILE]
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from networks import RESULTS as NETWORKS
from networks import tidy

from gconv_ga.plots import PALETTE, save_figure

sys.path.append(str(NETWORKS.parent.parent))
from result_rows import read_rows
from study_tables import PLAIN, of_work, pairs, with_chosen_setting

SETS = ("histology", "bloodcells", "nuclei", "retina")
STEPS = (300, 1000, 3000)
COLOURS = {
    "plain smooth": PALETTE[7], "rings": PALETTE[6], "C4 free": PALETTE[1], "C4 smooth": PALETTE[4],
    "C8": PALETTE[2], "D8": PALETTE[0],
}  # fmt: skip
IMAGES = 8


def gains(rows: list[dict[str, Any]], task: str, candidate: str) -> Iterator[tuple[int, list[float]]]:
    """Yield the numbers of steps with the Dice gains over the plain network of the same seed, two or more."""
    for steps in STEPS:
        cell = [row for row in rows if (row["task"], row["images"], row["steps"]) == (task, IMAGES, steps)]
        ours, plain = ([row for row in cell if row["candidate"] == name] for name in (candidate, PLAIN))
        found = [one["last"] - other["last"] for one, other in pairs(ours, plain)]
        if len(found) > 1:
            yield steps, found


def draw(axes: Axes, rows: list[dict[str, Any]], task: str) -> None:
    """Draw the gains on one set: a dot per training, a line through the means."""
    axes.axhline(0, color="0.3", linewidth=1)
    found = {candidate: dict(gains(rows, task, candidate)) for candidate in COLOURS}
    found = {candidate: by_steps for candidate, by_steps in found.items() if by_steps}
    shown = [steps for steps in STEPS if any(steps in by_steps for by_steps in found.values())]
    for number, (candidate, by_steps) in enumerate(found.items()):
        colour, means = COLOURS[candidate], {}
        for steps, values in by_steps.items():
            place = shown.index(steps) + 0.12 * (number - (len(found) - 1) / 2)
            axes.plot([place] * len(values), values, "o", color=colour, markersize=5, alpha=0.55)
            means[place] = sum(values) / len(values)
        axes.plot(list(means), list(means.values()), "-", color=colour, linewidth=1.8, label=candidate)
    axes.set_xticks(range(len(shown)), [f"{steps} steps" for steps in shown])
    axes.set_xlim(-0.5, len(shown) - 0.5)
    tidy(axes, task)


def main(path: Path) -> None:
    """Draw a panel for each set with runs of more than the plain network."""
    rows = of_work([row for row in read_rows(NETWORKS.parent / "study.jsonl") if not row["quick"]], 1)
    rows = with_chosen_setting(rows)
    sets = [task for task in SETS if any(list(gains(rows, task, candidate)) for candidate in COLOURS)]
    figure = Figure(figsize=(3 * len(sets) + 1, 3.2), dpi=140, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, sets, strict=True):
        draw(axes, rows, task)
    panels[0].set_ylabel(f"Dice gain over the plain U-Net, {IMAGES} images", fontsize=9)
    panels[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    save_figure(figure, path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
