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
# # 6. Frames
#
# Averages over all rotations or all permutations are expensive or approximate. This notebook measures that, takes the
# three steps of frame averaging with the principal axes of a point cloud, shows that these axes fail on symmetric
# clouds, and ends with a frame that does not.

# %%
# %matplotlib inline
import math

import torch
from torch import nn

from gconv_ga import identities
from gconv_ga.averaging import PermutationAverage
from gconv_ga.frames import (
    DegenerateFrameError,
    FrameAverage,
    HaarFrame,
    PCAFrame,
    PointFrame,
    QuadratureFrame,
    frame_equivariance_error,
)
from gconv_ga.plots import PALETTE, Cloud, chart, cloud_figure

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
points = torch.tensor([[-1.2, -0.5], [-0.7, 0.6], [0.1, -0.2], [0.5, 0.75], [1.4, 0.1], [0.7, -0.6]])
body = torch.tensor([[-1.3, -0.2, 0.1], [0.4, 0.7, -0.5], [1.2, -0.6, 0.2], [0.1, 0.3, 0.8], [-0.4, -0.3, -0.6]])


def rotation(degrees):
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def random_orthogonal(seed):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q * r.diagonal().sign()


# %% [markdown]
# ## The price of the whole group: permutations
#
# The average over all orders of a set of $n$ members has $n!$ terms. `PermutationAverage` computes it exactly up to
# $n = 8$, and draws permutations at random beyond. The draws have an error that falls only with the square root of
# their number.


# %%
def reader(n):
    """A random network on n numbers that depends on their order."""
    torch.manual_seed(n)
    net = nn.Sequential(nn.Flatten(), nn.Linear(n, 32), nn.Tanh(), nn.Linear(32, 1)).requires_grad_(False)
    net[1].weight *= 3
    return net


draws, sizes = 100, range(3, 13)
errors, standard_errors = {}, {}
for n in sizes:
    numbers = torch.linspace(-1, 1, n).view(1, n, 1)
    sampled = PermutationAverage(reader(n), num_samples=draws, generator=torch.Generator().manual_seed(0))
    means, stderr = sampled(numbers.expand(50, n, 1), return_stderr=True)  # 50 trials
    standard_errors[n] = stderr.square().mean().sqrt().item()
    if n <= 8:
        exact = PermutationAverage(reader(n))
        assert torch.allclose(exact(numbers.flip(1)), exact(numbers), rtol=0, atol=1e-12)
        errors[n] = (means - exact(numbers)).square().mean().sqrt().item()
        assert errors[n] <= 1.5 * standard_errors[n] + 1e-12
print("standard error of", draws, "draws:", {n: round(each, 3) for n, each in standard_errors.items()})

figure, axes = chart("members of the set, $n$", "terms of the average", size=(7.0, 3.0))
axes.bar(sizes, [math.factorial(n) for n in sizes], color=[PALETTE[0] if n <= 8 else PALETTE[7] for n in sizes])
axes.axhline(draws, color=PALETTE[5], linewidth=1.5, linestyle="--")
axes.text(2.5, 1.5 * draws, f"{draws} draws", color=PALETTE[5], fontsize=9)
axes.set_yscale("log")
axes.set_xticks(sizes)
right = axes.twinx()
right.plot(sizes, list(standard_errors.values()), color=PALETTE[5], label="standard error")
right.plot(list(errors), list(errors.values()), "o", color=PALETTE[5], label="measured error")
right.set_ylabel(f"error of {draws} draws", color=PALETTE[5], fontsize=10.5)
right.tick_params(colors=PALETTE[5])
right.set_ylim(0, 0.08)
right.spines[["top", "left"]].set_visible(False)
right.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1.0), fontsize=9)
axes.set_title("blue: exact; grey: too many terms", fontsize=9, loc="left")
figure

# %% [markdown]
# ## The price of the whole group: rotations
#
# Over a continuous group the average is an integral with the Haar measure $\nu$,
#
# $$\langle\Phi\rangle_G(x) = \int_G \rho_2(g)\, \Phi\big(\rho_1(g)^{-1} x\big)\, d\nu(g).$$
#
# `QuadratureFrame` computes it at chosen rotations, `HaarFrame` at random ones. The picture shows the difference from
# the integral for a small smooth network. In the plane the error at equally spaced angles falls faster than any power
# of their number. Random rotations of space gain one digit with a hundred times as many.

# %%
flat_net = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1)).requires_grad_(False)
solid_net = nn.Sequential(nn.Flatten(), nn.Linear(15, 32), nn.Tanh(), nn.Linear(32, 1)).requires_grad_(False)


def invariant(net, frame, x):
    return FrameAverage(net, frame, "points", "invariant")(x[None]).item()


nodes = [2, 4, 6, 8, 12, 16, 24, 32]
integral = invariant(flat_net, QuadratureFrame("SO", 2, rule=256), points)
by_rule = [abs(invariant(flat_net, QuadratureFrame("SO", 2, rule=m), points) - integral) for m in nodes]
assert by_rule[-1] < 1e-8

counts = [4, 16, 64, 256, 1024]
integral = invariant(solid_net, QuadratureFrame("SO", 3, rule=15), body)
by_draws = []
for m in counts:
    frame = HaarFrame("SO", 3, num_samples=m, generator=torch.Generator().manual_seed(m))
    trials = [invariant(solid_net, frame, body) - integral for _ in range(16)]
    by_draws.append(math.sqrt(sum(e * e for e in trials) / len(trials)))
assert 2 < by_draws[0] / by_draws[2] < 8  # sixteen times as many draws: a quarter of the error

figure, axes = chart("number of rotations", "error", size=(6.0, 2.9))
axes.plot(nodes, by_rule, "o-", color=PALETTE[0], label="SO(2), equally spaced")
axes.plot(counts, by_draws, "s-", color=PALETTE[1], label="SO(3), at random")
axes.plot(counts, [by_draws[0] * (counts[0] / m) ** 0.5 for m in counts], ":", color=PALETTE[7], label="$1/\\sqrt{n}$")
axes.set_xscale("log")
axes.set_yscale("log")
axes.set_xticks([2, 4, 8, 16, 32, 64, 256, 1024], [2, 4, 8, 16, 32, 64, 256, 1024])
axes.minorticks_off()
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure

# %% [markdown]
# ## Frame averaging in three steps
#
# A frame has a few elements, and the average over it is exact. For rotations, reflections and translations the usual
# one comes from principal component analysis: the mean $t$ of the points is the origin, and the eigenvectors of their
# covariance are the axes $R$, each with both signs. This gives $2^d$ elements $(R, t)$ of the group $E(d)$. (It is
# generated by $O(d)$ and the translations, but not as a direct product: $(R, t)(R', t') = (R R', R t' + t)$, a
# semidirect one.)
#
# 1. Build coordinate systems that move along with the cloud: $F(x)$.
# 2. Represent the cloud in each of them, $R^T (x - t)$. These canonical poses are the same for every rotated copy.
#    Apply the network.
# 3. Carry the outputs back, $R\, y + t$, and average.
#
# In the picture $d = 2$, so there are four poses; the network moves each point along its arrow.

# %%
field = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).requires_grad_(False)
field[2].weight *= 1.5


def move(x):
    return x + field(2 * x)


def displaced(x, y, title="", **options):
    return Cloud(x, title, arrows=y - x, **options)


cloud = points @ rotation(40).mT
flat = PCAFrame("E", 2)
elements = flat(cloud[None])
poses = [(cloud - t) @ r for r, t in zip(elements.rotations[0], elements.translations[0], strict=True)]
back = [move(x) @ r.mT + t for x, r, t in zip(poses, elements.rotations[0], elements.translations[0], strict=True)]
average = FrameAverage(move, flat, "points", "points")
assert torch.allclose(average(cloud[None])[0], torch.stack(back).mean(0), rtol=0, atol=1e-12)


def one(k):
    return type(elements)(elements.rotations[:, k : k + 1], elements.translations[:, k : k + 1], torch.ones(1, 1))


cloud_figure(
    [
        [Cloud(cloud, f"$g_{k + 1}$", frames=one(k)) for k in range(4)],
        [displaced(x, move(x)) for x in poses],
        [*(displaced(cloud, y) for y in back), displaced(cloud, average(cloud[None])[0], "mean")],
    ],
    labels=["1. $F(x)$", r"2. $\Phi$ in each pose", "3. carried back"],
)

# %% [markdown]
# Their mean is equivariant: the frame rotates with the cloud (below: first axes in blue, second in orange, third in
# green), and the identity of notebook 5 holds for every rotation, reflection and translation.

# %%
bones = [(0, 4), (4, 2), (2, 1), (1, 3)]
solid = PCAFrame("E", 3)


def with_frame(frame, x, title="", **options):
    return Cloud(x, title, frames=frame(x[None]), **options)


for angle in (40, 100):
    turned = identities.frame_average_is_equivariant(
        move, flat, points[None], rotation(angle), torch.tensor([3.0, -1.0])
    )
    assert turned.error < 1e-10
for frame, x in ((flat, points), (solid, body)):
    print(f"equivariance error of the frame: {frame_equivariance_error(frame, x[None], group='E').max():.0e}")
    assert frame_equivariance_error(frame, x[None], group="E").max() < 1e-10

cloud_figure(
    [
        [with_frame(flat, points @ rotation(a).mT, f"rotated by {a}°") for a in (0, 40, 100)],
        [
            with_frame(solid, body @ q.mT, bonds=bones)
            for q in (torch.eye(3), random_orthogonal(1), random_orthogonal(2))
        ],
    ],
    labels=["in the plane", "in space"],
)

# %% [markdown]
# ## Where principal axes fail
#
# A square is symmetric under quarter turns, so its covariance is a multiple of the identity, and every axis is a
# principal axis. The axes that the eigenvalue routine returns depend on the smallest perturbation. Here the same square
# is shown four times, with its corners perturbed by about $10^{-9}$: above with its principal axes, below with the
# frame of the farthest points, which has all eight symmetries of the square.

# %%
square = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
sides = [(0, 1), (1, 2), (2, 3), (3, 0)]
pca = PCAFrame("E", 2, degenerate="ignore")
point = PointFrame("E", 2)
jitters = [1e-9 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
cloud_figure(
    [
        [with_frame(pca, square + j, bonds=sides) for j in jitters],
        [with_frame(point, square + j, bonds=sides) for j in jitters],
    ],
    labels=["principal axes", "farthest points"],
)

# %% [markdown]
# By default `PCAFrame` refuses such clouds with an error that names the sample. `PointFrame` keeps all near ties, with
# weights, so that the frame of a symmetric cloud has at least one element for each of its symmetries. It needs no
# eigenvalues.

# %%
try:
    PCAFrame("E", 2)(square[None])
except DegenerateFrameError as error:
    print(error)

corners = [math.tau * k / 6 for k in range(6)]
clouds = {
    "a generic cloud": points,
    "a rectangle": square * torch.tensor([1.5, 1.0]),
    "a triangle": torch.tensor([[math.cos(a), math.sin(a)] for a in corners[::2]]),
    "a square": square,
    "a hexagon": torch.tensor([[math.cos(a), math.sin(a)] for a in corners]),
}
print(f"\n{'':18}principal axes      farthest points")
for name, x in clouds.items():
    pca_error, point_error = (
        frame_equivariance_error(frame, x[None], group="E").max().item() for frame in (pca, point)
    )
    print(f"{name:18}{pca_error:8.0e}{point_error:20.0e}, {int(point(x[None]).counts)} elements")
    assert point_error < 1e-10
    assert (pca_error < 1e-10) == (name in ("a generic cloud", "a rectangle"))

# %% [markdown]
# The effect on a network: a small random network maps the square to a number, while the square rotates. The output of
# the network alone varies, that of the average over principal axes jumps, and that of the average over the point frame
# is constant.

# %%
net = nn.Sequential(nn.Flatten(), nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1)).requires_grad_(False)
net[1].weight *= 4  # strongly nonlinear: averages of a nearly linear network would hide the effect
by_axes = FrameAverage(net, pca, "points", "invariant")
by_points = FrameAverage(net, point, "points", "invariant")
angles = torch.arange(0, 91, 2.5).tolist()
rotated = torch.stack([square @ rotation(a).mT for a in angles])
constant = by_points(rotated)
assert constant.max() - constant.min() < 1e-12
assert by_axes(rotated).std() > 1e-3

figure, axes = chart("angle in degrees", "output", size=(6.0, 2.8))
axes.plot(angles, net(rotated), color=PALETTE[7], label="network alone")
axes.plot(angles, by_axes(rotated), "o", color=PALETTE[1], markersize=4, label="principal axes")
axes.plot(angles, constant, color=PALETTE[0], linewidth=2.5, label="farthest points")
axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# A frame should also be continuous. Compress the square along one side, let it return, and stretch it along a diagonal:
# as the cloud passes through the square the principal axes jump by 45 degrees, and the output jumps with them.


# %%
def stretched(t):
    """The square, compressed along a side (t < 0) or stretched along a diagonal (t > 0)."""
    along = torch.diag(torch.tensor([1 + t, 1.0]))
    return square @ (along if t < 0 else rotation(45) @ along @ rotation(-45))


near = torch.stack([stretched(-1e-6), stretched(1e-6)])
jumps = {
    "principal axes": by_axes(near).diff(dim=0).abs().item(),
    "farthest points": by_points(near).diff(dim=0).abs().item(),
}
print({name: f"{jump:.0e}" for name, jump in jumps.items()})
assert jumps["principal axes"] > 1e-2
assert jumps["farthest points"] < 1e-5

path = torch.linspace(-0.4, 0.4, 82).tolist()  # an even number, so that the square itself is left out
stretch = torch.stack([stretched(t) for t in path])
figure, axes = chart("compressed along a side  ←  square  →  stretched along a diagonal", "output", size=(6.0, 2.8))
axes.plot(path, by_axes(stretch), ".", color=PALETTE[1], label="principal axes")
axes.plot(path, by_points(stretch), color=PALETTE[0], linewidth=2.5, label="farthest points")
axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# In space the same happens with methane, a carbon atom in a tetrahedron of hydrogen atoms. We rotate the molecule,
# compute its frame, and rotate both back, so that all pictures of a row should be equal. Only the first axis of each
# element is drawn. The principal axes are two opposite arrows in a direction that rounding has chosen. The 24 elements
# of the point frame, one for each symmetry of the tetrahedron, have their first axes on the four bonds, six on each.

# %%
methane = torch.tensor(
    [[0.0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [0.63, -0.63, -0.63], [-0.63, 0.63, -0.63]]
)
look = {"symbols": "CHHHH", "bonds": [(0, 1), (0, 2), (0, 3), (0, 4)]}
pca_3d, point_3d = PCAFrame("E", 3, degenerate="ignore"), PointFrame("E", 3)


def rotated_back(frame, q, title=""):
    elements = frame((methane @ q.mT)[None])
    back = type(elements)(q.mT @ elements.rotations, elements.translations @ q, elements.weights)
    return Cloud(methane, title, frames=back, shown_axes=1, **look)


rotations = [random_orthogonal(seed) for seed in (3, 4, 5)]
print("elements of the point frame:", point_3d(methane[None]).counts.tolist())
assert point_3d(methane[None]).counts.tolist() == [24]  # the order of the symmetry group of the tetrahedron
assert frame_equivariance_error(point_3d, methane[None], group="E").max() < 1e-10
assert frame_equivariance_error(pca_3d, methane[None], group="E").max() > 1e-2
cloud_figure(
    [[rotated_back(pca_3d, q) for q in rotations], [rotated_back(point_3d, q) for q in rotations]],
    labels=["principal axes", "farthest points"],
    view=(15.0, 10.0),
)

# %% [markdown]
# Next: [7. Molecules](07_molecules.ipynb). To run this notebook: [its source](06_frames.py), and
# [how](README.md#to-run-them).
