"""Measure the time of a training step of the candidates of study.py, with each algorithm of group convolution.

    python benchmarks/study_times.py

The study compares at equal time by the faster of the two: its own runs share the processor with whatever else runs,
these alternate.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from study_candidates import CANDIDATES
from torch import nn

from gconv_ga.nn import GroupConv2d, algorithm, algorithms
from gconv_ga.train import CrossEntropyDice

RESULTS = Path(__file__).parent / "results" / "study_times.json"


def training_step(model: nn.Module, name: str, size: int) -> Callable[[], None]:
    """Return a function that takes one step on 8 crops with an algorithm of group convolution."""
    optimizer, loss = torch.optim.AdamW(model.parameters()), CrossEntropyDice()
    images, masks = torch.randn(8, 3, size, size), torch.randint(2, (8, size, size))

    def step() -> None:
        with algorithm(name):
            optimizer.zero_grad()
            loss(model(images), masks).backward()
            optimizer.step()

    return step


def measure(rounds: int, size: int) -> dict[str, dict[str, float]]:
    """Return the time of each candidate and algorithm relative to the plain network, a median of rounds."""
    usable = [name for name, state in algorithms().items() if state.startswith("available")]
    steps = {}
    for candidate, spec in CANDIDATES.items():
        for work in spec.works():
            model = spec.build(3, 2, work)
            has_choice = any(isinstance(layer, GroupConv2d) and layer.fourier is not None for layer in model.modules())
            for name in usable if has_choice else ["dense"]:
                steps[label(candidate, work), name] = training_step(model, name, size)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for _ in range(rounds + 1):
        for key, step in steps.items():
            start = time.process_time()
            step()
            times[key].append(time.process_time() - start)
    # The first round warms up.
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    found: dict[str, dict[str, float]] = {}
    for (name, algorithm_name), median in medians.items():
        found.setdefault(name, {})[algorithm_name] = round(median / medians["plain, 1 x the work", "dense"], 3)
    return found


def label(candidate: str, work: int) -> str:
    """Return the name of a candidate with an amount of work."""
    return f"{candidate}, {work} x the work"


def read_times() -> dict[str, dict[str, float]]:
    """Return the times that were measured, relative to the plain network, by `label` and algorithm."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=64, help="side of the crops in pixels")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = measure(args.rounds, args.size)
    text = json.dumps(found, indent=1)
    print(text)
    args.out.write_text(text + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
