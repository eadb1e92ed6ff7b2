"""Three segmenters, the same data, the same multiply-adds: what does each say when the image is turned?"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from ..actions import LabelMask, ScalarField
from ..evaluate import OrientationScores, orientation_scores
from ..groups import as_group
from ..images import CropStream, Sample, load_sample
from ..models import EquivariantUNet
from ..plots import demo_figure, save_figure
from ..predict import predict_labels
from ..segmenter import Machines, SegmenterConfig
from ..train import ReportSteps, SaveCheckpoints, Segmenter, fit, start_at_frequencies

CHANNELS = 16  # orientations times fields of the finest level, and the channels of the plain twin
DEPTH = 3
AUGMENTATION = "D4"  # quarter turns and mirrors


@dataclass(frozen=True)
class Contestant:
    """A network to train, and how."""

    key: str  # names its files
    title: str
    config: SegmenterConfig
    augmentation: str | None


@dataclass(frozen=True)
class Contest:
    """The networks, and what they all share."""

    data: str
    sample: Sample
    group: str
    contestants: Sequence[Contestant]
    steps: int
    seed: int
    device: torch.device
    folder: Path

    def checkpoint(self, contestant: Contestant) -> Path:
        """Where its weights go."""
        return self.folder / f"{contestant.key}.safetensors"


def contestants(group: str, sample: Sample) -> list[Contestant]:
    """The equivariant network, its plain twin, and the twin that sees no turned image.

    Raises:
        NotImplementedError: There is no network for this group.
    """
    symmetry = as_group(group)
    arguments: dict[str, Any] = {
        "in_channels": sample.train.images.shape[1],
        "classes": len(sample.classes),
        "width": max(1, CHANNELS // symmetry.order),
        "depth": DEPTH,
        "kernel_size": 3 if symmetry.is_exact() else 5,  # 3 x 3 pixels are few to turn by 45 degrees
        "group": group,
    }
    twin = {**arguments, "width": EquivariantUNet(**arguments).baseline().width}
    del twin["group"]
    ours = SegmenterConfig("EquivariantUNet", arguments, sample.classes, sample.normalization)
    plain = SegmenterConfig("UNet", twin, sample.classes, sample.normalization)
    return [
        Contestant("equivariant", f"{group} U-Net", ours, AUGMENTATION),
        Contestant("plain", "plain twin", plain, AUGMENTATION),
        Contestant("plain-unaugmented", "twin, unaugmented", plain, None),
    ]


def prepare(group: str, data: str, *, steps: int, seed: int, device: torch.device, folder: Path) -> Contest:
    """The contest of ``gconv-ga demo``.

    Raises:
        NotImplementedError: There is no network for this group.
    """
    sample = load_sample(data)
    return Contest(data, sample, group, contestants(group, sample), steps, seed, device, folder)


CROP, BATCH, LEARNING_RATE = 64, 8, 1e-2
SAVE_EVERY = 25


@dataclass(frozen=True)
class Result:
    """What came of a network."""

    contestant: Contestant
    model: nn.Module
    scores: OrientationScores
    seconds: float

    @property
    def parameters(self) -> int:
        """How many numbers it learnt."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def run(contest: Contest) -> list[Result]:
    """Trains and scores the networks, one after the other.

    Raises:
        typer.Exit: The user has pressed Ctrl-C; what is saved by then is said.
    """
    savers = [SaveCheckpoints(contest.checkpoint(each), each.config, every=SAVE_EVERY) for each in contest.contestants]
    try:
        with _bars() as bars:
            tasks = [bars.add_task(each.title, total=contest.steps, loss="") for each in contest.contestants]
            rows = zip(contest.contestants, savers, tasks, strict=True)
            return [_train(contest, each, saver, bars, task) for each, saver, task in rows]
    except KeyboardInterrupt:
        _say_what_is_saved(savers)
        raise typer.Exit(130) from None


def _train(contest: Contest, contestant: Contestant, saver: SaveCheckpoints, bars: Progress, task: TaskID) -> Result:
    sample, seed = contest.sample, contest.seed
    model = contestant.config.build(seed=seed)
    start_at_frequencies(model, sample.train.masks)
    stream = CropStream(
        sample.train, length=contest.steps * BATCH, crop=CROP, symmetry=contestant.augmentation, seed=seed
    )
    progress = ReportSteps(lambda step, loss: bars.update(task, completed=step, loss=f"loss {loss:.3f}"))
    begin = time.perf_counter()
    fit(
        Segmenter(model, learning_rate=LEARNING_RATE),
        stream,
        batch_size=BATCH,
        machines=Machines(contest.device),
        seed=seed,
        callbacks=[progress, saver],
    )
    seconds = time.perf_counter() - begin
    scores = orientation_scores(
        model, sample.test.images, sample.test.masks, classes=len(sample.classes), group=contest.group,
        device=contest.device,
    )  # fmt: skip
    return Result(contestant, model.cpu(), scores, seconds)


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def _say_what_is_saved(savers: list[SaveCheckpoints]) -> None:
    saved = [f"{saver.path} (step {saver.saved})" for saver in savers if saver.saved]
    text = "saved so far: " + ", ".join(saved) if saved else f"nothing is saved before step {SAVE_EVERY}"
    typer.echo(f"gconv-ga: stopped; {text}", err=True)


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
