"""The networks that ``gconv-ga demo`` compares: what they are, their training, and the report of the comparison."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from torch import nn

from .._files import write_atomically
from ..actions import ScalarField
from ..evaluate import OrientationScores, changed_labels, orientation_scores
from ..groups import as_group
from ..images import CropStream, Sample, load_sample
from ..models import EquivariantUNet
from ..plots import demo_figure, save_figure
from ..predict import predict_labels
from ..segmenter import Machines, SegmenterConfig
from ..train import ReportSteps, SaveCheckpoints, Segmenter, fit, start_at_frequencies
from ._progress import progress_bars

CHANNELS = 16  # channels of the baselines' finest level: group elements times fields of the equivariant network
DEPTH = 3
AUGMENTATION = "D4"  # rotations by 90 degrees and reflections
CROP, BATCH_SIZE, LEARNING_RATE = 64, 8, 1e-2
SAVE_EVERY = 25  # steps
SHOWN_ELEMENT = 1  # group element that moves the image in the picture: the smallest rotation of a C or D group


@dataclass(frozen=True)
class Network:
    """A network to train.

    Args:
        key: Name of its files.
        title: Name in the table and in the picture.
        config: Architecture, classes and normalization.
        augmentation: Group whose elements move the crops in training. If None, crops are taken as they are.
    """

    key: str
    title: str
    config: SegmenterConfig
    augmentation: str | None


@dataclass(frozen=True)
class Comparison:
    """Networks to compare, and what they share."""

    data: str
    sample: Sample
    group: str
    networks: Sequence[Network]
    steps: int
    seed: int
    device: torch.device
    folder: Path

    def checkpoint(self, network: Network) -> Path:
        """Return the path of the weights of a network."""
        return self.folder / f"{network.key}.safetensors"


def prepare(group: str, data: str, *, steps: int, seed: int, device: torch.device, folder: Path) -> Comparison:
    """Return the comparison that the options of ``gconv-ga demo`` ask for.

    Raises:
        NotImplementedError: There is no network for this group.
    """
    sample = load_sample(data)
    return Comparison(data, sample, group, networks_to_compare(group, sample), steps, seed, device, folder)


def networks_to_compare(group: str, sample: Sample) -> list[Network]:
    """Return the equivariant network and its compute-matched baseline, augmented and not augmented.

    Raises:
        NotImplementedError: There is no network for this group.
    """
    symmetry = as_group(group)
    arguments: dict[str, Any] = {
        "in_channels": sample.train.images.shape[1],
        "classes": len(sample.classes),
        "width": max(1, CHANNELS // symmetry.order),
        "depth": DEPTH,
        "kernel_size": 3 if symmetry.is_exact() else 5,  # 3 x 3 pixels are too few to rotate a kernel by 45 degrees
        "group": group,
    }
    baseline_arguments = {**arguments, "width": EquivariantUNet(**arguments).baseline().width}
    del baseline_arguments["group"]
    equivariant = SegmenterConfig("EquivariantUNet", arguments, sample.classes, sample.normalization)
    baseline = SegmenterConfig("UNet", baseline_arguments, sample.classes, sample.normalization)
    return [
        Network("equivariant", f"{group} U-Net", equivariant, AUGMENTATION),
        Network("plain", "baseline, augmented", baseline, AUGMENTATION),
        Network("plain-unaugmented", "baseline", baseline, None),
    ]


@dataclass(frozen=True)
class Result:
    """A trained network with its scores on the test images."""

    network: Network
    model: nn.Module
    scores: OrientationScores
    seconds: float

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def train_networks(comparison: Comparison) -> list[Result]:
    """Train and score the networks, one after the other.

    Raises:
        typer.Exit: The user pressed Ctrl-C. What has been saved is printed.
    """
    savers = [
        SaveCheckpoints(comparison.checkpoint(network), network.config, every=SAVE_EVERY)
        for network in comparison.networks
    ]
    try:
        with progress_bars() as bars:
            tasks = [bars.add_task(network.title, total=comparison.steps, note="") for network in comparison.networks]
            rows = zip(comparison.networks, savers, tasks, strict=True)
            return [_train(comparison, network, saver, bars, task) for network, saver, task in rows]
    except KeyboardInterrupt:
        saved = ", ".join(f"{saver.path} (step {saver.saved})" for saver in savers if saver.saved)
        text = f"saved so far: {saved}" if saved else f"nothing is saved before step {SAVE_EVERY}"
        typer.echo(f"gconv-ga: stopped; {text}", err=True)
        raise typer.Exit(130) from None


def _train(comparison: Comparison, network: Network, saver: SaveCheckpoints, bars: Progress, task: TaskID) -> Result:
    sample, seed = comparison.sample, comparison.seed
    model = network.config.build(seed=seed)
    start_at_frequencies(model, sample.train.masks)
    stream = CropStream(
        sample.train, length=comparison.steps * BATCH_SIZE, crop=CROP, symmetry=network.augmentation, seed=seed
    )
    progress = ReportSteps(lambda step, loss: bars.update(task, completed=step, note=f"loss {loss:.3f}"))
    begin = time.perf_counter()
    fit(
        Segmenter(model, learning_rate=LEARNING_RATE),
        stream,
        batch_size=BATCH_SIZE,
        machines=Machines(comparison.device),
        seed=seed,
        callbacks=[progress, saver],
    )
    seconds = time.perf_counter() - begin
    scores = orientation_scores(
        model, sample.test.images, sample.test.masks, classes=len(sample.classes), group=comparison.group,
        device=comparison.device,
    )  # fmt: skip
    return Result(network, model.cpu(), scores, seconds)


def report(comparison: Comparison, results: Sequence[Result]) -> None:
    """Print the table, write the files, and print where they are and what to try next."""
    Console().print(table(comparison, results))
    content = json.dumps(numbers(comparison, results), indent=2) + "\n"
    write_atomically(comparison.folder / "results.json", content.encode())
    draw(comparison, results)
    print(next_steps(comparison, results))


def table(comparison: Comparison, results: Sequence[Result]) -> Table:
    """Return the scores as a table, one row for each network."""
    count = len(comparison.sample.test)
    grid = Table(title=f"{count} test images of {comparison.data}, upright and rotated by all of {comparison.group}")
    grid.add_column("network", no_wrap=True)
    for column in ("Dice\nupright", "Dice\nrotated", "labels\nchanged", "para-\nmeters", "seconds"):
        grid.add_column(column, justify="right", no_wrap=True)
    for result in results:
        scores = result.scores
        grid.add_row(
            result.network.title,
            f"{scores.upright:.3f}",
            f"{scores.rotated:.3f}",
            f"{100 * scores.changed:.3f} %",
            f"{result.parameters:,}",
            f"{result.seconds:.0f}",
        )
    return grid


def numbers(comparison: Comparison, results: Sequence[Result]) -> dict[str, Any]:
    """Return the content of ``results.json``: the numbers of the table, unrounded, and the settings."""
    return {
        "group": comparison.group,
        "data": comparison.data,
        "steps": comparison.steps,
        "seed": comparison.seed,
        "device": str(comparison.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "networks": [
            {
                "name": result.network.title,
                "checkpoint": comparison.checkpoint(result.network).name,
                "architecture": result.network.config.architecture,
                "arguments": result.network.config.arguments,
                "augmentation": result.network.augmentation,
                "parameters": result.parameters,
                "seconds": result.seconds,
                "scores": asdict(result.scores),
            }
            for result in results
        ],
    }


def draw(comparison: Comparison, results: Sequence[Result]) -> None:
    """Write the picture: the test image on which the prediction of the augmented baseline changes most."""
    images, masks = comparison.sample.test.images, comparison.sample.test.masks
    moved_images = ScalarField()(images, comparison.group, SHOWN_ELEMENT)
    labels = [(predict_labels(result.model, images), predict_labels(result.model, moved_images)) for result in results]
    changed = changed_labels(*labels[1], comparison.group, SHOWN_ELEMENT)
    shown = int(changed.flatten(1).sum(dim=1).argmax())
    predictions = {
        result.network.title: (upright[shown], moved[shown])
        for result, (upright, moved) in zip(results, labels, strict=True)
    }
    figure = demo_figure(images[shown], masks[shown], predictions, group=comparison.group, element=SHOWN_ELEMENT)
    save_figure(figure, comparison.folder / "demo.png")


def next_steps(comparison: Comparison, results: Sequence[Result]) -> str:
    """Return what was written where, and commands to try next."""
    folder = comparison.folder
    other_data = "histology" if comparison.data == "nuclei" else "nuclei"
    other_group = "D4" if comparison.group == "C4" else "C4"
    names = ", ".join(comparison.checkpoint(result.network).name for result in results)
    load = f"load_checkpoint('{comparison.checkpoint(results[0].network)}')"
    return f"""Labels changed: share of pixels whose predicted class changes when the image is rotated.

In {folder}:
  demo.png      predictions of the networks for one test image, upright and rotated
  results.json  these numbers and the settings
  {names}

Try next:
  gconv-ga demo --data {other_data} --out {folder}-{other_data}
  gconv-ga demo --group {other_group} --out {folder}-{other_group}
  gconv-ga demo --seed {comparison.seed + 1} --out {folder}-seed-{comparison.seed + 1}
  python -c "from gconv_ga.segmenter import load_checkpoint; print({load}.model)"
"""
