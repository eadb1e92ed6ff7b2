"""Tables of images and masks: what goes together, what stays together, and that nothing outside is read."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from gconv_ga.images import draw_split, read_table


@pytest.fixture
def folder(tmp_path):
    """A data folder with images in two subfolders, and a file beside it that is nobody's business."""
    place = tmp_path / "data"
    for name in ("p1/a.png", "p1/a_mask.png", "p2/a.png", "p2/a_mask.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(place / name)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "secret.png")
    return place


def table(folder, *lines):
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return read_table(folder / "table.csv")


def test_pairs_are_those_of_the_rows_and_have_names_of_their_own(folder):
    found = table(folder, "mask,image,split", "p1/a_mask.png,p1/a.png,train", "p2/a_mask.png,p2/a.png,validation")
    assert [(pair.name, pair.image, pair.mask) for pair in found.pairs] == [
        (f"{p}/a", (folder / p / "a.png").resolve(), (folder / p / "a_mask.png").resolve()) for p in ("p1", "p2")
    ]
    assert found.split == {"p1/a": "train", "p2/a": "val"}
    assert found.together is None
    assert found.problems == ()


@pytest.mark.parametrize("owner", ["patient", "slide"])
def test_who_an_image_is_of(owner, folder):
    found = table(folder, f"image,mask,{owner},age", "p1/a.png,p1/a_mask.png,x,50", "p2/a.png,p2/a_mask.png,y,60")
    assert found.together == {"p1/a": "x", "p2/a": "y"}
    assert found.split is None


OUTSIDE = {
    "above": "../secret.png",
    "down and above": "p1/../../secret.png",
    "absolute": "{outside}",
    "absolute, elsewhere": "/elsewhere/a.png",
}


@pytest.mark.parametrize("cell", OUTSIDE)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_path_that_leads_outside_is_refused(column, cell, folder):
    path = OUTSIDE[cell].format(outside=folder.parent / "secret.png")
    row = {"image": "p1/a.png", "mask": "p1/a_mask.png", column: path}
    found = table(folder, "image,mask", f"{row['image']},{row['mask']}")
    assert found.pairs == ()
    advice = "put the table into a folder above all of its files"
    assert [str(problem) for problem in found.problems] == [f"{path}: outside the folder of the table; {advice}"]


def test_links_are_those_that_the_user_has_made(folder):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "link").symlink_to(folder.parent)
    found = table(folder, "image,mask", "link.png,p1/a_mask.png", "link/secret.png,p2/a_mask.png")
    assert [pair.name for pair in found.pairs] == ["link", "link/secret"]
    (folder.parent / "secret.png").unlink()
    found = table(folder, "image,mask", "link.png,p1/a_mask.png", "link/../p2/a.png,p2/a_mask.png")
    assert [pair.name for pair in found.pairs] == ["p2/a"]
    lost = f"link.png: a link to {folder.parent / 'secret.png'}, which is not there"
    assert [str(problem) for problem in found.problems] == [lost]


def test_an_absolute_path_inside_is_taken(folder):
    assert len(table(folder, "image,mask", f"{folder / 'p1/a.png'},p1/a_mask.png").pairs) == 1


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["image,mask", "p1/b.png,p1/a_mask.png"], "p1/b.png: there is no such file"),
        (["image,mask", "p1,p1/a_mask.png"], "p1: not a file"),
        (["image,mask", "p1/a.png/b.png,p1/a_mask.png"], "p1/a.png/b.png: not the name of a file"),
        (
            ["image,mask", "p1/a.png,p1/a_mask.png", "p1/a.png,p2/a_mask.png"],
            "p1/a.png: another image in the table has this name",
        ),
        (
            ["image,mask,split,patient", "p1/a.png,p1/a_mask.png,train,7", "p2/a.png,p2/a_mask.png,val,7"],
            "patient 7: is in train and in val",
        ),
    ],
)
def test_what_is_wrong_with_rows_is_said(lines, problem, folder):
    assert any(str(found).startswith(problem) for found in table(folder, *lines).problems)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,split", "a,train"], r"path must be a CSV with the columns image and mask, .* This one has file, split"),
        (["image,mask"], "This one has no rows"),
        (["image,mask,split", "p1/a.png,p1/a_mask.png,tran"], "It has 'tran'"),
        (["image,mask,patient", "p1/a.png,p1/a_mask.png,"], "Line 2 has no patient"),
        (["image,mask", "p1/a.png"], "Line 2 has no mask"),
        (["image,mask,patient,slide", "p1/a.png,p1/a_mask.png,1,2"], "one of the columns patient and slide"),
    ],
)
def test_a_wrong_table_is_refused(lines, message, folder):
    with pytest.raises(ValueError, match=message):
        table(folder, *lines)


def test_an_absent_table_is_refused(folder):
    with pytest.raises(ValueError, match=r"^path must be a CSV .* It cannot be read"):
        read_table(folder / "nowhere.csv")


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_in_one_part(seed):
    """Twelve patients of one to twelve images; the share is met as nearly as a patient allows."""
    together = {f"{who}-{index}": f"p{who}" for who in range(1, 13) for index in range(who)}
    split = draw_split(list(together), share=0.25, seed=seed, together=together)
    parts = {who: {split[name] for name, owner in together.items() if owner == who} for who in together.values()}
    assert all(len(found) == 1 for found in parts.values())
    counts = Counter(split.values())
    assert set(counts) == {"train", "val"}
    assert abs(counts["val"] - 0.25 * len(together)) <= 6


def test_one_patient_alone_is_for_training():
    assert draw_split(["a", "b"], together={"a": "x", "b": "x"}) == {"a": "train", "b": "train"}


def test_two_patients_are_parted():
    split = draw_split(["a", "b", "c"], together={"a": "x", "b": "x", "c": "y"})
    assert split["a"] == split["b"] != split["c"]


def test_a_name_without_a_patient_is_refused():
    with pytest.raises(ValueError, match=r"^together must be a patient or slide for every name"):
        draw_split(["a", "b"], together={"a": "x"})
