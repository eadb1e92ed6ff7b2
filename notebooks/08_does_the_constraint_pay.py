# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8. Does the constraint pay for the lost freedom?
#
# An equivariant network cannot say that up is special. It has fewer functions to choose from, and each kernel is seen
# from $|G|$ sides, which costs work. In return every example teaches it $|G|$ orientations. The derivation leaves open
# which of the two weighs more. Nothing is trained in this notebook: it reads what the scripts in `benchmarks/` have
# measured, and how much that is. Each dot is one training; what is compared in pairs has the same seed.

# %%
# %matplotlib inline
import json
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

import gconv_ga
from gconv_ga.plots import PALETTE, chart

results = Path(gconv_ga.__file__).parent.parent / "benchmarks" / "results"


def rows(name):
    lines = (results / f"{name}.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if not row["quick"]]


def gains(rows, baseline, key, group):
    """For each group and method the differences to the baseline of the same seed."""
    by_cell = {(group(row), row["method"], row["seed"]): key(row) for row in rows}
    found = defaultdict(list)
    for (cell, method, seed), value in by_cell.items():
        if method != baseline and (cell, baseline, seed) in by_cell:
            found[cell, method].append(value - by_cell[cell, baseline, seed])
    return dict(found)


def dots(found, cells, methods, label):
    figure, axes = chart("", label, size=(7.2, 3.2))
    axes.axhline(0, color="0.4", linewidth=0.8)
    for place, method in enumerate(methods):
        for column, cell in enumerate(cells):
            values = found.get((cell, method), [])
            x = column + (place - (len(methods) - 1) / 2) * 0.8 / len(methods)
            axes.plot([x] * len(values), values, "o", color=PALETTE[place], markersize=5, alpha=0.8,
                      label=method if column == 0 else None)  # fmt: skip
    axes.set_xticks(range(len(cells)), cells)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1, 0.95), frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


def summary(found):
    for (cell, method), values in sorted(found.items(), key=str):
        name = cell if isinstance(cell, str) else ", ".join(map(str, cell))
        ahead = sum(value > 0 for value in values)
        print(f"{name:24} {method:38} {sum(values) / len(values):+.4f}   ahead in {ahead} of {len(values)}")


# %% [markdown]
# ## A trained network, converted
#
# The plain U-Net has seen upright crops only. `convert` makes its group average of it, without training: does the
# average know less? Then everything goes on for the same time. Dice of upright test images, over that of the network
# that all started from.

# %%
tuned = rows("finetuning")
average = gains(tuned, "plain", lambda row: row["dice"], lambda row: row["task"])
shown = ["C4", "plain, augmented", "plain, augmented, averaged at test", "C4, m=1", "C4, opened"]
dots(average, ["nuclei", "histology"], shown, "Dice over the trained network's")

# %%
summary({key: value for key, value in average.items() if key[1] in shown})
zero_shot = [gain for (_, method), values in average.items() if method in ("C4", "D4") for gain in values]
changed = [row["changed"] for row in tuned if row["method"] == "plain"]
print(f"\nlabels that a turn changes, plain: {100 * sum(changed) / len(changed):.1f} %; converted: 0")
assert len(zero_shot) == 12
assert min(zero_shot) > 0
assert all(row["changed"] == 0 for row in tuned if row["method"].startswith(("C4", "D4")))

# %% [markdown]
# Averaging costs no accuracy here, upright either: it was ahead of the network it was made from in all twelve pairs,
# by very little. On images that look alike from every side the lost freedom is one that the network had no use for.
# What further training is worth differs more from seed to seed than from method to method.
#
# ## Few labels, equal work
#
# Networks with as many multiply-adds as the plain U-Net, so a quarter (C4), an eighth (D4) or a twelfth (C8) of its
# weights. All are trained on turned and mirrored crops: the plain one may learn the symmetry, the others have it. Dice
# of upright test images over that of "plain, augmented" with the same 2, 4, 8, 16 or all labelled images; the lines
# join the means. C8 with 16 has not been run.

# %%
setting = {"steps": 300, "lr": 0.01, "channels": 16, "head": "frequencies"}
labels = [row for row in rows("label_efficiency") if all(row[key] == value for key, value in setting.items())]
few = gains(labels, "plain, augmented", lambda row: row["dice"], lambda row: (row["task"], row["images"] or "all"))
sets, counts = ("nuclei", "histology", "bloodcells", "retina"), (2, 4, 8, 16, "all")


def panels_of_sets(size):
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(1, 4, sharex=True, sharey=True)
    for axes, task in zip(panels, sets, strict=True):
        axes.set_title(task, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


figure, panels = panels_of_sets((9, 2.8))
for axes, task in zip(panels, sets, strict=True):
    axes.axhline(0, color="0.4", linewidth=0.8)
    for colour, method, shift in zip(PALETTE, ("C4", "D4", "C8"), (-0.15, 0, 0.15), strict=False):
        # The retina has 14 training images: 16 are all.
        there = [(task, images) != ("retina", 16) and ((task, images), method) in few for images in counts]
        places = [place for place in range(5) if there[place]]
        seeds = [few[(task, counts[place]), method] for place in places]
        for place, values in zip(places, seeds, strict=True):
            axes.plot([place + shift] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
        axes.plot([p + shift for p in places], [sum(v) / len(v) for v in seeds], color=colour, label=method)
    axes.set_xticks(range(5), counts)
panels[0].set_ylabel("Dice over plain, augmented", fontsize=9)
panels[0].legend(frameon=False, fontsize=8)
figure

# %%
summary({key: value for key, value in few.items() if key[1] in ("C4", "D4", "C8")})
weights = {row["method"]: row["parameters"] for row in labels if row["task"] == "nuclei"}
print("\nweights:", ", ".join(f"{name} {weights[name]:,}" for name in ("plain, augmented", "C4", "D4", "C8")))
assert weights["C4"] < weights["plain, augmented"] / 3.9
assert weights["D4"] < weights["plain, augmented"] / 7.5
assert weights["C8"] < weights["plain, augmented"] / 11

# %% [markdown]
# Vessels of the retina run in every direction, and there the constraint pays: C4, D4 and C8 are ahead in every pair,
# with a quarter, an eighth and a twelfth of the weights. On nuclei all is close to a tie; D4 is ahead in every pair
# from four images up, by little. On histology C4 is a little ahead, and D4 behind by 0.02 to 0.03 in three of four
# cells with four images or more; on blood cells C4 and D4 have no lead. C8, the smallest network of all, wins most:
# with eight images it is ahead in all twelve pairs, with all images in eleven. With two images the seed, which chooses
# them too, decides more than the method. What is certain everywhere is that no label changes when the image turns.

# %%
assert all(min(few[("retina", images), method]) > 0 for images in counts for method in ("C4", "D4"))
assert all(min(few[("retina", images), "C8"]) > 0 for images in (2, 4, 8))
assert all(min(few[(task, 8), "C8"]) > 0 for task in sets)
assert sum(gain > 0 for task in sets for gain in few[(task, "all"), "C8"]) == 11
assert all(min(few[("nuclei", images), "D4"]) > 0 for images in counts[1:])
assert all(sum(few[("histology", images), "C4"]) > 0 for images in counts[1:])
assert [sum(few[("histology", images), "D4"]) / 3 < -0.02 for images in counts[1:]] == [True, False, True, True]
assert all(row["changed"] < 1e-4 for row in labels if row["method"] in ("C4", "D4", "C8"))

# %% [markdown]
# Does an equivariant network need half the labels? Its Dice over that of the plain one with twice as many.

# %%
scores = {(row["task"], row["images"], row["method"], row["seed"]): row["dice"] for row in labels}
halves = {}
for method in ("C4", "D4", "C8"):
    for fewer, more in ((2, 4), (4, 8), (8, 16)):
        texts = []
        for task in sets:
            pairs = [scores[task, fewer, method, s] - scores[task, more, "plain, augmented", s] for s in range(3)]
            halves[task, fewer, method] = sum(pairs) / 3
            texts.append(f"{task} {sum(pairs) / 3:+.3f} ({sum(pair > 0 for pair in pairs)} of 3)")
        print(f"{method} with {fewer} against plain with {more}:", ", ".join(texts))
assert [halves[task, fewer, "C8"] > 0 for fewer in (4, 8) for task in sets] == 2 * [False, True, True, True]

# %% [markdown]
# C8 does: with four and with eight images it has more than the plain network with eight and with sixteen on three sets
# of four, in the mean of three seeds, at equal work. C4 and D4 do on the retina only (C4 on histology at four against
# eight, but in one pair of three).
#
# Is it the angles, or the kernels? C8 has six smooth functions where C4 has nine free taps. C4 with seven such
# functions lies between the two on histology and blood cells, so it is both:

# %%
smooth = "C4, steerable kernels of 7 functions"
summary({key: value for key, value in few.items() if key[0][1] == 8 and key[1] in ("C4", smooth, "C8")})
for task in ("histology", "bloodcells"):
    assert sum(few[(task, 8), "C4"]) < sum(few[(task, 8), smooth]) < sum(few[(task, 8), "C8"])

# %% [markdown]
# ## Other ways, four images
#
# What else has the plain network's multiply-adds, or the weights of C4 and D4: the same axis, a row for a method.

# %%
ways = [name for name in weights if all(len(few.get(((task, 4), name), [])) == 3 for task in sets)]
figure, panels = panels_of_sets((9, 4.2))
for axes, task in zip(panels, sets, strict=True):
    axes.axvline(0, color="0.4", linewidth=0.8)
    for place, method in enumerate(reversed(ways)):
        values = few[(task, 4), method]
        axes.plot(values, [place] * len(values), "o", color=PALETTE[0], markersize=4, alpha=0.6)
        axes.plot(sum(values) / len(values), place, "|", color=PALETTE[5], markersize=11, markeredgewidth=2)
panels[0].set_yticks(range(len(ways)), ways[::-1])
figure.supxlabel("Dice over plain, augmented", fontsize=9)
figure

# %%
for method in ways:
    means = [sum(few[(task, 4), method]) / 3 for task in sets]
    print(f"{method:38}", "  ".join(f"{task} {mean:+.3f}" for task, mean in zip(sets, means, strict=True)))

# %% [markdown]
# ## Point clouds, equal time
#
# All rotations and mirrors at once, at equal processor time of training. The error on turned test samples over that of
# the augmented network with the same seed: below one is better. Charges: mean squared error of positions; molecules:
# mean absolute error of energies (QM7) and forces (ethanol).

# %%
key = {"nbody": "mse", "qm7": "energy", "ethanol": "forces"}
clouds = rows("molecules")
errors = {(row["task"], row["method"], row["seed"]): row["turned"][key[row["task"]]] for row in clouds}
methods = ["plain", "augmented, averaged at test", "averaged", "sampled", "egnn", "distances"]
figure, axes = chart("", "error over that of the augmented network", size=(7.2, 3.2))
axes.set_yscale("log")
axes.axhline(1, color="0.4", linewidth=0.8)
for place, method in enumerate(methods):
    for column, task in enumerate(key):
        seeds = [seed for seed in range(3) if (task, method, seed) in errors]
        ratios = [errors[task, method, seed] / errors[task, "augmented", seed] for seed in seeds]
        axes.plot([column + (place - 2.5) * 0.13] * len(ratios), ratios, "o", color=PALETTE[place], markersize=5,
                  alpha=0.8, label=method if column == 1 else None)  # fmt: skip
axes.set_yticks([0.3, 0.5, 1, 2, 4], ["0.3", "0.5", "1", "2", "4"])
axes.minorticks_off()
axes.set_xticks(range(3), ["5 charges", "QM7", "ethanol"])
figure.legend(*axes.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(1, 0.95), frameon=False, fontsize=8)
figure

# %%
for task in key:
    means = {name: [errors[task, name, s] for s in range(3) if (task, name, s) in errors] for name in methods}
    order = sorted((sum(values) / len(values), name) for name, values in means.items() if values)
    print(f"{task:8}", ", ".join(f"{name} {error:.2g}" for error, name in order))
assert all(errors["nbody", methods[1], s] < errors["nbody", "augmented", s] for s in range(3))
assert all(errors["qm7", "distances", s] < errors["qm7", "augmented", s] for s in range(3))

# %% [markdown]
# Where the freedom that is lost is directions, and energies know none, what cannot see them wins clearly: distances
# alone more than halve the error on QM7. Training through the average costs steps, and in equal time that costs
# accuracy; averaging at test alone makes a network exact, for nothing but the time of the test.
#
# ## So?
#
# It pays where the task has the symmetry everywhere and few labels show it: vessels, energies; and more with eight
# orientations and smooth kernels than with four and free taps. It costs where averaging eats training time that was
# short, and where a network is left with too few fields to learn. Elsewhere it is about a tie in accuracy, with fewer
# weights and an answer that does not depend on how the picture lay. All of this is measured at small budgets, on few
# seeds and small networks; `benchmarks/README.md` says what has not been run.
