"""Which files of a folder are images, which mask is whose, and that what is left out is said."""

import os

import pytest

from gconv_ga.images import PairFiles, find_images, match_masks


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(files, folder):
    return [file.relative_to(folder).as_posix() for file in files]


def test_what_is_left_out_is_counted(tmp_path):
    folder = touch(tmp_path, "a.png", "._a.png", ".DS_Store", "a.txt", "b.TXT", "README", "more/c.png", "more/d.txt")
    os.mkfifo(folder / "pipe.png")  # reading it would wait for ever
    lines = []
    assert names(find_images(folder, note=lines.append), folder) == ["a.png"]
    counts = "2 .txt, 2 hidden, 1 in folders (see --recursive), 1 no files, 1 without an ending"
    assert lines == [f"{folder}: 7 left out: {counts}"]
    lines.clear()
    assert names(find_images(folder, recursive=True, note=lines.append), folder) == ["a.png", "more/c.png"]
    assert lines == [f"{folder}: 7 left out: 3 .txt, 2 hidden, 1 no files, 1 without an ending"]
    find_images(touch(tmp_path / "clean", "a.png"), note=lines.append)
    assert len(lines) == 1


def test_a_folder_of_other_files_says_what_is_in_it(tmp_path):
    with pytest.raises(ValueError, match=r"There are none in it, but 2 .txt, 1 hidden"):
        find_images(touch(tmp_path, "a.txt", "b.txt", ".c.png"))


def test_links_that_lead_nowhere_are_not_left_out(tmp_path):
    folder = touch(tmp_path / "images", "a.png")
    (folder / "b.png").symlink_to(tmp_path / "gone.png")
    assert names(find_images(folder), folder) == ["a.png", "b.png"]


def test_a_link_that_leads_back_up_ends(tmp_path):
    folder = touch(tmp_path / "images", "a.png", "more/b.png")
    (folder / "more" / "up").symlink_to(folder)
    elsewhere = touch(tmp_path / "elsewhere", "c.png")
    (folder / "linked").symlink_to(elsewhere)
    assert names(find_images(folder, recursive=True), folder) == ["a.png", "linked/c.png", "more/b.png"]


def test_masks_in_folders_are_matched_by_their_paths(tmp_path):
    images, masks = touch(tmp_path / "i", "s1/a.tif", "s2/a.tif"), touch(tmp_path / "m", "s1/a.png", "s2/a.png")
    pairs, problems = match_masks(find_images(images, recursive=True), masks, root=images)
    assert problems == []
    assert [(pair.name, pair.mask.relative_to(masks).as_posix()) for pair in pairs] == [
        ("s1/a", "s1/a.png"),
        ("s2/a", "s2/a.png"),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_a_suffix_tells_masks_from_images(together, tmp_path):
    images = touch(tmp_path, "a.png", "b.png", "b_mask.png") if together else touch(tmp_path / "i", "a.png", "b.png")
    masks = touch(images if together else tmp_path / "m", "a_mask.png", "b_mask.png")
    pairs, problems = match_masks(find_images(images), masks, suffix="_mask")
    assert [(pair.name, pair.image.name, pair.mask.name) for pair in pairs] == [
        ("a", "a.png", "a_mask.png"),
        ("b", "b.png", "b_mask.png"),
    ]
    assert problems == []
    touch(masks, "c_mask.png")
    other = touch(tmp_path / "other", "d.png")
    (masks / "x.png").symlink_to(other / "d.png")
    _, problems = match_masks(find_images(images)[:2] if together else find_images(images), masks, suffix="_mask")
    expected = {"c_mask.png: a mask without an image", "x.png: a mask whose name does not end in _mask"}
    assert expected <= {str(problem) for problem in problems}


def test_letters_composed_in_two_ways_are_one_name(tmp_path):
    """Of a Mac, "u" and two dots; elsewhere one letter."""
    images, masks = touch(tmp_path / "i", "Mu\u0308ller.png"), touch(tmp_path / "m", "M\u00fcller.png")
    pairs, problems = match_masks(find_images(images), masks)
    assert (problems, [pair.name for pair in pairs]) == ([], ["M\u00fcller"])
    touch(images, "M\u00fcller.png")
    _, problems = match_masks(find_images(images), masks)
    assert [problem.what for problem in problems] == ["one of 2 images of this name"] * 2


def test_a_name_that_is_not_utf_8_is_matched(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    images, masks = touch(tmp_path / "i", name), touch(tmp_path / "m", name)
    pairs, _ = match_masks(find_images(images), masks)
    assert pairs == [PairFiles(images / name, masks / name)]
