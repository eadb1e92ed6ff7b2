"""Measure the cost of a converted network against the original and against other ways to compute its group average.

    python benchmarks/conversion.py                  # a small U-Net at 128 and 129 px; a few minutes
    python benchmarks/conversion.py --networks small resnet18 --sizes 128 129 256 --rounds 9 --json conversion.json
    python benchmarks/conversion.py --opened         # the opened network alone, by group and width; some minutes
    python benchmarks/conversion.py --correctness    # equivariance errors; seconds

All candidates have the same weights, and the group C4 unless their name says D4: the original ("plain") network;
`GroupAverage` with the orbit in one batch, which is the reference; ttach's mean over C4 and over D4, one pass per
element; the converted network; the folded one (forward only); the opened one, with all taps; and a plain network with
as many multiply-adds as the opened one. They are interleaved in a new random order each round; medians and their ratios
to the reference are printed. "again" is the reference timed a second time: its distance from 1 is noise. Times are
processor times of one thread, the steadiest on a busy machine.

A training step is forward and backward, with gradients of all parameters. Peak memory is the most that tensors occupy
above the level before the step, in a separate run, as counted by torch's profiler.
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

REFERENCE = "orbit in the batch"


def small(width: int = 16) -> nn.Module:
    """Build the package's ordinary U-Net."""
    return UNet(3, 1, width=width, depth=4)


def resnet18() -> nn.Module:
    """Build a U-Net with a ResNet-18 encoder and a bilinear decoder that accepts images of any size."""
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet18", encoder_weights=None, classes=1, decoder_interpolation="bilinear")
    # The check requires multiples of 32; with a bilinear decoder, sizes one larger work too.
    network.check_input_shape = _accept_any_size
    return network


def _accept_any_size(x: torch.Tensor) -> None:
    """Accept images of any size."""


def candidates(name: str) -> dict[str, nn.Module]:
    """Build the candidates, by name."""
    import ttach

    torch.manual_seed(0)
    plain = small() if name == "small" else resnet18()
    example = torch.randn(1, 3, 64, 64)
    opened = convert(plain, "C4", example)
    opened.open_taps()
    converted = convert(plain, "C4", example)
    test_time_augmentation = {
        "C4": ttach.Compose([ttach.Rotate90([0, 90, 180, 270])]),
        "D4": ttach.aliases.d4_transform(),
    }
    found = {
        "plain": plain,
        REFERENCE: GroupAverage(plain, "C4"),
        "again": GroupAverage(plain, "C4"),
        **{
            f"ttach {group}": ttach.SegmentationTTAWrapper(plain, transforms, "mean")
            for group, transforms in test_time_augmentation.items()
        },
        "orbit in the batch, D4": GroupAverage(plain, "D4"),
        "converted": converted,
        "converted, D4": convert(plain, "D4", example),
        "folded": fold(converted),
        "opened": opened,
    }
    if name == "small":
        # |G| times as wide has |G|^2 times the multiply-adds: as many as the opened network, except at its ends.
        found["plain, as many multiply-adds as opened"] = small(64)
    return found


def forward(network: nn.Module, x: torch.Tensor) -> None:
    """Run one prediction."""
    with torch.no_grad():
        network.eval()(x)


def training_step(network: nn.Module, x: torch.Tensor) -> None:
    """Run one training step without the optimizer."""
    network.train().zero_grad(set_to_none=True)
    network(x).square().mean().backward()


MODES = {"forward": forward, "training": training_step}


def timed(mode: Callable[..., None], networks: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Measure the median seconds of each network, interleaved."""
    order, seconds = list(networks), {name: [] for name in networks}
    for network in networks.values():
        mode(network, x)  # warm-up
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            start = time.process_time()
            mode(networks[name], x)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_megabytes(mode: Callable[..., None], network: nn.Module, x: torch.Tensor) -> float:
    """Measure the most megabytes that tensors made in one step occupy at once."""
    mode(network, x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorded:
        mode(network, x)
    current = peak = 0
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak / 2**20


def print_opened(
    widths: list[int], groups: list[str], sizes: list[int], batch: int, rounds: int, *, strided: bool
) -> None:
    """Print what an opened network costs relative to the orbit in the batch; width 0 is the resnet18 U-Net."""
    titles = ("group", "width", "px", "orbit forward, ms", "opened", "orbit training, ms", "opened")
    print(f"| {' | '.join(titles)} |\n" + len(titles) * "|---" + "|")
    for group in groups:
        for width in widths:
            plain = small(width) if width else resnet18()
            opened = convert(plain, group, torch.randn(1, 3, 64, 64), verify=False)
            for module in opened.convolutions().values():
                # The first layer, which an unverified network does not know.
                module.lifts = module.in_channels == 3
            opened.open_taps(None if strided else lambda path, layer: layer.stride == (1, 1))
            networks = {"orbit": GroupAverage(plain, group), "opened": opened}
            for size in sizes:
                x = torch.randn(batch, 3, size, size)
                cells = []
                for mode in MODES.values():
                    seconds = timed(mode, networks, x, rounds)
                    cells += [f"{seconds['orbit'] * 1e3:.0f}", f"{seconds['opened'] / seconds['orbit']:.2f}"]
                print(f"| {group} | {width or 'resnet18'} | {size} |", " | ".join(cells), "|", flush=True)


SHAPES = ((64, 64), (65, 65), (48, 64), (49, 64))


def transform(x: torch.Tensor, element: int) -> torch.Tensor:
    """Apply an element of D4 to an image: for the last four a reflection, then a multiple of 90 degrees."""
    return torch.rot90(x.flip(-1) if element >= 4 else x, element % 4, (-2, -1))


def largest_error(network: nn.Module, x: torch.Tensor, order: int) -> float:
    """Compute the largest equivariance error over the group elements, relative to the largest output."""
    with torch.no_grad():
        output = network.eval()(x)
        errors = [(network(transform(x, g)) - transform(output, g)).abs().max() for g in range(order)]
    return float(torch.stack(errors).max() / output.abs().max())


def print_correctness(name: str) -> list[dict[str, object]]:
    """Print the equivariance errors of each candidate under C4 and D4, in float64, by the shape of the image."""
    print(f"\n{name}, float64\n| candidate | group |", *(f"{h} x {w} |" for h, w in SHAPES))
    print("|---" * (2 + len(SHAPES)) + "|")
    rows: list[dict[str, object]] = []
    networks = {key: network for key, network in candidates(name).items() if key != "again" and "as many" not in key}
    for candidate, network in networks.items():
        for group, order in (("C4", 4), ("D4", 8)):
            generator = torch.Generator().manual_seed(0)
            images = [torch.randn(1, 3, *shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
            errors = [largest_error(network.double(), x, order) for x in images]
            rows.append({"network": name, "candidate": candidate, "group": group, "errors": errors})
            print(f"| {candidate} | {group} |", *(f"{error:.0e} |" for error in errors), flush=True)
    return rows


def describe() -> str:
    """Describe the machine and the versions."""
    return f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread, processor time"


def main() -> None:
    """Run the chosen comparisons and print one table per network, size and mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["small"], choices=["small", "resnet18"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 129])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--opened", action="store_true", help="the opened network alone, by --groups and --widths")
    parser.add_argument("--widths", nargs="+", type=int, default=[8, 16, 32], help="0: the resnet18 U-Net")
    parser.add_argument("--groups", nargs="+", default=["C4", "D4"])
    parser.add_argument("--keep-strided", action="store_true", help="with --opened: open layers of stride 1 only")
    parser.add_argument("--correctness", action="store_true", help="equivariance errors in place of times")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    random.seed(0)
    print(describe())
    results = []
    if options.opened:
        sizes, strided = options.sizes, not options.keep_strided
        print_opened(options.widths, options.groups, sizes, options.batch, options.rounds, strided=strided)
        return
    for name in options.networks:
        if options.correctness:
            results += print_correctness(name)
        for size in () if options.correctness else options.sizes:
            networks = candidates(name)
            x = torch.randn(options.batch, 3, size, size)
            for mode in (MODES[key] for key in options.modes):
                chosen = {key: net for key, net in networks.items() if mode is forward or key != "folded"}
                seconds = timed(mode, chosen, x, options.rounds)
                print(f"\n{name}, {size} px, batch {options.batch}, {mode.__name__.replace('_', ' ')}")
                print("| candidate | ms | ratio | peak MB |\n|---|---|---|---|")
                for candidate, median in seconds.items():
                    memory = peak_megabytes(mode, chosen[candidate], x)
                    print(
                        f"| {candidate} | {median * 1e3:.0f} | {median / seconds[REFERENCE]:.2f} | {memory:.0f} |",
                        flush=True,
                    )
                    results.append(
                        {"network": name, "size": size, "mode": mode.__name__, "candidate": candidate,
                         "seconds": median, "megabytes": memory}
                    )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
