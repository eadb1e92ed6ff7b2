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
# What holds for one layer holds for a stack of them. Between the group average of a plain network and a full group
# convolutional network lies a dial with one step for every element. This page turns it, and then takes a plain network
# that has been trained already over the bridge.

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
# ## The dial
#
# A group convolution has one plane of its kernel for each element of the group; `group_kernel_size=m` keeps the `m`
# planes nearest the identity. With `m = 1` a map sees only the map of its own orientation: the orientations never meet
# until they are pooled. That is four copies of one plain network, each with its kernels turned, and their mean.


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
    net[0].load_state_dict(plain[0].state_dict())  # the lifting layer's weights are a plain layer's
    for layer in (2, 4):
        net[layer].weight[:, :, 0] = plain[layer].weight  # the plane of the identity
        net[layer].bias.copy_(plain[layer].bias)

same = (nets[1](f) - average(f)).abs().max() / average(f).abs().max()
print(f"m = 1: differs from the group average of the plain network by {same:.0e}")
assert same < 1e-12

# %% [markdown]
# Every network on the dial is equivariant. What changes is how many weights it has and what it can say: let the further
# planes grow from zero and the network leaves the group average, without leaving equivariance.

# %%
steps = torch.linspace(0, 1, 6).tolist()
planes = {layer: nets[4][layer].weight.clone() for layer in (2, 4)}  # as drawn; the networks share them


def opened(m, t):
    """The network at m whose further planes are open by t."""
    for layer in (2, 4):
        nets[m][layer].weight[:, :, 1:] = 0.5 * t * planes[layer][:, :, 1:m]
    return nets[m]


figure, axes = chart("how far the further planes are open", "distance from the group average", size=(8.6, 2.7))
for m, colour in zip((1, 2, 3, 4), PALETTE, strict=False):
    away = [((opened(m, t)(f) - average(f)).norm() / average(f).norm()).item() for t in steps]
    error = max(equivariance_error(opened(m, t), C4, f).max().item() for t in (0.0, 1.0))
    weights = sum(p.numel() for p in nets[m].parameters())
    assert away[0] < 1e-12
    assert error < 1e-10
    axes.plot(steps, away, "o-", color=colour, label=f"m = {m}: {weights:,} weights, equivariant to {error:.0e}")
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure

# %%
limit = average(f).abs().max().item()
panel_figure(
    [
        [Panel(f[0], "$f$"), r"$\to$", signed(average(f), "group average", limit=limit, border=PALETTE[2])]
        + [signed(opened(4, t)(f), f"m = 4, open by {t:.1f}", limit=limit) for t in (0.0, 0.5, 1.0)],
        [Panel(L(f, C4, 1)[0], "$L_g f$"), r"$\to$", signed(average(L(f, C4, 1)), limit=limit, border=PALETTE[2])]
        + [signed(opened(4, t)(L(f, C4, 1)), limit=limit) for t in (0.0, 0.5, 1.0)],
    ],
    labels=["upright", "turned"],
)

# %% [markdown]
# ## A trained network goes over the bridge
#
# A plain U-Net, trained for a short while on nuclei that all lie as the microscope saw them: no augmentation.

# %%
unet = UNet(1, 2, width=8, depth=3)
stream = CropStream(nuclei.train, length=100 * 6, crop=64, symmetry=None, seed=0)
fit(Segmenter(unet), stream, batch_size=6)
unet.eval()

image, truth = nuclei.test.images[5:6], nuclei.test.masks[5:6]
print(f"Dice on the test images: {dice(predict_labels(unet, nuclei.test.images), nuclei.test.masks, classes=2):.3f}")

# %% [markdown]
# `convert` gives the group convolutional network that *is* its group average. Every convolution gets turned kernels,
# pointwise layers and norms stay, and whatever else goes from image to image is run in each orientation's own frame.
# The result is compared with the group average in float64 before you get it; the last line of the report says how well
# they agree.

# %%
net = convert(unet, "C4", nuclei.test.images[:2, :, :96, :])
print(net.report)

# %% [markdown]
# No image is turned on the way, so images need not be square. And the two roads agree here too, now on a network with
# pooling, skip connections and batch norm.

# %%
with torch.no_grad():
    wide = nuclei.test.images[:4, :, 10:100, :]
    difference = (net(wide) - GroupAverage(unet, C4)(wide)).abs().max() / net(wide).abs().max()
    print(f"converted against averaged: {difference:.0e}")
    assert difference < 1e-5
    turned = {"the plain U-Net": equivariance_error(unet, C4, wide), "converted": equivariance_error(net, C4, wide)}
for name, errors in turned.items():
    print(f"{name}: equivariance error {errors.max():.0e}")
assert turned["the plain U-Net"].max() > 1e-2
assert turned["converted"].max() < 1e-5

# %% [markdown]
# What the plain network says of the turned image, turned back, minus what it says of the image as it is. For the
# converted network the difference is zero, whichever way the image is turned.


# %%
@torch.no_grad()
def there_and_back(model, g=1):
    """Model(L_g x), turned back, minus Model(x): the logit of the class "nucleus"."""
    return L(model(L(image, C4, g)), C4, C4.inverse(g))[:, 1] - model(image)[:, 1]


with torch.no_grad():
    logits = {"plain": unet(image)[:, 1], "converted": net(image)[:, 1]}
limit = max(there_and_back(unet, g).abs().max().item() for g in (1, 2, 3)) * 0.7
panel_figure(
    [
        [Panel(image[0], "image"), signed(logits["plain"][None, 0], "plain: logits", limit=6.0)]
        + [signed(there_and_back(unet, g)[None, 0], f"change, turned {90 * g}°", limit=limit) for g in (1, 2, 3)],
        [None, signed(logits["converted"][None, 0], "converted: logits", limit=6.0)]
        + [signed(there_and_back(net, g)[None, 0], f"change, turned {90 * g}°", limit=limit) for g in (1, 2, 3)],
    ]
)

# %% [markdown]
# ## ... and beyond it
#
# The converted network is a starting point. Open the taps, and its convolutions get the planes for the other
# orientations, all zero: the output is what it was, and now training can use them. Equivariance is never at stake.

# %%
with torch.no_grad():
    before = net(wide)
    print(f"Dice on the test images: {dice(predict_labels(net, nuclei.test.images), nuclei.test.masks, classes=2):.3f}")
    net.open_taps()
    assert (net(wide) - before).abs().max() < 1e-4
print(
    "weights before", sum(p.numel() for p in unet.parameters()), "and after", sum(p.numel() for p in net.parameters())
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
