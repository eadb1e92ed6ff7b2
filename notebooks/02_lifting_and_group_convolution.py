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
# The other road: build the network so that it cannot help turning with its image. A convolution is repeated with its
# kernel in every orientation, which lifts the image to a map on the group. Turn the image, and the maps turn in the
# plane *and* change places.

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


def hook(shift=0.0):
    """A kernel [1, 1, 9, 9] without any symmetry."""
    y, x = torch.meshgrid(-torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 9) - shift, indexing="ij")
    kernel = x * torch.exp(-3 * (x**2 + y**2)) - 0.6 * torch.exp(-9 * (x**2 + (y - 0.5) ** 2))
    return (kernel - kernel.mean())[None, None].double()


def signed(values, title="", **options):
    return Panel(values, title, colours="signed", **options)


k = hook()

# %% [markdown]
# ## Lifting
#
# $$[k * f](g) = (L_g k) * f, \qquad (L_g k)(u) = k(g^{-1} u)$$
#
# One kernel, four orientations, four maps of the same image. The colour of a frame is the element $g$ from here on.

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
# ## What a turn of the image does
#
# $$[k * L_u f](g) = L_u\, [k * f](u^{-1} g)$$
#
# Two things happen at once: each map turns in the plane, and the maps shift by one place along the element axis.
# Compare the second row with the third: same frame, same picture. The frame's colour says which map of the first row it
# was.

# %%
u = 1
lifted_turned = lifting_conv2d(L(f, C4, u), k, C4, padding=4)
shift = [C4.product(C4.inverse(u), g) for g in range(4)]  # which map of the first row comes to place g: u^-1 g
for g in range(4):
    assert torch.allclose(lifted_turned[:, :, g], L(maps[:, :, shift[g]], C4, u), rtol=0, atol=1e-12)
print("places 0, 1, 2, 3 are taken by the maps", shift)

panel_figure(
    [
        [
            Panel(f[0], "$f$"),
            r"$\to$",
            *(signed(maps[0, :, g], f"place {g}", border=PALETTE[g], limit=limit) for g in range(4)),
        ],
        [
            Panel(L(f, C4, u)[0], "$L_u f$"),
            r"$\to$",
            *(signed(lifted_turned[0, :, g], f"place {g}", border=PALETTE[shift[g]], limit=limit) for g in range(4)),
        ],
        [
            None,
            None,
            *(signed(L(maps[0, :, h], C4, u), f"$L_u$ of place {h}", border=PALETTE[h], limit=limit) for h in shift),
        ],
    ],
    labels=["upright", "turned", "first row,\nturned, shifted"],
)

# %% [markdown]
# That is how the group acts on maps on the group, and `RegularField` is that action. With mirrors the cyclic shift
# becomes a permutation, a row of the Cayley table; the identity holds for all eight elements of $D_4$.

# %%
regular = RegularField()
assert torch.allclose(lifted_turned, regular(maps, C4, u), rtol=0, atol=1e-12)
for u in range(D4.order):
    assert identities.lifting_rotates_and_shifts(k, f, D4, u, padding=4).error < 1e-12
    print(f"u = {u}: places 0 .. 7 are taken by", D4.cayley_table[D4.inverse(u)].tolist())

# %% [markdown]
# ## Group convolution
#
# From a map on the group to the next. The kernel now has a plane for each element as well, and its turned copy shifts
# its planes exactly as maps do:
#
# $$[k * f](g) = \sum_{h \in G} (L_g k)(\cdot, h) * f(\cdot, h), \qquad (L_g k)(u, h) = k(g^{-1} u,\, g^{-1} h)$$
#
# In the picture one row is one turned kernel $L_g k$, one column the map on the group that it reads. Each plane goes
# down the diagonal, turning as it goes.

# %%
planes = [hook(), 0.7 * hook(0.5), -0.5 * hook(-0.5), 0.3 * hook(0.25)]
kk = torch.stack(planes, dim=2)
assert kk.shape == (1, 1, 4, 9, 9)
copies = [regular(kk, C4, g) for g in range(4)]
panel_figure(
    [
        [
            signed(
                copies[g][0, :, h],
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
# The formula as a loop, and as the layer's function.

# %%
out = group_conv2d(maps, kk, C4, padding=4)
for g in range(4):
    loop = sum(F.conv2d(maps[:, :, h], copies[g][:, :, h], padding=4) for h in range(4))
    assert torch.allclose(out[:, :, g], loop, rtol=0, atol=1e-10)

# %% [markdown]
# It commutes with the action on maps: turn and shift before, or turn and shift after.

# %%
for u in range(4):
    moved = group_conv2d(regular(maps, C4, u), kk, C4, padding=4)
    assert torch.allclose(moved, regular(out, C4, u), rtol=0, atol=1e-10)

# %% [markdown]
# ## Back to an image
#
# Pooling over the element axis forgets the places, so what is left turns in the plane alone. A network is then: lift,
# convolve on the group, pool. Norms and nonlinearities act on each value of the map and commute with everything.

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
wide = f[..., :56, :]  # no need to be square
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
# The same network with plain convolutions of the same shapes, for comparison: the check is not satisfied by anything.

# %%
plain = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2)).double()
assert equivariance_error(plain, C4, wide).max() > 0.1
