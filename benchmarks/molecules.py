"""What is exact equivariance worth on molecules, at equal processor time? The question and the table: README.md.

    python benchmarks/molecules.py --tasks nbody --budget 20 --out molecules.jsonl
    python benchmarks/molecules.py --tasks qm7 ethanol --budget 600 --out molecules.jsonl

Rows that the file holds already are not run again, so that a run can be stopped and taken up. The tasks "qm7" and
"ethanol" read ../shared/data/molecules with ASE (the extra "molecules"). ``--quick`` takes three steps of each.
"""

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from molecule_tasks import TASKS, Samples, Task, load_task, random_turns
from result_rows import append_row, read_rows
from torch import Tensor, nn

from gconv_ga.frames import FrameAveragedGNN, HaarFrame, MeanFrame, PointFrame, PointOutputs

TRAININGS = ("plain", "augmented", "averaged", "updates", "sampled", "egnn", "distances")
AT_TEST = "augmented, averaged at test"
EXACT = {"averaged", "updates", "sampled", "egnn", "distances", AT_TEST}


# --- the networks


class Distances(nn.Module):
    """Message passing that sees distances only; with ``move`` it moves points along differences, as EGNN does."""

    def __init__(self, in_features: int, in_vectors: int, width: int, depth: int, move: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(in_features + in_vectors, width)
        self.ends = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.between = nn.ModuleList(nn.Linear(25, width) for _ in range(depth))
        self.messages = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU()) for _ in range(depth)
        )
        self.updates = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)
        )
        self.push = nn.ModuleList(nn.Linear(width, 1) for _ in range(depth if move else 0))
        self.coast = nn.ModuleList(nn.Linear(width, 1) for _ in range(depth if move and in_vectors else 0))
        self.read = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.shells = nn.Parameter(torch.linspace(0, 6, 24))  # as in FrameAveragedGNN

    def forward(self, x: Tensor, features: Tensor, v: Tensor, mask: Tensor) -> PointOutputs:
        pairs = (mask[:, :, None] & mask[:, None] & ~torch.eye(x.shape[1], dtype=torch.bool))[..., None]
        h = self.embed(torch.cat((features, v.square().sum(-1)), -1))
        for i, message in enumerate(self.messages):
            apart = x[:, None] - x[:, :, None]
            square = apart.square().sum(-1, keepdim=True)
            shells = torch.exp(-((square + 0.01).sqrt() - self.shells).square() * 7.35)  # as wide as they are apart
            seen = self.between[i](torch.cat((shells, torch.log1p(square)), -1))
            receiver, sender = self.ends[i](h).chunk(2, -1)
            m = message(receiver[:, :, None] + sender[:, None] + seen) * pairs
            if self.push:
                x = x + (self.push[i](m) * pairs * apart).sum(2)
            if self.coast:
                x = x + self.coast[i](h) * v[:, :, 0]
            h = h + self.updates[i](torch.cat((h, m.sum(2)), -1))
        return PointOutputs(x, x[:, :, None], self.read(h) * mask[..., None])


def build(method: str, task: Task, width: int, depth: int) -> nn.Module:
    """The network of a method, newly initialised."""
    features, vectors = task.train.features.shape[-1], task.train.v.shape[2]
    if method in ("egnn", "distances"):
        return Distances(features, vectors, width, depth, move=method == "egnn")
    options: dict[str, Any] = {"frame": MeanFrame()} if method in ("plain", "augmented") else {}
    if method == "updates":
        options["average"] = "updates"
    if method == "sampled":
        options["train_samples"] = 1
    return FrameAveragedGNN(
        features, in_vectors=vectors, out_vectors=0, width=width, vector_channels=4, depth=depth, **options
    )


# --- training and measuring


def predict(net: nn.Module, samples: Samples) -> Samples:
    """The samples with the predictions in place of what is to be found."""
    conservative = samples.forces.shape[1] > 0
    with torch.set_grad_enabled(conservative or net.training):
        x = samples.x.detach().requires_grad_(conservative)
        points, _, invariants = net(x, samples.features, samples.v, samples.mask)
        energy, forces = invariants.sum((1, 2)), samples.forces
        if conservative:
            (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=net.training)
            forces = -slope
    return samples._replace(points=points if samples.points.shape[1] else samples.points, energy=energy, forces=forces)


def loss_of(found: Samples, wanted: Samples) -> Tensor:
    """Squares for positions and forces, absolute values for energies."""
    if wanted.points.shape[1]:
        return (found.points - wanted.points).square().mean()
    error = (found.energy - wanted.energy).abs().mean()
    return error + (found.forces - wanted.forces).square().sum(-1).mean() if wanted.forces.shape[1] else error


def predict_all(net: nn.Module, samples: Samples) -> Samples:
    """`predict` in evaluation mode, 50 samples at a time."""
    net.eval()
    parts = [predict(net, samples[i : i + 50]) for i in range(0, len(samples.x), 50)]
    return Samples(*(torch.cat(column).detach() for column in zip(*parts, strict=True)))


def errors(found: Samples, wanted: Samples, task: Task) -> dict[str, float]:
    """Mean square of positions, mean absolute energy (kcal/mol), mean absolute component of forces (kcal/mol/A)."""
    if wanted.points.shape[1]:
        return {"mse": float((found.points - wanted.points).square().mean())}
    numbers = {"energy": float((found.energy - wanted.energy).abs().mean()) * task.unit}
    if wanted.forces.shape[1]:
        numbers["forces"] = float((found.forces - wanted.forces)[wanted.mask].abs().mean()) * task.unit
    return numbers


def measure(net: nn.Module, task: Task) -> dict[str, Any]:
    """Errors on the test samples as they are and each under its own motion, and how far the two answers differ."""
    turns = random_turns(len(task.test.x), seed=1)
    turned = task.test.turned(turns)
    start = time.process_time()
    upright = predict_all(net, task.test)
    seconds = time.process_time() - start
    other = predict_all(net, turned)
    expected = upright.turned(turns)
    if task.test.points.shape[1]:  # the moves, not the positions
        scale, differences = upright.points - task.test.x, other.points - expected.points
    elif task.test.forces.shape[1]:
        scale, differences = upright.forces, other.forces - expected.forces
    else:
        scale, differences = upright.energy - upright.energy.mean(), other.energy - expected.energy
    return {
        "as stored": errors(upright, task.test, task),
        "turned": errors(other, turned, task),
        "equivariance": float((differences.square().mean() / scale.square().mean()).sqrt()),
        "test seconds": seconds,
    }


def batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """The samples in random order, again and again."""
    while True:
        yield from (samples[rows] for rows in torch.randperm(len(samples.x), generator=generator).split(size))


def train(method: str, task: Task, seed: int, args: argparse.Namespace) -> tuple[nn.Module, int, float]:
    """The weights that were best in validation, the steps taken, and their processor seconds."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = build(method, task, args.width, args.depth)
    optimizer = torch.optim.Adam(net.parameters())
    best, best_loss, steps, seconds, checked, done = net.state_dict(), math.inf, 0, 0.0, 0, 0.0
    stream = batches(task.train, task.batch, generator)
    while done < 1:
        batch = next(stream)
        start = time.process_time()
        net.train()
        if method == "augmented":
            batch = batch.turned(HaarFrame("O", generator=generator)(batch.x).rotations[:, 0])
        for group in optimizer.param_groups:
            group["lr"] = task.rate * (1 + math.cos(math.pi * done)) / 2
        optimizer.zero_grad()
        loss_of(predict(net, batch), batch).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        steps, seconds = steps + 1, seconds + time.process_time() - start
        done = steps / 3 if args.quick else seconds / args.budget
        if done * 10 >= checked + 1:
            checked = int(done * 10)
            loss = float(loss_of(predict_all(net, task.val), task.val))
            if loss < best_loss:
                best, best_loss = copy.deepcopy(net.state_dict()), loss
    net.load_state_dict(best)
    return net, steps, seconds


def runs(task: Task, method: str, seed: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row, and for the augmented network a second: the same weights averaged at test."""
    net, steps, seconds = train(method, task, seed, args)
    row = {"task": task.name, "method": method, "seed": seed, "budget": args.budget, "quick": args.quick}
    spent = {"steps": steps, "seconds": seconds, "parameters": sum(p.numel() for p in net.parameters())}
    yield row | spent | measure(net, task)
    if method == "augmented":
        net.net.frame = PointFrame()
        yield row | {"method": AT_TEST} | spent | measure(net, task)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds (and the range of the first error), as Markdown."""
    lines = [
        "| task | training | seeds | steps | error, turned | as stored | equivariance error | test seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        for method in (*TRAININGS[:2], AT_TEST, *TRAININGS[2:]):
            found = [row for row in rows if (row["task"], row["method"]) == (task, method)]
            if not found:
                continue
            texts = []
            for where in ("turned", "as stored"):
                for key in found[0][where]:
                    values = [row[where][key] for row in found]
                    texts.append(f"{key} {statistics.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})")
            half = len(texts) // 2
            error, seconds, steps = (
                statistics.mean(row[key] for row in found) for key in ("equivariance", "test seconds", "steps")
            )
            lines.append(
                f"| {task} | {method} | {len(found)} | {steps:.0f} | {', '.join(texts[:half])} | "
                f"{', '.join(texts[half:])} | {error:.1e} | {seconds:.2f} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks, and print the table of what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=60.0, help="processor seconds of training")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, added to")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="three steps on a few samples")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # seconds are those of one thread
    rows = read_rows(args.out)
    key = ("task", "method", "seed", "budget", "quick")
    known = {tuple(row[part] for part in key) for row in rows}
    for name in args.tasks:
        task = load_task(name, args.quick)
        for seed in range(args.seeds):
            for method in args.methods:
                last = AT_TEST if method == "augmented" else method
                without = name == "nbody" and method == "distances"  # distances alone move nothing
                if without or (name, last, seed, args.budget, args.quick) in known:
                    continue
                for row in runs(task, method, seed, args):
                    rows.append(row)
                    append_row(args.out, row)
                    print(json.dumps(row), flush=True)
    print(table([row for row in rows if row["quick"] == args.quick and row["budget"] == args.budget]))
    return rows


if __name__ == "__main__":
    main()
