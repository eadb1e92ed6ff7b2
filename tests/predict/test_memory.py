"""Predicting a file: what is held grows neither with the height nor with the width of the image."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SIDE, LONG = 1000, 4000
SHAPES = {"tall": (LONG, SIDE), "wide": (SIDE, LONG), "small": (SIDE, SIDE)}
PIXELS = (LONG - SIDE) * SIDE  # that a large image has more than the small one
SLACK = 2.5e6  # bytes: less than one a pixel, which is what the classes take, if they are held
# libvips holds about 512 rows of a PNG or JPEG while it decodes.
SLACKS = dict.fromkeys(("wide x.png", "wide x.jpg"), SLACK + 512 * 3 * (LONG - SIDE))
FILES = ["x.png", "x.jpg", "tiles.tif", "array.npy"]

SCRIPT = """
import ctypes, functools, json, os, sys
from pathlib import Path
import torch
from gconv_ga.images import ImageFile, Normalization
from gconv_ga.images import _pictures
from gconv_ga.predict import _tiles, predict_image, predict_to_file

torch.set_num_threads(1)  # forked processes have no threads of their parent
net, normalization = torch.nn.Conv2d(3, 2, 1), Normalization([127.0] * 3, [70.0] * 3)
folder = Path(sys.argv[1])

def trim():
    c = ctypes.CDLL(None)
    if hasattr(c, "malloc_trim"):
        c.malloc_trim(0)

def status(key):
    return 1024 * int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])

def peak(work, name):
    "In a process of its own, so that no memory is there that others have let go."
    child = os.fork()
    if not child:
        trim()  # or what the parent has let go would be used first
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        work(name)
        (folder / "peak").write_text(str(status("VmHWM") - before))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return int((folder / "peak").read_text())

peak_of_small = functools.cache(lambda work, name: peak(work, f"small-{name}"))

def growth(work, shape, name):
    return peak(work, f"{shape}-{name}") - peak_of_small(work, name)

def by_rows(name):
    out = (folder / "out" / name).with_suffix(".png")
    kinds = dict.fromkeys(("probabilities", "overlay"), name.endswith("png"))
    predict_to_file(net, ImageFile(folder / name, normalization), out, **kinds)

def rows_of_tiles_whole(name):
    _tiles.LIMIT = 2**62
    by_rows(name)

def image_whole(name):
    _pictures.LARGE = 2**62
    predict_to_file(net, ImageFile(folder / name, normalization), folder / "out" / "whole.png")

def classes_whole(name):
    predict_image(net, ImageFile(folder / name, normalization))

_pictures.LARGE = 0  # the small image too is decoded by rows,
_tiles.LIMIT = 2**18  # and its rows of tiles too lie on disk
by_rows("small-x.png"), by_rows("small-x.jpg")  # what is loaded and cached once
found = {f"{shape} {name}": growth(by_rows, shape, name) for name in sys.argv[2:] for shape in ("tall", "wide")}
for name in ("x.png", "x.jpg"):
    found[f"whole {name}"] = growth(image_whole, "tall", name)
found["whole classes"] = growth(classes_whole, "tall", "array.npy")
found["whole rows"] = growth(rows_of_tiles_whole, "wide", "array.npy")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """For each file the bytes by which the peak is higher than for a small image."""
    pytest.importorskip("pyvips", reason="large PNG and JPEG are read with it")
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the peak of memory cannot be reset here: {error}")
    folder = tmp_path_factory.mktemp("memory")
    numbers = np.random.default_rng(0)
    part = numbers.integers(0, 255, (500, 500, 3), dtype=np.uint8)
    for shape, (height, width) in SHAPES.items():
        rows, start = np.tile(part, (height // 500, width // 500, 1)), str(folder / f"{shape}-")
        Image.fromarray(rows).save(f"{start}x.png", compress_level=1)
        Image.fromarray(rows).save(f"{start}x.jpg", quality=50)
        tifffile.imwrite(f"{start}tiles.tif", rows, photometric="rgb", tile=(256, 256), compression="zlib")
        np.save(f"{start}array.npy", rows.transpose(2, 0, 1))
    command = [sys.executable, "-c", SCRIPT, str(folder), *FILES]
    # Arrays are given back to the system at once, so that what is held is seen, and not what malloc keeps for later.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    for name, shape in itertools.product(FILES, SHAPES):
        with Image.open((folder / "out" / f"{shape}-{name}").with_suffix(".png")) as labels:
            assert labels.size == SHAPES[shape][::-1]
    found = json.loads(done.stdout)
    print({name: f"{bytes_ / 1e6:.1f} MB" for name, bytes_ in found.items()})
    return found


@pytest.mark.parametrize("shape", ["tall", "wide"])
@pytest.mark.parametrize("name", FILES)
def test_memory_does_not_grow_with_the_image(name, shape, growth):
    key = f"{shape} {name}"
    assert growth[key] <= SLACKS.get(key, SLACK)


@pytest.mark.parametrize(("name", "bytes_"), [("x.png", 4), ("x.jpg", 4), ("classes", 1), ("rows", 2)])
def test_what_is_held_as_a_whole_is_caught(name, bytes_, growth):
    """Pillow holds RGB in four bytes a pixel; classes take one at the least; of a row of tiles, a quarter of the image,
    two logits take eight.
    """
    assert growth[f"whole {name}"] > 0.9 * bytes_ * PIXELS > SLACK
