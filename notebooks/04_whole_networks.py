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
# # 4. Whole networks
#
# What holds for one layer holds for a stack of layers. One argument leads from the group average of an ordinary network
# to a full group convolutional network, in as many steps as the group has elements. This notebook takes these steps,
# and then converts an ordinary network that is already trained.

# %%
# %matplotlib inline
import torch
from torch import nn

from gconv_ga import C4, GroupAverage, GroupConv2d, GroupPool, LiftingConv2d, convert, equivariance_error
from gconv_ga.actions import ScalarField
from gconv_ga.evaluate import dice
from gconv_ga.images import CropStream, load_sample
from gconv_ga.models import UNet
from gconv_ga.plots import PALETTE, Panel, chart, panel_figure
from gconv_ga.predict import predict_labels
from gconv_ga.train import Segmenter, fit

torch.manual_seed(0)
L = ScalarField()  # L(x, group, g) is L_g x
nuclei = load_sample("nuclei")
f = nuclei.test.images[2:3, :, 40:112, 40:112].double()


def signed(values, title="", **options):
    return Panel(values[0], title, colours="signed", **options)


# %% [markdown]
# ## From averaging to group convolution
#
# The kernel of a group convolution has one plane for each group element; `group_kernel_size=m` keeps the `m` planes
# nearest to the identity. With `m = 1` each orientation reads only itself, and the orientations are first mixed by the
# pooling. The network is then the mean of four copies of one ordinary network, with kernels rotated by $g$ in copy $g$.


# %%
def network(taps):
    return nn.Sequential(
        LiftingConv2d(1, 6, 5, padding=2, group=C4),
        nn.Tanh(),
        GroupConv2d(6, 6, 5, padding=2, group=C4, group_kernel_size=taps),
        nn.Tanh(),
        GroupConv2d(6, 1, 5, padding=2, group=C4, group_kernel_size=taps),
        GroupPool(C4),
    ).double()


plain = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2),
    nn.Tanh(),
    nn.Conv2d(6, 6, 5, padding=2),
    nn.Tanh(),
    nn.Conv2d(6, 1, 5, padding=2),
).double()
plain.requires_grad_(False)
average = GroupAverage(plain, C4)

nets = {m: network(m).requires_grad_(False) for m in (1, 2, 3, 4)}
for net in nets.values():
    net[0].load_state_dict(plain[0].state_dict())  # a lifting layer has the weights of an ordinary layer
    for layer in (2, 4):
        net[layer].weight[:, :, 0] = plain[layer].weight  # the plane of the identity
        net[layer].bias.copy_(plain[layer].bias)

difference = (nets[1](f) - average(f)).abs().max() / average(f).abs().max()
print(f"m = 1: differs from the group average of the ordinary network by {difference:.0e}")
assert difference < 1e-12

# %% [markdown]
# For every `m` the network is equivariant. Its number of parameters and its expressive power grow with `m`: as the
# other planes grow from zero, the network departs from the group average but stays equivariant.

# %%
steps = torch.linspace(0, 1, 6).tolist()
planes = {layer: nets[4][layer].weight.clone() for layer in (2, 4)}  # the random initial weights, used by all networks


def with_planes(m, t):
    """The network with m planes, all but the first scaled by t."""
    for layer in (2, 4):
        nets[m][layer].weight[:, :, 1:] = 0.5 * t * planes[layer][:, :, 1:m]
    return nets[m]


figure, axes = chart("scale t of the other planes", "distance from the group average", size=(8.6, 2.7))
for m, colour in zip((1, 2, 3, 4), PALETTE, strict=False):
    distances = [((with_planes(m, t)(f) - average(f)).norm() / average(f).norm()).item() for t in steps]
    error = max(equivariance_error(with_planes(m, t), C4, f).max().item() for t in (0.0, 1.0))
    parameters = sum(p.numel() for p in nets[m].parameters())
    assert distances[0] < 1e-12
    assert error < 1e-10
    axes.plot(
        steps,
        distances,
        "o-",
        color=colour,
        label=f"m = {m}: {parameters:,} parameters, equivariance error {error:.0e}",
    )
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure

# %%
limit = average(f).abs().max().item()
panel_figure(
    [
        [Panel(f[0], "$f$"), r"$\to$", signed(average(f), "group average", limit=limit, border=PALETTE[2])]
        + [signed(with_planes(4, t)(f), f"m = 4, t = {t:.1f}", limit=limit) for t in (0.0, 0.5, 1.0)],
        [Panel(L(f, C4, 1)[0], "$L_g f$"), r"$\to$", signed(average(L(f, C4, 1)), limit=limit, border=PALETTE[2])]
        + [signed(with_planes(4, t)(L(f, C4, 1)), limit=limit) for t in (0.0, 0.5, 1.0)],
    ],
    labels=["upright", "rotated"],
)

# %% [markdown]
# ## Converting a trained network
#
# An ordinary U-Net is trained briefly on images of nuclei in their original orientation, without augmentation.

# %%
unet = UNet(1, 2, width=8, depth=3)
stream = CropStream(nuclei.train, length=100 * 6, crop=64, symmetry=None, seed=0)
fit(Segmenter(unet), stream, batch_size=6)
unet.eval()

image, truth = nuclei.test.images[5:6], nuclei.test.masks[5:6]
print(f"Dice on the test images: {dice(predict_labels(unet, nuclei.test.images), nuclei.test.masks, classes=2):.3f}")

# %% [markdown]
# `convert` returns the group convolutional network that *equals* its group average. Convolutions get rotated kernels,
# pointwise layers and norms are kept, and any other layer that maps images to images is applied in the coordinates of
# each orientation. The result is compared with the group average in float64 before it is returned; the last line of the
# report gives the difference.

# %%
net = convert(unet, "C4", nuclei.test.images[:2, :, :96, :])
print(net.report)

# %% [markdown]
# The converted network never rotates images, so they need not be square. Convolution and averaging agree here too, in a
# network with pooling, skip connections and batch norm.

# %%
with torch.no_grad():
    wide = nuclei.test.images[:4, :, 10:100, :]
    difference = (net(wide) - GroupAverage(unet, C4)(wide)).abs().max() / net(wide).abs().max()
    print(f"converted against averaged: {difference:.0e}")
    assert difference < 1e-5
    errors_of = {"original": equivariance_error(unet, C4, wide), "converted": equivariance_error(net, C4, wide)}
for name, errors in errors_of.items():
    print(f"{name}: equivariance error {errors.max():.0e}")
assert errors_of["original"].max() > 1e-2
assert errors_of["converted"].max() < 1e-5

# %% [markdown]
# The output for the rotated image, rotated back, minus the output for the upright image. For the converted network the
# difference is zero for every rotation of the group.


# %%
@torch.no_grad()
def change(model, g=1):
    """L_g^-1 model(L_g x) - model(x): the logit of the class "nucleus"."""
    return L(model(L(image, C4, g)), C4, C4.inverse(g))[:, 1] - model(image)[:, 1]


with torch.no_grad():
    logits = {"original": unet(image)[:, 1], "converted": net(image)[:, 1]}
limit = max(change(unet, g).abs().max().item() for g in (1, 2, 3)) * 0.7
panel_figure(
    [
        [Panel(image[0], "image"), signed(logits["original"][None, 0], "original: logits", limit=6.0)]
        + [signed(change(unet, g)[None, 0], f"change, rotated {90 * g}°", limit=limit) for g in (1, 2, 3)],
        [None, signed(logits["converted"][None, 0], "converted: logits", limit=6.0)]
        + [signed(change(net, g)[None, 0], f"change, rotated {90 * g}°", limit=limit) for g in (1, 2, 3)],
    ]
)

# %% [markdown]
# ## Training it further
#
# The converted network can be trained further. `open_taps` gives its convolutions the planes of the other orientations,
# initially zero: the output is unchanged, and training can now use them. The network stays equivariant throughout.

# %%
with torch.no_grad():
    before = net(wide)
    print(f"Dice on the test images: {dice(predict_labels(net, nuclei.test.images), nuclei.test.masks, classes=2):.3f}")
    net.open_taps()
    assert (net(wide) - before).abs().max() < 1e-4
print(
    "parameters before:",
    sum(p.numel() for p in unet.parameters()),
    "and after:",
    sum(p.numel() for p in net.parameters()),
)

fit(
    Segmenter(net, learning_rate=2e-3),
    CropStream(nuclei.train, length=40 * 6, crop=64, symmetry=None, seed=1),
    batch_size=6,
)
net.eval()
error = equivariance_error(net, C4, wide).max()
print(f"after 40 steps of training: equivariance error {error:.0e}")
print(f"Dice on the test images: {dice(predict_labels(net, nuclei.test.images), nuclei.test.masks, classes=2):.3f}")
assert error < 1e-5

# %% [markdown]
# Next: [5. Pre-processing](05_preprocessing.ipynb). To run this notebook: [its source](04_whole_networks.py), and
# [how](README.md#to-run-them).
