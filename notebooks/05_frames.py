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
# An average over all translations or all rotations of space is an integral. A frame replaces it by a few group elements
# that move with the input: with one element this is called pre-processing, or canonicalisation. This page begins with
# the cat's left eye, goes on to the mean of a cloud and its principal axes, breaks these on symmetric clouds, and mends
# them.

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
# The group: translations of the image, by whole pixels, round the edges. The frame has one element: the translation
# that takes the middle of the picture to the cat's left eye (on our right). The eye is where the picture looks most
# like an eye: the place of the largest normalised correlation with a template. That score commutes with translations,
# so the place moves with the cat.

# %%
photo = torch.tensor(data.chelsea()).permute(2, 0, 1)[None, :, :, :450] / 255  # the photographer put it under CC0
cat = F.avg_pool2d(photo, 3)  # [1, 3, 100, 150]
template = cat[:, :, 35:52, 98:115].mean(1, keepdim=True)
template = template - template.mean()
template = template / template.norm()


def wrapped(x, kernel):
    return F.conv2d(F.pad(x, (8, 8, 8, 8), mode="circular"), kernel)


def looks_like_the_left_eye(x):
    grey = x.mean(1, keepdim=True)
    ones = torch.ones_like(template)
    mean = wrapped(grey, ones) / ones.numel()
    norm = (wrapped(grey.square(), ones) - ones.numel() * mean.square()).clamp_min(1e-3).sqrt()
    return (wrapped(grey, template) / norm)[:, 0]


eye = LandmarkFrame(looks_like_the_left_eye)
cats = [cat, torch.roll(cat, (20, -55), (-2, -1)), torch.roll(cat, (-25, 30), (-2, -1))]


def place(frames, x, element=0):
    """Where the frame says that the landmark is, in pixels (right, down)."""
    t = frames.translations[0, element]
    return float(t[0]) + x.shape[-1] // 2, float(t[1]) + x.shape[-2] // 2


upright = Canonicalize(lambda x: x, eye, "image", "invariant")  # what a network would be shown
shown = [upright(x) for x in cats]
for each in shown[1:]:
    assert torch.equal(each, shown[0])

panel_figure(
    [
        [Panel(x[0], "$x$", marks=[place(eye(x), x)]) for x in cats],
        [Panel(y[0], r"$\rho(g)^{-1} x$,  $g = F(x)$", marks=[(75, 50)]) for y in shown],
    ],
    labels=["the cat moves", "pre-processed"],
)

# %% [markdown]
# $$\Phi(x) = \rho_2(g)\; \varphi\big(\rho_1(g)^{-1} x\big), \qquad g = F(x), \qquad F(h\, x) = h\, F(x)$$
#
# Take for $\varphi$ a network that knows positions: a spotlight on the middle of the picture. It stays where it is
# whatever the cat does. Between the pre-processing and its inverse, the same spotlight follows the eye.

# %%
rows, columns = torch.meshgrid(torch.arange(100.0) - 50, torch.arange(150.0) - 75, indexing="ij")
light = torch.exp(-(rows**2 + columns**2) / 300)


def spotlight(x):
    return x * (0.25 + 0.75 * light)


follows = Canonicalize(spotlight, eye, "image", "image")
for shift, x in ((20, -55), cats[1]), ((-25, 30), cats[2]):
    moved = torch.roll(follows(cat), shift, (-2, -1))
    assert torch.allclose(follows(x), moved, rtol=0, atol=1e-12)
    assert not torch.allclose(spotlight(x), torch.roll(spotlight(cat), shift, (-2, -1)), rtol=0, atol=0.1)

panel_figure(
    [[Panel(spotlight(x)[0]) for x in cats], [Panel(follows(x)[0]) for x in cats]],
    labels=[r"$\varphi$ alone", "with the frame"],
)

# %% [markdown]
# One element is a bet that there is one left eye. Fold the picture over its middle, and two places are equally good:
# no rule that looks at the picture can prefer one. The frame then has two elements, pre-processing is refused, and the
# average over both is what remains equivariant.

# %%
folded = (cat + cat.flip(-1)) / 2


def looks_like_an_eye(x):
    return torch.maximum(looks_like_the_left_eye(x), looks_like_the_left_eye(x.flip(-1)).flip(-1))


eyes = LandmarkFrame(looks_like_an_eye)
frames = eyes(folded)
print("elements:", frames.counts.tolist(), "weights:", frames.weights.tolist())
assert frames.counts.tolist() == [2]
try:
    Canonicalize(spotlight, eyes, "image", "image")(folded)
except DegenerateFrameError as error:
    print("Canonicalize:", error)
both = FrameAverage(spotlight, eyes, "image", "image")
assert torch.allclose(both(torch.roll(folded, 30, -1)), torch.roll(both(folded), 30, -1), rtol=0, atol=1e-12)
panel_figure(
    [
        [
            Panel(folded[0], "$F(x)$ has two elements", marks=[place(frames, folded, i) for i in (0, 1)]),
            r"$\to$",
            Panel(both(folded)[0], "the mean over both"),
        ]
    ]
)

# %% [markdown]
# ## The mean frame on $R^n$
#
# For points, translations have a frame that is never in doubt: $F(x) = \{\text{mean}(x)\}$, so
#
# $$\Phi(x) = \varphi(x - \bar x) + \bar x.$$
#
# Below, a random network pushes each point by an amount that depends on where the point is. The arrows are the pushes.

# %%
points = torch.tensor([[-1.2, -0.5], [-0.7, 0.6], [0.1, -0.2], [0.5, 0.75], [1.4, 0.1], [0.7, -0.6]])
field = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).requires_grad_(False)
field[2].weight *= 2


def push(x):
    return x + field(2 * x)


steady = FrameAverage(push, MeanFrame(), "points", "points")
shift = torch.tensor([2.5, -1.0])
assert torch.allclose(steady(points[None] + shift), steady(points[None]) + shift, rtol=0, atol=1e-12)
assert torch.allclose(steady(points[None])[0], push(points - points.mean(0)) + points.mean(0), rtol=0, atol=1e-12)


def pushed(phi, x, title):
    return Cloud(x, title, arrows=phi(x[None])[0] - x)


cloud_figure(
    [
        [pushed(push, points, r"$\varphi$ at $x$"), pushed(push, points + shift, r"$\varphi$ at $x + t$")],
        [pushed(steady, points, r"$\Phi$ at $x$"), pushed(steady, points + shift, r"$\Phi$ at $x + t$")],
    ]
)

# %% [markdown]
# ## Principal axes, in the plane and in space
#
# For rotations and mirrors the usual frame is that of principal component analysis: the mean as origin, the
# eigenvectors of the covariance as axes, each with both signs. That makes $2^d$ elements, which are drawn on top of
# each other: first axes blue, second orange, third green. They turn with the cloud.


# %%
def turn(degrees):
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def random_turn(seed):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    return q * r.diagonal().sign()


body = torch.tensor([[-1.3, -0.2, 0.1], [0.4, 0.7, -0.5], [1.2, -0.6, 0.2], [0.1, 0.3, 0.8], [-0.4, -0.3, -0.6]])
bones = [(0, 4), (4, 2), (2, 1), (1, 3)]
flat, solid = PCAFrame("E", 2), PCAFrame("E", 3)


def with_frame(frame, x, title="", **options):
    return Cloud(x, title, frames=frame(x[None]), **options)


cloud_figure(
    [
        [with_frame(flat, points @ turn(a).mT, f"turned by {a}°") for a in (0, 40, 100)],
        [with_frame(solid, body @ q.mT, bonds=bones) for q in (torch.eye(3), random_turn(1), random_turn(2))],
    ],
    labels=["in the plane", "in space"],
)

# %%
for frame, x in ((flat, points), (solid, body)):
    print(f"F(g x) against g F(x): {frame_equivariance_error(frame, x[None], group='E').max():.0e}")
    assert frame_equivariance_error(frame, x[None], group="E").max() < 1e-10

# %% [markdown]
# ## Where they break
#
# A square looks the same from four sides, so its covariance is a multiple of the identity and every axis is a principal
# one. What the eigenvalue routine returns is decided by the last bit. Here the same square four times, with its corners
# off by less than $10^{-9}$: above the principal axes, below the frame of the farthest points, with all eight ways in
# which a square lies on itself.

# %%
square = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
sides = [(0, 1), (1, 2), (2, 3), (3, 0)]
careless = PCAFrame("E", 2, degenerate="ignore")
careful = PointFrame("E", 2)
jitters = [1e-9 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
cloud_figure(
    [
        [with_frame(careless, square + j, bonds=sides) for j in jitters],
        [with_frame(careful, square + j, bonds=sides) for j in jitters],
    ],
    labels=["principal axes", "farthest points"],
)

# %% [markdown]
# By default `PCAFrame` refuses such clouds, with a message that names the sample. `PointFrame` keeps every near tie
# with a weight, so that the frame of a symmetric cloud has at least one element for each of its symmetries, and it
# needs no eigenvalues.

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
    wrong, right = (frame_equivariance_error(frame, x[None], group="E").max().item() for frame in (careless, careful))
    print(f"{name:18}{wrong:8.0e}{right:20.0e}, {int(careful(x[None]).counts)} elements")
    assert right < 1e-10
    assert (wrong < 1e-10) == (name in ("a generic cloud", "a rectangle"))

# %% [markdown]
# What a network makes of it: a small random network gives one number for the square, which we turn. The number of the
# plain network wanders, that of the average over principal axes jumps about, that of the average over the point frame
# stands still.

# %%
net = nn.Sequential(nn.Flatten(), nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1)).requires_grad_(False)
net[1].weight *= 4  # far from linear, or averages would hide much
by_axes = FrameAverage(net, careless, "points", "invariant")
by_points = FrameAverage(net, careful, "points", "invariant")
angles = torch.arange(0, 91, 2.5).tolist()
turned = torch.stack([square @ turn(a).mT for a in angles])
still = by_points(turned)
assert still.max() - still.min() < 1e-12
assert by_axes(turned).std() > 1e-3

figure, axes = chart("angle in degrees", "output", size=(6.0, 2.8))
axes.plot(angles, net(turned), color=PALETTE[7], label="plain")
axes.plot(angles, by_axes(turned), "o", color=PALETTE[1], markersize=4, label="principal axes")
axes.plot(angles, still, color=PALETTE[0], linewidth=2.5, label="farthest points")
axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# A frame should also be continuous. Squeeze the square along one side, then let it go back and pull it along a
# diagonal: on the way through the square the principal axes jump by 45 degrees, and the output with them.


# %%
def stretched(t):
    """The square, squeezed along a side (t < 0) or pulled along a diagonal (t > 0)."""
    along = torch.diag(torch.tensor([1 + t, 1.0]))
    return square @ (along if t < 0 else turn(45) @ along @ turn(-45))


near = torch.stack([stretched(-1e-6), stretched(1e-6)])
jumps = {"principal axes": by_axes(near).diff(dim=0).abs().item(), "points": by_points(near).diff(dim=0).abs().item()}
print({name: f"{jump:.0e}" for name, jump in jumps.items()})
assert jumps["principal axes"] > 1e-2
assert jumps["points"] < 1e-5

path = torch.linspace(-0.4, 0.4, 82).tolist()  # an even number: the square itself is not on it
stretch = torch.stack([stretched(t) for t in path])
figure, axes = chart("squeezed along a side  ←  square  →  pulled along a diagonal", "output", size=(6.0, 2.8))
axes.plot(path, by_axes(stretch), ".", color=PALETTE[1], label="principal axes")
axes.plot(path, by_points(stretch), color=PALETTE[0], linewidth=2.5, label="farthest points")
axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# In space it is the same with methane, a carbon atom in a tetrahedron of hydrogen. We turn the molecule, build the
# frame, and turn the picture back, so that all pictures of one row should be the same.

# %%
methane = torch.tensor(
    [[0.0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [0.63, -0.63, -0.63], [-0.63, 0.63, -0.63]]
)
look = {"symbols": "CHHHH", "bonds": [(0, 1), (0, 2), (0, 3), (0, 4)]}
loose, tight = PCAFrame("E", 3, degenerate="ignore"), PointFrame("E", 3)


def turned_back(frame, q, title=""):
    found = frame((methane @ q.mT)[None])
    back = type(found)(q.mT @ found.rotations, found.translations @ q, found.weights)
    return Cloud(methane, title, frames=back, **look)


spins = [random_turn(seed) for seed in (3, 4, 5)]
print("elements of the point frame:", tight(methane[None]).counts.tolist())
assert tight(methane[None]).counts.tolist() == [24]  # the order of the tetrahedron's group
assert frame_equivariance_error(tight, methane[None], group="E").max() < 1e-10
assert frame_equivariance_error(loose, methane[None], group="E").max() > 1e-2
cloud_figure(
    [[turned_back(loose, q) for q in spins], [turned_back(tight, q) for q in spins]],
    labels=["principal axes", "farthest points"],
)
