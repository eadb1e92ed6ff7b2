"""Predicting a file: what is held grows by the file's own pixels and a byte a pixel for the classes, and by no more."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

HEIGHT, SMALL, WIDTH = 3000, 500, 1500
PIXELS = (HEIGHT - SMALL) * WIDTH  # that the large image has more than the small one
SLACK = 9e6  # bytes; half of a float32 copy of one channel
# Bytes a pixel beside the classes: Pillow holds RGB in four; a file that is read by window is not held.
HELD = {"pillow.png": 4, "plain.tif": 0, "tiles.tif": 0, "array.npy": 0}

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from gconv_ga.data import ImageFile, Normalization, read_image
from gconv_ga.training import predict_image, predict_to_file, save_prediction

torch.set_num_threads(1)  # forked processes have no threads of their parent
net, normalization = torch.nn.Conv2d(3, 2, 3, padding=1), Normalization([127.0] * 3, [70.0] * 3)
folder = Path(sys.argv[1])

def status(key):
    return 1024 * int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])

def growth(work, name):
    "In a process of its own, so that no memory is there that others have let go."
    child = os.fork()
    if not child:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        work(name)
        (folder / "growth").write_text(str(status("VmHWM") - before))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return int((folder / "growth").read_text())

def by_file(name):
    out = (folder / "out" / name).with_suffix(".png")
    predict_to_file(net, ImageFile(folder / name, normalization), out, probabilities=True)

def whole(name):
    image = normalization(read_image(folder / name))
    save_prediction(predict_image(net, image), folder / "out" / "whole.png")

by_file("small-pillow.png")  # what is loaded and cached once
found = {name: growth(by_file, name) - growth(by_file, "small-" + name) for name in sys.argv[2:]}
found["whole"] = growth(whole, "pillow.png") - growth(whole, "small-pillow.png")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """For each file the bytes by which the peak is higher than for a small image of the same width."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the peak of memory cannot be reset here: {error}")
    folder = tmp_path_factory.mktemp("memory")
    numbers = np.random.default_rng(0)
    image = np.tile(numbers.integers(0, 255, (500, 500, 3), dtype=np.uint8), (HEIGHT // 500, WIDTH // 500, 1))
    for start, rows in (("", image), ("small-", image[:SMALL])):
        Image.fromarray(rows).save(folder / f"{start}pillow.png", compress_level=1)
        tifffile.imwrite(folder / f"{start}plain.tif", rows, photometric="rgb")
        tifffile.imwrite(folder / f"{start}tiles.tif", rows, photometric="rgb", tile=(256, 256), compression="zlib")
        np.save(folder / f"{start}array.npy", rows.transpose(2, 0, 1))
    command = [sys.executable, "-c", SCRIPT, str(folder), *HELD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in HELD:
        with Image.open(folder / "out" / Path(name).with_suffix(".png").name) as labels:
            assert labels.size == (WIDTH, HEIGHT)
    return found


@pytest.mark.parametrize(("name", "held"), HELD.items())
def test_memory_grows_by_the_bytes_of_the_file_and_of_the_classes(name, held, growth):
    assert growth[name] <= (held + 1) * PIXELS + SLACK


def test_an_image_read_as_a_whole_is_caught(growth):
    """Twelve bytes a pixel for RGB in float32, and eight for classes as int64."""
    print({name: f"{bytes_ / PIXELS:.1f} bytes a pixel" for name, bytes_ in growth.items()})
    assert growth["whole"] > (4 + 1) * PIXELS + SLACK
