"""Predicting a file: what is held grows by the file's own pixels and a byte a pixel for the classes, and by no more."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

HEIGHT, WIDTH = 4000, 1500
PIXELS = HEIGHT * WIDTH
SLACK = 12e6  # bytes; half of a float32 copy of one channel
# Bytes a pixel beside the classes: Pillow holds RGB in four; a file that is read by window is not held.
HELD = {"pillow.png": 4, "plain.tif": 0, "tiles.tif": 0, "array.npy": 0}

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from gconv_ga.data import ImageFile, Normalization, read_image
from gconv_ga.training import predict_image, predict_to_file, save_prediction

net, normalization = torch.nn.Conv2d(3, 2, 3, padding=1), Normalization([127.0] * 3, [70.0] * 3)
folder = Path(sys.argv[1])

def status(key):
    return 1024 * int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])

def growth(work):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    work()
    return status("VmHWM") - before

def by_file(name):
    out = (folder / "out" / name).with_suffix(".png")
    predict_to_file(net, ImageFile(folder / name, normalization), out, probabilities=True)

def whole(name):
    image = normalization(read_image(folder / name))
    save_prediction(predict_image(net, image), folder / "out" / "whole.png")

by_file("small.png")  # what is loaded and cached once
found = {name: growth(lambda: by_file(name)) for name in sys.argv[2:]}
print(json.dumps({**found, "whole": growth(lambda: whole("pillow.png"))}))
"""


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """For each file the bytes by which the peak rises over what was held before."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the peak of memory cannot be reset here: {error}")
    folder = tmp_path_factory.mktemp("memory")
    image = np.tile(np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8), (8, 3, 1))
    assert image.shape == (HEIGHT, WIDTH, 3)
    Image.fromarray(image).save(folder / "pillow.png", compress_level=1)
    Image.fromarray(image[:600]).save(folder / "small.png")
    tifffile.imwrite(folder / "plain.tif", image, photometric="rgb")
    tifffile.imwrite(folder / "tiles.tif", image, photometric="rgb", tile=(256, 256), compression="zlib")
    np.save(folder / "array.npy", image.transpose(2, 0, 1))
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
