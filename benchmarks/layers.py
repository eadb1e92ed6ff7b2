"""Measure the cost of equivariant layers against torch's own layers of the same width, and of their options.

    python benchmarks/layers.py                       # processor time of one thread: the steadiest on a busy machine
    python benchmarks/layers.py --section algorithms memory --rounds 11
    python benchmarks/layers.py --clock wall --threads 2 --json layers.json

Each case interleaves its candidates in a new random order each round, and prints the median time of the first one, the
baseline, and the ratios of the other medians to it. "again" is the baseline timed a second time: its distance from 1 is
noise. A training step is forward and backward, with gradients of input and parameters. Layers of escnn are included if
escnn can be imported (the extra "escnn").
"""

import argparse
import copy
import json
import platform
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from result_tables import markdown_table
from torch import Tensor, nn

import gconv_ga.nn as gnn
from gconv_ga.models import EquivariantUNet

ORDERS = {"C4": 4, "D4": 8}  # number of elements of each group
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


class Case(NamedTuple):
    """Modules to compare, by name and each with its input; the first is the baseline."""

    section: str
    name: str
    candidates: dict[str, tuple[nn.Module, Tensor]]


def flat(module: nn.Module) -> nn.Module:
    """Apply an image module to a feature map on the group, with the group elements as channels."""
    return nn.Sequential(nn.Flatten(1, 2), module)


def with_weights_of(source: nn.Module, module: nn.Module) -> nn.Module:
    """Load the weights of a source module into a module, and return the module."""
    module.load_state_dict(source.state_dict())
    return module


# --- questions


def against_torch() -> Iterator[Case]:
    """Group convolution against `nn.Conv2d` with the same number of channels."""
    for group, size, fields, batch in [("C4", 64, 8, 8), ("C4", 16, 32, 8), ("D4", 64, 8, 8), ("D4", 16, 32, 8)]:
        order = ORDERS[group]
        f = torch.randn(batch, fields, order, size, size)
        channels = fields * order
        candidates = {
            "nn.Conv2d": (flat(nn.Conv2d(channels, channels, 3, padding=1)), f),
            "again": (flat(nn.Conv2d(channels, channels, 3, padding=1)), f),
            "GroupConv2d": (gnn.GroupConv2d(fields, fields, 3, padding=1, group=group), f),
        }
        if find_spec("escnn"):
            candidates["escnn"] = (escnn_convolution(group, fields), f)
        yield Case("nn.Conv2d", f"{group}, {size} px, {fields} fields, batch {batch}", candidates)


class WithAlgorithm(nn.Module):
    """Layer that is computed by one algorithm, backward pass included."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer, self.name = layer, name

    def forward(self, f: Tensor) -> Tensor:
        with gnn.algorithm(self.name):
            return self.layer(f)


# Group, kernel size, fields, pixels a side and images of the layers of the sections "algorithms" and "memory".
ALGORITHM_CASES = [
    ("C4", 3, 2, 128, 8), ("C4", 3, 4, 128, 8), ("C4", 3, 2, 64, 4), ("C4", 3, 4, 64, 4), ("C4", 3, 8, 64, 4),
    ("C4", 3, 16, 64, 4), ("C4", 3, 32, 32, 4), ("C4", 5, 16, 32, 4), ("C8", 3, 4, 64, 4), ("C8", 3, 8, 64, 4),
    ("C8", 3, 16, 32, 4), ("C8", 5, 16, 32, 4), ("C8", 1, 32, 32, 4), ("C12", 3, 8, 64, 4), ("C16", 3, 8, 64, 4),
    ("D4", 3, 8, 64, 4), ("D4", 3, 32, 32, 2), ("D8", 3, 8, 64, 2),
]  # fmt: skip


def algorithms() -> Iterator[Case]:
    """Group convolution by the dense and the Fourier algorithm, and by the one that is chosen, against `nn.Conv2d`."""
    for group, k, fields, size, batch in ALGORITHM_CASES:
        layer = gnn.GroupConv2d(fields, fields, k, padding=k // 2, group=group)
        order = layer.group.order
        f = torch.randn(batch, fields, order, size, size)
        plain = nn.Conv2d(fields * order, fields * order, k, padding=k // 2)
        candidates = {"nn.Conv2d": (flat(plain), f), "again": (flat(copy.deepcopy(plain)), f)}
        for name in ("dense", "fourier", "auto"):
            candidates[name] = (WithAlgorithm(copy.deepcopy(layer), name), f)
        if find_spec("escnn"):
            candidates["escnn"] = (escnn_convolution(group, fields, k), f)
        yield Case("algorithms", f"{group}, k = {k}, {fields} fields, {size} px, batch {batch}", candidates)


def escnn_convolution(group: str, fields: int, kernel_size: int = 3) -> nn.Module:
    """Return escnn's convolution between regular fields, with its default options."""
    from escnn import gspaces
    from escnn import nn as enn

    space = (gspaces.rot2dOnR2 if group[0] == "C" else gspaces.flipRot2dOnR2)(int(group[1:]))
    fields_type = enn.FieldType(space, fields * [space.regular_repr])

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = enn.R2Conv(fields_type, fields_type, kernel_size, padding=kernel_size // 2)

        def forward(self, f: Tensor) -> Tensor:
            return self.layer(fields_type(f.flatten(1, 2))).tensor

    return Wrapped()


def phase_rule() -> Iterator[Case]:
    """Sampling with one grid per orientation against one shared grid, at sizes where they differ."""
    windows = {"k3 s2 p1": (3, 2, 1), "k1 s2": (1, 2, 0)}
    for group, size, fields, batch, window in [
        ("C4", 64, 8, 8, "k3 s2 p1"), ("C4", 32, 16, 8, "k3 s2 p1"), ("C4", 16, 32, 8, "k3 s2 p1"),
        ("D4", 64, 8, 4, "k3 s2 p1"), ("D4", 16, 32, 4, "k3 s2 p1"), ("C4", 64, 16, 4, "k1 s2"),
    ]:  # fmt: skip
        k, s, p = windows[window]
        f = torch.randn(batch, fields, ORDERS[group], size, size)
        shared = gnn.GroupConv2d(fields, 2 * fields, k, s, p, group=group, sampling="shared")
        per_orientation, at_good_size = (
            with_weights_of(shared, gnn.GroupConv2d(fields, 2 * fields, k, s, p, group=group)) for _ in range(2)
        )
        larger = torch.randn(batch, fields, ORDERS[group], size + 1, size + 1)
        yield Case(
            "phase rule",
            f"GroupConv2d {window}, {group}, {size} px, {fields} to {2 * fields} fields",
            {
                "shared": (shared, f),
                "per_orientation": (per_orientation, f),
                "per_orientation, 1 px more": (at_good_size, larger),
            },
        )
    for group, size, fields, batch in [("C4", 65, 8, 8), ("C4", 33, 32, 8)]:
        f = torch.randn(batch, fields, ORDERS[group], size, size)
        for pool in (gnn.MaxPool2d, gnn.AvgPool2d):
            yield Case(
                "phase rule",
                f"{pool.__name__} k2 s2, {group}, {size} px, {fields} fields",
                {
                    "shared": (pool(2, group=group, sampling="shared"), f),
                    "per_orientation": (pool(2, group=group), f),
                },
            )
    x = torch.randn(8, 3, 64, 64)
    shared = gnn.LiftingConv2d(3, 16, 7, 2, 3, group="C4", sampling="shared")
    per_orientation = with_weights_of(shared, gnn.LiftingConv2d(3, 16, 7, 2, 3, group="C4"))
    yield Case(
        "phase rule",
        "LiftingConv2d k7 s2 p3, C4, 64 px, 3 to 16 fields",
        {"shared": (shared, x), "per_orientation": (per_orientation, x)},
    )


class WithMethod(nn.Module):
    """Layer with few taps that computes them as a dense convolution with zeros, or orientation by orientation."""

    def __init__(self, layer: nn.Module, dense: bool) -> None:
        super().__init__()
        self.layer = layer
        layer._mixes_all = dense  # noqa: SLF001  the layer's own choice is what is measured here

    def forward(self, f: Tensor) -> Tensor:
        return self.layer(f)


def taps() -> Iterator[Case]:
    """Layers with few taps, computed as a dense convolution with zeros and orientation by orientation."""
    for make in (gnn.GroupConv2d, gnn.GroupConvTranspose2d):
        window = (3, 1, 1) if make is gnn.GroupConv2d else (2, 2, 0)
        for group, size, fields, counts in [
            ("C4", 64, 8, (1, 2, 3)), ("C4", 16, 32, (1, 2, 3)),
            ("D4", 64, 8, (1, 2, 4, 5)), ("D4", 16, 32, (1, 2, 4, 5)), ("D4", 32, 6, (1, 2, 4)), ("D4", 32, 4, (1, 2)),
            ("D4", 32, 11, (1, 2)), ("D4", 32, 16, (1, 2, 4)),
        ]:  # fmt: skip
            side = size if make is gnn.GroupConv2d else size // 2
            f = torch.randn(4, fields, ORDERS[group], side, side)
            for count in counts:
                full = make(fields, fields, *window, group=group)
                dense, sparse = (make(fields, fields, *window, group=group, group_kernel_size=count) for _ in range(2))
                with_weights_of(dense, sparse)
                yield Case(
                    "taps",
                    f"{make.__name__}, {group}, {count} of {ORDERS[group]} taps, {side} px, {fields} fields",
                    {
                        "all taps": (full, f),
                        "dense with zeros": (WithMethod(dense, dense=True), f),
                        "by orientation": (WithMethod(sparse, dense=False), f),
                    },
                )


def norms() -> Iterator[Case]:
    """Batch norm of a 5-d feature map on the group, contiguous and channels-last, against the folded 4-d one."""
    for group, size, fields in [("C4", 64, 8), ("C4", 16, 32)]:
        order = ORDERS[group]
        f = torch.randn(8, fields, order, size, size)
        channels_last = f.flatten(1, 2).to(memory_format=torch.channels_last).unflatten(1, (fields, order))
        yield Case(
            "norms",
            f"{group}, {size} px, {fields} fields",
            {
                "nn.BatchNorm2d, folded": (flat(nn.BatchNorm2d(fields * order)), f),
                "BatchNorm2d": (gnn.BatchNorm2d(fields), f),
                "nn.BatchNorm2d, folded, channels last": (flat(nn.BatchNorm2d(fields * order)), channels_last),
                "BatchNorm2d, channels last": (gnn.BatchNorm2d(fields), channels_last),
            },
        )


SECTIONS: dict[str, Callable[[], Iterator[Case]]] = {
    "nn.Conv2d": against_torch,
    "algorithms": algorithms,
    "phase rule": phase_rule,
    "taps": taps,
    "norms": norms,
}


# --- timing


def training_step(module: nn.Module, f: Tensor) -> Callable[[], None]:
    """Return a forward and backward pass with a fixed gradient of the output."""
    module.train()
    x = f.clone(memory_format=torch.preserve_format).requires_grad_()
    gradient = torch.randn_like(module(x))

    def step() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
        module(x).backward(gradient)

    return step


def inference(module: nn.Module, f: Tensor) -> Callable[[], None]:
    """Return a forward pass without gradients."""
    x = f.clone(memory_format=torch.preserve_format)

    def run() -> None:
        with torch.no_grad():
            module(x)

    return run


def medians(
    prepare: Callable[[], dict[str, Callable[[], None]]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Measure the median seconds of each candidate, interleaved in a new random order each round.

    The place of tensors in memory changes the time of the same code by a few percent, so they are allocated anew every
    few rounds.

    Args:
        prepare: Returns the candidates by name, with newly allocated tensors.
        rounds: Number of rounds.
        clock: Returns the time in seconds.
    """
    seconds: dict[str, list[float]] = {}
    for number in range(rounds):
        if number % 4 == 0:
            offset = torch.empty(random.randrange(1 << 18))
            runs = prepare()
            del offset
            for run in runs.values():
                run()  # warm-up
        names = list(runs)
        random.shuffle(names)
        for name in names:
            start = clock()
            runs[name]()
            seconds.setdefault(name, []).append(clock() - start)
    return {name: statistics.median(seconds[name]) for name in prepare()}


def measure(case: Case, mode: str, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Time a case in one mode and return a row of results."""
    for module, _ in case.candidates.values():
        module.train(mode == "train")
    make = training_step if mode == "train" else inference
    seconds = medians(lambda: {name: make(*each) for name, each in case.candidates.items()}, rounds, clock)
    baseline = next(iter(seconds))
    ratios = {name: value / seconds[baseline] for name, value in seconds.items() if name != baseline}
    return {
        "section": case.section,
        "case": case.name,
        "mode": mode,
        "baseline": baseline,
        "ms": 1e3 * seconds[baseline],
        "ratios": ratios,
    }


def memory() -> Iterator[dict[str, Any]]:
    """Measure by how many MB a training step of a layer raises resident memory at its peak, in fresh processes.

    A first step is taken before, so that libraries and their buffers are there.
    """
    for group, k, fields, size, batch in ALGORITHM_CASES:
        case = f"{group}, k = {k}, {fields} fields, {size} px, batch {batch}"
        peaks = {}
        for name in ("dense", "fourier"):
            script = f"import layers; print(layers.peak_of_step({group!r}, {k}, {fields}, {size}, {batch}, {name!r}))"
            command = [sys.executable, "-c", script]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
            peaks[name] = float(done.stdout)
        yield {"section": "memory", "case": case, **peaks}


def threads() -> Iterator[dict[str, Any]]:
    """Measure how much faster two threads are than one in wall time; the other core has to be idle."""
    cases: list[tuple[str, nn.Module, Tensor]] = []
    for group, k, fields, size, batch in ALGORITHM_CASES:
        layer = gnn.GroupConv2d(fields, fields, k, padding=k // 2, group=group)
        f = torch.randn(batch, fields, layer.group.order, size, size)
        cases.append((f"{group}, k = {k}, {fields} fields, {size} px, batch {batch}", layer, f))
    network = EquivariantUNet(3, 2, group="C8", width=8, depth=4)
    cases.append(("C8 U-Net of 8 fields, 128 px, batch 2", network, torch.randn(2, 3, 128, 128)))
    before = torch.get_num_threads()
    for name, module, f in cases:
        ratios = []
        for make in (training_step, inference):
            seconds = []
            for count in (1, 2):
                torch.set_num_threads(count)
                with gnn.algorithm("fourier"):
                    run = make(module.train(make is training_step), f)
                    seconds.append(medians(lambda run=run: {"": run}, 7, time.perf_counter)[""])  # type: ignore[misc]
            ratios.append(seconds[0] / seconds[1])
        yield {"section": "threads", "case": name, "train": ratios[0], "eval": ratios[1]}
    torch.set_num_threads(before)


def peak_of_step(group: str, k: int, fields: int, size: int, batch: int, name: str) -> float:
    """Measure the peak of resident memory of one training step above what there is before it, in MB. Linux only."""
    torch.set_num_threads(1)
    layer = gnn.GroupConv2d(fields, fields, k, padding=k // 2, group=group)
    small = torch.randn(1, fields, layer.group.order, 16, 16)
    x = torch.randn(batch, fields, layer.group.order, size, size, requires_grad=True)
    with gnn.algorithm(name):
        layer(small).sum().backward()
        layer.zero_grad(set_to_none=True)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _resident("VmRSS")
        layer(x).sum().backward()
        return (_resident("VmHWM") - before) / 1e3


def _resident(name: str) -> int:
    """Return a line of this process's status in kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# Sections that make their rows themselves, and the columns of their tables.
ROWS = {"memory": (memory, ("dense", "fourier")), "threads": (threads, ("train", "eval"))}


def machine() -> dict[str, Any]:
    """Describe the machine and the versions."""
    model = next(
        (line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), platform.processor()
    )
    return {
        "processor": model,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "escnn": find_spec("escnn") is not None,
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = [*SECTIONS, *ROWS]
    parser.add_argument("--section", nargs="*", choices=sections, default=sections)
    parser.add_argument("--rounds", type=int, default=31, help="repetitions of each candidate (default: %(default)s)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu", help="processor or wall time (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to which the rows are written")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    warnings.filterwarnings("ignore", message="sampling='shared' is not equivariant")
    about = machine() | {"clock": options.clock, "threads": options.threads, "rounds": options.rounds}
    print(", ".join(f"{key}: {value}" for key, value in about.items()), "\n")
    rows: list[dict[str, Any]] = []
    for section in options.section:
        if section in ROWS:
            find, titles = ROWS[section]
            print(f"{section}: {str(find.__doc__).splitlines()[0]}\n")
            found = list(find())
            rows += found
            lines = [[row["case"], *(f"{row[title]:.2f}" for title in titles)] for row in found]
            print(markdown_table(["case", *titles], lines), "\n", flush=True)
            continue
        print(f"{section}: {SECTIONS[section].__doc__}\n")
        columns: list[str] = []
        for case in SECTIONS[section]():
            for mode in ("train", "eval"):
                row = measure(case, mode, options.rounds, CLOCKS[options.clock])
                rows.append(row)
                if not columns:
                    columns = list(row["ratios"])
                    print(markdown_table(["case", "mode", f"{row['baseline']}, ms", *columns], []))
                cells = [f"{row['ratios'][name]:.3f}" if name in row["ratios"] else "-" for name in columns]
                print(f"| {row['case']} | {mode} | {row['ms']:.2f} | {' | '.join(cells)} |", flush=True)
        print()
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
