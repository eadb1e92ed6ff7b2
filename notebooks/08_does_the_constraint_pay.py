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
    axes.set_xticks(range(len(cells)), [cell if isinstance(cell, str) else "\n".join(map(str, cell)) for cell in cells])
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
# Networks with as many multiply-adds as the plain U-Net, so a quarter (C4) or an eighth (D4) of its weights. All are
# trained on turned and mirrored crops: the plain one may learn the symmetry, the others have it. Dice of upright test
# images over that of "plain, augmented" with the same labelled images. Pairs that are not there have not been run yet.

# %%
setting = {"steps": 300, "lr": 0.01, "channels": 16, "head": "frequencies"}
labels = [row for row in rows("label_efficiency") if all(row[key] == value for key, value in setting.items())]
few = gains(
    labels, "plain, augmented", lambda row: row["dice"], lambda row: (row["task"], f"{row['images'] or 'all'} images")
)
sets = list(dict.fromkeys(row["task"] for row in labels))
shown = ["plain, augmented, averaged at test", "C4", "D4"]
cells = [(task, f"{n} images") for task in sets for n in (4, 8) if any((task, f"{n} images") == key[0] for key in few)]
figure = dots(few, cells, shown, "Dice over plain, augmented")
figure

# %%
summary({key: value for key, value in few.items() if key[1] in shown})
weights = {row["method"]: row["parameters"] for row in labels if row["task"] == "nuclei"}
print("\nweights:", ", ".join(f"{name} {weights[name]:,}" for name in ("plain, augmented", "C4", "D4")))
assert weights["C4"] < weights["plain, augmented"] / 3.9
assert weights["D4"] < weights["plain, augmented"] / 7.5

# %% [markdown]
# Vessels of the retina run in every direction, and there the constraint pays: C4 and D4 are ahead in every pair, by
# 0.03 to 0.06 in the mean, with a quarter and an eighth of the weights; with half of the labels, too. On nuclei D4 is
# ahead in every pair, by little. Histology and blood cells have no winner: C4 is ahead in the mean in three cells of
# four, D4 in none. What is certain everywhere is that no label changes when the image turns.
#
# A network may be too narrow for its symmetry: D4 has two fields at the finest level here. In an earlier run, whose
# last layers began at random, one seed in three ended with Dice 0 on the retina, both fields dead after 50 steps. Heads
# begin at the classes' shares of the pixels since (`start_at_frequencies`), and all networks learn.

# %%
assert min(row["dice"] for row in labels) > 0.6
for method in ("C4", "D4"):
    assert min(min(few[("retina", f"{n} images"), method]) for n in (4, 8)) > 0
    ahead = [cell for cell in cells if sum(few[cell, method]) > 0]
    print(f"{method} ahead in the mean of {len(ahead)} cells of {len(cells)}:", ", ".join(map(" ".join, ahead)))
assert min(min(few[("nuclei", f"{n} images"), "D4"]) for n in (4, 8)) > 0
hard = [(task, f"{n} images") for task in ("histology", "bloodcells") for n in (4, 8)]
assert [sum(sum(few[cell, method]) > 0 for cell in hard) for method in ("C4", "D4")] == [3, 0]

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
# It pays where the task has the symmetry everywhere and few labels show it: vessels, energies. It costs where
# averaging eats training time that was short, and where a network is left with too few fields to learn. Elsewhere it
# is about a tie in accuracy, with fewer weights and an answer that does not depend on how the picture lay. All of this
# is measured at small budgets, on few seeds and small networks; `benchmarks/README.md` says what has not been run.
