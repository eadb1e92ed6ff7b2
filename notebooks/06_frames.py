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
# # 5. Pre-processing and frames
#
# An average over all translations or all rotations of space is an integral. A frame replaces the group by a few
# elements that depend equivariantly on the input; with one element this is called pre-processing, or canonicalization.
# This notebook starts with the left eye of a cat, continues with the mean and the principal axes of a point cloud,
# shows that the axes fail on symmetric clouds, and ends with a frame that does not.

# %%
# %matplotlib inline
import math

import torch
import torch.nn.functional as F
from skimage import data
from torch import nn

from gconv_ga.frames import (
    Canonicalize,
    DegenerateFrameError,
    FrameAverage,
    LandmarkFrame,
    MeanFrame,
    PCAFrame,
    PointFrame,
    frame_equivariance_error,
)
from gconv_ga.plots import PALETTE, Cloud, Panel, chart, cloud_figure, panel_figure

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The cat's left eye
#
# The group consists of the translations of the image by whole pixels, with periodic boundaries. The frame has one
# element: the translation that takes the centre of the image to the cat's left eye (on our right). The eye is found at
# the largest normalized correlation with a template. This score is equivariant to translations, so the position moves
# with the cat.

# %%
photo = torch.tensor(data.chelsea()).permute(2, 0, 1)[None, :, :, :450] / 255  # licensed CC0 by the photographer
cat = F.avg_pool2d(photo, 3)  # [1, 3, 100, 150]
template = cat[:, :, 35:52, 98:115].mean(1, keepdim=True)
template = template - template.mean()
template = template / template.norm()


def correlate(x, kernel):
    return F.conv2d(F.pad(x, (8, 8, 8, 8), mode="circular"), kernel)


def left_eye_score(x):
    grey = x.mean(1, keepdim=True)
    ones = torch.ones_like(template)
    mean = correlate(grey, ones) / ones.numel()
    norm = (correlate(grey.square(), ones) - ones.numel() * mean.square()).clamp_min(1e-3).sqrt()
    return (correlate(grey, template) / norm)[:, 0]


eye = LandmarkFrame(left_eye_score)
cats = [cat, torch.roll(cat, (20, -55), (-2, -1)), torch.roll(cat, (-25, 30), (-2, -1))]


def landmark(frames, x, element=0):
    """The position of the landmark according to the frame, in pixels (right, down)."""
    t = frames.translations[0, element]
    return float(t[0]) + x.shape[-1] // 2, float(t[1]) + x.shape[-2] // 2


canonical = Canonicalize(lambda x: x, eye, "image", "invariant")  # the input of the network
canonical_inputs = [canonical(x) for x in cats]
for each in canonical_inputs[1:]:
    assert torch.equal(each, canonical_inputs[0])

panel_figure(
    [
        [Panel(x[0], "$x$", marks=[landmark(eye(x), x)]) for x in cats],
        [Panel(y[0], r"$\rho(g)^{-1} x$,  $g = F(x)$", marks=[(75, 50)]) for y in canonical_inputs],
    ],
    labels=["input", "pre-processed"],
)

# %% [markdown]
# $$\langle\Phi\rangle_F(x) = \rho_2(g)\; \Phi\big(\rho_1(g)^{-1} x\big), \qquad g = F(x), \qquad F(h\, x) = h\, F(x)$$
#
# Take for $\Phi$ a network that depends on absolute positions: a spotlight on the centre of the image. Alone it stays
# in place when the cat moves. Between the pre-processing and its inverse, the same spotlight follows the eye.

# %%
rows, columns = torch.meshgrid(torch.arange(100.0) - 50, torch.arange(150.0) - 75, indexing="ij")
light = torch.exp(-(rows**2 + columns**2) / 300)


def spotlight(x):
    return x * (0.25 + 0.75 * light)


follows = Canonicalize(spotlight, eye, "image", "image")
for shift, x in ((20, -55), cats[1]), ((-25, 30), cats[2]):
    translated = torch.roll(follows(cat), shift, (-2, -1))
    assert torch.allclose(follows(x), translated, rtol=0, atol=1e-12)
    assert not torch.allclose(spotlight(x), torch.roll(spotlight(cat), shift, (-2, -1)), rtol=0, atol=0.1)

panel_figure(
    [[Panel(spotlight(x)[0]) for x in cats], [Panel(follows(x)[0]) for x in cats]],
    labels=[r"$\Phi$ alone", "with the frame"],
)

# %% [markdown]
# One element suffices only if there is one left eye. In the average of the image and its reflection, two positions have
# the same score, and the score cannot prefer one of them. The frame then has two elements, pre-processing is refused,
# and the average over both elements is equivariant.

# %%
symmetric = (cat + cat.flip(-1)) / 2


def eye_score(x):
    return torch.maximum(left_eye_score(x), left_eye_score(x.flip(-1)).flip(-1))


eyes = LandmarkFrame(eye_score)
frames = eyes(symmetric)
print("elements:", frames.counts.tolist(), "weights:", frames.weights.tolist())
assert frames.counts.tolist() == [2]
try:
    Canonicalize(spotlight, eyes, "image", "image")(symmetric)
except DegenerateFrameError as error:
    print("Canonicalize:", error)
both = FrameAverage(spotlight, eyes, "image", "image")
assert torch.allclose(both(torch.roll(symmetric, 30, -1)), torch.roll(both(symmetric), 30, -1), rtol=0, atol=1e-12)
panel_figure(
    [
        [
            Panel(symmetric[0], "$F(x)$ has two elements", marks=[landmark(frames, symmetric, i) for i in (0, 1)]),
            r"$\to$",
            Panel(both(symmetric)[0], "mean over both"),
        ]
    ]
)

# %% [markdown]
# ## The mean frame on $R^n$
#
# For point clouds, translations have a frame that is always well defined: $F(x) = \{\text{mean}(x)\}$, so
#
# $$\langle\Phi\rangle_F(x) = \Phi(x - \bar x) + \bar x.$$
#
# Below, a random network moves each point by an amount that depends on its position. Arrows show the displacements.

# %%
points = torch.tensor([[-1.2, -0.5], [-0.7, 0.6], [0.1, -0.2], [0.5, 0.75], [1.4, 0.1], [0.7, -0.6]])
field = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).requires_grad_(False)
field[2].weight *= 2


def move(x):
    return x + field(2 * x)


averaged = FrameAverage(move, MeanFrame(), "points", "points")
shift = torch.tensor([2.5, -1.0])
assert torch.allclose(averaged(points[None] + shift), averaged(points[None]) + shift, rtol=0, atol=1e-12)
assert torch.allclose(averaged(points[None])[0], move(points - points.mean(0)) + points.mean(0), rtol=0, atol=1e-12)


def displacements(module, x, title):
    return Cloud(x, title, arrows=module(x[None])[0] - x)


cloud_figure(
    [
        [
            displacements(move, points, r"$\Phi$ at $x$"),
            displacements(move, points + shift, r"$\Phi$ at $x + t$"),
        ],
        [
            displacements(averaged, points, r"$\langle\Phi\rangle_F$ at $x$"),
            displacements(averaged, points + shift, r"$\langle\Phi\rangle_F$ at $x + t$"),
        ],
    ]
)

# %% [markdown]
# ## Principal axes, in the plane and in space
#
# For rotations and reflections the usual frame comes from principal component analysis: the mean is the origin, and the
# eigenvectors of the covariance are the axes, each with both signs. This gives $2^d$ elements, drawn on top of each
# other: first axes in blue, second in orange, third in green. They rotate with the cloud.


# %%
def rotation(degrees):
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def random_orthogonal(seed):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q * r.diagonal().sign()


body = torch.tensor([[-1.3, -0.2, 0.1], [0.4, 0.7, -0.5], [1.2, -0.6, 0.2], [0.1, 0.3, 0.8], [-0.4, -0.3, -0.6]])
bones = [(0, 4), (4, 2), (2, 1), (1, 3)]
flat, solid = PCAFrame("E", 2), PCAFrame("E", 3)


def with_frame(frame, x, title="", **options):
    return Cloud(x, title, frames=frame(x[None]), **options)


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

# %%
for frame, x in ((flat, points), (solid, body)):
    print(f"equivariance error of the frame: {frame_equivariance_error(frame, x[None], group='E').max():.0e}")
    assert frame_equivariance_error(frame, x[None], group="E").max() < 1e-10

# %% [markdown]
# ## Where they fail
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
# compute its frame, and rotate both back, so that all pictures of a row should be equal.

# %%
methane = torch.tensor(
    [[0.0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [0.63, -0.63, -0.63], [-0.63, 0.63, -0.63]]
)
look = {"symbols": "CHHHH", "bonds": [(0, 1), (0, 2), (0, 3), (0, 4)]}
pca_3d, point_3d = PCAFrame("E", 3, degenerate="ignore"), PointFrame("E", 3)


def rotated_back(frame, q, title=""):
    elements = frame((methane @ q.mT)[None])
    back = type(elements)(q.mT @ elements.rotations, elements.translations @ q, elements.weights)
    return Cloud(methane, title, frames=back, **look)


rotations = [random_orthogonal(seed) for seed in (3, 4, 5)]
print("elements of the point frame:", point_3d(methane[None]).counts.tolist())
assert point_3d(methane[None]).counts.tolist() == [24]  # the order of the symmetry group of the tetrahedron
assert frame_equivariance_error(point_3d, methane[None], group="E").max() < 1e-10
assert frame_equivariance_error(pca_3d, methane[None], group="E").max() > 1e-2
cloud_figure(
    [[rotated_back(pca_3d, q) for q in rotations], [rotated_back(point_3d, q) for q in rotations]],
    labels=["principal axes", "farthest points"],
)
