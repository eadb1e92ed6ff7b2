"""Draw pre-processing as a frame: with the left eye as the origin, a position-dependent network becomes equivariant.

Requires scikit-image (extra ``notebooks``), which contains the photograph of the cat.
Usage: python figures/preprocessing.py [FILE]
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor, nn

from gconv_ga.frames import Canonicalize, LandmarkFrame
from gconv_ga.plots import PALETTE, Panel, panel_figure, save_figure

SHIFTS = ((0, 0), (20, -55), (-25, 30))  # rows down and columns to the right, cyclic
EYE = (43, 106)  # row and column of the cat's left eye, on our right


def cat() -> Tensor:
    """Return the photograph, ``[1, 3, 100, 150]``."""
    photo = torch.tensor(data.chelsea()).permute(2, 0, 1)[None, :, :, :450] / 255
    return F.avg_pool2d(photo.double(), 3)


class LeftEye(nn.Module):
    """Normalized correlation with an eye of 17 pixels. It commutes with cyclic translations."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        row, column = EYE
        eye = picture[:, :, row - 8 : row + 9, column - 8 : column + 9].mean(1, keepdim=True)
        self.register_buffer("kernel", F.normalize(eye - eye.mean(), dim=(-2, -1)))

    def forward(self, x: Tensor) -> Tensor:
        grey = F.pad(x.mean(1, keepdim=True), (8, 8, 8, 8), mode="circular")
        ones = torch.ones_like(self.kernel)
        mean = F.conv2d(grey, ones) / ones.numel()
        spread = (F.conv2d(grey.square(), ones) - ones.numel() * mean.square()).clamp_min(1e-3).sqrt()
        return (F.conv2d(grey, self.kernel) / spread)[:, 0]


class PositionDependent(nn.Module):
    """Zero padding, and a random smooth weight per channel and pixel: it commutes with no translation."""

    def __init__(self, height: int, width: int, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 5, padding=2)
        self.place = nn.Parameter(
            F.interpolate(torch.randn(1, channels, 4, 6), (height, width), mode="bicubic", align_corners=True)
        )
        self.last = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.place * self.first(x - 0.45).tanh())


def networks(picture: Tensor) -> tuple[PositionDependent, Canonicalize]:
    """Return a random network, and the same network with the landmark frame."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = PositionDependent(*picture.shape[-2:]).to(picture).requires_grad_(False)
    return plain, Canonicalize(plain, LandmarkFrame(LeftEye(picture)), "image", "image")


def relative_error(network: nn.Module, picture: Tensor, shift: tuple[int, int]) -> float:
    """Return the largest difference of ``Phi(g x)`` and ``g Phi(x)``, relative to the largest output."""
    expected = torch.roll(network(picture), shift, (-2, -1))
    return float((network(torch.roll(picture, shift, (-2, -1))) - expected).abs().max() / expected.abs().max())


def main(path: Path) -> None:
    """Assert the errors that the figure shows, and draw it."""
    picture = cat()
    plain, framed = networks(picture)
    cats = [torch.roll(picture, shift, (-2, -1)) for shift in SHIFTS]
    found = [framed.frame(x).translations[0, 0] for x in cats]
    height, width = picture.shape[-2:]
    places = [(float(t[0]) + width // 2, float(t[1]) + height // 2) for t in found]
    centred = Canonicalize(lambda x: x, framed.frame, "image", "invariant")
    limit = float(plain(picture).abs().max()) * 0.7
    rows: list[list[Panel]] = [
        [Panel(x[0], "$x$", marks=[at]) for x, at in zip(cats, places, strict=True)],
        [Panel(centred(x)[0], r"$\rho(g)^{-1} x$", marks=[(width // 2, height // 2)]) for x in cats],
    ]
    for network, name, colour in ((plain, r"\Phi", PALETTE[1]), (framed, r"\langle\Phi\rangle_F", PALETTE[0])):
        errors = [relative_error(network, picture, shift) for shift in SHIFTS]
        assert all((error == 0) == (network is framed) for error in errors[1:]), errors
        titles = [f"${name}(x)$", *(f"error {error:.0%}" for error in errors[1:])]
        back = [torch.roll(network(x), (-a, -b), (-2, -1))[0] for x, (a, b) in zip(cats, SHIFTS, strict=True)]
        rows.append(
            [
                Panel(values, title, colours="signed", limit=limit, border=colour)
                for values, title in zip(back, titles, strict=True)
            ]
        )
        print(f"{name}: relative errors {errors[1:]}")
    labels = ["shifted image", "pre-processed", "$\\Phi$,\nshifted back", "$\\langle\\Phi\\rangle_F$,\nshifted back"]
    save_figure(panel_figure(rows, labels=labels, dpi=200), path)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png")))
