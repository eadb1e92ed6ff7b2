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
# # 5. Pre-processing
#
# An average over all translations is an integral. A frame replaces the group by a few elements that depend on the
# input and move with it; with one element this is called pre-processing, or canonicalization. This notebook starts with
# the left eye of a cat, continues with the mean of numbers and of points, and proves that the average over a frame is
# equivariant.

# %%
# %matplotlib inline
import torch
import torch.nn.functional as F
from skimage import data
from torch import nn

from gconv_ga import identities
from gconv_ga.frames import Canonicalize, DegenerateFrameError, FrameAverage, LandmarkFrame, MeanFrame
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
# ## $n$ numbers and their mean
#
# Let $X = Y = R^n$. The group $G = R$ with addition acts by $\rho_1(a)\, x = x + a \mathbf{1}$ and
# $\rho_2(a)\, y = y + a \mathbf{1}$, with $\mathbf{1} = (1, \ldots, 1)$: all numbers are shifted by the same amount.
# The mean is a frame of one element, $F(x) = \{\mathbf{1}^T x / n\}$, since the mean of $x + a \mathbf{1}$ is that of
# $x$ plus $a$. So
#
# $$\langle\Phi\rangle_F(x) = \Phi(x - \bar x \mathbf{1}) + \bar x \mathbf{1}$$
#
# is equivariant to shifts for every $\Phi$. `MeanFrame` is this frame; $n$ numbers are $n$ points in dimension one.

# %%
Phi = nn.Sequential(nn.Flatten(), nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 5), nn.Unflatten(1, (5, 1)))
Phi.requires_grad_(False)
Phi[1].weight *= 2
average = FrameAverage(Phi, MeanFrame(), "points", "points")
x = torch.tensor([0.3, -0.8, 1.1, 0.2, -0.4]).view(1, 5, 1)
mean = x.mean()
assert torch.allclose(average(x), Phi(x - mean) + mean, rtol=0, atol=1e-12)

shifts = torch.linspace(-2, 2, 41)
shifted = x + shifts.view(-1, 1, 1)
assert torch.allclose(average(shifted), average(x) + shifts.view(-1, 1, 1), rtol=0, atol=1e-12)

for outputs, equivariant in ((Phi(shifted), False), (average(shifted), True)):
    spread = (outputs - shifts.view(-1, 1, 1)).std(0).max()
    assert (spread < 1e-12) == equivariant

figure, axes = chart("shift $a$", "outputs, shifted back", size=(6.4, 2.9))
for n in range(5):
    both = {"color": PALETTE[n], "linewidth": 2}
    axes.plot(shifts, Phi(shifted)[:, n, 0] - shifts, linestyle=":", **both)
    axes.plot(shifts, average(shifted)[:, n, 0] - shifts, **both)
axes.plot([], [], ":", color=PALETTE[6], label=r"$\Phi$")
axes.plot([], [], color=PALETTE[6], label=r"$\langle\Phi\rangle_F$")
axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# ## The mean of points
#
# In the plane and in space the frame is the same: $F(x) = \{\bar x\}$, the mean of the points. Below, a random network
# moves each point by an amount that depends on its position. Arrows show the displacements. Alone, the network gives
# other arrows when the cloud is translated by $t$; with the frame, the same ones.

# %%
points = torch.tensor([[-1.2, -0.5], [-0.7, 0.6], [0.1, -0.2], [0.5, 0.75], [1.4, 0.1], [0.7, -0.6]])
field = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).requires_grad_(False)
field[2].weight *= 1.5


def move(x):
    return x + field(2 * x)


averaged = FrameAverage(move, MeanFrame(), "points", "points")
t = torch.tensor([2.5, -1.0])
assert torch.allclose(averaged(points[None] + t), averaged(points[None]) + t, rtol=0, atol=1e-12)
assert torch.allclose(averaged(points[None])[0], move(points - points.mean(0)) + points.mean(0), rtol=0, atol=1e-12)


def displacements(module, x, title):
    return Cloud(x, title, arrows=module(x[None])[0] - x)


cloud_figure(
    [
        [displacements(move, points, r"$\Phi$ at $x$"), displacements(move, points + t, r"$\Phi$ at $x + t$")],
        [
            displacements(averaged, points, r"$\langle\Phi\rangle_F$ at $x$"),
            displacements(averaged, points + t, r"$\langle\Phi\rangle_F$ at $x + t$"),
        ],
    ]
)

# %% [markdown]
# ## The proof
#
# In general a frame has several elements, with weights $w_h$ that sum to one:
#
# $$\langle\Phi\rangle_F(x) = \sum_{h \in F(x)} w_h\; \rho_2(h)\, \Phi\big(\rho_1(h)^{-1} x\big),
#   \qquad F(\rho_1(g)\, x) = g\, F(x) \text{ as weighted sets.}$$
#
# $$
# \begin{aligned}
# \langle\Phi\rangle_F(\rho_1(g)\, x)
#   &= \sum_{h \in F(g x)} w_h\, \rho_2(h)\, \Phi\big(\rho_1(h)^{-1} \rho_1(g)\, x\big) && \text{the definition} \\
#   &= \sum_{h \in F(g x)} w_h\, \rho_2(h)\, \Phi\big(\rho_1(g^{-1} h)^{-1} x\big) && \text{representation} \\
#   &= \sum_{h' \in F(x)} w_{h'}\, \rho_2(g h')\, \Phi\big(\rho_1(h')^{-1} x\big) && h = g h',\; F(g x) = g F(x) \\
#   &= \rho_2(g)\, \langle\Phi\rangle_F(x)
# \end{aligned}
# $$
#
# It is the proof of notebook 1, with $F(g x) = g F(x)$ in place of $g G = G$. The identity computes both sides. It
# holds for translations, which the mean follows, and fails for rotations, which it does not. Notebook 6 has frames for
# these.

# %%
identity, quarter_turn = torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]])
translated = identities.frame_average_is_equivariant(move, MeanFrame(), points[None], identity, t)
rotated = identities.frame_average_is_equivariant(move, MeanFrame(), points[None], quarter_turn, t)
print(f"translations: error {translated.error:.0e}; a rotation: error {rotated.error:.2f}")
assert translated.error < 1e-12
assert rotated.error > 0.1

# %% [markdown]
# A frame average is as expressive as its backbone if the backbone is equivariant, for the reason of notebook 1: every
# term of the sum is then $\Phi(x)$.


# %%
def contract(x):
    """Equivariant to translations: each point moves towards the mean."""
    return x - 0.3 * torch.tanh(x - x.mean(1, keepdim=True))


assert identities.frame_average_keeps_equivariant(contract, MeanFrame(), points[None] + t).error < 1e-12
assert identities.frame_average_keeps_equivariant(move, MeanFrame(), points[None] + t).error > 0.1

# %% [markdown]
# Next: [6. Frames](06_frames.ipynb). To run this notebook: [its source](05_preprocessing.py), and
# [how](README.md#to-run-them).
