"""Folders of images and masks: what belongs together, what is wrong with the files, splits."""

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.images import (
    Normalization,
    PairDataset,
    draw_split,
    find_images,
    match_masks,
    read_image,
    read_mask,
    read_split,
    scan_pairs,
)


@pytest.fixture
def folders(tmp_path):
    """Three grey images with masks of two classes, and their folders."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    for index, name in enumerate(("a", "b", "c")):
        level = np.full((12, 9), 50 * index + 10, dtype=np.uint8)
        level[:4] += 3
        save(level, images / f"{name}.tif")
        save((level > level[-1, -1]).astype(np.uint8), masks / f"{name}.png")
    return images, masks


def save(array, path, **options):
    Image.fromarray(array).save(path, **options)


def problems(folders, **options):
    pairs, unmatched = match_masks(find_images(folders[0]), folders[1])
    return [str(problem) for problem in [*unmatched, *scan_pairs(pairs, **options).problems]]


def test_good_folders_have_no_problem(folders):
    pairs, unmatched = match_masks(find_images(folders[0]), folders[1])
    counts = []
    scan = scan_pairs(pairs, progress=counts.append)
    assert unmatched == []
    assert scan.problems == ()
    assert (scan.classes, scan.channels, scan.smallest, scan.pixels) == (2, 1, 9, (3 * 72, 3 * 36))
    assert counts == [1, 2, 3]


def test_the_dataset_gives_what_the_files_hold(folders):
    pairs, _ = match_masks(find_images(folders[0]), folders[1])
    dataset = PairDataset(pairs, Normalization([10.0], [2.0]))
    assert len(dataset) == 3
    image, mask = dataset[1]
    assert image.unique().tolist() == [25.0, 26.5]
    assert torch.equal(mask, (image[0] > 26).long())
    assert len(list(PairDataset(pairs))) == 3


def damage_truncated(images, masks):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    save(noise, images / "b.png")
    (images / "b.tif").unlink()
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:2000])


def damage_pages(images, masks):
    page = Image.fromarray(np.zeros((12, 9), dtype=np.uint8))
    page.save(images / "b.tif", save_all=True, append_images=[page, page])


def damage_float(images, masks):
    save(np.full((12, 9), np.nan, dtype=np.float32), images / "b.tif")


def damage_fractions(images, masks):
    save(np.full((12, 9), 0.5, dtype=np.float32), masks / "b.tif")
    (masks / "b.png").unlink()


DAMAGE = {
    "no mask": (lambda images, masks: (masks / "b.png").unlink(), "b.tif: no mask of this name"),
    "no image": (lambda images, masks: (images / "b.tif").unlink(), "b.png: a mask without an image"),
    "twins": (
        lambda images, masks: save(np.zeros((12, 9), dtype=np.uint8), images / "b.png"),
        "b.tif: one of 2 images of this name",
    ),
    "sizes": (
        lambda images, masks: save(np.ones((9, 12), dtype=np.uint8), masks / "b.png"),
        "b.tif: image 12x9, mask 9x12",
    ),
    "text": (lambda images, masks: (images / "b.tif").write_text("no"), "b.tif: path must be a readable image file"),
    "truncated": (damage_truncated, "b.png: path must be a readable image file"),
    "pages": (damage_pages, "This one has 3 pages"),
    "no number": (damage_float, "108 of its 108 values are NaN"),
    "fractions": (damage_fractions, "b.tif: mask must be a file of whole numbers"),
    "colours": (
        lambda images, masks: save(np.zeros((12, 9, 3), dtype=np.uint8), images / "b.tif"),
        "b.tif: 3 channels, where 1 are expected",
    ),
    "values": (
        lambda images, masks: save(np.full((12, 9), 7, dtype=np.uint8), masks / "b.png"),
        "b.tif: mask values 7 .. 7, where 0 .. 1 are expected",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_said(damage, folders):
    harm, said = DAMAGE[damage]
    harm(*folders)
    assert any(said in line for line in problems(folders, classes=2)), problems(folders, classes=2)


def test_masks_of_other_values_show_them(folders):
    for path in folders[1].iterdir():
        save(np.asarray(Image.open(path)) * np.uint8(120), path)
    save(np.full((12, 9), 240, dtype=np.uint8), path)
    said = "masks: no pixel of class 1, 2, 3, 4, 5 and 233 more; the values found are 0, 120, 240; "
    assert problems(folders) == [said + "a mask of few values in grey can be read with colors (--colors)"]


def test_an_empty_class_is_named(folders):
    assert problems(folders, classes=3) == ["masks: no pixel of class 2; the values found are 0, 1"]


def test_masks_of_one_value_have_an_empty_class(folders):
    for path in folders[1].iterdir():
        save(np.zeros((12, 9), dtype=np.uint8), path)
    assert problems(folders) == ["masks: no pixel of class 1; the values found are 0"]


def test_the_channels_that_a_network_takes_can_be_asked_for(folders):
    assert problems(folders, channels=3) == [f"{name}.tif: 1 channels, where 3 are expected" for name in "abc"]


def test_an_image_with_a_palette_is_in_its_colours_and_a_mask_is_not(tmp_path):
    file = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    file.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    file.putdata([0, 1, 2, 1])
    file.save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[:, 1, 0].tolist() == [70, 80, 90]
    assert read_mask(tmp_path / "x.png").tolist() == [[0, 1], [2, 1]]


@pytest.mark.parametrize("what", ["nothing", "empty"])
def test_a_folder_without_images_is_refused(what, tmp_path):
    place = tmp_path if what == "empty" else tmp_path / "nowhere"
    with pytest.raises(ValueError, match="path must be a folder"):
        find_images(place)


def test_a_single_file_is_found(folders):
    assert find_images(folders[0] / "a.tif") == [folders[0] / "a.tif"]


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(10, 0.2, 2), (2, 0.2, 1), (1, 0.2, 0), (3, 0.9, 2), (5, 0, 0)]
)
def test_a_drawn_split_keeps_something_for_training(count, share, held_out):
    names = [f"n{index}" for index in range(count)]
    split = draw_split(names, share=share, seed=3)
    assert sorted(split) == sorted(names)
    assert list(split.values()).count("val") == held_out
    assert draw_split(names[::-1], share=share, seed=3) == split


def test_the_seed_decides_the_split():
    names = [f"n{index}" for index in range(20)]
    assert draw_split(names, seed=0) != draw_split(names, seed=1)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_a_wrong_share_is_refused(share):
    with pytest.raises(ValueError, match="share must be from 0"):
        draw_split(["a"], share=share)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,set\na.png,train\n", "This one has file, set"),
        ("", "This one has no rows"),
        ("file,split\na.png,train\n", "It lacks 'b'"),
        ("file,split\na.png,train\nb.png,tran\n", "It has 'tran'"),
    ],
)
def test_a_wrong_split_file_is_refused(text, message, tmp_path):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / "split.csv", ["a", "b"])


def test_an_absent_split_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="path must be a CSV"):
        read_split(tmp_path / "split.csv", ["a"])


def test_names_in_a_split_file_open_nothing_outside(tmp_path):
    (tmp_path / "split.csv").write_text("file,split\n../../a.png,valid\n")
    assert read_split(tmp_path / "split.csv", ["a"]) == {"a": "val"}
