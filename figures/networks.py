"""Draw the cost of equivariant U-Nets against escnn's and the baseline's, from benchmarks/results/networks.json.

Usage: python figures/networks.py [FILE]
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gconv_ga.plots import PALETTE, save_figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "networks.json"
# "plain" is the name of the baseline in the results.
COLOURS = {"gconv_ga": PALETTE[0], "gconv_ga, dense": PALETTE[2], "escnn": PALETTE[1], "plain": PALETTE[7]}
AXES = {"size": "image size, px", "width": "fields of the finest level", "order": "order of the group"}


def tidy(axes: Axes, title: str) -> None:
    """Apply the common style to a panel."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def draw_start(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the seconds for import and construction of the C8 U-Net."""
    shown = [row for row in rows if row["width"] == 16 and row["candidate"] != "escnn, cold"]
    for place, row in enumerate(reversed(shown)):
        colour = COLOURS[row["candidate"].split(",")[0]]
        seconds = row["import"] + row["construct"]
        axes.barh(place, seconds, color=colour)
        axes.text(seconds * 1.1, place, f"{seconds:.2f} s", va="center", fontsize=9)
    names = [row["candidate"].replace(", ", ",\n").replace("plain", "baseline") for row in reversed(shown)]
    axes.set(xscale="log", xlim=(0.1, 60), yticks=range(len(shown)), yticklabels=names)
    tidy(axes, "import and construct, C8, 16 fields")


def draw_steps(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draw the training steps relative to the baseline's."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    for row in rows:
        if row["mode"] == "train" and row["candidate"] in (names := ("gconv_ga", "gconv_ga, dense", "escnn")):
            place = groups.index(row["group"]) + 0.28 * (names.index(row["candidate"]) - 1)
            axes.bar(place, row["ratio"], width=0.26, color=COLOURS[row["candidate"]])
            axes.text(place, 0.03, row["candidate"], ha="center", fontsize=8, color="white", rotation=90)
            axes.text(place, row["ratio"] + 0.02, f"{row['ratio']:.2f}", ha="center", fontsize=8)
    axes.axhline(1, color=COLOURS["plain"], linewidth=1)
    axes.set(xticks=range(len(groups)), xticklabels=groups, ylim=(0, 1.25))
    tidy(axes, "training step / baseline's, 128 px")


def draw_growth(axes: Axes, rows: list[dict[str, Any]], axis: str) -> None:
    """Draw the training steps by image size, width or order of the group."""
    values = list(dict.fromkeys(row["value"] for row in rows if row["axis"] == axis))
    for name, width in (("plain", 5.0), ("escnn", 2.5), ("gconv_ga, dense", 1.0), ("gconv_ga", 1.5)):
        seconds = [
            row["seconds"]
            for row in rows
            if (row["axis"], row["mode"], row["candidate"]) == (axis, "train", name)
        ]  # fmt: skip
        alpha = 0.5 if name == "plain" else 1.0
        label = name.replace("plain", "baseline")
        axes.plot(values, seconds, "o-", color=COLOURS[name], linewidth=width, markersize=4, label=label, alpha=alpha)
    axes.set(xscale="log", yscale="log", xticks=values, xticklabels=values, xlabel=AXES[axis])
    axes.set(yticks=(ticks := (0.02, 0.05, 0.1, 0.2, 0.5)), yticklabels=ticks)
    for each in (axes.xaxis, axes.yaxis):
        each.set_minor_locator(NullLocator())
    tidy(axes, "training step, s" if axis == "size" else "")


def main(path: Path) -> None:
    """Draw two panels above and three below."""
    found = {name: section["rows"] for name, section in json.loads(RESULTS.read_text(encoding="utf-8")).items()}
    figure = Figure(figsize=(9, 5.6), dpi=140, facecolor="white", layout="constrained")
    above, below = figure.subfigures(2, 1)
    first, second = above.subplots(1, 2)
    draw_start(first, found["start"])
    draw_steps(second, found["steps"])
    for axes, axis in zip(below.subplots(1, 3, sharey=True), AXES, strict=True):
        draw_growth(axes, found["growth"], axis)
        if axis == "size":
            axes.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
