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
# # 2. Lifting and group convolution
#
# The alternative to averaging: build a network that is equivariant by design. A convolution is repeated with its kernel
# in every orientation, which lifts the image to a feature map on the group. If the image rotates, the planes of the
# feature map rotate *and* are permuted.

# %%
# %matplotlib inline
import torch
import torch.nn.functional as F
from torch import nn

from gconv_ga import C4, D4, GroupConv2d, GroupPool, LiftingConv2d, equivariance_error, identities
from gconv_ga.actions import RegularField, ScalarField
from gconv_ga.images import load_sample
from gconv_ga.nn.functional import group_conv2d, lifting_conv2d
from gconv_ga.plots import PALETTE, Panel, panel_figure

torch.manual_seed(0)
L = ScalarField()  # L(x, group, g) is L_g x on images and kernels
f = load_sample("nuclei").test.images[2:3, :, 40:112, 40:112].double()


def asymmetric_kernel(shift=0.0):
    """A kernel [1, 1, 9, 9] without symmetry."""
    y, x = torch.meshgrid(-torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9) - shift, indexing="ij")
    kernel = x * torch.exp(-3 * (x**2 + y**2)) - 0.6 * torch.exp(-9 * (x**2 + (y - 0.5) ** 2))
    return (kernel - kernel.mean())[None, None].double()


def signed(values, title="", **options):
    return Panel(values, title, colours="signed", **options)


k = asymmetric_kernel()

# %% [markdown]
# ## Lifting
#
# $$[k * f](g) = (L_g k) * f, \qquad (L_g k)(u) = k(g^{-1} u)$$
#
# Often lifting is written as one integral, $[f * k](g) = \int f(y)\, k(g^{-1} y)\, dy$. There $g = (x, R)$ is an
# element of $SE(2)$: a point $x$ and a rotation $R$, and $g^{-1} y = R^{-1}(y - x)$. On the right-hand side above, $g$
# is the rotation $R$ alone, and the point $x$ is the place in the map. The two formulas agree; only the letter $g$
# means two things.
#
# One kernel, four orientations, four planes computed from the same image. From here on, the colour of a border stands
# for the group element $g$.

# %%
maps = lifting_conv2d(f, k, C4, padding=4)  # [B, C, |G|, H, W]
for g in range(4):
    assert torch.allclose(maps[:, :, g], F.conv2d(f, torch.rot90(k, g, (-2, -1)), padding=4), rtol=0, atol=1e-12)

limit = maps.abs().max().item() * 0.8
panel_figure(
    [
        [None, None, *(signed(L(k, C4, g)[0], rf"$L_g k$, $g={90 * g}^\circ$", border=PALETTE[g]) for g in range(4))],
        [
            Panel(f[0], "$f$"),
            r"$\to$",
            *(signed(maps[0, :, g], "$[k * f](g)$", border=PALETTE[g], limit=limit) for g in range(4)),
        ],
    ]
)

# %% [markdown]
# ## Rotating the image
#
# $$[k * L_h f](g) = L_h\, [k * f](h^{-1} g)$$
#
# Two things happen at once: each plane rotates, and the planes shift by one position along the group axis. The second
# and the third row are equal. The colour of a border shows which plane of the first row it comes from.

# %%
h = 1
lifted_rotated = lifting_conv2d(L(f, C4, h), k, C4, padding=4)
source = [C4.product(C4.inverse(h), g) for g in range(4)]  # plane of the first row that moves to position g: h^-1 g
for g in range(4):
    assert torch.allclose(lifted_rotated[:, :, g], L(maps[:, :, source[g]], C4, h), rtol=0, atol=1e-12)
print("planes at positions 0, 1, 2, 3:", source)

panel_figure(
    [
        [
            Panel(f[0], "$f$"),
            r"$\to$",
            *(signed(maps[0, :, g], f"position {g}", border=PALETTE[g], limit=limit) for g in range(4)),
        ],
        [
            Panel(L(f, C4, h)[0], "$L_h f$"),
            r"$\to$",
            *(
                signed(lifted_rotated[0, :, g], f"position {g}", border=PALETTE[source[g]], limit=limit)
                for g in range(4)
            ),
        ],
        [
            None,
            None,
            *(
                signed(L(maps[0, :, g], C4, h), f"$L_h$ of position {g}", border=PALETTE[g], limit=limit)
                for g in source
            ),
        ],
    ],
    labels=["upright", "rotated", "first row,\nrotated, shifted"],
)

# %% [markdown]
# This is the action of the group on feature maps on the group, $(L_h f)(y, g) = f(h^{-1} y, h^{-1} g)$, implemented by
# `RegularField`. With reflections the cyclic shift becomes another permutation, a row of the Cayley table. The identity
# holds for all eight elements of $D_4$. A second one compares the action with the coordinates of the pixels: it would
# notice planes that shift the other way, and images that rotate clockwise.

# %%
regular = RegularField()
assert torch.allclose(lifted_rotated, regular(maps, C4, h), rtol=0, atol=1e-12)
for h in range(D4.order):
    assert identities.lifting_rotates_and_shifts(k, f, D4, h, padding=4).error < 1e-12
    assert identities.regular_field_rotates_and_shifts(lifting_conv2d(f, k, D4, padding=4), D4, h).error == 0
    print(f"h = {h}: planes at positions 0 to 7:", D4.cayley_table[D4.inverse(h)].tolist())

# %% [markdown]
# The animation shows both at every angle. Above, the four planes for a rotating image. Below, the same planes rotated
# back: what is left is the permutation, and at every multiple of 90 degrees each plane has moved on by one position.
#
# ![A rotating image, its four lifted maps, and the same maps rotated back](../figures/feature_maps.gif)

# %% [markdown]
# ## Group convolution
#
# A group convolution maps one feature map on the group to the next. Its kernel also has a plane for each group element,
# and the group acts on it as on feature maps:
#
# $$[k * f](g) = \sum_{h \in G} (L_g k)(\cdot, h) * f(\cdot, h), \qquad (L_g k)(u, h) = k(g^{-1} u,\, g^{-1} h)$$
#
# In the picture each row is one rotated kernel $L_g k$, and each column is the plane $h$ of the input that it reads.
# From row to row a plane of the kernel moves along the diagonal and rotates.

# %%
shifts_and_scales = [(0.0, 1.0), (0.5, 0.7), (-0.5, -0.5), (0.25, 0.3)]
planes = [scale * asymmetric_kernel(shift) for shift, scale in shifts_and_scales]
K = torch.stack(planes, dim=2)
assert K.shape == (1, 1, 4, 9, 9)
rotated_kernels = [regular(K, C4, g) for g in range(4)]
panel_figure(
    [
        [
            signed(
                rotated_kernels[g][0, :, h],
                rf"$h={90 * h}^\circ$" if g == 0 else "",
                border=PALETTE[C4.product(C4.inverse(g), h)],
                limit=0.35,
            )
            for h in range(4)
        ]
        for g in range(4)
    ],
    labels=[rf"$L_g k$, $g={90 * g}^\circ$" for g in range(4)],
)

# %% [markdown]
# The formula as a loop gives the same as the functional form of the layer.

# %%
out = group_conv2d(maps, K, C4, padding=4)
for g in range(4):
    loop = sum(F.conv2d(maps[:, :, h], rotated_kernels[g][:, :, h], padding=4) for h in range(4))
    assert torch.allclose(out[:, :, g], loop, rtol=0, atol=1e-10)

# %% [markdown]
# It commutes with the action: rotating and shifting before or after the convolution gives the same result.

# %%
for h in range(4):
    transformed = group_conv2d(regular(maps, C4, h), K, C4, padding=4)
    assert torch.allclose(transformed, regular(out, C4, h), rtol=0, atol=1e-10)
    assert identities.group_correlation_is_equivariant(K, maps, C4, h, padding=4).error < 1e-10

# %% [markdown]
# ## Back to an image
#
# Pooling over the group axis removes the permutation, so its output only rotates in the plane. A network then lifts,
# convolves on the group, and pools. Pointwise nonlinearities, and norms whose statistics and weights are shared over
# the group axis, commute with the action.

# %%
net = nn.Sequential(
    LiftingConv2d(1, 4, 5, padding=2, group=C4),
    nn.ReLU(),
    GroupConv2d(4, 4, 5, padding=2, group=C4),
    nn.ReLU(),
    GroupConv2d(4, 1, 3, padding=1, group=C4),
    GroupPool(C4),
)
net.double().requires_grad_(False)
wide = f[..., :56, :]  # images need not be square
error = equivariance_error(net, C4, wide)
assert error.max() < 1e-10
print(f"largest difference between net(L_g f) and L_g net(f): {error.max():.0e}")

same = {"limit": net(wide).abs().max().item()}
panel_figure(
    [
        [Panel(L(wide, C4, g)[0], rf"$L_g f$, $g={90 * g}^\circ$") for g in range(4)],
        [signed(net(L(wide, C4, g))[0], "network", **same) for g in range(4)],
    ]
)

# %% [markdown]
# For comparison, a network of ordinary convolutions fails the same check.

# %%
plain = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2)).double()
assert equivariance_error(plain, C4, wide).max() > 0.1

# %% [markdown]
# Next: [3. The bridge](03_the_bridge.ipynb). To run this notebook: [its source](02_lifting_and_group_convolution.py),
# and [how](README.md#to-run-them).
