"""Draw how the output of a trained network changes under rotation, before and after conversion to C4.

Usage: python figures/cosmic_rays.py [FILE]

Needs the data sets "pretrained" and "ccd", in GCONV_GA_DATA or in ../shared/data beside the repository.
"""

import os
import sys
from pathlib import Path

import torch

from gconv_ga import C4
from gconv_ga.actions import ScalarField
from gconv_ga.conversion import convert
from gconv_ga.plots import PALETTE, Panel, panel_figure, save_figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from cosmic_ray_network import load_exposure, load_network  # noqa: E402 - the network lives with the tests

# Two crops of the exposure, 64 x 96 each: one with cosmic rays, one where the output changes most.
CROPS = (slice(96, 160), slice(290, 386)), (slice(398, 462), slice(380, 476))


@torch.no_grad()
def change(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the largest change of the output, rotated back, over 90, 180 and 270 degrees, pixel by pixel."""
    rotate, output = ScalarField(), network(image)
    changes = [rotate(network(rotate(image, C4, g)), C4, C4.inverse(g)) - output for g in (1, 2, 3)]
    return torch.stack(changes).abs().amax(0)


@torch.no_grad()
def main(path: Path) -> None:
    """Run both networks on the whole exposure in float64, assert that one is equivariant, and draw two crops."""
    folder = Path(os.environ.get("GCONV_GA_DATA", ROOT.parent / "shared" / "data"))
    network = load_network(folder / "pretrained" / "deepcr_acs_wfc.npz").double()
    image = load_exposure(folder / "ccd" / "saao_rf0420.png").double()
    converted = convert(network, C4, image[..., :64, :48])
    before, after = change(network, image), change(converted, image)
    assert after.max() < 1e-10, after.max()
    limit = before.max().item()

    titles = [
        "exposure\n",
        "trained network:\nprobability",
        f"trained: change\nup to {limit:.2f}",
        f"converted: change\nup to {after.max().item():.0e}",
    ]
    rows = []
    for window in CROPS:
        crop = (0, 0, *window)
        # Stars are a hundred times as bright as the sky: asinh shows both.
        maps = (torch.asinh(image[crop] / 20), network(image)[crop], before[crop], after[crop])
        options = ({}, {"limit": 1.0}, {"limit": limit, "border": PALETTE[0]}, {"limit": limit, "border": PALETTE[2]})
        row = [
            Panel(values, title, colours="signed" if option else "grey", **option)
            for values, title, option in zip(maps, titles, options, strict=True)
        ]
        rows.append(row)
        titles = [""] * 4
    save_figure(panel_figure(rows, dpi=200), path)
    print(f"{path}: the output changes by up to {limit:.3f}, after conversion by {after.max().item():.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
