"""Measure the prediction of whole slides: tiles a second against a plain loop, and memory on 100,000 x 80,000 pixels.

    python benchmarks/slides.py --overhead run/best.safetensors slide.svs
    python benchmarks/slides.py --memory FOLDER
    python benchmarks/slides.py --memory FOLDER --method flow

The slides are synthetic: stained fields on white glass. Those for the memory stay in the folder (about 60 MB), and an
interrupted prediction is continued; the figures are then those of the rest.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from gconv_ga.images import Normalization, Slide
from gconv_ga.models import ObjectUNet
from gconv_ga.objects import Decoder
from gconv_ga.predict import ObjectFiles, SlideJob, predict_slide
from gconv_ga.segmenter import load_checkpoint

SIDE = 512  # of the tiles of the files
NORMALIZATION = Normalization([230.0, 190.0, 220.0], [30.0, 50.0, 30.0])
SIZES = {"large": (80_000, 100_000), "small": (10_000, 12_500)}
FIELDS = 20  # stained tiles in each slide


def stained_tile(seed: int) -> NDArray[np.uint8]:
    """Return a tile of stained discs, about 60 of radius 8 to 14. ``[SIDE, SIDE, 3]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pixels = np.full((SIDE, SIDE, 3), (226, 150, 190), np.uint8)
    for row, column, radius in zip(*rng.integers(0, SIDE, (2, 60)), rng.integers(8, 15, 60), strict=True):
        pixels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = (110, 60, 140)
    return pixels


def write_slide(path: Path, size: tuple[int, int]) -> None:
    """Write a slide in four levels, a quarter of the side each, whose glass is one compressed tile, repeated."""
    glass = zlib.compress(np.full((SIDE, SIDE, 3), 244, np.uint8).tobytes())
    places = np.random.default_rng(0).random((FIELDS, 2))

    def tiles(factor: int) -> Iterator[bytes]:
        high, wide = (-(-side // factor // SIDE) for side in size)
        fields: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for seed, (down, across) in enumerate(places):
            row, column = int(down * (size[0] // SIDE)) * SIDE, int(across * (size[1] // SIDE)) * SIDE
            fields.setdefault((row // factor // SIDE, column // factor // SIDE), []).append((seed, row, column))
        for place in np.ndindex(high, wide):
            if place not in fields:
                yield glass
                continue
            tile, width = np.full((SIDE, SIDE, 3), 244, np.uint8), SIDE // factor
            for seed, row, column in fields[place]:
                small = stained_tile(seed).reshape(width, factor, width, factor, 3).mean(axis=(1, 3))
                top, left = row // factor % SIDE, column // factor % SIDE
                part = tile[top : top + width, left : left + width]
                part[:] = small[: part.shape[0], : part.shape[1]]
            yield zlib.compress(tile.tobytes())

    options = {"tile": (SIDE, SIDE), "photometric": "rgb", "compression": "zlib", "dtype": np.uint8, "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in (1, 4, 16, 64):
            shape = (size[0] // factor, size[1] // factor, 3)
            first = {"subifds": 3, "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"} if factor == 1 else {}
            file.write(tiles(factor), shape=shape, subfiletype=int(factor > 1), **options, **first)


def make_job(path: Path, target: Path, method: str) -> SlideJob:
    """Return the prediction of a slide by a small network whose classes are equally frequent on a stained tile."""
    torch.manual_seed(0)
    net = ObjectUNet(3, 2, group="C4", width=2, depth=4, neck=16).eval()
    with torch.no_grad():
        glass, cell = net(NORMALIZATION(torch.from_numpy(stained_tile(0)).permute(2, 0, 1).to(torch.float32))[None])[0]
        net.segmentation_head.bias[1] -= (cell - glass).median()
    image = Slide(path).at(pixel_size=0.5)
    return SlideJob(
        net, image, target, normalization=NORMALIZATION, names=["glass", "cell"], group="C4",
        objects=ObjectFiles(Decoder(method)),
    )  # fmt: skip


def measure_overhead(run: Path, slide: Path, repeats: int) -> None:
    """Compare the process time of a field of a slide with that of the network alone, on as many tiles in a plain loop.

    Args:
        run: Checkpoint of a network for red, green and blue.
        slide: The slide, of whose middle a field of 640 x 640 pixels is taken.
        repeats: Number of repeats.
    """
    model, config, _ = load_checkpoint(run)
    _, height, width = Slide(slide).levels[0]
    pixels = Slide(slide).read(0, height // 2 - 320, width // 2 - 320, 640, 640)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        tifffile.imwrite(
            path, pixels.permute(1, 2, 0).numpy(), tile=(SIDE, SIDE), photometric="rgb", compression="zlib"
        )
        for repeat in range(repeats):
            begin = time.process_time()
            job = SlideJob(model, Slide(path).at(level=0), Path(folder) / f"{repeat}.ome.tif", everything=True,
                           normalization=config.normalization, group=config.group)  # fmt: skip
            predict_slide(job)
            ours = time.process_time() - begin
            count = job.phases[0].total
            windows = []
            for number in range(count):
                top, left = (20 * place for place in divmod(number, 16))
                window = pixels[:, top : top + 256, left : left + 256].to(torch.float32)
                windows.append(config.normalization(window)[None])
            begin = time.process_time()
            with torch.no_grad():
                for window in windows:
                    model(window).argmax(dim=1)
            plain = time.process_time() - begin
            ratios.append(ours / plain)
            print(f"{count} tiles: {count / ours:.2f} a second; alone {count / plain:.2f}", flush=True)
    print(f"median ratio of times to a plain loop: {statistics.median(ratios):.3f}")


def measure_memory(folder: Path, method: str) -> None:
    """Predict a small and a large slide with as much tissue, each in a process of its own, and say what they took."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        path = folder / f"{name}.tif"
        if not path.exists():
            write_slide(path.with_suffix(".part"), size)
            path.with_suffix(".part").rename(path)
        subprocess.run([sys.executable, __file__, "--one", str(path), "--method", method], check=True)


def predict_one(path: Path, method: str) -> None:
    """Predict a slide and print the peak of the memory of this process."""
    target = path.with_name(f"{path.stem}.ome.tif")
    target.unlink(missing_ok=True)
    begin, start = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job = make_job(path, target, method)
    predict_slide(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, height, width = job.image.shape
    objects = len(path.with_name(f"{path.stem}_objects.csv").read_text().splitlines()) - 1
    tiles, seconds = job.phases[0].total, time.process_time() - begin
    print(f"{path.name}: {width} x {height} pixels, {path.stat().st_size / 1e6:.0f} MB, {tiles} tiles of tissue")
    print(f"  {objects} objects, {seconds:.0f} s of process time, prediction {target.stat().st_size / 1e6:.1f} MB")
    print(f"  peak {peak / 1024:.0f} MiB, {(peak - start) / 1024:.0f} above the imports", flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overhead", type=Path, nargs=2, metavar=("CHECKPOINT", "SLIDE"),
                        help="tiles a second against a plain loop")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3, help="repeats of --overhead")
    parser.add_argument("--memory", type=Path, metavar="FOLDER", help="peak memory on a large and a small slide")
    parser.add_argument("--method", default="watershed", help="rules by which objects are found on these")
    parser.add_argument("--one", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one is not None:
        predict_one(options.one, options.method)
    if options.overhead is not None:
        measure_overhead(*options.overhead, options.repeats)
    if options.memory is not None:
        measure_memory(options.memory, options.method)


if __name__ == "__main__":
    main()
