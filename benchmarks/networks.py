"""Measure the cost of equivariant U-Nets against escnn's with the same layers and compute-matched baselines.

    python benchmarks/networks.py --out benchmarks/results/networks.json      # in the environment of the extra "escnn"
    python benchmarks/networks.py --sections steps --groups C8 --rounds 21
    python benchmarks/networks.py --table benchmarks/results/networks.json    # tables of an earlier run

Sections: `start`, fresh processes that import, construct and take the first training steps (network_start.py);
`steps`, a training step and a forward pass in eval mode, with the peak memory of tensors; `growth`, the same by image
size, width and order of the group, with the slopes of the logarithms; `expansion`, the cost of rotating the kernels of
one layer by the dense algorithm. "gconv_ga" chooses between the Fourier and the dense algorithm of group convolution
layer by layer, "gconv_ga, dense" has the dense one only.

Candidates are interleaved in a new random order each round; medians and their ratios to the baseline ("plain") are
printed. "again" is the baseline timed a second time: its distance from 1 is noise. Times are processor times of one
torch thread. A training step is forward and backward, with gradients of all parameters and without the optimizer: the
baseline has |G| times the weights to update. Without escnn its candidates are left out.
"""

import argparse
import copy
import json
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from conversion import peak_megabytes
from layers import WithAlgorithm, inference, machine, medians, training_step
from result_tables import markdown_table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from gconv_ga.models import EquivariantUNet
from gconv_ga.nn import GroupConv2d
from gconv_ga.nn._fourier import PlanKey

Row = dict[str, Any]
HAS_ESCNN = find_spec("escnn") is not None
DEPTH, BATCH = 4, 2
OURS, BASELINE = "gconv_ga", "plain"
START = ["gconv_ga", "escnn", "escnn, cold", "escnn, uninitialized", "plain"]


def networks(group: str, width: int) -> dict[str, nn.Module]:
    """Build the candidates by name, the baseline first."""
    ours = EquivariantUNet(3, 2, group=group, width=width, depth=DEPTH)
    candidates: dict[str, nn.Module] = {
        "plain": ours.baseline(),
        "again": ours.baseline(),
        OURS: ours,
        f"{OURS}, dense": WithAlgorithm(copy.deepcopy(ours), "dense"),
    }
    if HAS_ESCNN:
        from escnn_unet import EscnnUNet

        candidates["escnn"] = EscnnUNet(3, 2, group, width, DEPTH, reduction="mean")
    return candidates


@register_flop_formula(torch.ops.gconv_ga.fourier_conv)
def _(x: torch.Size, weight: torch.Size, taps: Any, bias: Any, key: str, *_: Any, out_shape: torch.Size) -> int:
    """Count the operations of the matrix products; transforms and functions, a few percent, are left out."""
    pixels = out_shape[0] * out_shape[3] * out_shape[4]
    return 2 * pixels * x[1] * out_shape[1] * PlanKey.read(key).multiplications


def multiply_adds(network: nn.Module, x: torch.Tensor) -> int:
    """Count the multiply-adds of a forward pass of one image, with rotated kernels already computed."""
    with torch.no_grad():
        network.eval()(x)  # caches the rotated kernels
        with FlopCounterMode(display=False) as counter:
            network(x)
    return counter.get_total_flops() // 2 // len(x)


def train(network: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Return a training step."""
    network.train()

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(x).square().mean().backward()

    return step


def forward(network: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Return a forward pass in eval mode."""
    return inference(network.eval(), x)


MODES = {"train": train, "eval": forward}


def compare(candidates: dict[str, nn.Module], x: torch.Tensor, rounds: int, memory: bool) -> Iterator[Row]:
    """Yield one row per candidate and mode."""
    for mode, make in MODES.items():
        seconds = timed(make, candidates, x, rounds)
        for name, network in candidates.items():
            row = {"candidate": name, "mode": mode, "seconds": seconds[name], "ratio": seconds[name] / seconds["plain"]}
            yield row | ({"MB": memory_of(make(network, x))} if memory else {})


def timed(
    make: Callable[..., Callable[[], None]], candidates: dict[str, nn.Module], x: torch.Tensor, rounds: int
) -> dict[str, float]:
    """Measure the median seconds of each candidate, as made into a step by `make`."""
    return medians(lambda: {name: make(net, x.clone()) for name, net in candidates.items()}, rounds, time.process_time)


def memory_of(run: Callable[[], None]) -> float:
    """Measure the most MB that tensors made in a run occupy at once."""
    return peak_megabytes(lambda *_: run(), None, None)


# --- sections


def start(options: argparse.Namespace) -> Iterator[Row]:
    """Import, construction, first and second training step at 128 px in fresh processes: seconds and peak MB."""
    script = Path(__file__).with_name("network_start.py")
    # The network of 16 fields is only constructed: size 0 means no steps.
    cases = [("C8", 16, 0, START)] + [(group, 8, 128, ["gconv_ga", "escnn", "plain"]) for group in options.groups]
    for group, width, size, candidates in cases:
        names = [name for name in candidates if HAS_ESCNN or "escnn" not in name]
        processes: dict[str, list[Row]] = {name: [] for name in names}
        for _ in range(options.lives):
            for name in random.sample(names, len(names)):
                command = [sys.executable, str(script), name, group, *map(str, (width, DEPTH, size, BATCH))]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                processes[name].append(json.loads(done.stdout.splitlines()[-1]))
        for name, rows in processes.items():
            row_medians = {stage: statistics.median(row[stage] for row in rows) for stage in rows[0]}
            yield {"group": group, "width": width, "candidate": name, **row_medians}


def steps(options: argparse.Namespace) -> Iterator[Row]:
    """Training step and forward pass at 128 px, batch 2, 8 fields."""
    x = torch.randn(BATCH, 3, 128, 128)
    for group in options.groups:
        candidates = networks(group, 8)
        work = {name: multiply_adds(network, x) for name, network in candidates.items()}
        for row in compare(candidates, x, options.rounds, memory=True):
            parameters = sum(p.numel() for p in candidates[row["candidate"]].parameters())
            yield {"group": group, **row, "multiply-adds": work[row["candidate"]], "parameters": parameters}


def growth(options: argparse.Namespace) -> Iterator[Row]:
    """Training step and forward pass by image size, width and |G|, around C4, 4 fields, 64 px."""
    cases = [("size", n, "C4", 4, n) for n in (32, 64, 128, 256)]
    cases += [("width", n, "C4", n, 64) for n in (2, 4, 8, 16)]
    cases += [("order", n, f"C{n}", 4, 64) for n in (2, 4, 8, 16)]
    for axis, value, group, width, size in cases:
        x = torch.randn(BATCH, 3, size, size)
        candidates = networks(group, width)
        del candidates["again"]
        for row in compare(candidates, x, options.rounds, memory=False):
            yield {"axis": axis, "value": value, **row}


def expansion(options: argparse.Namespace) -> Iterator[Row]:
    """One GroupConv2d of C8, 16 fields, 32 px, batch 4, against the same convolution with a fixed kernel."""
    for size in (3, 5):
        layer = GroupConv2d(16, 16, size, padding=size // 2, group="C8")
        f = torch.randn(4, 16, 8, 32, 32)
        dense = WithAlgorithm(layer, "dense")
        candidates = {"plain": FixedKernel(layer), "again": FixedKernel(layer), "gconv_ga, dense": dense}
        for mode, make in {"train": training_step, "eval": inference}.items():
            for network in candidates.values():
                network.train(mode == "train")
            seconds = timed(make, candidates, f, options.rounds)
            for name in candidates:
                yield {
                    "kernel_size": size, "mode": mode, "candidate": name,
                    "seconds": seconds[name], "ratio": seconds[name] / seconds["plain"],
                }  # fmt: skip


class FixedKernel(nn.Module):
    """The convolution that a group convolution computes, with the stack of rotated kernels as its parameter."""

    def __init__(self, layer: GroupConv2d) -> None:
        super().__init__()
        stack = layer.rotated_kernels().detach().flatten(0, 1).unflatten(2, layer.kernel_size)
        self.weight, self.bias = nn.Parameter(stack.contiguous()), nn.Parameter(torch.zeros(len(stack)))
        self.padding, self.order = layer.padding, layer.group.order

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(f.flatten(1, 2), self.weight, self.bias, padding=self.padding)
        return y.unflatten(1, (-1, self.order))


SECTIONS = {"start": start, "steps": steps, "growth": growth, "expansion": expansion}


# --- tables


def slope(points: list[tuple[float, float]]) -> float:
    """Fit a line through the logarithms by least squares, and return its slope.

    Example:
        >>> slope([(1, 3.0), (2, 12.0), (4, 48.0)])
        2.0
    """
    x, y = torch.tensor(points, dtype=torch.float64).log().T
    return round(float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()), 6)


def start_table(rows: list[Row]) -> str:
    """Format the times of fresh processes; import and construction also as a multiple of ours."""
    titles = ["U-Net", "candidate", "import s", "construct s", "times ours", "first step s", "second step s", "peak MB"]
    ours = {(row["group"], row["width"]): row["import"] + row["construct"] for row in rows if row["candidate"] == OURS}
    lines = []
    for row in rows:
        multiple = (row["import"] + row["construct"]) / ours[row["group"], row["width"]]
        steps = [f"{row[stage]:.2f}" if stage in row else "-" for stage in ("first step", "second step")]
        times = [f"{row['import']:.3f}", f"{row['construct']:.3f}", f"{multiple:.1f}", *steps]
        lines.append([f"{row['group']}, {row['width']} fields", row["candidate"], *times, f"{row['peak MB']:.0f}"])
    return markdown_table(titles, lines)


def steps_table(rows: list[Row]) -> str:
    """Format the training step and the forward pass, one line per candidate."""
    titles = [
        "group",
        "candidate",
        "multiply-adds",
        "parameters",
        "step ms",
        "ratio",
        "MB",
        "forward ms",
        "ratio",
        "MB",
    ]
    lines: dict[tuple[str, str], list[object]] = {}
    for row in rows:
        key = row["group"], row["candidate"]
        line = lines.setdefault(key, [*key, f"{row['multiply-adds'] / 1e9:.3f} G", row["parameters"]])
        line += [f"{1e3 * row['seconds']:.0f}", f"{row['ratio']:.3f}", f"{row['MB']:.0f}"]
    return markdown_table(titles, lines.values())


def growth_table(rows: list[Row]) -> str:
    """Format the times and their ratios to the baseline, one line per point; then the slope of each curve."""
    others = [name for name in dict.fromkeys(row["candidate"] for row in rows) if name != BASELINE]
    points: dict[tuple[str, str, int], dict[str, Row]] = {}
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        axis, mode, value, name = row["axis"], row["mode"], row["value"], row["candidate"]
        points.setdefault((axis, mode, value), {})[name] = row
        curves.setdefault((axis, mode), {}).setdefault(name, []).append((value, row["seconds"]))
    times = [
        [*key, f"{1e3 * at[BASELINE]['seconds']:.0f}"]
        + [cell for name in others for cell in (f"{1e3 * at[name]['seconds']:.0f}", f"{at[name]['ratio']:.3f}")]
        for curve in curves
        for key, at in points.items()
        if key[:2] == curve
    ]
    slopes = [[*key, *(f"{slope(curve[name]):.2f}" for name in (BASELINE, *others))] for key, curve in curves.items()]
    titles = [title for name in others for title in (f"{name} ms", "ratio")]
    return "\n\n".join(
        (
            markdown_table(["by", "mode", "value", f"{BASELINE} ms", *titles], times),
            markdown_table(["slope by", "mode", BASELINE, *others], slopes),
        )
    )


def expansion_table(rows: list[Row]) -> str:
    """Format the cost of expanding kernels, one line per candidate."""
    lines = []
    for row in rows:
        size = f"{row['kernel_size']} x {row['kernel_size']}"
        lines.append([size, row["mode"], row["candidate"], f"{1e3 * row['seconds']:.2f}", f"{row['ratio']:.3f}"])
    return markdown_table(["kernel", "mode", "candidate", "ms", "ratio"], lines)


TABLES = {"start": start_table, "steps": steps_table, "growth": growth_table, "expansion": expansion_table}


def print_section(name: str, about: Row, rows: list[Row]) -> None:
    """Print the machine and the tables of a section."""
    print(f"{name}: {SECTIONS[name].__doc__}")
    print(", ".join(f"{key}: {value}" for key, value in about.items()), "\n")
    print(TABLES[name](rows), "", sep="\n", flush=True)


def main() -> None:
    """Measure and print; a section measured again replaces its rows in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--groups", nargs="+", default=["C4", "C8", "D4"])
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each candidate (default: %(default)s)")
    parser.add_argument("--lives", type=int, default=3, help="processes of each candidate (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file to which the results are written")
    parser.add_argument("--table", type=Path, help="print the tables of this file and measure nothing")
    options = parser.parse_args()
    if options.table:
        for name, section in json.loads(options.table.read_text(encoding="utf-8")).items():
            print_section(name, section["about"], section["rows"])
        return
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    about = machine() | {"escnn": version("escnn") if HAS_ESCNN else None, "clock": "processor time", "threads": 1}
    for name in options.sections:
        torch.manual_seed(0)
        random.seed(0)
        rounds = {"lives": options.lives} if name == "start" else {"rounds": options.rounds}
        section = {"about": about | rounds, "rows": list(SECTIONS[name](options))}
        print_section(name, **section)
        if options.out:
            written = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
            options.out.write_text(json.dumps(written | {name: section}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
