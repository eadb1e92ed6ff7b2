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
# # 3. The bridge
#
# Averaging rotates images and leaves the network unchanged; group convolution rotates kernels and leaves the image
# unchanged. One identity connects the two. This notebook shows it, locates the determinant in its proof, shows where
# the correction term of the average has gone, and ends with two actions for which the usual shortcut is wrong.

# %%
# %matplotlib inline
import torch
import torch.nn.functional as F

from gconv_ga import C4, D4, GroupAverage, GroupPool, LiftingConv2d, identities
from gconv_ga.actions import ScalarField
from gconv_ga.images import load_sample
from gconv_ga.nn.functional import group_pool, lifting_conv2d
from gconv_ga.plots import PALETTE, Panel, chart, panel_figure

torch.manual_seed(0)
L = ScalarField()  # L(x, group, g) is L_g x
f = load_sample("nuclei").test.images[2:3, :, 40:112, 40:112].double()
y, x = torch.meshgrid(-torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9), indexing="ij")
k = x * torch.exp(-3 * (x**2 + y**2)) - 0.6 * torch.exp(-9 * (x**2 + (y - 0.5) ** 2))
k = (k - k.mean())[None, None].double()


def correlate(kernel, image):
    """Cross-correlation, (k * f)(y) = sum_u k(u) f(y + u)."""
    return F.conv2d(image, kernel, padding=4)


def signed(values, title="", **options):
    return Panel(values[0], title, colours="signed", **options)


# %% [markdown]
# ## The kernel rotation identity
#
# $$k * (L_g f) = L_g\big((L_g^{-1} k) * f\big)$$
#
# Correlating the rotated image with a kernel gives the same as correlating the upright image with the kernel rotated
# back, and then rotating the result.

# %%
g = 1
g_inverse = C4.inverse(g)
limit = correlate(k, f).abs().max().item() * 0.8
upper = correlate(k, L(f, C4, g))
lower = correlate(L(k, C4, g_inverse), f)
assert torch.allclose(upper, L(lower, C4, g), rtol=0, atol=1e-12)

panel_figure(
    [
        [
            Panel(L(f, C4, g)[0], "$L_g f$"),
            r"$*$",
            signed(k, "$k$"),
            "$=$",
            signed(upper, "$k * L_g f$", limit=limit, border=PALETTE[2]),
        ],
        [
            Panel(f[0], "$f$"),
            r"$*$",
            signed(L(k, C4, g_inverse), "$L_g^{-1} k$"),
            "$=$",
            signed(lower, "$(L_g^{-1} k) * f$", limit=limit),
            r"$\to$",
            signed(L(lower, C4, g), r"$L_g$ applied", limit=limit, border=PALETTE[2]),
        ],
    ],
    labels=["rotated image", "rotated kernel"],
)

# %% [markdown]
# Line by line, at a pixel $y$:
#
# $$
# \begin{aligned}
# (k * L_g f)(y) &= \sum_u k(u)\, f(g^{-1} y + g^{-1} u) && \text{definitions} \\
#                &= \sum_v k(g v)\, f(g^{-1} y + v) && v = g^{-1} u \\
#                &= \big((L_g^{-1} k) * f\big)(g^{-1} y) && \text{definitions}
# \end{aligned}
# $$
#
# The same sums in plain Python, for one pixel, with coordinates relative to the centre of the image.

# %%
size = f.shape[-1]
c = (size - 1) / 2


def at(values, position):
    """The value of an image at a position (right, up) relative to its centre; zero outside."""
    row, column = round(c - position[1]), round(c + position[0])
    inside = 0 <= row < size and 0 <= column < size
    return values[0, 0, row, column].item() if inside else 0.0


def tap(u):
    """The kernel at the offset (right, up)."""
    return k[0, 0, 4 - u[1], 4 + u[0]].item()


def rotate(v, times):
    """Rotate a vector by a multiple of 90 degrees, counter-clockwise."""
    for _ in range(times % 4):
        v = (-v[1], v[0])
    return v


def add(a, b):
    return a[0] + b[0], a[1] + b[1]


window = [(i, j) for i in range(-4, 5) for j in range(-4, 5)]
pixel = (-10.5, 4.5)
source = rotate(pixel, -1)  # g^-1 y
line_1 = sum(tap(u) * at(f, rotate(add(pixel, u), -1)) for u in window)
line_2 = sum(tap(rotate(v, 1)) * at(f, add(source, v)) for v in window)
line_3 = at(correlate(L(k, C4, g_inverse), f), source)
print(f"{line_1:.12f} {line_2:.12f} {line_3:.12f}")
assert abs(line_1 - line_2) < 1e-10
assert abs(line_2 - line_3) < 1e-10
assert abs(line_1 - at(upper, pixel)) < 1e-10

# %% [markdown]
# ## The determinant
#
# The middle step substitutes $v = g^{-1} u$. In an integral this contributes a factor, $du = |\det g|\, dv$. Rotations
# and reflections preserve areas, $|\det g| = 1$, and on the pixel grid they permute the window: the same taps in
# another order, each once. So the factor is present, and it is one.

# %%
assert sorted(rotate(u, 1) for u in window) == sorted(window)
print("|det g| for the elements of D4:", torch.linalg.det(D4.matrices).abs().tolist())
for g in range(D4.order):
    assert identities.kernel_rotation(k, f, D4, g, padding=4).error < 1e-12
    assert identities.correlation_commutes(k, f, D4, g, padding=4).error < 1e-12

# %% [markdown]
# ## The correction term
#
# In a group average each output is rotated back: $\rho_2(g) = L_g$ stands in front of $\Phi(L_g^{-1} f)$. This is the
# correction term. A group convolution has none. For $\Phi(f) = k * f$, apply the identity to the image $L_g^{-1} f$:
#
# $$L_g \big(k * (L_g^{-1} f)\big) = (L_g k) * f$$
#
# When the kernel rotates in place of the image, the outer $L_g$ is absorbed: the output is never rotated, so it need
# not be rotated back. Leaving it out on the side of the image gives another function.

# %%
g, g_inverse = 1, C4.inverse(1)
corrected = L(correlate(k, L(f, C4, g_inverse)), C4, g)
uncorrected = correlate(k, L(f, C4, g_inverse))
absorbed = correlate(L(k, C4, g), f)
assert torch.allclose(corrected, absorbed, rtol=0, atol=1e-12)
assert (uncorrected - absorbed).abs().max() > 0.5 * absorbed.abs().max()

panel_figure(
    [
        [
            signed(uncorrected, "without $L_g$:\n$k * (L_g^{-1} f)$", limit=limit),
            r"$\neq$",
            signed(corrected, "with it:\n$L_g(k * (L_g^{-1} f))$", limit=limit, border=PALETTE[2]),
            "$=$",
            signed(absorbed, "absorbed:\n$(L_g k) * f$", limit=limit, border=PALETTE[2]),
        ]
    ]
)

# %% [markdown]
# ## The mean of the lifted maps is the group average
#
# The mean of this equation over $g$ is
#
# $$
# \underbrace{\frac{1}{|G|} \sum_g (L_g k) * f}_{\text{lifting, then pooling by the mean}}
#   = \underbrace{\frac{1}{|G|} \sum_g L_g\big(k * (L_g^{-1} f)\big)}_{\text{group average of the ordinary convolution}}
# $$
#
# In the upper half kernels rotate and the image is fixed. In the lower half images rotate and the kernel is fixed. The
# terms agree column by column, and so do the means.

# %%
maps = lifting_conv2d(f, k, C4, padding=4)
by_design = group_pool(maps, C4)
rotated = [L(f, C4, C4.inverse(g)) for g in range(4)]
terms = [L(correlate(k, image), C4, g) for g, image in enumerate(rotated)]
by_averaging = GroupAverage(lambda image: correlate(k, image), C4)(f)

for g in range(4):
    assert torch.allclose(maps[:, :, g], terms[g], rtol=0, atol=1e-12)
assert torch.allclose(by_design, by_averaging, rtol=0, atol=1e-12)

top = {"limit": by_design.abs().max().item() * 0.8, "border": PALETTE[2]}
panel_figure(
    [
        [*(signed(L(k, C4, g), rf"$L_g k$, $g = {90 * g}^\circ$") for g in range(4)), None, Panel(f[0], "$f$")],
        [
            *(signed(maps[:, :, g], r"$(L_g k) * f$", limit=limit) for g in range(4)),
            r"$\to$",
            signed(by_design, "mean", **top),
        ],
        [
            *(Panel(image[0], rf"$L_g^{{-1}} f$, $g = {90 * g}^\circ$") for g, image in enumerate(rotated)),
            None,
            signed(k, "$k$"),
        ],
        [
            *(signed(term, "$L_g (k * L_g^{-1} f)$", limit=limit) for term in terms),
            r"$\to$",
            signed(by_averaging, "group average", **top),
        ],
    ],
    labels=["rotated kernels", "lifted planes", "rotated images", "rotated back"],
)

# %% [markdown]
# This holds for images of any height and width, for reflections, and for the layers as well as the functions.

# %%
for u in range(D4.order):
    assert identities.mean_of_lifting_is_group_average(k, f[..., :50], D4, u, padding=4).error < 1e-12

layer = LiftingConv2d(1, 1, 9, padding=4, bias=False, group=D4).double().requires_grad_(False)
plain = torch.nn.Conv2d(1, 1, 9, padding=4, bias=False).double().requires_grad_(False)
plain.weight.copy_(layer.weight)
assert torch.allclose(GroupPool(D4)(layer(f)), GroupAverage(plain, D4)(f), rtol=0, atol=1e-12)

# %% [markdown]
# ## "Just distribute $L_g$" is not a general rule
#
# With $L_g k$ for $k$ the identity reads $(L_g k) * (L_g f) = L_g (k * f)$, as if $L_g$ could be distributed over $*$.
# Its hypothesis is that $L_g$ acts by a **linear** map of the plane with $|\det g| = 1$: rotations and reflections.
# (The determinant itself may be $-1$.) Three conventions matter in the proof:
#
# - $*$ is cross-correlation, with $k(y - x)$ under the integral; with $k(x - y)$ it would be convolution;
# - $L_g f(x) = f(g^{-1} x)$ is a representation, $L_g L_h = L_{gh}$; $f(g x)$ reverses the order;
# - $|\det g| = 1$ suffices, so reflections are included.
#
# That rotations are unitary is not the reason, nor that they preserve areas. Two counter-examples show it. The first is
# a scaling of the plane, $(L_s f)(y) = f(y / s)$. Now the substitution $v = u / s$ contributes $du = s^2\, dv$:
#
# $$(L_s k) * (L_s f) = s^2\; L_s (k * f)$$
#
# With both scaled by two, the result is four times too large.

# %%
line = torch.linspace(-4, 4, 65, dtype=torch.float64)
right, up = line, line.flip(0).unsqueeze(1)
kernel, signal = identities.asymmetric_kernel, identities.asymmetric_signal


def plane(values, title, **options):
    return Panel(values, title, colours="signed", **options)


sides = identities.scaling_counterexample(2.0, points=33)
print(f"measured factor {sides.factor:.6f}, determinant {sides.determinant:.0f}")
assert abs(sides.factor - 4) < 1e-9
assert sides.error > 0.7
assert sides.corrected_error < 1e-9

limit = sides.left.abs().max().item()
panel_figure(
    [
        [
            plane(kernel(right, up), "$k$", limit=1.2),
            plane(signal(right, up), "$f$", limit=1.2),
            None,
            plane(sides.right.flip(0), "$L_s (k * f)$", limit=limit),
        ],
        [
            plane(kernel(right / 2, up / 2), "$L_s k$", limit=1.2),
            plane(signal(right / 2, up / 2), "$L_s f$", limit=1.2),
            r"$\to$",
            plane(sides.left.flip(0), r"$(L_s k) * (L_s f) = 4\, L_s (k * f)$", limit=limit),
        ],
    ],
    labels=["$s = 1$", "$s = 2$"],
)

# %% [markdown]
# For these linear maps of the plane the factor is the determinant at every scale. If one axis is stretched by $s$ and
# the other by $1/s$, the determinant is one, and the shortcut is correct again. A scaling can also be made unitary,
# $(U_s f)(y) = f(y / s) / s$; the factor is then $s$, and not one. So unitary is not enough.

# %%
scales = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
scaling = [identities.scaling_counterexample(s, points=5) for s in scales]
squeeze = [identities.scaling_counterexample((s, 1 / s), points=5) for s in scales]
for s, each in zip(scales, scaling, strict=True):
    assert abs(each.factor - s**2) < 1e-8
    unitary = identities.Sides(each.left / s**2, each.right / s)  # both functions, and the result, divided by s
    assert identities.Sides(unitary.left, s * unitary.right).error < 1e-8
for each in squeeze:
    assert each.error < 1e-8

curve = torch.linspace(0.5, 2, 50)
figure, axes = chart("scale $s$", "(left side) / (right side)", size=(8.0, 2.9))
axes.plot(curve, curve**2, color=PALETTE[7], linewidth=1.5, label=r"$|\det s| = s^2$")
axes.plot(curve, curve, color=PALETTE[7], linewidth=1.5, linestyle="--", label="$s$")
axes.plot(scales, [each.factor for each in scaling], "o", color=PALETTE[1], label="scaling by $s$, measured")
axes.plot(
    scales, [each.factor / s for s, each in zip(scales, scaling, strict=True)], "^", color=PALETTE[2],
    label="the same made unitary, measured",
)  # fmt: skip
axes.plot(scales, [each.factor for each in squeeze], "s", color=PALETTE[0], label="stretch by $s$ and $1/s$, measured")
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure

# %% [markdown]
# The second counter-example is a translation, $(L_t f)(y) = f(y - t)$. It preserves areas, and it is unitary. But it is
# not linear, and the shortcut fails: if kernel and image are both translated, their correlation does not move at all,
#
# $$(L_t k) * (L_t f) = k * f \neq L_t (k * f).$$
#
# If the image alone is translated, the correlation moves with it, $k * (L_t f) = L_t (k * f)$: this is why
# convolutional layers are equivariant to translations, and why the kernel must not move along.

# %%
t = (1.5, 0.0)
moved = identities.translation_counterexample(t, points=33)
print(f"distance from L_t (k * f): {moved.error:.2f}, from k * f: {moved.corrected_error:.0e}")
assert moved.error > 0.5
assert moved.corrected_error < 1e-10

limit = moved.unmoved.abs().max().item()
panel_figure(
    [
        [
            plane(kernel(right, up), "$k$", limit=1.2),
            plane(signal(right, up), "$f$", limit=1.2),
            r"$\to$",
            plane(moved.unmoved.flip(0), "$k * f$", limit=limit),
        ],
        [
            plane(kernel(right - t[0], up - t[1]), "$L_t k$", limit=1.2),
            plane(signal(right - t[0], up - t[1]), "$L_t f$", limit=1.2),
            r"$\to$",
            plane(moved.left.flip(0), "$(L_t k) * (L_t f)$", limit=limit),
            r"$\neq$",
            plane(moved.right.flip(0), "$L_t (k * f)$", limit=limit),
        ],
    ],
    labels=["in place", "translated"],
)

# %% [markdown]
# Next: [4. Whole networks](04_whole_networks.ipynb). To run this notebook: [its source](03_the_bridge.py), and
# [how](README.md#to-run-them).
