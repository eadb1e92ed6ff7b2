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
# # 1. Group averaging
#
# Take any network, apply it to the image in every orientation, rotate the outputs back, and average them. The result is
# equivariant, whatever the network. This notebook states the definition, checks each line of the proof numerically,
# discusses the expressive power of the average, and ends with the invariant case.

# %%
# %matplotlib inline
import torch
from torch import nn

from gconv_ga import C4, D4, GroupAverage, identities
from gconv_ga.actions import Invariant, ScalarField
from gconv_ga.images import load_sample
from gconv_ga.plots import PALETTE, Panel, chart, panel_figure

torch.manual_seed(0)
L = ScalarField()  # L(x, group, g) is L_g x
f = load_sample("nuclei").test.images[2:3, :, 40:112, 40:112].double()

# %% [markdown]
# ## A network that is not equivariant
#
# One convolution without symmetry, a nonlinearity, and a positional embedding: both the kernel and the embedding break
# equivariance. `L(f, C4, 1)` rotates an image by 90 degrees, counter-clockwise.


# %%
class NotEquivariant(nn.Module):
    def __init__(self, size=9, width=72):
        super().__init__()
        y, x = torch.meshgrid(-torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
        kernel = x * torch.exp(-3 * (x**2 + y**2)) - 0.6 * torch.exp(-9 * (x**2 + (y - 0.5) ** 2))
        self.kernel = nn.Parameter((kernel - kernel.mean())[None, None] / 5)
        self.position = nn.Parameter(torch.linspace(-0.3, 0.3, width).expand(1, 1, width, width))

    def forward(self, x):
        return torch.tanh(nn.functional.conv2d(x, self.kernel, padding="same")) + self.position


Phi = NotEquivariant().double().requires_grad_(False)
rotated = L(f, C4, 1)
difference = Phi(rotated) - L(Phi(f), C4, 1)
panel_figure(
    [
        [
            Panel(f[0], "$f$"),
            Panel(rotated[0], "$L_g f$"),
            Panel(Phi(rotated)[0], r"$\Phi(L_g f)$", colours="signed", limit=0.8),
            "$-$",
            Panel(L(Phi(f), C4, 1)[0], r"$L_g\, \Phi(f)$", colours="signed", limit=0.8),
            "=",
            Panel(difference[0], "not zero", colours="signed", limit=0.8),
        ]
    ]
)

# %% [markdown]
# ## The definition
#
# $$\langle\Phi\rangle_G(x) = \frac{1}{|G|} \sum_{g \in G} \rho_2(g)\, \Phi\big(\rho_1(g)^{-1} x\big)$$
#
# The group acts on inputs by $\rho_1$ and on outputs by $\rho_2$. Here both rotate images. Row by row: apply
# $\rho_1(g)^{-1}$ to the image, apply the network, apply $\rho_2(g)$ to its output, and average over $g$.

# %%
inputs = [L(f, C4, C4.inverse(g)) for g in range(4)]
outputs = [Phi(x) for x in inputs]
terms = [L(y, C4, g) for g, y in enumerate(outputs)]
average = torch.stack(terms).mean(0)


def signed(values, title="", **options):
    return Panel(values[0], title, colours="signed", **{"limit": 0.8, **options})


panel_figure(
    [
        [Panel(x[0], rf"$g = {90 * g}^\circ$") for g, x in enumerate(inputs)],
        [signed(y) for y in outputs],
        [*(signed(y) for y in terms), r"$\to$", signed(average, "mean", border=PALETTE[2])],
    ],
    labels=[r"$\rho_1(g)^{-1} x$", r"$\Phi(\rho_1(g)^{-1} x)$", r"$\rho_2(g) \Phi(\ldots)$"],
)

# %% [markdown]
# `GroupAverage` computes this sum for any module, any group of the library, and any actions on inputs and outputs.

# %%
assert torch.allclose(GroupAverage(Phi, C4)(f), average, rtol=0, atol=1e-12)
print(GroupAverage(Phi, C4))

# %% [markdown]
# The average is equivariant: its output on the rotated image is the rotated output.

# %%
mean = GroupAverage(Phi, "C4")
left, right = mean(rotated), L(mean(f), C4, 1)
error = ((left - right).abs().max() / right.abs().max()).item()
assert error < 1e-12
panel_figure(
    [
        [
            signed(left, r"$\langle\Phi\rangle(L_g f)$"),
            "$-$",
            signed(right, r"$L_g\, \langle\Phi\rangle(f)$"),
            "=",
            signed(left - right, "zero"),
        ]
    ]
)

# %% [markdown]
# ## The proof, checked line by line
#
# For a group element $g$ and any $x$:
#
# $$
# \begin{aligned}
# \langle\Phi\rangle(\rho_1(g)\, x)
#   &= \frac{1}{|G|} \sum_h \rho_2(h)\, \Phi\big(\rho_1(h)^{-1} \rho_1(g)\, x\big) && \text{the definition} \\
#   &= \frac{1}{|G|} \sum_h \rho_2(h)\, \Phi\big(\rho_1(g^{-1} h)^{-1} x\big) && \rho_1 \text{ is a representation} \\
#   &= \frac{1}{|G|} \sum_{h'} \rho_2(g h')\, \Phi\big(\rho_1(h')^{-1} x\big) && h = g h' \\
#   &= \rho_2(g)\, \langle\Phi\rangle(x) && \rho_2 \text{ is linear and a representation}
# \end{aligned}
# $$
#
# The same in code, for an element of $D_4$ that does not commute with all others: a reflection, then a quarter turn.

# %%
G, g = D4, 5
n = range(G.order)
inv, mul = G.inverse, G.product


def mean_over(terms):
    return torch.stack(list(terms)).mean(0)


line_1 = mean_over(L(Phi(L(L(f, G, g), G, inv(h))), G, h) for h in n)
line_2 = mean_over(L(Phi(L(f, G, inv(mul(inv(g), h)))), G, h) for h in n)
line_3 = mean_over(L(Phi(L(f, G, inv(k))), G, mul(g, k)) for k in n)
line_4 = L(mean_over(L(Phi(L(f, G, inv(k))), G, k) for k in n), G, g)

for before, after in ((line_1, line_2), (line_2, line_3), (line_3, line_4)):
    assert torch.allclose(before, after, rtol=0, atol=1e-12)

# %% [markdown]
# The step from the second line to the third only reorders the sum. It is valid because $h' \mapsto g h'$ is a bijection
# of the group: each row of the Cayley table is a permutation. In the picture each colour is a group element, and no row
# contains a colour twice.

# %%
for row in G.cayley_table:
    assert sorted(row.tolist()) == list(n)
panel_figure(
    [
        [
            Panel(group.cayley_table, f"${name}$: $gh$ in\nrow $g$, column $h$", "labels")
            for group, name in ((C4, "C_4"), (D4, "D_4"))
        ]
    ]
)

# %% [markdown]
# Every statement of this derivation is a function in `gconv_ga.identities` that computes both sides in different ways.
# If one element is left out of the sum, the proof fails where it reorders: the remaining elements are not a group.

# %%
for g in range(D4.order):
    assert identities.average_is_equivariant(Phi, D4, f, g).error < 1e-12


def without_last_element(x):
    return mean_over(L(Phi(L(x, C4, C4.inverse(h))), C4, h) for h in range(3))


incomplete = without_last_element(f)
error = (without_last_element(rotated) - L(incomplete, C4, 1)).abs().max() / incomplete.abs().max()
print(f"three of four elements: equivariance error {error:.0%}")
assert error > 0.01

# %% [markdown]
# ## What can an average express?
#
# **Every equivariant function.** Averaging leaves an equivariant network unchanged, since all terms of the sum are then
# equal. So every equivariant function is a group average, namely its own, and averaging is a projection.

# %%
blur = nn.AvgPool2d(5, stride=1, padding=2)  # equivariant
assert identities.average_keeps_equivariant(blur, D4, f).error < 1e-12
once = GroupAverage(Phi, C4)
assert identities.average_keeps_equivariant(once, C4, f).error < 1e-12  # the second average changes nothing

# %% [markdown]
# **Averaging does not increase the distance to an equivariant target.** If $\varphi$ is equivariant and $\Phi$ is
# within $\varepsilon$ of it everywhere on the orbit, then so is the average, because rotations preserve distances:
#
# $$\|\langle\Phi\rangle(x) - \varphi(x)\|
#   = \Big\| \frac{1}{|G|} \sum_g \rho_2(g) \big[ \Phi(\rho_1(g)^{-1} x) - \varphi(\rho_1(g)^{-1} x) \big] \Big\|
#   \le \varepsilon.$$
#
# So if a class of networks approximates every continuous function, their averages approximate every continuous
# equivariant function: a group average is as expressive as its backbone if the backbone is equivariant, and if it is
# not, the averages of a class of backbones still reach all equivariant limits of that class. In the picture the target
# is the blurred image, and the network adds to it a constant pattern that does not rotate. The average keeps only the
# symmetric part of this pattern.

# %%
pattern = torch.zeros(72, 72, dtype=torch.float64)
pattern[8:20, 10:50] = 1.0


def with_pattern(x):
    return blur(x) + pattern


remainder = GroupAverage(with_pattern, C4)(f) - blur(f)
before = max((with_pattern(x) - blur(x)).norm() for x in inputs)
after = remainder.norm()
assert after <= before
print(f"distance to the target: {before:.1f} before averaging, {after:.1f} after")
shared = {"limit": 3.0}
panel_figure(
    [
        [
            signed(blur(f), r"target $\varphi(f)$", **shared),
            signed(with_pattern(f), r"$\Phi(f)$", **shared),
            signed(GroupAverage(with_pattern, C4)(f), r"$\langle\Phi\rangle(f)$", **shared),
            None,
            signed(pattern[None, None], r"$\Phi - \varphi$", limit=1.0),
            signed(remainder, r"$\langle\Phi\rangle - \varphi$", limit=1.0),
        ]
    ]
)

# %% [markdown]
# ## The invariant case
#
# With the trivial action on the output, $\rho_2(g) = 1$, the same proof gives $\langle\Phi\rangle(\rho_1(g) x) =
# \langle\Phi\rangle(x)$: a mean over the orbit does not depend on where on the orbit it starts. Here a network maps an
# image to a number, and the eight elements of $D_4$ act on the image.

# %%
score = nn.Sequential(
    nn.Conv2d(1, 6, 7, stride=3), nn.Tanh(), nn.Conv2d(6, 6, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(1)
).double()
score(f)
score.requires_grad_(False)
invariant = GroupAverage(score, D4, out_action=Invariant())

images = [L(f, D4, g) for g in range(8)]
plain_scores = [score(x).item() for x in images]
mean_scores = [invariant(x).item() for x in images]
assert max(mean_scores) - min(mean_scores) < 1e-12
for g in range(8):
    assert identities.invariant_average(score, D4, f, g).error < 1e-12

figure, axes = chart("element of $D_4$", "score", size=(5.5, 2.6))
axes.plot(range(8), plain_scores, "o", color=PALETTE[1], label=r"$\Phi$")
axes.plot(range(8), mean_scores, "s", color=PALETTE[0], label=r"$\langle\Phi\rangle$")
axes.set_xticks(range(8), ["0°", "90°", "180°", "270°", "m", "m, 90°", "m, 180°", "m, 270°"])
axes.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, 1.22))
figure

# %% [markdown]
# Next: [2. Lifting and group convolution](02_lifting_and_group_convolution.ipynb). To run this notebook: [its
# source](01_group_averaging.py), and [how](README.md#to-run-them).
