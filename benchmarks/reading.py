"""Time the reading of windows of large image files; prints a table of seconds.

    python benchmarks/reading.py
    python benchmarks/reading.py --height 9000 --width 12000 --rounds 3

It makes its images in a temporary folder, reads windows from top to bottom over the whole image, and then at random.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from gconv_ga.images import ImageFile

SIDE = 256  # of a window
ENDINGS = {"PNG": {"compress_level": 6}, "JPEG": {"quality": 90}}
Window = tuple[int, int, int, int]


def write_images(folder: Path, height: int, width: int) -> dict[str, Path]:
    """Write an image with waves and noise in each format."""
    noise = np.random.default_rng(0)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    columns = np.arange(width, dtype=np.float32)
    for top in range(0, height, 500):  # in bands, so that little more is held than the image
        rows = np.arange(top, min(top + 500, height), dtype=np.float32)[:, None]
        grain = noise.integers(0, 24, (len(rows), width), dtype=np.uint8)
        for channel in range(3):
            wave = np.sin(columns / (90 + 20 * channel)) * np.cos(rows / (70 + 10 * channel))
            pixels[top : top + len(rows), :, channel] = (100 + 60 * wave).astype(np.uint8) + grain
    paths = {name: folder / f"image.{name.lower()}" for name in ENDINGS}
    for name, path in paths.items():
        Image.fromarray(pixels).save(path, **ENDINGS[name])
    return paths


def in_order(height: int, width: int) -> Iterator[Window]:
    """Yield windows that cover the image from top to bottom."""
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            yield top, left, min(SIDE, height - top), min(SIDE, width - left)


def at_random(height: int, width: int, count: int) -> Iterator[Window]:
    """Yield windows at random places."""
    numbers = random.Random(0)
    for _ in range(count):
        yield numbers.randrange(height - SIDE + 1), numbers.randrange(width - SIDE + 1), SIDE, SIDE


def seconds(clock: Callable[[], float], image: ImageFile, windows: Iterator[Window]) -> float:
    """Time the reading of windows."""
    start = clock()
    for window in windows:
        image.window(*window)
    return clock() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=9000)
    parser.add_argument("--width", type=int, default=12000)
    parser.add_argument("--random", type=int, default=20, help="number of random windows")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median is printed")
    parser.add_argument("--wall", action="store_true", help="wall time in place of processor time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.perf_counter if options.wall else time.process_time
    size = options.height, options.width
    print(f"| file, {options.width} x {options.height} | all windows in order | {options.random} random windows |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_images(Path(folder), *size).items():
            # Each round opens the file anew.
            ordered = median(seconds(clock, ImageFile(path), in_order(*size)) for _ in range(options.rounds))
            scattered = median(
                seconds(clock, ImageFile(path), at_random(*size, options.random)) for _ in range(options.rounds)
            )
            print(f"| {name} | {ordered:.2f} s | {scattered:.2f} s |", flush=True)


if __name__ == "__main__":
    main()
