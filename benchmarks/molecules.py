"""Measure the value of exact equivariance on molecules and charges at equal training time. See README.md.

    python benchmarks/molecules.py --tasks nbody --budget 20 --out molecules.jsonl
    python benchmarks/molecules.py --tasks qm7 ethanol --budget 600 --out molecules.jsonl

An interrupted run is continued: rows that the file already contains are not computed again. The tasks "qm7" and
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
from molecule_tasks import TASKS, Samples, Task, load_task, random_orthogonal
from result_rows import append_row, read_rows
from result_tables import markdown_table, mean_of
from torch import Tensor, nn

from gconv_ga.frames import FrameAveragedGNN, HaarFrame, MeanFrame, PointFrame, PointOutputs

TRAININGS = ("plain", "augmented", "averaged", "updates", "sampled", "egnn", "distances")
AT_TEST = "augmented, averaged at test"
# Titles of the errors: mean square of positions, mean absolute energy, mean absolute component of forces.
QUANTITIES = {"mse": "positions", "energy": "energy", "forces": "forces"}
EXACT = {"averaged", "updates", "sampled", "egnn", "distances", AT_TEST}


# --- the networks


class Distances(nn.Module):
    """Message passing on distances alone; with ``move`` it also moves points along their differences, as EGNN does."""

    def __init__(self, in_features: int, in_vectors: int, width: int, depth: int, move: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(in_features + in_vectors, width)
        self.end_points = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.pair_terms = nn.ModuleList(nn.Linear(25, width) for _ in range(depth))
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
            difference = x[:, None] - x[:, :, None]
            square = difference.square().sum(-1, keepdim=True)
            shells = torch.exp(-((square + 0.01).sqrt() - self.shells).square() * 7.35)  # width equals spacing
            pair_term = self.pair_terms[i](torch.cat((shells, torch.log1p(square)), -1))
            receiver, sender = self.end_points[i](h).chunk(2, -1)
            m = message(receiver[:, :, None] + sender[:, None] + pair_term) * pairs
            if self.push:
                x = x + (self.push[i](m) * pairs * difference).sum(2)
            if self.coast:
                x = x + self.coast[i](h) * v[:, :, 0]
            h = h + self.updates[i](torch.cat((h, m.sum(2)), -1))
        return PointOutputs(x, x[:, :, None], self.read(h) * mask[..., None])


def build(method: str, task: Task, width: int, depth: int) -> nn.Module:
    """Build the network of a method with random initial weights."""
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
    """Return the samples with predictions in place of the targets."""
    conservative = samples.forces.shape[1] > 0
    with torch.set_grad_enabled(conservative or net.training):
        x = samples.x.detach().requires_grad_(conservative)
        points, _, invariants = net(x, samples.features, samples.v, samples.mask)
        energy, forces = invariants.sum((1, 2)), samples.forces
        if conservative:
            (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=net.training)
            forces = -gradient
    return samples._replace(points=points if samples.points.shape[1] else samples.points, energy=energy, forces=forces)


def loss_of(predicted: Samples, target: Samples) -> Tensor:
    """Compute the loss: squared errors of positions and forces, absolute errors of energies."""
    if target.points.shape[1]:
        return (predicted.points - target.points).square().mean()
    error = (predicted.energy - target.energy).abs().mean()
    return error + (predicted.forces - target.forces).square().sum(-1).mean() if target.forces.shape[1] else error


def predict_all(net: nn.Module, samples: Samples) -> Samples:
    """Predict in evaluation mode, 50 samples at a time."""
    net.eval()
    parts = [predict(net, samples[i : i + 50]) for i in range(0, len(samples.x), 50)]
    return Samples(*(torch.cat(column).detach() for column in zip(*parts, strict=True)))


def errors(predicted: Samples, target: Samples, task: Task) -> dict[str, float]:
    """Compute the mean square error of positions, or the mean absolute errors of energies and of force components.

    Energies are in kcal/mol, forces in kcal/mol/angstrom.
    """
    if target.points.shape[1]:
        return {"mse": float((predicted.points - target.points).square().mean())}
    values = {"energy": float((predicted.energy - target.energy).abs().mean()) * task.unit}
    if target.forces.shape[1]:
        values["forces"] = float((predicted.forces - target.forces)[target.mask].abs().mean()) * task.unit
    return values


def measure(net: nn.Module, task: Task) -> dict[str, Any]:
    """Compute the errors on the test samples as stored and randomly transformed, and the equivariance error."""
    q = random_orthogonal(len(task.test.x), seed=1)
    transformed = task.test.transform(q)
    start = time.process_time()
    as_stored = predict_all(net, task.test)
    seconds = time.process_time() - start
    predicted = predict_all(net, transformed)
    expected = as_stored.transform(q)
    if task.test.points.shape[1]:  # relative to displacements, not positions
        scale, differences = as_stored.points - task.test.x, predicted.points - expected.points
    elif task.test.forces.shape[1]:
        scale, differences = as_stored.forces, predicted.forces - expected.forces
    else:
        scale, differences = as_stored.energy - as_stored.energy.mean(), predicted.energy - expected.energy
    return {
        "as stored": errors(as_stored, task.test, task),
        "turned": errors(predicted, transformed, task),
        "equivariance": float((differences.square().mean() / scale.square().mean()).sqrt()),
        "test seconds": seconds,
    }


def batches(samples: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """Yield batches of the samples in random order, epoch after epoch."""
    while True:
        yield from (samples[rows] for rows in torch.randperm(len(samples.x), generator=generator).split(size))


def train(method: str, task: Task, seed: int, args: argparse.Namespace) -> tuple[nn.Module, int, float]:
    """Train, and return the network with the best validation loss, the number of steps and their processor seconds."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = build(method, task, args.width, args.depth)
    optimizer = torch.optim.Adam(net.parameters())
    best, best_loss, steps, seconds, validations, progress = net.state_dict(), math.inf, 0, 0.0, 0, 0.0
    stream = batches(task.train, task.batch, generator)
    while progress < 1:
        batch = next(stream)
        start = time.process_time()
        net.train()
        if method == "augmented":
            batch = batch.transform(HaarFrame("O", generator=generator)(batch.x).rotations[:, 0])
        for group in optimizer.param_groups:
            group["lr"] = task.rate * (1 + math.cos(math.pi * progress)) / 2
        optimizer.zero_grad()
        loss_of(predict(net, batch), batch).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        steps, seconds = steps + 1, seconds + time.process_time() - start
        progress = steps / 3 if args.quick else seconds / args.budget
        if progress * 10 >= validations + 1:
            validations = int(progress * 10)
            loss = float(loss_of(predict_all(net, task.val), task.val))
            if loss < best_loss:
                best, best_loss = copy.deepcopy(net.state_dict()), loss
    net.load_state_dict(best)
    return net, steps, seconds


def runs(task: Task, method: str, seed: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train and yield one row, and for the augmented network a second one: the same weights averaged at test."""
    net, steps, seconds = train(method, task, seed, args)
    row = {"task": task.name, "method": method, "seed": seed, "budget": args.budget, "quick": args.quick}
    cost = {"steps": steps, "seconds": seconds, "parameters": sum(p.numel() for p in net.parameters())}
    yield row | cost | measure(net, task)
    if method == "augmented":
        net.net.frame = PointFrame()
        yield row | {"method": AT_TEST} | cost | measure(net, task)


# --- tables


def by_task_and_method(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group the rows by task and method, in a fixed order; leave out methods no longer run."""
    first, second, *others = TRAININGS
    cells = {(task, method): [] for task in TASKS for method in (first, second, AT_TEST, *others)}
    for row in rows:
        if (cell := (row["task"], row["method"])) in cells:
            cells[cell].append(row)
    return {cell: found for cell, found in cells.items() if found}


def error_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the test errors, one line per task, quantity and method: mean, lowest and highest of the seeds."""
    lines = []
    for (task, method), found in by_task_and_method(rows).items():
        for quantity in found[0]["turned"]:
            cells = []
            for key in ("turned", "as stored"):
                values = [row[key][quantity] for row in found]
                cells += [f"{value:.3g}" for value in (statistics.mean(values), min(values), max(values))]
            lines.append([task, QUANTITIES[quantity], method, *cells])
    lines.sort(key=lambda line: (TASKS.index(line[0]), list(QUANTITIES.values()).index(line[1])))
    ends = ["lowest", "highest"]
    return markdown_table(["task", "error of", "training", "transformed", *ends, "as stored", *ends], lines)


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the steps, the equivariance error and the time of the test, means over seeds."""
    lines = []
    for (task, method), found in by_task_and_method(rows).items():
        steps, error, seconds = (mean_of(found, key) for key in ("steps", "equivariance", "test seconds"))
        lines.append([task, method, len(found), f"{steps:.0f}", f"{error:.1e}", f"{seconds:.2f}"])
    return markdown_table(["task", "training", "seeds", "steps", "equivariance error", "test s"], lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run what the file lacks and print the tables of the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--budget", type=float, default=60.0, help="processor seconds of training")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to which rows are appended")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="three steps on a few samples")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)  # times are those of one thread
    rows = read_rows(args.out)
    key = ("task", "method", "seed", "budget", "quick")
    known = {tuple(row[part] for part in key) for row in rows}
    for name in args.tasks:
        task = load_task(name, args.quick)
        for seed in range(args.seeds):
            for method in args.methods:
                last = AT_TEST if method == "augmented" else method
                cannot_move = name == "nbody" and method == "distances"  # distances alone predict no positions
                if cannot_move or (name, last, seed, args.budget, args.quick) in known:
                    continue
                for row in runs(task, method, seed, args):
                    rows.append(row)
                    append_row(args.out, row)
                    print(json.dumps(row), flush=True)
    shown = [row for row in rows if row["quick"] == args.quick and row["budget"] == args.budget]
    print(error_table(shown), cost_table(shown), sep="\n\n")
    return rows


if __name__ == "__main__":
    main()
