# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. Molecules
#
# A molecule is a cloud of points with symbols, and its energy does not care how it lies in space. This page takes
# pyridine from a file, shows it to a network that knows nothing of geometry, and makes the network exact with a frame:
# energies that stay, dipoles that turn along, forces that do not turn the molecule by themselves.

# %%
# %matplotlib inline
import torch
from torch import nn

from gconv_ga.frames import DegenerateFrameError, FrameAverage, PCAFrame, PointFrame
from gconv_ga.plots import PALETTE, Cloud, chart, cloud_figure

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Pyridine, C5H5N
#
# The XYZ format: the number of atoms, a comment, then one atom a line, in angstrom. (The MP2(full)/6-31G(d) geometry of
# the G2 set: Curtiss et al., J. Chem. Phys. 106, 1063, 1997.)

# %%
XYZ = """\
11
pyridine
N   0.000000   0.000000   1.424672
C   0.000000   0.000000  -1.386178
C   0.000000   1.144277   0.720306
C   0.000000  -1.144277   0.720306
C   0.000000  -1.196404  -0.672917
C   0.000000   1.196404  -0.672917
H   0.000000   0.000000  -2.473052
H   0.000000   2.060723   1.307477
H   0.000000  -2.060723   1.307477
H   0.000000  -2.155293  -1.183103
H   0.000000   2.155293  -1.183103
"""


def read_xyz(text):
    """Symbols and positions [N, 3]."""
    rows = [line.split() for line in text.splitlines()[2:]]
    assert len(rows) == int(text.split()[0])
    return [row[0] for row in rows], torch.tensor([[float(number) for number in row[1:4]] for row in rows])


symbols, pyridine = read_xyz(XYZ)
bonds = [(i, j) for i in range(11) for j in range(i) if (pyridine[i] - pyridine[j]).norm() < 1.6]
look = {"symbols": symbols, "bonds": bonds}


def random_turn(seed):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q * r.diagonal().sign()


views = [pyridine @ random_turn(seed).mT for seed in range(4)]
cloud_figure([[Cloud(x, f"turned at random, {n + 1}", **look) for n, x in enumerate(views)]])

# %% [markdown]
# ## A network that knows nothing of geometry, and its average over a frame
#
# A perceptron on the 33 coordinates gives an energy and a dipole. Nothing in it knows that space can be turned.
# `FrameAverage` is told how each input and output moves, and does the rest:
#
# $$\Phi(x) = \sum_{(R,\,t) \in F(x)} w\; \rho_2(R, t)\; \varphi\big(R^{\mathsf T} (x - t)\big)$$


# %%
class Perceptron(nn.Module):
    def __init__(self, atoms=11, width=128):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * atoms, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.energy, self.dipole = nn.Linear(width, 1), nn.Linear(width, 3)

    def forward(self, x):
        hidden = self.body(x)
        return {"energy": self.energy(hidden)[:, 0], "dipole": self.dipole(hidden)}


phi = Perceptron()
frame = PointFrame("E")
Phi = FrameAverage(phi, frame, "points", {"energy": "invariant", "dipole": "vector"})
print("elements in the frame of pyridine:", frame(pyridine[None]).counts.tolist())

turns = [random_turn(seed) for seed in range(20)]
turns = [q if n % 2 else -q for n, q in enumerate(turns)]  # every other one is a mirror image
moved = torch.stack([pyridine @ q.mT + 5 * torch.randn(3) for q in turns])
with torch.no_grad():
    plain, mean, upright = phi(moved), Phi(moved), Phi(pyridine[None])

assert mean["energy"].max() - mean["energy"].min() < 1e-12
for q, dipole in zip(turns, mean["dipole"], strict=True):
    assert torch.allclose(dipole, q @ upright["dipole"][0], rtol=0, atol=1e-12)
assert plain["energy"].std() > 1e-2

figure, axes = chart("pose", "energy", size=(5.5, 2.6))
axes.plot(plain["energy"], "o", color=PALETTE[1], label=r"$\varphi$")
axes.plot(mean["energy"], "s", color=PALETTE[0], label=r"$\Phi$")
axes.set_xticks(range(0, 20, 5))
axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# ## Forces
#
# Forces are the negative gradient of the energy. If the energy does not change when all atoms are moved or turned
# together, the forces sum to zero and so do their torques: the molecule does not set off or spin by itself. For the
# plain network neither holds. The gradient goes through the frame as well, which is why it is exact.


# %%
def forces(model, x):
    x = x.clone().requires_grad_()
    return -torch.autograd.grad(model(x)["energy"].sum(), x)[0]


bent = pyridine + 0.1 * torch.randn(11, 3)
arrows = {}
for name, model in (("plain network", phi), ("frame averaged", Phi)):
    force = forces(model, bent[None])[0]
    net_force, torque = force.sum(0).norm(), torch.linalg.cross(bent - bent.mean(0), force).sum(0).norm()
    print(f"{name:15} net force {net_force / force.norm():.0e}, net torque {torque / force.norm():.0e} angstrom")
    arrows[name] = 1.6 * force / force.norm(dim=1).max()
    assert (torque / force.norm() < 1e-12) == (model is Phi)

q = turns[0]
assert torch.allclose(forces(Phi, (bent @ q.mT)[None])[0], forces(Phi, bent[None])[0] @ q.mT, rtol=0, atol=1e-10)
cloud_figure(
    [[Cloud(bent, name, arrows=arrow, **look) for name, arrow in arrows.items()]], reach=3.6, view=(15.0, 10.0)
)

# %% [markdown]
# ## Does it learn?
#
# A target we can compute: the repulsion of the nuclei, $\sum_{i<j} Z_i Z_j / r_{ij}$, of strained copies of pyridine.
# All copies to learn from lie as in the file; test copies are shown as they are and turned at random. Three ways to
# train the same perceptron for the same number of steps: as it is; through its frame, with one element drawn at each
# step; and through all elements. For a fourth the plain one is averaged after training.

# %%
charges = torch.tensor([{"H": 1.0, "C": 6.0, "N": 7.0}[symbol] for symbol in symbols])
first, second = torch.triu_indices(11, 11, offset=1)


def repulsion(x):
    return (charges[first] * charges[second] / (x[:, first] - x[:, second]).norm(dim=-1)).sum(-1)


def strained_copies(count, seed):
    generator = torch.Generator().manual_seed(seed)
    strain = 0.1 * torch.randn(count, 3, 3, generator=generator)
    return pyridine @ (torch.eye(3) + (strain + strain.mT) / 2) + 0.02 * torch.randn(count, 11, 3, generator=generator)


test = strained_copies(256, 1)
test_turned = torch.stack([x @ random_turn(n).mT for n, x in enumerate(test)])
middle, spread = repulsion(test).mean(), repulsion(test).std()


def learn(wrap, steps=400):
    torch.manual_seed(1)
    model = wrap(Perceptron())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for step in range(steps):
        batch = strained_copies(64, 1000 + step)
        loss = (model(batch)["energy"] - (repulsion(batch) - middle) / spread).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def averaged(samples):
    actions = {"energy": "invariant", "dipole": "vector"}
    return lambda module: FrameAverage(module, frame, "points", actions, train_samples=samples)


@torch.no_grad()
def error(model, x):
    """Root mean square error in units of the target's standard deviation: 1 is what a constant achieves."""
    return ((model(x)["energy"] - (repulsion(x) - middle) / spread).square().mean().sqrt()).item()


plain_net = learn(lambda module: module)
learnt = {
    "plain": plain_net,
    "averaged\nafterwards": averaged(None)(plain_net),
    "one element\na step": learn(averaged(1)),
    "all elements": learn(averaged(None)),
}
scores = {name: (error(model, test), error(model, test_turned)) for name, model in learnt.items()}
for name, (lying, turned) in scores.items():
    print(f"{' '.join(name.split()):20} as in the file {lying:.2f}, turned {turned:.2f}")
    assert abs(lying - turned) < 1e-9 or name == "plain"
assert scores["plain"][1] > 2 * scores["plain"][0]

figure, axes = chart("", "error on test molecules", size=(6.0, 3.0))
places = torch.arange(4.0)
for shift, column, colour, label in ((-0.18, 0, PALETTE[0], "as in the file"), (0.18, 1, PALETTE[1], "turned")):
    axes.bar(places + shift, [scores[name][column] for name in scores], 0.34, color=colour, label=label)
axes.axhline(1, color=PALETTE[6], linewidth=1, linestyle=":")
axes.text(3.5, 1.05, "a constant", ha="right", va="bottom", fontsize=9)
axes.set_yscale("log")
axes.set_ylim(0.05, 10)
axes.set_xticks(places, list(scores))
axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# Turn the molecules and the plain network is worse than a constant. Averaging it afterwards makes it equivariant, and
# little better: it has never seen a molecule from the frame's point of view. Trained through the frame it has, and the
# two bars are the same to the last digits, by construction.

# %% [markdown]
# ## Symmetric relatives
#
# Pyridine's principal axes are well defined. Those of benzene, its parent, are not: a hexagon has no longest direction.
# Nearly a third of the molecules of the G2 set that are no straight lines have such a tie, methane and ammonia too.
# The point frame takes them as they are, with an element for each symmetry.

# %%
around = torch.arange(6) * torch.pi / 3
ring = torch.stack((torch.zeros(6), around.cos(), around.sin()), dim=-1)
benzene = torch.cat((1.395 * ring, 2.482 * ring))
dress = {"symbols": "CCCCCCHHHHHH", "bonds": [(i, (i + 1) % 6) for i in range(6)] + [(i, i + 6) for i in range(6)]}
PCAFrame("E")(pyridine[None])
try:
    PCAFrame("E")(benzene[None])
except DegenerateFrameError as problem:
    print("benzene:", problem)
found = frame(benzene[None])
different = torch.unique(found.rotations[0].round(decimals=9) + 0.0, dim=0)
print(f"the point frame of benzene: {int(found.counts)} elements, {len(different)} of them different")
assert len(different) == 24  # the order of the symmetry group D6h

rings = FrameAverage(Perceptron(12), frame, "points", {"energy": "invariant", "dipole": "vector"})
with torch.no_grad():
    energies = rings(torch.stack([benzene @ q.mT for q in turns]))["energy"]
    assert energies.max() - energies.min() < 1e-12
cloud_figure(
    [
        [
            Cloud(pyridine, "pyridine", frames=frame(pyridine[None]), **look),
            Cloud(benzene, "benzene", frames=frame(benzene[None]), **dress),
        ]
    ],
    view=(12.0, 20.0),
)
