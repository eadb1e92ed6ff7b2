"""What the contest gave: a table, a picture, the numbers as JSON, and what to try next."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ..actions import LabelMask, ScalarField
from ..plots import demo_figure, save_figure
from ..training import predict_labels
from ._contest import Contest
from ._train import Result

ELEMENT = 1  # how the picture turns the image: the smallest rotation of a C or D group


def report(contest: Contest, results: Sequence[Result]) -> None:
    """Prints the table, writes the files, says where they are and what to try next."""
    Console().print(table(contest, results))
    (contest.folder / "results.json").write_text(
        json.dumps(numbers(contest, results), indent=2) + "\n", encoding="utf-8"
    )
    draw(contest, results)
    print(closing(contest, results))


def table(contest: Contest, results: Sequence[Result]) -> Table:
    """The numbers, one row a network."""
    count = len(contest.sample.test)
    grid = Table(title=f"{count} test images of {contest.data}, as they are and turned by all of {contest.group}")
    grid.add_column("network", no_wrap=True)
    for column in ("Dice\nupright", "Dice\nturned", "labels\nchanged", "para-\nmeters", "seconds"):
        grid.add_column(column, justify="right", no_wrap=True)
    for result in results:
        scores = result.scores
        grid.add_row(
            result.contestant.title,
            f"{scores.upright:.3f}",
            f"{scores.turned:.3f}",
            f"{100 * scores.changed:.3f} %",
            f"{result.parameters:,}",
            f"{result.seconds:.0f}",
        )
    return grid


def numbers(contest: Contest, results: Sequence[Result]) -> dict[str, Any]:
    """Everything the table says, unrounded, and how it came about."""
    return {
        "group": contest.group,
        "data": contest.data,
        "steps": contest.steps,
        "seed": contest.seed,
        "device": str(contest.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "networks": [
            {
                "name": result.contestant.title,
                "checkpoint": contest.checkpoint(result.contestant).name,
                "architecture": result.contestant.config.architecture,
                "arguments": result.contestant.config.arguments,
                "augmentation": result.contestant.augmentation,
                "parameters": result.parameters,
                "seconds": result.seconds,
                "scores": asdict(result.scores),
            }
            for result in results
        ],
    }


def draw(contest: Contest, results: Sequence[Result]) -> None:
    """Writes the picture, of the test image whose labels change most in the augmented plain twin."""
    images, masks = contest.sample.test.images, contest.sample.test.masks
    turned = ScalarField()(images, contest.group, ELEMENT)
    pairs = [[predict_labels(result.model, x) for x in (images, turned)] for result in results]
    upright, moved = pairs[1]
    move, inside = LabelMask(), torch.ones_like(upright)
    changed = move(upright, contest.group, ELEMENT) != moved * move(inside, contest.group, ELEMENT)
    shown = int(changed.flatten(1).sum(dim=1).argmax())
    predictions = {
        result.contestant.title: (upright[shown], moved[shown])
        for result, (upright, moved) in zip(results, pairs, strict=True)
    }
    figure = demo_figure(images[shown], masks[shown], predictions, group=contest.group, element=ELEMENT)
    save_figure(figure, contest.folder / "demo.png")


def closing(contest: Contest, results: Sequence[Result]) -> str:
    """Where everything is, and what to try next."""
    folder = contest.folder
    other = "histology" if contest.data == "nuclei" else "nuclei"
    group = "D4" if contest.group == "C4" else "C4"
    names = ", ".join(contest.checkpoint(result.contestant).name for result in results)
    load = f"load_checkpoint('{contest.checkpoint(results[0].contestant)}')"
    return f"""Labels changed: the share of pixels that get another label when the image is turned.

In {folder}:
  demo.png      what the networks see in one test image, upright and turned
  results.json  these numbers and the settings
  {names}

Try next:
  gconv-ga demo --data {other} --out {folder}-{other}
  gconv-ga demo --group {group} --out {folder}-{group}
  gconv-ga demo --seed {contest.seed + 1} --out {folder}-seed-{contest.seed + 1}
  python -c "from gconv_ga.training import load_checkpoint; print({load}.model)"
"""
