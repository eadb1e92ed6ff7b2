"""Animate the prediction of a plain network, and of its average over C8, while the image rotates.

The predictions are rotated back, so that those of an equivariant network stand still. Trains for a minute.
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
RADIUS = 120  # of the disc that stays in view, in pixels of the enlarged image
STEPS, BATCH = 150, 8
DPI, TEXT = 80, 14  # points: legible at half the width


def enlarged(images: Tensor) -> Tensor:
    """Return images with twice the height and width, which makes interpolation at angles off the grid accurate."""
    return F.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)


def trained(train: Split) -> nn.Module:
    """Return a plain U-Net trained without augmentation."""
    torch.manual_seed(0)
    masks = train.masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    stream = CropStream(Split(enlarged(train.images), masks), length=BATCH * STEPS, crop=96, symmetry=None, seed=0)
    net = UNet(1, 2, width=8, depth=4)
    fit(Segmenter(net), stream, batch_size=BATCH)
    return net.eval()


def draw_frame(panels: list[list[Panel]], curves: dict[str, list[float]], highest: float) -> Image.Image:
    """Return one frame of the animation."""
    figure = Figure(figsize=(9.5, 5.9), dpi=DPI, facecolor="white")
    for r, row in enumerate(panels):
        for c, panel in enumerate(row, start=r):
            axes = figure.add_axes((0.01 + 0.303 * c, 0.49 - 0.49 * r, 0.281, 0.44))
            axes.imshow(panel.pixels(), interpolation="nearest")
            axes.axis("off")
            axes.set_title(panel.title, fontsize=TEXT, pad=4)
        limit = row[-1].limit
        ramp = Panel(torch.linspace(limit, -limit, 101).unsqueeze(1), "logit", "signed", limit)
        axes = figure.add_axes((0.92, 0.55 - 0.49 * r, 0.018, 0.29))
        axes.imshow(ramp.pixels(), extent=(0, 1, -limit, limit), aspect="auto")
        axes.set(xticks=[], yticks=[-limit, 0, limit])
        axes.yaxis.tick_right()
        axes.tick_params(labelsize=TEXT - 3)
        axes.set_title(ramp.title, fontsize=TEXT - 2, pad=8)
    axes = figure.add_axes((0.068, 0.1, 0.204, 0.28))
    for colour, (name, values) in zip((PALETTE[1], PALETTE[0]), curves.items(), strict=True):
        axes.plot([15 * g for g in range(len(values))], values, color=colour, linewidth=2.5, label=name)
    axes.set(xlim=(0, 360), ylim=(0, highest), xticks=[0, 90, 180, 270, 360])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=TEXT - 2)
    axes.set_title("% of labels changed", fontsize=TEXT - 1, pad=8)
    axes.set_xlabel("angle in degrees", fontsize=TEXT - 1)
    axes.legend(frameon=False, fontsize=TEXT - 2, loc="upper left", borderpad=0)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(
        torch.frombuffer(canvas.buffer_rgba(), dtype=torch.uint8).view(*canvas.get_width_height()[::-1], 4).numpy()
    ).convert("RGB")


@torch.no_grad()
def main(path: Path) -> None:
    """Train the network, rotate the image, and draw the animation."""
    nuclei, rotate = load_sample("nuclei"), ScalarField()
    with torch.enable_grad():
        net = trained(nuclei.train)
    image = enlarged(nuclei.test.images[5:6])
    line = torch.arange(256) - 127.5
    disc = (line.square() + line.square().unsqueeze(1)).sqrt() < RADIUS

    def score(x: Tensor) -> Tensor:
        """Return the logit of "nucleus" minus that of "background"."""
        logits = net(x)
        return logits[:, 1:] - logits[:, :1]

    models = {"plain U-Net": score, "average over C8": GroupAverage(score, C8)}
    outputs = {name: [] for name in models}
    rotated = [rotate(image, CIRCLE, g) for g in range(CIRCLE.order)]
    for g, x in enumerate(rotated):
        for name, model in models.items():
            outputs[name].append(rotate(model(x), CIRCLE, CIRCLE.inverse(g))[0, 0])
    changed = {
        name: [100 * ((y > 0) != (maps[0] > 0))[disc].double().mean().item() for y in maps]
        for name, maps in outputs.items()
    }
    worst = {name: max(values) for name, values in changed.items()}
    assert 5 * worst["average over C8"] < worst["plain U-Net"], worst

    def disc_panel(values: Tensor, title: str, limit: float) -> Panel:
        return Panel((values * disc)[8:-8, 8:-8], title, "signed", limit)

    darkest, brightest = image.quantile(0.01), image.quantile(0.995)
    pictures = []
    for g, x in enumerate(rotated):
        bright = ((x[0, 0] - darkest) / (brightest - darkest)).clamp(0, 1).sqrt()  # so that dim nuclei are visible
        view = torch.where(disc, bright, 1.0)[8:-8, 8:-8]
        top = [Panel(view, f"image rotated by {15 * g}°")]
        top += [disc_panel(maps[g], name, 12.0) for name, maps in outputs.items()]
        below = [disc_panel(maps[g] - maps[0], "change under rotation", 4.0) for maps in outputs.values()]
        curves = {name: values[: g + 1] for name, values in changed.items()}
        pictures.append(draw_frame([top, below], curves, 1.75 * max(worst.values())))
    palette = pictures[-1].quantize(96, method=Image.Quantize.MEDIANCUT)
    small = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    small[0].save(path, save_all=True, append_images=small[1:], duration=220, loop=0, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; largest share of labels changed, in %: {worst}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".gif")))
