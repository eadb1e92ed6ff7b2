"""An image turns. What a plain network says of it, and what the same network says when it is averaged over C8.

The answers are turned back, so that an equivariant network's answer stands still. Trains for a minute.
Usage: python figures/turning.py [FILE]
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from gconv_ga import C8, CyclicGroup, GroupAverage
from gconv_ga.actions import ScalarField
from gconv_ga.images import CropStream, Split, load_sample
from gconv_ga.models import UNet
from gconv_ga.plots import PALETTE, Panel
from gconv_ga.train import Segmenter, fit

CIRCLE = CyclicGroup(24)  # one frame for each element
RADIUS = 120  # of the disc that stays in view, in pixels of the image twice as large
STEPS, BATCH = 150, 8
DPI, TEXT = 80, 14  # points: still read at half the width


def twice(images: Tensor) -> Tensor:
    """Twice as many pixels: an image turned between pixels is then close to the turned image."""
    return F.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)


def trained(train: Split) -> nn.Module:
    """A plain U-Net that has seen its images upright only."""
    torch.manual_seed(0)
    masks = train.masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    stream = CropStream(Split(twice(train.images), masks), length=BATCH * STEPS, crop=96, symmetry=None, seed=0)
    net = UNet(1, 2, width=8, depth=4)
    fit(Segmenter(net), stream, batch_size=BATCH)
    return net.eval()


def frame(panels: list[list[Panel]], curves: dict[str, list[float]], highest: float) -> Image.Image:
    """One picture of the animation."""
    figure = Figure(figsize=(8.6, 5.9), dpi=DPI, facecolor="white")
    for r, row in enumerate(panels):
        for c, panel in enumerate(row, start=r):
            axes = figure.add_axes((0.01 + 0.335 * c, 0.49 - 0.49 * r, 0.31, 0.44))
            axes.imshow(panel.pixels(), interpolation="nearest")
            axes.axis("off")
            axes.set_title(panel.title, fontsize=TEXT, pad=4)
    axes = figure.add_axes((0.075, 0.1, 0.225, 0.28))
    for colour, (name, values) in zip((PALETTE[1], PALETTE[0]), curves.items(), strict=True):
        axes.plot([15 * g for g in range(len(values))], values, color=colour, linewidth=2.5, label=name)
    axes.set(xlim=(0, 360), ylim=(0, highest), xticks=[0, 90, 180, 270, 360])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT - 2)
    axes.set_title("% of labels changed", fontsize=TEXT - 1, pad=8)
    axes.set_xlabel("degrees", fontsize=TEXT - 1)
    axes.legend(frameon=False, fontsize=TEXT - 2, loc="upper left", borderpad=0)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(
        torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).view(*canvas.get_width_height()[::-1], 4).numpy()
    ).convert("RGB")


@torch.no_grad()
def main(path: Path) -> None:
    """Trains, turns, draws."""
    nuclei, turn = load_sample("nuclei"), ScalarField()
    with torch.enable_grad():
        net = trained(nuclei.train)
    image = twice(nuclei.test.images[5:6])
    line = torch.arange(256) - 127.5
    disc = (line.square() + line.square().unsqueeze(1)).sqrt() < RADIUS

    def score(x: Tensor) -> Tensor:
        """Logit of "nucleus"."""
        logits = net(x)
        return logits[:, 1:] - logits[:, :1]

    models = {"plain": score, "averaged over C8": GroupAverage(score, C8)}
    answers = {name: [] for name in models}
    turned = [turn(image, CIRCLE, g) for g in range(CIRCLE.order)]
    for g, x in enumerate(turned):
        for name, model in models.items():
            answers[name].append(turn(model(x), CIRCLE, CIRCLE.inverse(g))[0, 0])
    changed = {
        name: [100 * ((y > 0) != (all_[0] > 0))[disc].double().mean().item() for y in all_]
        for name, all_ in answers.items()
    }
    worst = {name: max(values) for name, values in changed.items()}
    assert 5 * worst["averaged over C8"] < worst["plain"], worst

    def seen(values: Tensor, title: str, limit: float) -> Panel:
        return Panel((values * disc)[8:-8, 8:-8], title, "signed", limit)

    darkest, brightest = image.quantile(0.01), image.quantile(0.995)
    pictures = []
    for g, x in enumerate(turned):
        bright = ((x[0, 0] - darkest) / (brightest - darkest)).clamp(0, 1).sqrt()  # dim nuclei are seen too
        view = torch.where(disc, bright, 1.0)[8:-8, 8:-8]
        top = [Panel(view, f"the image, turned by {15 * g}°")]
        top += [seen(all_[g], name, 12.0) for name, all_ in answers.items()]
        below = [seen(all_[g] - all_[0], "change by the turn", 4.0) for all_ in answers.values()]
        curves = {name: values[: g + 1] for name, values in changed.items()}
        pictures.append(frame([top, below], curves, 1.75 * max(worst.values())))
    palette = pictures[-1].quantize(96, method=Image.Quantize.MEDIANCUT)
    small = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    small[0].save(path, save_all=True, append_images=small[1:], duration=220, loop=0, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; labels changed at worst: {worst}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".gif")))
