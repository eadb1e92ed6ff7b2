"""What equivariant U-Nets cost, against escnn's of the same layers and plain ones of the same multiply-adds.

    python benchmarks/networks.py --out benchmarks/results/networks.json      # in the environment of the extra "escnn"
    python benchmarks/networks.py --sections steps --groups C8 --rounds 21
    python benchmarks/networks.py --table benchmarks/results/networks.json    # the tables of an earlier run

Sections: `start`, lives of fresh processes: import, construct, first training step (network_start.py); `steps`,
training step and forward in eval mode, with the peak memory of tensors; `growth`, the same by image size, width and
order of the group, with the slopes of the logarithms; `expansion`, what making the turned kernels of one layer costs.

Candidates are timed in turn, in an order drawn anew for each round; medians are printed, and ratios to the plain
network's. "again" is the plain one once more: how far it is from 1 is noise. Processor time of one torch thread. A
training step is forward, backward and the gradients of all parameters, no optimiser: the plain network has |G| times
the weights to update. Without escnn its candidates are left out.
"""

import argparse
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
from layers import inference, machine, medians, training_step
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gconv_ga.models import EquivariantUNet
from gconv_ga.nn import GroupConv2d

Row = dict[str, Any]
HAS_ESCNN = find_spec("escnn") is not None
DEPTH, BATCH = 4, 2
START = ["gconv_ga", "escnn", "escnn, cold", "escnn, no first weights", "plain"]


def networks(group: str, width: int) -> dict[str, nn.Module]:
    """The candidates by name, the baseline first."""
    ours = EquivariantUNet(3, 2, group=group, width=width, depth=DEPTH)
    found: dict[str, nn.Module] = {"plain": ours.plain_twin(), "again": ours.plain_twin(), "gconv_ga": ours}
    if HAS_ESCNN:
        from escnn_unet import EscnnUNet

        found["escnn"] = EscnnUNet(3, 2, group, width, DEPTH, reduction="mean")
    return found


def multiply_adds(network: nn.Module, x: torch.Tensor) -> int:
    """Of one image's forward pass with turned kernels at hand, as torch counts."""
    with torch.no_grad():
        network.eval()(x)  # keeps the kernels
        with FlopCounterMode(display=False) as counter:
            network(x)
    return counter.get_total_flops() // 2 // len(x)


def train(network: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A training step."""
    network.train()

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(x).square().mean().backward()

    return step


def forward(network: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A forward pass in eval mode."""
    return inference(network.eval(), x)


MODES = {"train": train, "eval": forward}


def compare(found: dict[str, nn.Module], x: torch.Tensor, rounds: int, memory: bool) -> Iterator[Row]:
    """One row for each candidate and mode."""
    for mode, task in MODES.items():
        seconds = timed(task, found, x, rounds)
        for name, network in found.items():
            row = {"candidate": name, "mode": mode, "seconds": seconds[name], "ratio": seconds[name] / seconds["plain"]}
            yield row | ({"MB": memory_of(task(network, x))} if memory else {})


def timed(task: Callable[..., Callable[[], None]], found: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> Row:
    """The median seconds of each."""
    return medians(lambda: {name: task(net, x.clone()) for name, net in found.items()}, rounds, time.process_time)


def memory_of(run: Callable[[], None]) -> float:
    """The most MB that tensors made in a run take at once."""
    return peak_megabytes(lambda *_: run(), None, None)


# --- sections


def start(options: argparse.Namespace) -> Iterator[Row]:
    """Import, construct, first and second training step at 128 px in fresh processes; seconds, and MB at their peak."""
    script = Path(__file__).with_name("network_start.py")
    # 16 fields are constructed only: without an image there is no step.
    cases = [("C8", 16, 0, START)] + [(group, 8, 128, ["gconv_ga", "escnn", "plain"]) for group in options.groups]
    for group, width, size, candidates in cases:
        names = [name for name in candidates if HAS_ESCNN or "escnn" not in name]
        lives: dict[str, list[Row]] = {name: [] for name in names}
        for _ in range(options.lives):
            for name in random.sample(names, len(names)):
                command = [sys.executable, str(script), name, group, *map(str, (width, DEPTH, size, BATCH))]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                lives[name].append(json.loads(done.stdout.splitlines()[-1]))
        for name, rows in lives.items():
            middle = {stage: statistics.median(row[stage] for row in rows) for stage in rows[0]}
            yield {"group": group, "width": width, "candidate": name, **middle}


def steps(options: argparse.Namespace) -> Iterator[Row]:
    """Training step and forward pass at 128 px, batch 2; 8 fields."""
    x = torch.randn(BATCH, 3, 128, 128)
    for group in options.groups:
        found = networks(group, 8)
        work = {name: multiply_adds(network, x) for name, network in found.items()}
        for row in compare(found, x, options.rounds, memory=True):
            weights = sum(p.numel() for p in found[row["candidate"]].parameters())
            yield {"group": group, **row, "multiply-adds": work[row["candidate"]], "parameters": weights}


def growth(options: argparse.Namespace) -> Iterator[Row]:
    """The same by image size, width and |G|, about C4, 4 fields, 64 px."""
    cases = [("size", n, "C4", 4, n) for n in (32, 64, 128, 256)]
    cases += [("width", n, "C4", n, 64) for n in (2, 4, 8, 16)]
    cases += [("order", n, f"C{n}", 4, 64) for n in (2, 4, 8, 16)]
    for axis, value, group, width, size in cases:
        x = torch.randn(BATCH, 3, size, size)
        found = networks(group, width)
        del found["again"]
        for row in compare(found, x, options.rounds, memory=False):
            yield {"axis": axis, "value": value, **row}


def expansion(options: argparse.Namespace) -> Iterator[Row]:
    """One GroupConv2d of C8, 16 fields, 32 px, batch 4, against the same convolution with its kernel at hand."""
    for size in (3, 5):
        layer = GroupConv2d(16, 16, size, padding=size // 2, group="C8")
        f = torch.randn(4, 16, 8, 32, 32)
        found = {"plain": Ready(layer), "again": Ready(layer), "gconv_ga": layer}
        for mode, task in {"train": training_step, "eval": inference}.items():
            for network in found.values():
                network.train(mode == "train")
            seconds = timed(task, found, f, options.rounds)
            for name in found:
                yield {
                    "kernel_size": size, "mode": mode, "candidate": name,
                    "seconds": seconds[name], "ratio": seconds[name] / seconds["plain"],
                }  # fmt: skip


class Ready(nn.Module):
    """The convolution that a group convolution does, whose parameter is the stack of turned kernels."""

    def __init__(self, layer: GroupConv2d) -> None:
        super().__init__()
        stack = layer.turned_kernels().detach().flatten(0, 1).unflatten(2, layer.kernel_size)
        self.weight, self.bias = nn.Parameter(stack.contiguous()), nn.Parameter(torch.zeros(len(stack)))
        self.padding, self.order = layer.padding, layer.group.order

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(f.flatten(1, 2), self.weight, self.bias, padding=self.padding)
        return y.unflatten(1, (-1, self.order))


SECTIONS = {"start": start, "steps": steps, "growth": growth, "expansion": expansion}


# --- tables


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through the logarithms that fits best.

    Example:
        >>> slope([(1, 3.0), (2, 12.0), (4, 48.0)])
        2.0
    """
    x, y = torch.tensor(points, dtype=torch.float64).log().T
    return round(float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()), 6)


def start_table(rows: list[Row]) -> Iterator[str]:
    """One line a candidate; import and construction as a multiple of ours."""
    yield "| U-Net | candidate | import s | construct s | times ours | first step s | second step s | peak MB |"
    yield "|---" * 8 + "|"
    ours = {(r["group"], r["width"]): r["import"] + r["construct"] for r in rows if r["candidate"] == "gconv_ga"}
    for r in rows:
        multiple = (r["import"] + r["construct"]) / ours[r["group"], r["width"]]
        ends = [f"{r[stage]:.2f}" if stage in r else "-" for stage in ("first step", "second step")]
        yield (
            f"| {r['group']}, {r['width']} fields | {r['candidate']} | {r['import']:.3f} | {r['construct']:.3f} | "
            f"{multiple:.1f} | {' | '.join(ends)} | {r['peak MB']:.0f} |"
        )


def steps_table(rows: list[Row]) -> Iterator[str]:
    """One line a candidate."""
    yield "| group | candidate | multiply-adds | parameters | step ms | ratio | MB | forward ms | ratio | MB |"
    yield "|---" * 10 + "|"
    lines: dict[tuple[str, str], str] = {}
    for r in rows:
        head = f"| {r['group']} | {r['candidate']} | {r['multiply-adds'] / 1e9:.3f} G | {r['parameters']} |"
        lines.setdefault((r["group"], r["candidate"]), head)
        lines[r["group"], r["candidate"]] += f" {1e3 * r['seconds']:.0f} | {r['ratio']:.3f} | {r['MB']:.0f} |"
    yield from lines.values()


def growth_table(rows: list[Row]) -> Iterator[str]:
    """One line a curve: the ratios to the plain network, and the slopes."""
    yield "| by | values | mode | candidate | ms | ratios | slope |"
    yield "|---" * 7 + "|"
    curves: dict[tuple[str, str, str], list[Row]] = {}
    for r in rows:
        curves.setdefault((r["axis"], r["mode"], r["candidate"]), []).append(r)
    for (axis, mode, candidate), curve in curves.items():
        values, ms, ratios = (
            ", ".join(form.format(scale * r[key]) for r in curve)
            for key, form, scale in (("value", "{}", 1), ("seconds", "{:.0f}", 1e3), ("ratio", "{:.3f}", 1))
        )
        line = slope([(r["value"], r["seconds"]) for r in curve])
        yield f"| {axis} | {values} | {mode} | {candidate} | {ms} | {ratios} | {line:.2f} |"


def expansion_table(rows: list[Row]) -> Iterator[str]:
    """One line a candidate."""
    yield "| kernel | mode | candidate | ms | ratio |"
    yield "|---" * 5 + "|"
    for r in rows:
        size = f"{r['kernel_size']} x {r['kernel_size']}"
        yield f"| {size} | {r['mode']} | {r['candidate']} | {1e3 * r['seconds']:.2f} | {r['ratio']:.3f} |"


TABLES = {"start": start_table, "steps": steps_table, "growth": growth_table, "expansion": expansion_table}


def print_section(name: str, about: Row, rows: list[Row]) -> None:
    """The machine and the table."""
    print(f"{name}: {SECTIONS[name].__doc__}")
    print(", ".join(f"{key}: {value}" for key, value in about.items()), "\n")
    print(*TABLES[name](rows), "", sep="\n", flush=True)


def main() -> None:
    """Measures and prints; a section that is measured anew takes its own place in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--groups", nargs="+", default=["C4", "C8", "D4"])
    parser.add_argument("--rounds", type=int, default=9, help="repetitions of each candidate (default: %(default)s)")
    parser.add_argument("--lives", type=int, default=3, help="processes of each candidate (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the results here")
    parser.add_argument("--table", type=Path, help="print what was written, and measure nothing")
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
