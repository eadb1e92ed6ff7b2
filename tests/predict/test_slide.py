"""Whole slides: classes of moved slides are the moved classes to the pixel, and interrupted work is not done twice."""

import numpy as np
import pytest
import tifffile
import torch
from slide_files import MOVES, NORMALIZATION, PIXELS, make, moved_slides, write_levels
from torch import nn

import gconv_ga.predict._slide as slides
from gconv_ga.images import Normalization, Slide
from gconv_ga.predict import SlideJob, predict_slide
from gconv_ga.predict._objects import Decisive


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of 2 x 2 tiles, or the slides of the tests would be one."""
    monkeypatch.setattr(slides, "UNIT", 50)


def predict(net, file, target, *, tile=32, resolution=None, **options):
    image = Slide(file).at(**({"level": 0} if resolution is None else resolution))
    job = SlideJob(net, image, target, normalization=NORMALIZATION, tile=tile, **options)
    mask = job.tissue.mask.numpy()
    return tifffile.imread(predict_slide(job)), mask


def differing(name, moves, folder, **options):
    """Number of pixels that differ between the moved classes and those of the moved slides, of classes and mask."""
    net, files = make(name), moved_slides(folder, PIXELS, ["upright", *moves])
    classes, mask = predict(net, files["upright"], folder / "upright.ome.tif", **options)
    assert sorted(np.bincount(classes.ravel(), minlength=3))[1] > 100  # of the second most frequent class
    found = 0
    for move in moves:
        after, mask_after = predict(net, files[move], folder / f"{move}.ome.tif", **options)
        found += int((MOVES[move](classes) != after).sum()) + int((MOVES[move](mask) != mask_after).sum())
    return found


@pytest.mark.parametrize("resolution", [{"level": 0}, {"pixel_size": 0.8}, {"level": 1}])
def test_classes_rotate_with_the_slide(resolution, tmp_path):
    assert differing("C4", ["rotated", "upside down"], tmp_path, resolution=resolution) == 0


@pytest.mark.parametrize(("name", "moves"), [("D4", ["reflected", "transposed"]), ("average", ["transposed"])])
def test_classes_are_reflected_with_the_slide(name, moves, tmp_path):
    assert differing(name, moves, tmp_path) == 0


@pytest.mark.parametrize(("name", "moves"), [("C4", ["rotated", "upside down"]), ("D4", ["reflected", "transposed"])])
def test_with_the_group_nothing_is_computed_twice(name, moves, monkeypatch, tmp_path):
    monkeypatch.setattr(Decisive, "forward", None)
    assert differing(name, moves, tmp_path, group=name, resolution={"pixel_size": 0.8}) == 0


def test_those_of_a_plain_network_do_not(tmp_path):
    assert differing("UNet", ["rotated"], tmp_path) > 100


def test_tiles_at_unsymmetric_places_do_not(monkeypatch, tmp_path):
    """The grid from the left edge on, as it is usually cut."""

    def from_the_left(size, tile):
        step = tile - 2 * (tile // 8)
        return [
            slides.Span(start, min(start + step, size), max(0, start - tile // 8), min(size, start + step + tile // 8))
            for start in range(0, size, step)
        ]

    monkeypatch.setattr(slides, "spans", from_the_left)
    assert differing("C4", ["rotated"], tmp_path) > 0


def test_classes_are_those_of_the_network_where_tiles_see_enough(tmp_path):
    """A receptive field of 7 pixels, within an eighth of a tile: the tiles make no difference."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 5, padding=2)).eval()
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    classes, _ = predict(net, file, tmp_path / "a.ome.tif", everything=True)
    with torch.no_grad():
        logits = net(NORMALIZATION(torch.from_numpy(PIXELS).permute(2, 0, 1).float())[None])[0]
    expected = logits.argmax(dim=0).numpy()
    best = logits.topk(2, dim=0).values
    sure = (best[0] - best[1] > 1e-4).numpy()
    assert sure.mean() > 0.99
    assert (classes == expected)[sure].all()


def test_glass_is_skipped_and_its_class_is_zero(tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    always = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        always.weight.zero_()
        always.bias.copy_(torch.tensor([0.0, 1.0]))
    classes, mask = predict(always, file, tmp_path / "a.ome.tif")
    stain = PIXELS.astype(int).max(axis=2) - PIXELS.min(axis=2) > 60
    assert classes[stain].all()
    assert 0.3 < classes.mean() < 0.9
    assert 0.3 < mask.mean() < 0.9
    assert predict(always, file, tmp_path / "b.ome.tif", everything=True)[0].all()


def test_an_interrupted_job_goes_on(tmp_path, monkeypatch):
    net, file = make("C4"), moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    predict(net, file, tmp_path / "whole.ome.tif")

    def job():
        return SlideJob(net, Slide(file).at(level=0), tmp_path / "a.ome.tif", normalization=NORMALIZATION, tile=32)

    (phase,) = job().phases
    first = phase.waiting()
    assert len(first) > 4
    for unit in reversed(first[::2]):  # in another order
        phase.run(unit)
    unfinished = tmp_path / "a.parts" / ".classes-000000.npz.1-0.gconv_ga-part"
    unfinished.write_bytes(b"half of it")
    assert not (tmp_path / "a.ome.tif").exists()
    again = job()
    assert again.phases[0].waiting() == first[1::2]
    done, left = [], []

    def progress(tiles, total):
        done.append((tiles, total))
        left.append(unfinished.exists())

    predict_slide(again, progress=progress)
    assert not any(left)
    assert done[0][0] > sum(phase.units[unit] for unit in first[::2])
    assert done[-1] == (phase.total, phase.total)
    assert not (tmp_path / "a.parts").exists()
    assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "whole.ome.tif").read_bytes()


def test_a_missing_unit_is_not_passed_over(tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    job = SlideJob(make("C4"), Slide(file).at(level=0), tmp_path / "a.ome.tif", normalization=NORMALIZATION, tile=32)
    for unit in job.phases[0].waiting()[1:]:
        job.phases[0].run(unit)
    with pytest.raises(FileNotFoundError):
        job.finish()
    assert not (tmp_path / "a.ome.tif").exists()


def test_brightness_is_measured_over_the_whole_slide(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4096, (90, 130), dtype=np.uint16)
    write_levels(tmp_path / "a.tif", [pixels, pixels[::2, ::2]], compression="deflate", photometric="minisblack")
    normalization = Normalization([0.0], [1.0], percentile=90)
    job = SlideJob(nn.Conv2d(1, 2, 1), Slide(tmp_path / "a.tif").at(level=0), tmp_path / "a.ome.tif", tile=32,
                   normalization=normalization)  # fmt: skip
    expected = normalization(torch.from_numpy(pixels.astype(np.float32))[None])
    assert torch.allclose(job.file.window(10, 20, 30, 40), expected[:, 10:40, 20:60])
    assert job.tissue.threshold is None
    assert (tmp_path / "a.parts" / "brightness.json").exists()


def test_the_file_is_ome_tiff_with_names_and_sizes(tmp_path):
    ome_types = pytest.importorskip("ome_types")
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    classes, _ = predict(make("C4"), file, tmp_path / "a.ome.tif", names=["glass & <none>", "stroma", 'a "nucleus"'])
    about = ome_types.from_tiff(tmp_path / "a.ome.tif")
    (image,) = about.images
    assert (image.pixels.size_x, image.pixels.size_y, image.pixels.type.value) == (108, 151, "uint8")
    assert (image.pixels.physical_size_x, image.pixels.physical_size_x_unit.value) == (pytest.approx(0.5), "µm")
    (annotation,) = about.structured_annotations.map_annotations
    assert dict(annotation.value) == {"0": "glass & <none>", "1": "stroma", "2": 'a "nucleus"'}
    assert image.annotation_refs[0].id == annotation.id
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_ome
        assert tiff.series[0].kind == "ome"
        assert tiff.pages.first.is_tiled
        assert tiff.pages.first.tags["XResolution"].value[0] / tiff.pages.first.tags["XResolution"].value[1] == 2e4
    assert Slide(tmp_path / "a.ome.tif").pixel_size == pytest.approx(0.5)
    assert classes.shape == (151, 108)


def test_what_is_wrong_is_refused(tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    image = Slide(file).at(level=0)
    with pytest.raises(ValueError, match="tile must be an int of at least 8"):
        SlideJob(make("C4"), image, tmp_path / "a.ome.tif", tile=4)
    with pytest.raises(ValueError, match="an image of 1 channels, as the training images are"):
        SlideJob(make("C4"), image, tmp_path / "a.ome.tif", normalization=Normalization([0.0], [1.0]))
    broken = nn.Conv2d(3, 2, 1)
    nn.init.constant_(broken.bias, float("nan"))
    job = SlideJob(broken, image, tmp_path / "a.ome.tif", normalization=NORMALIZATION)
    with pytest.raises(ValueError, match="NaN or infinite"):
        predict_slide(job)
