"""Draw the bridge: rotated kernels on the image, the kernel on rotated images, and their equal means.

Usage: python figures/bridge.py [FILE]
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from gconv_ga import C4, GroupAverage, GroupPool
from gconv_ga.actions import ScalarField
from gconv_ga.images import load_sample
from gconv_ga.nn.functional import lifting_conv2d
from gconv_ga.plots import PALETTE, Panel, panel_figure, save_figure

NAMES = (r"0^\circ", r"90^\circ", r"180^\circ", r"270^\circ")


def hook(size: int = 9) -> torch.Tensor:
    """Return a kernel ``[1, 1, size, size]`` that detects an edge with a corner and has no symmetry."""
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(-line, line, indexing="ij")
    bump = torch.exp(-3 * (x**2 + y**2))
    kernel = bump * (2 * x - 2.5 * torch.exp(-12 * ((x - 0.1) ** 2 + (y - 0.55) ** 2)))
    return (kernel - kernel.mean())[None, None]


def main(path: Path) -> None:
    """Compute both sides in float64, assert that they are equal, and draw them."""
    image = load_sample("nuclei").test.images[2:3, :, 52:116, 44:108].double()
    kernel, rotate = hook(), ScalarField()

    maps = lifting_conv2d(image, kernel, C4, padding=4)  # [1, 1, |G|, H, W]
    by_design = GroupPool(C4)(maps)
    plain = lambda x: F.conv2d(x, kernel, padding=4)  # noqa: E731
    by_averaging = GroupAverage(plain, C4)(image)
    difference = ((by_design - by_averaging).abs().max() / by_design.abs().max()).item()
    assert difference < 1e-10, difference

    inverse_images = [rotate(image, C4, C4.inverse(g)) for g in range(4)]
    terms = [rotate(plain(x), C4, g) for g, x in enumerate(inverse_images)]
    shown = {"colours": "signed", "limit": maps.abs().max().item() * 0.8}
    mean = {"colours": "signed", "border": PALETTE[2], "limit": by_design.abs().max().item() * 0.8}

    rows = [
        [
            Panel(rotate(kernel, C4, g)[0], rf"$L_g k$,  $g = {NAMES[g]}$", colours="signed", border=PALETTE[0])
            for g in range(4)
        ]
        + [None, Panel(image[0], "image $f$")],
        [
            *(Panel(maps[0, :, g], r"$(L_g k) * f$", **shown) for g in range(4)),
            r"$\to$",
            Panel(by_design[0], "mean over $g$", **mean),
        ],
        [Panel(x[0], rf"$L_g^{{-1}} f$,  $g = {NAMES[g]}$", border=PALETTE[1]) for g, x in enumerate(inverse_images)]
        + [None, Panel(kernel[0], "kernel $k$", colours="signed")],
        [
            *(Panel(term[0], r"$L_g (k * L_g^{-1} f)$", **shown) for term in terms),
            r"$\to$",
            Panel(by_averaging[0], f"group average\n(difference {difference:.0e})", **mean),
        ],
    ]
    labels = ["by design:\nrotated kernels", "feature maps", "by averaging:\nrotated images", "rotated back"]
    save_figure(panel_figure(rows, labels=labels, dpi=200), path)
    print(f"{path}: the two means differ by {difference:.0e} of the largest value")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
