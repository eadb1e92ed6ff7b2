"""What a converted network costs, against the plain one and against other ways to its group average.

    python benchmarks/conversion.py                  # a small U-Net at 128 and 129 px; a few minutes
    python benchmarks/conversion.py --networks small resnet18 --sizes 128 129 256 --rounds 9 --json conversion.json
    python benchmarks/conversion.py --correctness    # how far each is from turning with the image; seconds

Candidates, all of the same weights under C4 unless their name says D4: the plain network; `GroupAverage`, the orbit in
one batch (the baseline); ttach's mean over C4 and over D4, one pass for each element; the converted network; the folded
one (forward only); the opened one, all taps; and a plain network of as many multiply-adds as the opened one. They are
timed in turn, in an order drawn anew for each round; medians are printed, and ratios to the baseline. "again" is the
baseline once more: how far it is from 1 is noise. Processor time of one thread: the steadiest on a busy machine.

A training step is forward, backward and the gradients of all parameters. Peak memory is that of tensors above what was
there before the step, in a run of its own, as counted by torch's profiler.
"""

import argparse
import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from gconv_ga.averaging import GroupAverage
from gconv_ga.conversion import convert, fold
from gconv_ga.models import UNet

BASELINE = "orbit in the batch"


def small(width: int = 16) -> nn.Module:
    """The package's own plain U-Net."""
    return UNet(3, 1, width=width, depth=4)


def resnet18() -> nn.Module:
    """A U-Net with a ResNet-18 encoder and a bilinear decoder, at any size."""
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet18", encoder_weights=None, classes=1, decoder_interpolation="bilinear")
    # It asks for multiples of 32, which a bilinear decoder does not need at sizes of 1 more either.
    network.check_input_shape = _accept
    return network


def _accept(x: torch.Tensor) -> None:
    """Takes every size."""


def candidates(name: str) -> dict[str, nn.Module]:
    """The networks, by name."""
    import ttach

    torch.manual_seed(0)
    plain = small() if name == "small" else resnet18()
    example = torch.randn(1, 3, 64, 64)
    opened = convert(plain, "C4", example)
    opened.open_taps()
    converted = convert(plain, "C4", example)
    tta = {
        "C4": ttach.Compose([ttach.Rotate90([0, 90, 180, 270])]),
        "D4": ttach.aliases.d4_transform(),
    }
    found = {
        "plain": plain,
        BASELINE: GroupAverage(plain, "C4"),
        "again": GroupAverage(plain, "C4"),
        **{f"ttach {group}": ttach.SegmentationTTAWrapper(plain, tta[group], "mean") for group in tta},
        "orbit in the batch, D4": GroupAverage(plain, "D4"),
        "converted": converted,
        "converted, D4": convert(plain, "D4", example),
        "folded": fold(converted),
        "opened": opened,
    }
    if name == "small":
        # |G| times as wide, so |G|^2 times as many multiply-adds: those of the opened network but for its ends.
        found["plain, as many multiply-adds as opened"] = small(64)
    return found


def forward(network: nn.Module, x: torch.Tensor) -> None:
    """One prediction."""
    with torch.no_grad():
        network.eval()(x)


def training_step(network: nn.Module, x: torch.Tensor) -> None:
    """One step without the optimiser."""
    network.train().zero_grad(set_to_none=True)
    network(x).square().mean().backward()


MODES = {"forward": forward, "training": training_step}


def timed(mode: Callable[..., None], networks: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of every network, interleaved."""
    order, seconds = list(networks), {name: [] for name in networks}
    for network in networks.values():
        mode(network, x)  # warm
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            start = time.process_time()
            mode(networks[name], x)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def peak_megabytes(mode: Callable[..., None], network: nn.Module, x: torch.Tensor) -> float:
    """The most that tensors made in one step take at once."""
    mode(network, x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorded:
        mode(network, x)
    level = most = 0
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        most = max(most, level)
    return most / 2**20


SHAPES = ((64, 64), (65, 65), (48, 64), (49, 64))


def moved(x: torch.Tensor, element: int) -> torch.Tensor:
    """An image under an element of D4: the mirror first for the last four, then quarter turns."""
    return torch.rot90(x.flip(-1) if element >= 4 else x, element % 4, (-2, -1))


def miss(network: nn.Module, x: torch.Tensor, order: int) -> float:
    """The largest difference of the answer to a moved image and the moved answer, relative to the largest value."""
    with torch.no_grad():
        answer = network.eval()(x)
        misses = [(network(moved(x, g)) - moved(answer, g)).abs().max() for g in range(order)]
    return float(torch.stack(misses).max() / answer.abs().max())


def print_correctness(name: str) -> list[dict[str, object]]:
    """One line for each candidate: its misses under C4 and D4, in float64, by the shape of the image."""
    print(f"\n{name}, float64\n| candidate | group |", *(f"{h} x {w} |" for h, w in SHAPES))
    print("|---" * (2 + len(SHAPES)) + "|")
    rows: list[dict[str, object]] = []
    found = {key: network for key, network in candidates(name).items() if key != "again" and "as many" not in key}
    for candidate, network in found.items():
        for group, order in (("C4", 4), ("D4", 8)):
            generator = torch.Generator().manual_seed(0)
            images = [torch.randn(1, 3, *shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
            misses = [miss(network.double(), x, order) for x in images]
            rows.append({"network": name, "candidate": candidate, "group": group, "misses": misses})
            print(f"| {candidate} | {group} |", *(f"{value:.0e} |" for value in misses), flush=True)
    return rows


def describe() -> str:
    """The machine and the versions."""
    return f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread, processor time"


def main() -> None:
    """Runs what was asked for and prints one table for each network and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["small"], choices=["small", "resnet18"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 129])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--correctness", action="store_true", help="no times, but equivariance errors")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    random.seed(0)
    print(describe())
    results = []
    for name in options.networks:
        if options.correctness:
            results += print_correctness(name)
        for size in () if options.correctness else options.sizes:
            networks = candidates(name)
            x = torch.randn(options.batch, 3, size, size)
            for mode in (MODES[each] for each in options.modes):
                chosen = {n: m for n, m in networks.items() if mode is forward or n != "folded"}
                seconds = timed(mode, chosen, x, options.rounds)
                base = seconds[BASELINE]
                print(f"\n{name}, {size} px, batch {options.batch}, {mode.__name__.replace('_', ' ')}")
                print("| candidate | ms | ratio | peak MB |\n|---|---|---|---|")
                for candidate, median in seconds.items():
                    memory = peak_megabytes(mode, chosen[candidate], x)
                    print(f"| {candidate} | {median * 1e3:.0f} | {median / base:.2f} | {memory:.0f} |", flush=True)
                    results.append(
                        {"network": name, "size": size, "mode": mode.__name__, "candidate": candidate,
                         "seconds": median, "megabytes": memory}
                    )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
