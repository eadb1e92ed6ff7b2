"""``gconv-ga predict`` on whole slides: which files are slides, at which resolution, and what is refused."""

import fcntl
import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from roifile import roiread
from slide_files import moved_slides, stained

from gconv_ga.images import Normalization, read_image
from gconv_ga.objects import Decoder, changed_objects
from gconv_ga.segmenter import SegmenterConfig, load_checkpoint, save_checkpoint

PIXELS = stained((151, 108), scale=2.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Checkpoints by the size of the pixels of their training images."""
    folder, arguments = tmp_path_factory.mktemp("runs"), {"in_channels": 3, "classes": 2, "width": 1, "depth": 2}
    normalization = Normalization([200.0, 170.0, 200.0], [40.0, 50.0, 40.0])
    found = {}
    for size in (None, 0.5, 1.0):
        config = SegmenterConfig(
            "EquivariantUNet", {**arguments, "group": "C4"}, ("glass", "cell"), normalization, pixel_size=size
        )
        model = config.build(seed=0).eval()
        with torch.no_grad():
            other, cell = model(normalization(torch.from_numpy(PIXELS).permute(2, 0, 1).float())[None])[0]
            model.segmentation_head.bias[1] -= (cell - other).median()
        found[size] = save_checkpoint(folder / f"{size}.safetensors", model, config)
    return found


@pytest.fixture
def folder(tmp_path):
    """A slide, the same rotated, and an image that is none."""
    (tmp_path / "slides").mkdir()
    moved_slides(tmp_path / "slides", PIXELS, ["upright", "rotated"])
    Image.fromarray(PIXELS[:40, :30]).save(tmp_path / "slides" / "small.png")
    return tmp_path / "slides"


def test_slides_and_images_are_told_apart(invoke, runs, folder, tmp_path):
    result = invoke("predict", "--run", runs[0.5], "--images", folder, "--out", tmp_path / "out", "--tile", 64)
    assert "3 images done" in result.stdout
    written = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.endswith((".json", ".jsonl")))
    slides = [
        f"{name}{ending}" for name in ("rotated", "upright") for ending in (".ome.tif", "_preview.png", "_tissue.png")
    ]
    assert written == sorted(["small.png", *slides])
    upright, rotated = (tifffile.imread(tmp_path / f"out/{name}.ome.tif") for name in ("upright", "rotated"))
    assert upright.shape == (151, 108)
    assert 0 < upright.mean() < 1
    assert np.array_equal(np.rot90(upright), rotated)
    again = invoke("predict", "--run", runs[0.5], "--images", folder, "--out", tmp_path / "out", "--tile", 64)
    assert "0 images done, 3 skipped" in again.stdout


def test_a_slide_and_an_image_of_one_name_are_refused(invoke, runs, folder, tmp_path):
    """They write files of different names, but what is done is known by the name."""
    (folder / "small.png").rename(folder / "upright.png")
    typed = ["predict", "--run", runs[0.5], "--images", folder, "--out", tmp_path / "out"]
    assert "'--images': 2 of the images, slides or not, have the name 'upright'" in invoke(*typed, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_a_slide_at_which_another_program_is_at_work_is_left_to_it(invoke, runs, folder, tmp_path):
    """Its units are kept, and the other files are done. The lock is held by an open file of this program."""
    typed = ["predict", "--run", runs[0.5], "--images", folder, "--out", tmp_path / "out", "--tile", 64]
    parts = tmp_path / "out" / "upright.parts"
    parts.mkdir(parents=True)
    (parts / "classes-000000.npz").touch()
    with (parts / ".lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = invoke(*typed, code=1)
        assert "another program is at work on it in" in result.stderr
        assert "1 of 3 images cannot be predicted; the others are done" in result.stderr
        assert sorted(path.name for path in parts.iterdir()) == [".lock", "classes-000000.npz"]
    assert "1 image done, 2 skipped" in invoke(*typed).stdout
    assert not parts.exists()
    upright, rotated = (tifffile.imread(tmp_path / f"out/{name}.ome.tif") for name in ("upright", "rotated"))
    assert np.array_equal(np.rot90(upright), rotated), "what the other one has left is not of this slide"


def test_objects_of_slides(invoke, runs, folder, tmp_path):
    typed = ["--images", folder / "upright.tif", "--out", tmp_path / "out", "--objects", "--smallest", 3, "--tile", 64]
    invoke("predict", "--run", runs[0.5], *typed)
    lines = (tmp_path / "out" / "upright_objects.csv").read_text().splitlines()
    features = json.loads((tmp_path / "out" / "upright_objects.geojson").read_text())["features"]
    assert len(lines) - 1 == len(features) > 5
    assert features[0]["properties"]["classification"] == {"name": "cell"}
    labels = tifffile.imread(tmp_path / "out" / "upright_objects.ome.tif")
    assert (labels.shape, labels.dtype, labels.max()) == ((151, 108), np.uint32, len(features))
    invoke("predict", "--run", runs[0.5], *typed, "--rois", "--overwrite")
    assert len(roiread(tmp_path / "out" / "upright_rois.zip")) == len(features)
    invoke("predict", "--run", runs[0.5], *typed, "--overwrite")
    assert not (tmp_path / "out" / "upright_rois.zip").exists()


def test_the_resolution_is_that_of_the_training_or_chosen(invoke, runs, folder, tmp_path):
    typed = ["--images", folder / "upright.tif", "--tile", 64]
    shapes = {}
    for name, options in (
        ("run", ["--run", runs[1.0]]),
        ("mpp", ["--run", runs[None], "--mpp", 0.8]),
        ("level", ["--run", runs[0.5], "--level", 2]),
    ):
        invoke("predict", *options, *typed, "--out", tmp_path / name)
        with tifffile.TiffFile(tmp_path / name / "upright.ome.tif") as file:
            shapes[name] = file.pages.first.shape
    assert shapes == {"run": (75, 54), "mpp": (94, 68), "level": (37, 27)}
    assert json.loads((tmp_path / "level" / "predict.json").read_text())["level"] == 2


def test_a_slide_is_an_image_where_that_is_asked_for(invoke, runs, folder, tmp_path):
    invoke("predict", "--run", runs[None], "--images", folder / "upright.tif", "--out", tmp_path / "out", "--no-slides")
    with Image.open(tmp_path / "out" / "upright.png") as file:
        assert file.size == (108, 151)


def test_an_image_is_a_slide_where_that_is_asked_for(invoke, runs, tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, photometric="rgb")
    typed = ["--images", tmp_path / "a.ome.tif", "--out", tmp_path / "out", "--slides", "--level", 0]
    invoke("predict", "--run", runs[None], *typed)
    assert tifffile.imread(tmp_path / "out" / "a.ome.tif").shape == (151, 108)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "the run does not say how large the pixels of its training images are"),
        (["--mpp", 0.5, "--level", 0], "give --level or --mpp"),
        (["--mpp", 0.5, "--overlay"], "it is not for whole slides"),
        (["--mpp", 0.5, "--coco"], "--objects writes a label image and GeoJSON"),
        (["--mpp", 0], "is not a positive number"),
        (["--no-slides", "--level", 1], "there are none; see --slides"),
    ],
)
def test_what_is_not_for_slides_is_refused(options, said, invoke, runs, folder, tmp_path):
    typed = ["--images", folder / "upright.tif", "--out", tmp_path / "out", *options]
    result = invoke("predict", "--run", runs[None], *typed, code=2)
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_slide_that_is_too_coarse_is_listed(invoke, runs, folder, tmp_path):
    typed = ["--images", folder / "upright.tif", "--out", tmp_path / "out", "--mpp", 0.25]
    result = invoke("predict", "--run", runs[None], *typed, code=1)
    assert "no larger than" in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "out" / "upright.ome.tif").exists()


def test_training_keeps_the_size_of_the_pixels(invoke, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        pixels = PIXELS[number : number + 40, :40]
        per_centimeter = 1e4 / (0.5 + number / 100)
        tifffile.imwrite(tmp_path / f"images/{number}.tif", pixels, photometric="rgb", resolutionunit="CENTIMETER",
                         resolution=(per_centimeter, per_centimeter))  # fmt: skip
        Image.fromarray((pixels[..., 0] < 150).astype(np.uint8)).save(tmp_path / f"masks/{number}.png")
    typed = ["--images", tmp_path / "images", "--masks", tmp_path / "masks", "--steps", 1, "--width", 1, "--depth", 2,
             "--crop", 32, "--batch-size", 2, "--device", "cpu"]  # fmt: skip
    for name, options, size in (("stated", [], 0.5), ("typed", ["--pixel-size", 0.4], 0.4)):
        invoke("train", *typed, "--out", tmp_path / name, *options)
        _, config, _ = load_checkpoint(tmp_path / name / "model.safetensors")
        assert config.pixel_size == pytest.approx(size, rel=0.05)
    invoke("train", "--out", tmp_path / "typed", "--resume", "--steps", 2, "--pixel-size", 0.3, code=2)
    assert read_image(tmp_path / "images/0.tif").shape == (3, 40, 40)


@pytest.mark.parametrize("method", ["distance", "flow"])
def test_objects_are_found_by_the_rules_of_the_run(method, invoke, tmp_path):
    """Of a slide that is one tile, they are those of the same pixels as an image."""
    arguments = {"in_channels": 3, "classes": 2, "width": 2, "depth": 2, "neck": 16, "group": "C4"}
    normalization, decoder = Normalization([200.0, 170.0, 200.0], [40.0, 50.0, 40.0]), Decoder(method, smallest=4)
    config = SegmenterConfig("ObjectUNet", arguments, ("glass", "cell"), normalization, decoder=decoder)
    net = config.build(seed=1).eval()
    with torch.no_grad():
        other, cell = net(normalization(torch.from_numpy(PIXELS).permute(2, 0, 1).float())[None])[0]
        net.segmentation_head.bias[1] -= (cell - other).quantile(0.66)
        net.flow_head.weight *= 5
        net.distance_head.weight *= 5
        net.distance_head.bias += 1
    run = save_checkpoint(tmp_path / "run.safetensors", net, config)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb")
    typed = ["predict", "--run", run, "--images", tmp_path / "a.tif", "--objects", "--tile", 160, "--out"]
    invoke(*typed, tmp_path / "image")
    invoke(*typed, tmp_path / "slide", "--slides", "--level", 0, "--all-tiles")
    image = tifffile.imread(tmp_path / "image" / "a_objects.tif").astype(np.int64)
    slide = tifffile.imread(tmp_path / "slide" / "a_objects.ome.tif").astype(np.int64)
    assert image.max() > 5
    assert changed_objects(torch.from_numpy(image), torch.from_numpy(slide), "C4", 0) == (0, 0, 0)


def test_files_of_two_slides_may_not_have_one_name(invoke, runs, tmp_path):
    (tmp_path / "slides").mkdir()
    for name in ("a.tif", "a_objects.tif"):
        tifffile.imwrite(tmp_path / "slides" / name, PIXELS, photometric="rgb")
    typed = ["--images", tmp_path / "slides", "--out", tmp_path / "out", "--slides", "--level", 0]
    result = invoke("predict", "--run", runs[None], *typed, code=2)
    said = " ".join(result.stderr.replace("│", " ").split())
    assert "2 of the images would write the same a_objects.ome.tif" in said
