"""Tasks of molecules.py: a simulated system of charges, and molecules read with ASE."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gconv_ga.frames import HaarFrame

DATA = Path(os.environ.get("GCONV_GA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "molecules"
TASKS = ("nbody", "qm7", "ethanol")


class Samples(NamedTuple):
    """Point clouds and their targets. A quantity that a task does not have is an empty tensor.

    Shape:
        - x: ``[S, N, 3]``, padded with 0
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

    def transform(self, q: Tensor) -> "Samples":
        """Apply to each sample its own orthogonal matrix, ``[S, 3, 3]``."""
        v = self.v @ q[:, None].mT
        return self._replace(x=self.x @ q.mT, v=v, points=self.points @ q.mT, forces=self.forces @ q.mT)


class Task(NamedTuple):
    """Samples, the unit of their energies (kcal/mol) and forces (kcal/mol/angstrom), and settings of the training."""

    name: str
    train: Samples
    val: Samples
    test: Samples
    unit: float = 1.0
    batch: int = 50
    rate: float = 5e-3


def random_orthogonal(count: int, seed: int) -> Tensor:
    """Draw rotations and reflections, ``[count, 3, 3]``."""
    frame = HaarFrame("O", generator=torch.Generator().manual_seed(seed))
    return frame(torch.zeros(count, 1, 3)).rotations[:, 0]


def simulate(count: int, seed: int, particles: int = 5, until: float = 1.5, step: float = 0.005) -> Samples:
    """Simulate charges of +1 and -1 under a Coulomb force softened at short distances (0.3), by the leapfrog method."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, particles, 3, generator=generator, dtype=torch.float64)
    v = torch.randn(count, particles, 3, generator=generator, dtype=torch.float64) / 2
    q = torch.randint(0, 2, (count, particles, 1), generator=generator).double() * 2 - 1

    def acceleration(x: Tensor) -> Tensor:
        difference = x[:, :, None] - x[:, None]
        strength = q[:, :, None] * q[:, None] / (difference.square().sum(-1, keepdim=True) + 0.09) ** 1.5
        return (strength * difference).sum(2)

    position, velocity = x, v + step / 2 * acceleration(x)
    for _ in range(round(until / step)):
        position = position + step * velocity
        velocity = velocity + step * acceleration(position)
    mask = torch.ones(count, particles, dtype=torch.bool)
    no_energy = torch.zeros(count)
    return Samples(x.float(), q.float(), v.float()[:, :, None], mask, position.float(), no_energy, x.float()[:, :0])


def read_molecules(file: str, elements: str, with_forces: bool) -> Task:
    """Read the molecules of a file with its own split, and subtract from energies a least-squares sum over elements.

    The unit is the root mean square of the forces, or the standard deviation of the energies if there are no forces.

    Args:
        file: Name of the file in the folder of the data.
        elements: Chemical symbols, one letter each.
        with_forces: Whether the file has forces.
    """
    import ase.io

    molecules = ase.io.read(DATA / file, ":")
    size = max(len(molecule) for molecule in molecules)
    x, features = torch.zeros(len(molecules), size, 3), torch.zeros(len(molecules), size, len(elements))
    forces, mask = torch.zeros(len(molecules), size if with_forces else 0, 3), torch.zeros(len(molecules), size).bool()
    for row, molecule in enumerate(molecules):
        count = len(molecule)
        x[row, :count], mask[row, :count] = torch.from_numpy(molecule.positions), True
        features[row, torch.arange(count), [elements.index(s) for s in molecule.get_chemical_symbols()]] = 1
        if with_forces:
            forces[row, :count] = torch.from_numpy(molecule.get_forces())
    key = "atomization_energy_kcal_mol"
    energies = [m.info[key] if key in m.info else m.get_potential_energy() for m in molecules]
    energy = torch.tensor(energies, dtype=torch.float64)
    split = [molecule.info["split"] for molecule in molecules]
    parts = {name: torch.tensor([each == name for each in split]) for name in ("train", "val", "test")}
    counts = features.sum(1).double()
    train = parts["train"]
    energy = energy - counts @ torch.linalg.lstsq(counts[train], energy[train, None], driver="gelsd").solution[:, 0]
    unit = float(forces[train][mask[train]].square().sum(-1).mean().sqrt() if with_forces else energy[train].std())
    no_velocities = torch.zeros(len(molecules), size, 0, 3)
    samples = Samples(x, features, no_velocities, mask, x[:, :0], (energy / unit).float(), forces / unit)
    return Task(file, *(samples[chosen] for chosen in parts.values()), unit, batch=10)


def load_task(name: str, quick: bool) -> Task:
    """Load a task, or a few samples of it."""
    if name == "nbody":
        counts = (50, 20, 20) if quick else (1000, 500, 1000)
        return Task("nbody", *(simulate(count, seed) for seed, count in enumerate(counts)))
    file, elements = {"qm7": ("qm7_1000.extxyz", "HCNOS"), "ethanol": ("ethanol_md_400.extxyz", "HCO")}[name]
    task = read_molecules(file, elements, with_forces=name == "ethanol")._replace(name=name)
    if name == "qm7":
        task = task._replace(rate=2e-3)  # at the rate of the other tasks some networks end as a constant
    if quick:
        return task._replace(train=task.train[:20], val=task.val[:8], test=task.test[:8])
    return task
