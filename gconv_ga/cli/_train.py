"""The contest is run: progress bars, checkpoints, Ctrl-C."""

import time
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import nn

from ..data import CropStream
from ..training import (
    OrientationScores,
    ReportSteps,
    SaveCheckpoints,
    Segmenter,
    fit,
    orientation_scores,
    start_at_frequencies,
)
from ._contest import Contest, Contestant

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
        device=contest.device,
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
