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
# # 8. Segmentation under rotation
#
# Three small networks are trained to segment nuclei on the sixteen training images of the bundled sample: a
# $C_4$-equivariant U-Net, a compute-matched baseline trained with augmentation, and the same baseline without
# augmentation. This takes about a minute on a CPU; a GPU is used if there is one.

# %%
# %matplotlib inline
import torch

from gconv_ga import CyclicGroup
from gconv_ga.actions import LabelMask, ScalarField
from gconv_ga.evaluate import orientation_scores
from gconv_ga.images import CropStream, load_sample
from gconv_ga.models import EquivariantUNet
from gconv_ga.plots import PALETTE, chart, demo_figure
from gconv_ga.predict import predict_labels
from gconv_ga.segmenter import Machines, as_device
from gconv_ga.train import CrossEntropyDice, ReportSteps, Segmenter, fit

torch.manual_seed(0)
device = as_device("auto")
nuclei = load_sample("nuclei")
ours = EquivariantUNet(1, 2, group="C4", width=2, depth=3)
networks = {
    "C4 U-Net": (ours, "D4"),
    "baseline": (ours.baseline(), "D4"),
    "baseline, unaugmented": (ours.baseline(), None),
}
for name, (net, symmetry) in networks.items():
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{name:22} {parameters:7,} parameters, trained with {symmetry or 'no'} augmentation")

# %% [markdown]
# ## Training
#
# There are 120 steps of 6 crops each. The stream has a fixed seed, so all networks are trained on the same crops.

# %%
steps, losses = 120, {}
for name, (net, symmetry) in networks.items():
    curve = losses[name] = []
    stream = CropStream(nuclei.train, length=6 * steps, crop=64, symmetry=symmetry, seed=0)
    fit(
        Segmenter(net),
        stream,
        batch_size=6,
        machines=Machines(device),
        callbacks=[ReportSteps(lambda step, loss, curve=curve: curve.append(loss))],
    )
    net.eval()
    assert len(curve) == steps
    assert sum(curve[-10:]) < sum(curve[:10])

figure, axes = chart("step", "loss, mean of 10 steps", size=(5.5, 2.8))
for colour, (name, curve) in zip(PALETTE, losses.items(), strict=False):
    axes.plot(
        range(5, steps, 10), torch.tensor(curve).view(-1, 10).mean(1), "o-", color=colour, markersize=4, label=name
    )
axes.legend(frameon=False)
figure

# %% [markdown]
# The loss of the equivariant network ends at about twice that of the baselines, and yet its Dice below is as high. The
# table shows why. The loss compares probabilities, and Dice compares labels. Inside nuclei the two logits of the
# equivariant network differ by the same small number in almost all pixels, its bias: all features of its last layer,
# which has only two fields, are zero there. So the labels are right and the probabilities low, and the soft Dice loss
# stays high. Multiplying the logits by 4 changes no label and lowers the loss.

# %%
criterion, masks = CrossEntropyDice(), nuclei.test.masks
print(f"{'':22} difference of logits in nuclei, quartiles   bias   loss   with logits times 4")
for name, (net, _) in networks.items():
    with torch.no_grad():
        logits = net(nuclei.test.images.to(device)).cpu()
    quartiles = (logits[:, 1] - logits[:, 0])[masks == 1].quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    bias = list(net.parameters())[-1].diff().item()
    loss, scaled = criterion(logits, masks).item(), criterion(4 * logits, masks).item()
    print(f"{name:22}", *(f"{each:13.2f}" for each in quartiles), f"{bias:10.2f} {loss:6.2f} {scaled:12.2f}")

# %% [markdown]
# ## One image, upright and rotated
#
# The last row shows the pixels whose label changes when the image is rotated. For the equivariant network there are
# none.

# %%
C4, rotate_labels = CyclicGroup(4), LabelMask()
image, truth = nuclei.test.images[2], nuclei.test.masks[2]
predictions = {}
for name, (net, _) in networks.items():
    upright = predict_labels(net, image[None], device=device)[0]
    rotated = predict_labels(net, ScalarField()(image[None], C4, 1), device=device)[0]
    predictions[name] = upright, rotated
upright, rotated = predictions["C4 U-Net"]
assert (rotated != rotate_labels(upright, C4, 1)).sum() <= 1  # rounding in float32 may decide a tie
demo_figure(image, truth, predictions, group="C4", element=1)

# %% [markdown]
# ## All test images, all rotations of the group
#
# Dice measures the overlap with the ground truth; its maximum is one. With so little training on sixteen images the
# ranking by Dice means little. The zero in the last column does not depend on the training.

# %%
print(f"{'':22} Dice upright   rotated   worst rotation   labels changed")
for name, (net, _) in networks.items():
    s = orientation_scores(net, nuclei.test.images, nuclei.test.masks, classes=2, group="C4", device=device)
    print(f"{name:22} {s.upright:12.3f} {s.rotated:9.3f} {s.worst:16.3f} {s.changed:16.3%}")
    assert (s.changed < 1e-5) == (name == "C4 U-Net")

# %% [markdown]
# ## All angles
#
# At other angles the image must be interpolated, and $C_4$ equivariance says nothing about them. The curves show the
# share of pixels, within the disc that stays in view, whose label changes. The equivariant network reaches zero at the
# four angles of its group; between them nothing is guaranteed.

# %%
C24 = CyclicGroup(24)
offset = torch.arange(128) - 63.5
disc = (offset.square() + offset.square().unsqueeze(1)).sqrt() < 60


def changed(net):
    """The proportion of labels that change, by angle."""
    upright = predict_labels(net, nuclei.test.images, device=device)
    shares = []
    for g in range(C24.order):
        rotated = predict_labels(net, ScalarField()(nuclei.test.images, C24, g), device=device)
        shares.append((rotated != rotate_labels(upright, C24, g))[:, disc].double().mean().item())
    return shares


figure, axes = chart("angle in degrees", "% of labels changed", size=(6.4, 2.9))
for colour, (name, (net, _)) in zip(PALETTE, networks.items(), strict=False):
    shares = changed(net)
    axes.plot(
        range(0, 361, 15), [100 * share for share in [*shares, shares[0]]], "o-", color=colour, markersize=4, label=name
    )
    if net is ours:
        assert max(shares[::6]) < 1e-5
axes.set_xticks(range(0, 361, 90))
axes.set_ylim(bottom=0)
axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
figure

# %% [markdown]
# Next: [9. Does the constraint pay?](09_does_the_constraint_pay.ipynb). To run this notebook: [its
# source](08_segmentation_under_rotation.py), and [how](README.md#to-run-them).
