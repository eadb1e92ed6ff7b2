"""The tasks of molecules.py: a simulated system of charges, and molecules read with ASE."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gconv_ga.frames import HaarFrame

DATA = Path(os.environ.get("GCONV_GA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "molecules"
TASKS = ("nbody", "qm7", "ethanol")


class Samples(NamedTuple):
    """Clouds and what is to be found; for a task that has no such thing, a tensor without components.

    Shape:
        - x: ``[S, N, 3]``, padding is 0
        - features: ``[S, N, F]``
        - v: ``[S, N, 0 or 1, 3]``, velocities
        - mask: ``[S, N]``
        - points: ``[S, N or 0, 3]``, later positions
        - energy: ``[S]``, in the task's unit
        - forces: ``[S, N or 0, 3]``, in the task's unit
    """

    x: Tensor
    features: Tensor
    v: Tensor
    mask: Tensor
    points: Tensor
    energy: Tensor
    forces: Tensor

    def __getitem__(self, at: Any) -> "Samples":
        return Samples(*(value[at] for value in self))

    def turned(self, turns: Tensor) -> "Samples":
        """Each sample under its own rotation or mirror, ``[S, 3, 3]``."""
        v = self.v @ turns[:, None].mT
        return self._replace(x=self.x @ turns.mT, v=v, points=self.points @ turns.mT, forces=self.forces @ turns.mT)


class Task(NamedTuple):
    """Samples, the unit of their energies (kcal/mol) and forces (kcal/mol/angstrom), and how to train on them.

    With the learning rate of the others some networks end as a constant on QM7.
    """

    name: str
    train: Samples
    val: Samples
    test: Samples
    unit: float = 1.0
    batch: int = 50
    rate: float = 5e-3


def random_turns(count: int, seed: int) -> Tensor:
    """Rotations and mirrors, ``[count, 3, 3]``."""
    frame = HaarFrame("O", generator=torch.Generator().manual_seed(seed))
    return frame(torch.zeros(count, 1, 3)).rotations[:, 0]


def simulate(count: int, seed: int, particles: int = 5, until: float = 1.5, step: float = 0.005) -> Samples:
    """Charges of +1 and -1 under a Coulomb force that is soft at short distances (0.3); leapfrog."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, particles, 3, generator=generator, dtype=torch.float64)
    v = torch.randn(count, particles, 3, generator=generator, dtype=torch.float64) / 2
    q = torch.randint(0, 2, (count, particles, 1), generator=generator).double() * 2 - 1

    def acceleration(x: Tensor) -> Tensor:
        apart = x[:, :, None] - x[:, None]
        strength = q[:, :, None] * q[:, None] / (apart.square().sum(-1, keepdim=True) + 0.09) ** 1.5
        return (strength * apart).sum(2)

    now, speed = x, v + step / 2 * acceleration(x)
    for _ in range(round(until / step)):
        now = now + step * speed
        speed = speed + step * acceleration(now)
    mask = torch.ones(count, particles, dtype=torch.bool)
    nothing = torch.zeros(count)
    return Samples(x.float(), q.float(), v.float()[:, :, None], mask, now.float(), nothing, x.float()[:, :0])


def read_molecules(file: str, elements: str, with_forces: bool) -> Task:
    """The molecules of a file, by its own split; energies less a least-squares sum over elements.

    The unit is the root mean square of the forces, or the standard deviation of the energies if there are no forces.
    """
    import ase.io

    atoms = ase.io.read(DATA / file, ":")
    size = max(len(a) for a in atoms)
    x, features = torch.zeros(len(atoms), size, 3), torch.zeros(len(atoms), size, len(elements))
    forces, mask = torch.zeros(len(atoms), size if with_forces else 0, 3), torch.zeros(len(atoms), size).bool()
    for row, a in enumerate(atoms):
        x[row, : len(a)], mask[row, : len(a)] = torch.from_numpy(a.positions), True
        features[row, torch.arange(len(a)), [elements.index(s) for s in a.get_chemical_symbols()]] = 1
        if with_forces:
            forces[row, : len(a)] = torch.from_numpy(a.get_forces())
    stored = "atomization_energy_kcal_mol"
    energies = [a.info[stored] if stored in a.info else a.get_potential_energy() for a in atoms]
    energy = torch.tensor(energies, dtype=torch.float64)
    split = [a.info["split"] for a in atoms]
    part = {name: torch.tensor([s == name for s in split]) for name in ("train", "val", "test")}
    counts = features.sum(1).double()
    known = part["train"]
    energy = energy - counts @ torch.linalg.lstsq(counts[known], energy[known, None], driver="gelsd").solution[:, 0]
    unit = float(forces[known][mask[known]].square().sum(-1).mean().sqrt() if with_forces else energy[known].std())
    none = torch.zeros(len(atoms), size, 0, 3)
    everything = Samples(x, features, none, mask, x[:, :0], (energy / unit).float(), forces / unit)
    return Task(file, *(everything[chosen] for chosen in part.values()), unit, batch=10)


def load_task(name: str, quick: bool) -> Task:
    """The task, or a few samples of it."""
    if name == "nbody":
        counts = (50, 20, 20) if quick else (1000, 500, 1000)
        return Task("nbody", *(simulate(count, seed) for seed, count in enumerate(counts)))
    file, elements = {"qm7": ("qm7_1000.extxyz", "HCNOS"), "ethanol": ("ethanol_md_400.extxyz", "HCO")}[name]
    task = read_molecules(file, elements, with_forces=name == "ethanol")._replace(name=name)
    if name == "qm7":
        task = task._replace(rate=2e-3)
    if quick:
        return task._replace(train=task.train[:20], val=task.val[:8], test=task.test[:8])
    return task
