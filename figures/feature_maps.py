"""Animate lifted feature maps while the image rotates: they rotate in place and change places.

The lower row shows the same maps rotated back, so that only the permutation is left.
Usage: python figures/feature_maps.py [FILE]
"""

import sys
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import Tensor

from gconv_ga import C4, CyclicGroup
from gconv_ga.actions import ScalarField
from gconv_ga.images import load_sample
from gconv_ga.nn.functional import lifting_conv2d
from gconv_ga.plots import PALETTE, Panel, panel_figure

CIRCLE = CyclicGroup(24)  # one frame for each element
QUARTER = CIRCLE.order // 4
RADIUS = 33  # of the disc that stays in view, in pixels
MOVING, AT_REST = 130, 1100  # milliseconds a frame; the animation rests at multiples of 90 degrees


def bump(size: int = 9) -> Tensor:
    """Return a kernel ``[1, 1, size, size]`` without symmetry: an edge with a corner."""
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(-line, line, indexing="ij")
    kernel = x * torch.exp(-3 * (x**2 + y**2)) - 0.6 * torch.exp(-9 * (x**2 + (y - 0.5) ** 2))
    return (kernel - kernel.mean())[None, None]


def draw(panels: list[list[Panel]], labels: list[str]) -> Image.Image:
    """Return one frame of the animation."""
    canvas = FigureCanvasAgg(panel_figure(panels, labels=labels, dpi=80))
    canvas.draw()
    width, height = canvas.get_width_height()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8).view(height, width, 4)
    return Image.fromarray(pixels.numpy()).convert("RGB")


def main(path: Path) -> None:
    """Rotate the image, lift it, assert the permutation at multiples of 90 degrees, and draw the animation."""
    rotate, kernel = ScalarField(), bump()
    image = load_sample("nuclei").test.images[2:3, :, 40:112, 40:112].double()
    line = torch.arange(72) - 35.5
    disc = (line.square() + line.square().unsqueeze(1)).sqrt() < RADIUS
    image = torch.where(disc, image, image[..., disc].mean())  # what rotates is the disc alone
    upright = lifting_conv2d(image, kernel, C4, padding=4)[0, 0]
    limit = upright.abs().max().item() * 0.7

    def in_disc(values: Tensor, title: str = "", border: str | None = None) -> Panel:
        return Panel((values * disc)[2:-2, 2:-2], title, "signed", limit, border)

    pictures, durations = [], []
    for step in range(CIRCLE.order):
        rotated = rotate(image, CIRCLE, step)
        maps = lifting_conv2d(rotated, kernel, C4, padding=4)[0, 0]
        back = rotate(maps, CIRCLE, CIRCLE.inverse(step))
        rests = step % QUARTER == 0
        sources = [(g - step // QUARTER) % 4 for g in range(4)]
        if rests:
            assert torch.allclose(back, upright[sources], rtol=0, atol=1e-10)
        view = torch.where(disc, rotated[0, 0], rotated.max())[2:-2, 2:-2]
        top = [in_disc(maps[g], rf"$[k * L_h f](g)$, $g = {90 * g}^\circ$", PALETTE[g]) for g in range(4)]
        below = [in_disc(back[g], "", PALETTE[sources[g]] if rests else None) for g in range(4)]
        image_panel = Panel(view, rf"$L_h f$, $h = {15 * step}^\circ$")
        pictures.append(draw([[image_panel, *top], [Panel(kernel[0], "$k$", "signed"), *below]], ["", "rotated back"]))
        durations.append(AT_REST if rests else MOVING)
    palette = pictures[0].quantize(255, method=Image.Quantize.MEDIANCUT)
    small = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in pictures]
    small[0].save(path, save_all=True, append_images=small[1:], duration=durations, loop=0, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".gif")))
