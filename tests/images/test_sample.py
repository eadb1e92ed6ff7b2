"""The images of the package: whole, split as their list says, normalised by the training images."""

import csv
import hashlib

import numpy as np
import pytest
import torch

from gconv_ga.images import SAMPLES, Split, load_sample, read_image
from gconv_ga.images._sample import FOLDER


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("nuclei", (16, 1, 128, 128), (8, 1, 128, 128)), ("histology", (6, 3, 128, 128), (2, 3, 128, 128))],
)
def test_a_sample_has_its_images_and_masks(name, train, test):
    sample = load_sample(name)
    assert (sample.name, sample.classes) == (name, ("background", "nucleus"))
    for split, shape in ((sample.train, train), (sample.test, test)):
        assert (split.images.shape, split.images.dtype) == (shape, torch.float32)
        assert (split.masks.shape, split.masks.dtype) == ((shape[0], *shape[2:]), torch.int64)
        assert split.masks.unique().tolist() == [0, 1]
        covered = split.masks.double().mean(dim=(1, 2))
        assert 0.01 <= covered.min() <= covered.max() <= 0.62  # what the source says of its images


@pytest.mark.parametrize("name", SAMPLES)
def test_the_training_images_have_mean_zero_and_deviation_one(name):
    images = load_sample(name).train.images.double()
    assert images.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (images.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_nuclei_are_as_bright_in_dark_images_as_in_bright_ones():
    """In the files their bright pixels differ by a factor; in the sample their 99.8th percentile is the same."""

    def bright(image):
        return float(np.percentile(image, 99.8, method="inverted_cdf"))

    sample = load_sample("nuclei")
    levels = [bright(image.numpy()) for split in (sample.train, sample.test) for image in split.images]
    assert max(levels) == pytest.approx(min(levels), rel=1e-5)
    raw = [bright(read_image(path).numpy()) for path in sorted((FOLDER / "nuclei" / "images").iterdir())]
    assert max(raw) > 2 * min(raw)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_list_of_files_is_the_files(name):
    with (FOLDER / name / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("images", "masks"):
        assert sorted(row["file"] for row in rows) == sorted(path.name for path in (FOLDER / name / kind).iterdir())
    sources = {split: {row["from_file"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert not sources["train"] & sources["test"]


def test_the_licence_comes_with_the_images():
    text = (FOLDER / "LICENCE.md").read_text(encoding="utf-8")
    assert "CC0 1.0" in text
    assert "BBBC038v1" in text


@pytest.mark.parametrize("name", SAMPLES)
def test_the_files_are_those_of_the_shared_data(name, shared_data):
    source = shared_data("embedded") / name
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert files

    def digest(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert {file: digest(FOLDER / name / file) for file in files} == {file: digest(source / file) for file in files}


def test_a_split_is_a_data_set_of_pairs():
    split = Split(torch.arange(24.0).view(3, 1, 2, 4), torch.arange(24).view(3, 2, 4))
    image, mask = split[2]
    assert len(split) == 3
    assert torch.equal(image, split.images[2])
    assert torch.equal(mask, split.masks[2])


def test_an_unknown_sample_is_refused():
    with pytest.raises(ValueError, match=r"^name must be one of 'nuclei', 'histology', but got name='nucleus'"):
        load_sample("nucleus")
