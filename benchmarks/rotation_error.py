"""Measure the equivariance error of single layers and of random networks: ours, escnn's and bilinear rotation.

Question, protocol and results are in README.md. First, in the environment of the extra "escnn":

    python benchmarks/rotation_error_escnn.py escnn_kernels.npz

then in the usual one (photographs come from scikit-image, microscope images from ../shared/data):

    python benchmarks/rotation_error.py escnn_kernels.npz --json rotation_error.json
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from result_tables import markdown_table
from rotation_error_escnn import FIELDS, LAYERS, ORDERS, SEEDS, SIZES, has_networks
from torch import Tensor

BLURS = (0.0, 1.0)  # standard deviation of the blur of the image, in pixels
SIDE = 128  # of the images, in pixels
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# --- candidates: functions [F, n, k, k] and the standard deviation of each weight


def ours(n: int, k: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the functions of `steerable_basis`, each scaled by the initial spread of its weight."""
    from gconv_ga.filters import steerable_basis

    basis = steerable_basis(f"C{n}", k, **options)
    scale = torch.tensor(basis.spread, dtype=torch.float64)
    return basis.kernels * scale.view(-1, 1, 1, 1), torch.ones_like(scale)


def bilinear(n: int, k: int) -> tuple[Tensor, Tensor]:
    """Return free taps, with kernels rotated by bilinear interpolation."""
    taps = torch.eye(k * k, dtype=torch.float64).view(1, k * k, k, k)
    rotated = []
    for g in range(n):
        c, s = math.cos(2 * math.pi * g / n), math.sin(2 * math.pi * g / n)
        # Rows count downwards and g is counter-clockwise: the source of a position is rotated back.
        grid = F.affine_grid(torch.tensor([[[c, -s, 0], [s, c, 0]]], dtype=torch.float64), (1, 1, k, k), False)
        rotated.append(F.grid_sample(taps, grid, align_corners=False)[0])
    return torch.stack(rotated, 1), torch.ones(k * k, dtype=torch.float64)


def smoothed(functions: Tensor) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the span, each function scaled by the fourth root of its gain, as ours are."""
    number, n, _, _ = functions.shape
    flat = functions.flatten(2)
    values, vectors = torch.linalg.eigh(torch.einsum("fgx,hgx->fh", flat, flat) / n)
    flat = torch.einsum("fh,fgx->hgx", vectors / values.sqrt(), flat)
    w = 2 * math.pi * torch.fft.fftfreq(SIDE, dtype=torch.float64)
    waves = torch.stack((w.repeat(SIDE), -w.repeat_interleave(SIDE)), 1)
    p2 = waves.square().sum(1)
    power = (p2 + 0.01) ** -1.5 * (p2 < math.pi**2)
    gain = sum(_products(responses(flat[:, g], waves), power / power.sum()) for g in range(n)) / n
    values, vectors = torch.linalg.eigh(gain)
    scale = (values + 1e-3) ** 0.25
    return torch.einsum("fh,fgx->hgx", vectors * scale, flat).view(functions.shape), torch.ones(number).double()


def candidates(n: int, k: int, escnn: dict[str, np.ndarray]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, functions, and the standard deviation of each weight."""
    theirs = torch.tensor(escnn[f"basis_{n}_{k}"])
    yield "escnn", theirs, torch.tensor(escnn[f"spread_{n}_{k}"])
    yield "escnn, our smoothing", *smoothed(theirs)
    yield "ours", *ours(n, k)
    if k > 3:
        yield "ours, fewer functions", *ours(n, k, functions={5: 12, 7: 19}[k])
    yield "ours, smoothing=0", *ours(n, k, smoothing=0.0)
    yield "bilinear", *bilinear(n, k)


# --- images


def _read(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("L"), dtype=float)


def images() -> dict[str, list[Tensor]]:
    """Read grey images of 128 x 128 pixels with mean 0 under a window that fades to zero towards the border."""
    found = {"photographs": [], "microscope": []}
    try:
        from skimage import data
        from skimage.color import rgb2gray

        for name in ("camera", "coins", "moon", "astronaut", "brick", "grass", "gravel", "chelsea", "coffee", "page"):
            image = getattr(data, name)()
            found["photographs"].append(rgb2gray(image) if image.ndim == 3 else image / 255)
    except ImportError:
        print("scikit-image is not installed: no photographs")
    for folder in ("nuclei", "histology", "retina"):
        found["microscope"] += [_read(path) for path in sorted((DATA / folder / "images").glob("*"))[3::12][:3]]
    return {kind: [_windowed(torch.tensor(image)) for image in each] for kind, each in found.items() if each}


def _radius() -> Tensor:
    offset = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    return (offset.square() + offset.square().unsqueeze(1)).sqrt() / SIDE


def _fade(start: float, end: float) -> Tensor:
    return 0.5 + 0.5 * torch.cos(math.pi * ((_radius() - start) / (end - start)).clamp(0, 1))


def _windowed(image: Tensor) -> Tensor:
    top, left = ((side - SIDE) // 2 for side in image.shape)
    image, window = image[top : top + SIDE, left : left + SIDE], _fade(0.3, 0.46)
    image = (image - (image * window).sum() / window.sum()) * window
    return image / image.std()


# --- one layer, in closed form


def layer_error(functions: Tensor, spread: Tensor, image: Tensor, blur: float) -> tuple[float, float, float]:
    """Compute the relative error of one layer on an image interpolated by its own Fourier series.

    The response of a kernel to a plane wave is ``K(w)``; that of its rotated version to the rotated wave is
    ``K_g(R_g w)``. The difference, weighted by the power of the image, is the error: its mean over positions and over
    independent random weights, without drawing any.

    Returns:
        The error with initial weights; then the mean and the largest error over functions of the span whose outputs on
        this image are uncorrelated and of equal size.
    """
    functions = functions * spread.view(-1, 1, 1, 1)
    number, n, _, _ = functions.shape
    w = 2 * math.pi * torch.fft.fftfreq(SIDE, dtype=torch.float64)
    waves = torch.stack((w.repeat(SIDE), -w.repeat_interleave(SIDE)), 1)  # x right, y up
    power = torch.fft.fft2(image).abs().square().flatten() * torch.exp(-(blur**2) * waves.square().sum(1))
    present = power > 1e-9 * power.max()
    waves, power = waves[present], power[present]
    upright = responses(functions[:, 0].flatten(1), waves)
    output, error = _products(upright, power), torch.zeros(number, number, dtype=torch.float64)
    inexact = [g for g in range(n) if 4 * g % n]
    for g in inexact:
        c, s = math.cos(2 * math.pi * g / n), math.sin(2 * math.pi * g / n)
        rotated = waves @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
        error += _products(responses(functions[:, g].flatten(1), rotated) - upright, power) / len(inexact)
    L = torch.linalg.cholesky(output + 1e-13 * output.trace() * torch.eye(number, dtype=torch.float64))
    half = torch.linalg.solve_triangular(L, error, upper=False)
    errors = torch.linalg.eigvalsh(torch.linalg.solve_triangular(L, half.T, upper=False)).clamp(min=0)
    return math.sqrt(error.trace() / output.trace()), math.sqrt(errors.mean()), math.sqrt(errors[-1])


def responses(kernels: Tensor, waves: Tensor) -> Tensor:
    """Compute the responses ``[N, F]`` of kernels ``[F, k * k]`` to plane waves ``[N, 2]``."""
    k = math.isqrt(kernels.shape[1])
    offset = torch.arange(k, dtype=torch.float64) - (k - 1) / 2
    phases = waves @ torch.stack((offset.repeat(k), -offset.repeat_interleave(k)))
    return torch.complex(phases.cos() @ kernels.T, phases.sin() @ kernels.T)


def convolved_error(functions: Tensor, image: Tensor) -> float:
    """Compute the first result of `layer_error` by convolving the image and the rotated image, to check the formula."""
    kernels, n = functions.transpose(0, 1).unsqueeze(2), functions.shape[1]
    upright = F.conv2d(image.view(1, 1, SIDE, SIDE), kernels[0], padding="same")
    error = 0.0
    inexact = [g for g in range(n) if 4 * g % n]
    for g in inexact:
        angle = 2 * math.pi * g / n
        rotated = F.conv2d(rotate(image, angle).view(1, 1, SIDE, SIDE), kernels[g], padding="same")
        error += float((rotated - rotate(upright, angle)).square().sum()) / len(inexact)
    return math.sqrt(error / float(upright.square().sum()))


def _products(responses: Tensor, power: Tensor) -> Tensor:
    return (responses.conj().T @ (power.unsqueeze(1) * responses)).real


# --- networks


def rotate(x: Tensor, angle: float) -> Tensor:
    """Rotate ``x[..., 128, 128]`` counter-clockwise, interpolating by its Fourier series; 0 outside the image."""
    offset = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    up, right = torch.meshgrid(-offset, offset, indexing="ij")
    column = math.cos(angle) * right + math.sin(angle) * up + (SIDE - 1) / 2
    row = (SIDE - 1) / 2 - (math.cos(angle) * up - math.sin(angle) * right)
    w = 2 * math.pi * torch.fft.fftfreq(SIDE, dtype=torch.float64)
    columns, rows = (torch.exp(1j * at.reshape(-1, 1) * w) for at in (column, row))
    inside = ((column > -0.5) & (column < SIDE - 0.5) & (row > -0.5) & (row < SIDE - 0.5)).flatten()
    series = torch.fft.fft2(x.double()).view(-1, SIDE, SIDE)
    values = torch.stack([((rows @ plane) * columns).sum(1).real / SIDE**2 * inside for plane in series])
    return values.view(x.shape).to(x.dtype)


def network(image: Tensor, kernels: list[Tensor], n: int) -> Tensor:
    """Run a network: six times convolution, normalization of each field and ReLU, then the maximum over the group."""
    x = image.view(1, 1, SIDE, SIDE).to(kernels[0].dtype)
    for kernel in kernels:
        x = F.conv2d(x, kernel, padding="same")
        fields = x.view(1, x.shape[1] // n, -1)
        x = F.relu((fields - fields.mean(-1, keepdim=True)) / fields.std(-1, keepdim=True)).view(x.shape)
    return x.view(-1, n, SIDE, SIDE).amax(1)


def random_kernels(functions: Tensor, n: int, seed: int) -> list[Tensor]:
    """Draw the kernels of a network with normal weights, ``[fields * n, channels, k, k]`` each."""
    generator = torch.Generator().manual_seed(seed)
    number, _, k, _ = functions.shape
    lift = torch.randn(FIELDS, 1, number, generator=generator, dtype=torch.float64)
    kernels = [torch.einsum("oif,fgyx->ogiyx", lift, functions).reshape(FIELDS * n, 1, k, k)]
    difference = (torch.arange(n) - torch.arange(n).unsqueeze(1)) % n  # g^-1 h
    for _ in range(LAYERS - 1):
        weight = torch.randn(FIELDS, FIELDS, n, number, generator=generator, dtype=torch.float64)[:, :, difference]
        kernel = torch.einsum("oighf,fgyx->ogihyx", weight, functions)
        kernels.append(kernel.reshape(FIELDS * n, FIELDS * n, k, k))
    return kernels


def network_error(nets: list[list[Tensor]], n: int, pictures: list[Tensor]) -> tuple[float, float]:
    """Compute the relative error at the smallest angle in a disc that no border affects: mean and standard error."""
    disc, angle, errors = _fade(0.26, 0.3).float(), 2 * math.pi / n, []
    for kernels, image in itertools.product(nets, pictures):
        single = [kernel.float() for kernel in kernels]
        expected = rotate(network(image, single, n), angle) * disc
        predicted = network(rotate(image, angle), single, n) * disc
        errors.append(float((predicted - expected).norm() / expected.norm()))
    net_errors = torch.tensor(errors).view(len(nets), len(pictures)).mean(1)
    return float(net_errors.mean()), float(net_errors.std() / len(nets) ** 0.5)


def compare(path: Path, out: Path | None) -> None:
    """Print the table, row by row, and write the results."""
    escnn, pictures = dict(np.load(path)), images()
    chosen = [each[len(each) // 3] for each in pictures.values()]  # one image of each kind, for the networks
    functions, spread = ours(8, 5)
    for image in chosen:
        formula = layer_error(functions, spread, image, 0.0)[0]
        print(f"C8, k=5, ours: formula {formula:.5f}, by convolution {convolved_error(functions, image):.5f}")
    columns = [(kind, blur) for kind in pictures for blur in BLURS]
    titles = [f"{kind}{', blurred' if blur else ''}" for kind, blur in columns]
    print(markdown_table(["group", "k", "kernels", "functions", *titles, "network", "standard error"], []))
    rows = []
    for n, k in itertools.product(ORDERS, SIZES):
        for name, functions, spread in candidates(n, k, escnn):
            row: dict[str, Any] = {"group": f"C{n}", "kernel_size": k, "name": name, "functions": len(functions)}
            for kind, blur in columns:
                each = torch.tensor([layer_error(functions, spread, image, blur) for image in pictures[kind]])
                row[f"{kind}, blur {blur:.0f}"] = each.mean(0).tolist()
            if has_networks(n, k):
                if name == "escnn":
                    nets = [[torch.tensor(escnn[f"net_{n}_{k}_{s}_{i}"]) for i in range(LAYERS)] for s in range(SEEDS)]
                else:
                    nets = [random_kernels(functions, n, seed) for seed in range(SEEDS)]
                row["network"] = network_error(nets, n, chosen)
            rows.append(row)
            cells = [f"{row[f'{kind}, blur {blur:.0f}'][0]:.4f}" for kind, blur in columns]
            cells += [f"{value:.4f}" for value in row["network"]] if "network" in row else ["-", "-"]
            print(f"| C{n} | {k} | {name} | {len(functions)} | {' | '.join(cells)} |", flush=True)
    if out is not None:
        counts = {kind: len(each) for kind, each in pictures.items()}
        out.write_text(json.dumps({"torch": torch.__version__, "images": counts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels", type=Path, help="file written by rotation_error_escnn.py")
    parser.add_argument("--json", type=Path, help="file to which the results are written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compare(arguments.kernels, arguments.json)
