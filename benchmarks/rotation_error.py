"""How far is a layer, and a network with random weights, from turning with the image? Ours, escnn's, bilinear.

The question, the protocol and the results are in README.md. In the environment of the extra "escnn":

    python benchmarks/rotation_error_escnn.py escnn_kernels.npz

and then in the usual one (scikit-image adds photographs, ../shared/data adds microscope images):

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
from rotation_error_escnn import FIELDS, LAYERS, ORDERS, SEEDS, SIZES, has_networks
from torch import Tensor

BLURS = (0.0, 1.0)  # of the image, in pixels
SIDE = 128
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# --- the candidates: functions [F, n, k, k] and the standard deviation of each weight


def ours(n: int, k: int, **knobs: Any) -> tuple[Tensor, Tensor]:
    """`steerable_basis`, each function as large as its weight is in a new kernel."""
    from gconv_ga.filters import steerable_basis

    basis = steerable_basis(f"C{n}", k, **knobs)
    scale = torch.tensor(basis.spread, dtype=torch.float64)
    return basis.kernels * scale.view(-1, 1, 1, 1), torch.ones_like(scale)


def bilinear(n: int, k: int) -> tuple[Tensor, Tensor]:
    """Every tap free, the kernel turned by reading between the taps."""
    taps = torch.eye(k * k, dtype=torch.float64).view(1, k * k, k, k)
    turned = []
    for g in range(n):
        c, s = math.cos(2 * math.pi * g / n), math.sin(2 * math.pi * g / n)
        # Rows count down and g is counter-clockwise: the source of a position is turned back.
        grid = F.affine_grid(torch.tensor([[[c, -s, 0], [s, c, 0]]], dtype=torch.float64), (1, 1, k, k), False)
        turned.append(F.grid_sample(taps, grid, align_corners=False)[0])
    return torch.stack(turned, 1), torch.ones(k * k, dtype=torch.float64)


def smoothed(functions: Tensor) -> tuple[Tensor, Tensor]:
    """The same span as an orthonormal basis, each function scaled by the fourth root of its gain, as ours are."""
    number, n, _, _ = functions.shape
    flat = functions.flatten(2)
    values, vectors = torch.linalg.eigh(torch.einsum("fgx,hgx->fh", flat, flat) / n)
    flat = torch.einsum("fh,fgx->hgx", vectors / values.sqrt(), flat)
    w = 2 * math.pi * torch.fft.fftfreq(SIDE, dtype=torch.float64)
    waves = torch.stack((w.repeat(SIDE), -w.repeat_interleave(SIDE)), 1)
    p2 = waves.square().sum(1)
    power = (p2 + 0.01) ** -1.5 * (p2 < math.pi**2)
    gain = sum(_products(answers(flat[:, g], waves), power / power.sum()) for g in range(n)) / n
    values, vectors = torch.linalg.eigh(gain)
    scale = (values + 1e-3) ** 0.25
    return torch.einsum("fh,fgx->hgx", vectors * scale, flat).view(functions.shape), torch.ones(number).double()


def candidates(n: int, k: int, escnn: dict[str, np.ndarray]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, functions, and the standard deviation of each weight."""
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
    """Grey images, 128 pixels wide, mean 0 under a window that fades to zero towards the rim."""
    found = {"photographs": [], "microscope": []}
    try:
        from skimage import data
        from skimage.color import rgb2gray

        for name in ("camera", "coins", "moon", "astronaut", "brick", "grass", "gravel", "chelsea", "coffee", "page"):
            image = getattr(data, name)()
            found["photographs"].append(rgb2gray(image) if image.ndim == 3 else image / 255)
    except ImportError:
        print("no scikit-image: no photographs")
    for folder in ("nuclei", "histology", "retina"):
        found["microscope"] += [_read(path) for path in sorted((DATA / folder / "images").glob("*"))[3::12][:3]]
    return {kind: [_windowed(torch.tensor(image)) for image in of] for kind, of in found.items() if of}


def _radius() -> Tensor:
    along = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    return (along.square() + along.square().unsqueeze(1)).sqrt() / SIDE


def _fade(start: float, end: float) -> Tensor:
    return 0.5 + 0.5 * torch.cos(math.pi * ((_radius() - start) / (end - start)).clamp(0, 1))


def _windowed(image: Tensor) -> Tensor:
    top, left = ((side - SIDE) // 2 for side in image.shape)
    image, window = image[top : top + SIDE, left : left + SIDE], _fade(0.3, 0.46)
    image = (image - (image * window).sum() / window.sum()) * window
    return image / image.std()


# --- one layer, in closed form


def layer_error(functions: Tensor, spread: Tensor, image: Tensor, blur: float) -> tuple[float, float, float]:
    """Relative error of one layer on an image that is read between the pixels from its own Fourier series.

    A kernel answers ``K(w)`` to a wave, its turned version ``K_g(R_g w)`` to the turned wave. The difference, weighted
    by the power of the image, is the error: its mean over positions and over independent random weights, without
    drawing any.

    Returns:
        With the weights as they are initialised; then the mean and the largest over functions of the span whose outputs
        on this image have one size and do not correlate.
    """
    functions = functions * spread.view(-1, 1, 1, 1)
    number, n, _, _ = functions.shape
    w = 2 * math.pi * torch.fft.fftfreq(SIDE, dtype=torch.float64)
    waves = torch.stack((w.repeat(SIDE), -w.repeat_interleave(SIDE)), 1)  # x right, y up
    power = torch.fft.fft2(image).abs().square().flatten() * torch.exp(-(blur**2) * waves.square().sum(1))
    heard = power > 1e-9 * power.max()
    waves, power = waves[heard], power[heard]
    before = answers(functions[:, 0].flatten(1), waves)
    output, missed = _products(before, power), torch.zeros(number, number, dtype=torch.float64)
    inexact = [g for g in range(n) if 4 * g % n]
    for g in inexact:
        c, s = math.cos(2 * math.pi * g / n), math.sin(2 * math.pi * g / n)
        turned = waves @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
        missed += _products(answers(functions[:, g].flatten(1), turned) - before, power) / len(inexact)
    L = torch.linalg.cholesky(output + 1e-13 * output.trace() * torch.eye(number, dtype=torch.float64))
    half = torch.linalg.solve_triangular(L, missed, upper=False)
    equal = torch.linalg.eigvalsh(torch.linalg.solve_triangular(L, half.T, upper=False)).clamp(min=0)
    return math.sqrt(missed.trace() / output.trace()), math.sqrt(equal.mean()), math.sqrt(equal[-1])


def answers(kernels: Tensor, waves: Tensor) -> Tensor:
    """What ``kernels[F, k * k]`` make of waves ``[N, 2]``: ``[N, F]``."""
    k = math.isqrt(kernels.shape[1])
    along = torch.arange(k, dtype=torch.float64) - (k - 1) / 2
    phases = waves @ torch.stack((along.repeat(k), -along.repeat_interleave(k)))
    return torch.complex(phases.cos() @ kernels.T, phases.sin() @ kernels.T)


def convolved_error(functions: Tensor, image: Tensor) -> float:
    """What `layer_error` says first, by convolving the image and the image turned; a check of that formula."""
    kernels, n = functions.transpose(0, 1).unsqueeze(2), functions.shape[1]
    before = F.conv2d(image.view(1, 1, SIDE, SIDE), kernels[0], padding="same")
    missed = 0.0
    inexact = [g for g in range(n) if 4 * g % n]
    for g in inexact:
        angle = 2 * math.pi * g / n
        after = F.conv2d(turn(image, angle).view(1, 1, SIDE, SIDE), kernels[g], padding="same")
        missed += float((after - turn(before, angle)).square().sum()) / len(inexact)
    return math.sqrt(missed / float(before.square().sum()))


def _products(answers: Tensor, power: Tensor) -> Tensor:
    return (answers.conj().T @ (power.unsqueeze(1) * answers)).real


# --- networks


def turn(maps: Tensor, angle: float) -> Tensor:
    """``maps[..., 128, 128]`` turned counter-clockwise and read from their Fourier series; 0 outside."""
    along = torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2
    y, x = torch.meshgrid(-along, along, indexing="ij")
    column = math.cos(angle) * x + math.sin(angle) * y + (SIDE - 1) / 2
    row = (SIDE - 1) / 2 - (math.cos(angle) * y - math.sin(angle) * x)
    w = 2 * math.pi * torch.fft.fftfreq(SIDE, dtype=torch.float64)
    columns, rows = (torch.exp(1j * at.reshape(-1, 1) * w) for at in (column, row))
    inside = ((column > -0.5) & (column < SIDE - 0.5) & (row > -0.5) & (row < SIDE - 0.5)).flatten()
    series = torch.fft.fft2(maps.double()).view(-1, SIDE, SIDE)
    read = torch.stack([((rows @ one) * columns).sum(1).real / SIDE**2 * inside for one in series])
    return read.view(maps.shape).to(maps.dtype)


def network(image: Tensor, kernels: list[Tensor], n: int) -> Tensor:
    """Convolution, normalisation of each field, ReLU, six times; the largest orientation at the end."""
    x = image.view(1, 1, SIDE, SIDE).to(kernels[0].dtype)
    for kernel in kernels:
        x = F.conv2d(x, kernel, padding="same")
        fields = x.view(1, x.shape[1] // n, -1)
        x = F.relu((fields - fields.mean(-1, keepdim=True)) / fields.std(-1, keepdim=True)).view(x.shape)
    return x.view(-1, n, SIDE, SIDE).amax(1)


def random_kernels(functions: Tensor, n: int, seed: int) -> list[Tensor]:
    """The kernels of a network whose weights are normal, ``[fields * n, channels, k, k]`` each."""
    generator = torch.Generator().manual_seed(seed)
    number, _, k, _ = functions.shape
    lift = torch.randn(FIELDS, 1, number, generator=generator, dtype=torch.float64)
    kernels = [torch.einsum("oif,fgyx->ogiyx", lift, functions).reshape(FIELDS * n, 1, k, k)]
    before = (torch.arange(n) - torch.arange(n).unsqueeze(1)) % n
    for _ in range(LAYERS - 1):
        weight = torch.randn(FIELDS, FIELDS, n, number, generator=generator, dtype=torch.float64)[:, :, before]
        kernel = torch.einsum("oighf,fgyx->ogihyx", weight, functions)
        kernels.append(kernel.reshape(FIELDS * n, FIELDS * n, k, k))
    return kernels


def network_error(nets: list[list[Tensor]], n: int, of: list[Tensor]) -> tuple[float, float]:
    """Relative error of the output at the smallest angle, in the disc that no border reaches: mean, standard error."""
    disc, angle, errors = _fade(0.26, 0.3).float(), 2 * math.pi / n, []
    for kernels, image in itertools.product(nets, of):
        single = [kernel.float() for kernel in kernels]
        expected = turn(network(image, single, n), angle) * disc
        got = network(turn(image, angle), single, n) * disc
        errors.append(float((got - expected).norm() / expected.norm()))
    of_nets = torch.tensor(errors).view(len(nets), len(of)).mean(1)
    return float(of_nets.mean()), float(of_nets.std() / len(nets) ** 0.5)


def compare(path: Path, out: Path | None) -> None:
    """Print the table, row by row, and write it."""
    escnn, pictures = dict(np.load(path)), images()
    some = [of[len(of) // 3] for of in pictures.values()]
    functions, spread = ours(8, 5)
    for image in some:
        formula = layer_error(functions, spread, image, 0.0)[0]
        print(f"C8, k=5, ours: formula {formula:.5f}, by convolution {convolved_error(functions, image):.5f}")
    columns = [(kind, blur) for kind in pictures for blur in BLURS]
    print("| group | k | kernels | F |", *(f"{kind}, blur {blur:.0f} |" for kind, blur in columns), "network |")
    print("|---" * (5 + len(columns)) + "|")
    rows = []
    for n, k in itertools.product(ORDERS, SIZES):
        for name, functions, spread in candidates(n, k, escnn):
            row = {"group": f"C{n}", "kernel_size": k, "name": name, "functions": len(functions)}
            for kind, blur in columns:
                each = torch.tensor([layer_error(functions, spread, image, blur) for image in pictures[kind]])
                row[f"{kind}, blur {blur:.0f}"] = each.mean(0).tolist()
            if has_networks(n, k):
                if name == "escnn":
                    nets = [[torch.tensor(escnn[f"net_{n}_{k}_{s}_{i}"]) for i in range(LAYERS)] for s in range(SEEDS)]
                else:
                    nets = [random_kernels(functions, n, seed) for seed in range(SEEDS)]
                row["network"] = network_error(nets, n, some)
            rows.append(row)
            cells = ["/".join(f"{value:.4f}" for value in row[f"{kind}, blur {blur:.0f}"]) for kind, blur in columns]
            network = "{:.4f} +- {:.4f}".format(*row["network"]) if "network" in row else ""
            print(
                f"| C{n} | {k} | {name} | {len(functions)} |",
                *(f"{cell} |" for cell in cells),
                network,
                "|",
                flush=True,
            )
    if out is not None:
        counts = {kind: len(of) for kind, of in pictures.items()}
        out.write_text(json.dumps({"torch": torch.__version__, "images": counts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels", type=Path, help="what rotation_error_escnn.py has written")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compare(arguments.kernels, arguments.json)
