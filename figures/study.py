"""Draw what symmetry is worth by number of images and length of training, from benchmarks/results/study.jsonl.

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
COLOURS = {"plain smooth": PALETTE[7], "C8": PALETTE[2]}
LABELS = {"plain smooth": "smooth kernels alone", "C8": "C8: smooth kernels and symmetry"}
# Numbers of images and of steps, from left to right; 0 stands for all images.
BUDGETS = ((8, 300), (8, 1000), (8, 3000), (0, 1000))


def gains(rows: list[dict[str, Any]], task: str, candidate: str) -> Iterator[tuple[int, list[float]]]:
    """Yield the places of budgets with the Dice gains over the plain network of the same seed, two or more."""
    for place, budget in enumerate(BUDGETS):
        cell = [row for row in rows if (row["task"], (row["images"], row["steps"])) == (task, budget)]
        ours, plain = ([row for row in cell if row["candidate"] == name] for name in (candidate, PLAIN))
        found = [one["last"] - other["last"] for one, other in pairs(ours, plain)]
        if len(found) > 1:
            yield place, found


def draw(axes: Axes, rows: list[dict[str, Any]], task: str) -> None:
    """Draw the gains on one set: a dot per training, a line through the means of one number of images."""
    axes.axhline(0, color="0.3", linewidth=1)
    found = {candidate: dict(gains(rows, task, candidate)) for candidate in COLOURS}
    found = {candidate: by_place for candidate, by_place in found.items() if by_place}
    for number, (candidate, by_place) in enumerate(found.items()):
        colour, shift = COLOURS[candidate], 0.15 * (number - (len(found) - 1) / 2)
        for place, values in by_place.items():
            axes.plot([place + shift] * len(values), values, "o", color=colour, markersize=5, alpha=0.55)
        means = {place: sum(values) / len(values) for place, values in by_place.items()}
        for images in sorted({images for images, _ in BUDGETS}):
            own = [place for place in means if BUDGETS[place][0] == images]
            style = "-" if len(own) > 1 else "_"
            places, heights = [place + shift for place in own], [means[place] for place in own]
            axes.plot(places, heights, style, color=colour, linewidth=1.8, markersize=11, markeredgewidth=1.8)
        axes.plot([], [], "-", color=colour, linewidth=1.8, label=LABELS[candidate])
    axes.axvline(2.5, color="0.8", linewidth=1)
    axes.set_xticks(range(len(BUDGETS)), [str(steps) for _, steps in BUDGETS])
    axes.set_xlim(-0.5, len(BUDGETS) - 0.5)
    for place, text in ((1, "8 images"), (3, "all")):
        axes.text(place, -0.14, text, ha="center", va="top", fontsize=8, transform=axes.get_xaxis_transform())
    tidy(axes, task)


def main(path: Path) -> None:
    """Draw a panel for each set with runs of more than the plain network."""
    rows = of_work([row for row in read_rows(NETWORKS.parent / "study.jsonl") if not row["quick"]], 1)
    rows = with_chosen_setting(rows)
    sets = [task for task in SETS if any(list(gains(rows, task, candidate)) for candidate in COLOURS)]
    figure = Figure(figsize=(3 * len(sets), 3.2), dpi=140, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, sets, strict=True):
        draw(axes, rows, task)
    panels[0].set_ylabel("Dice gain over the plain U-Net", fontsize=9)
    # Of nuclei, all gains are small.
    panels[sets.index("nuclei") if "nuclei" in sets else -1].legend(
        edgecolor="none", framealpha=1, fontsize=8, loc="upper center"
    )
    figure.supxlabel("steps of training", fontsize=9)
    save_figure(figure, path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
