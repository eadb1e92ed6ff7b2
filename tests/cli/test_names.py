"""Names of files at the command line: folders in folders, suffixes of masks, bytes that are no letters, lost links."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gconv_ga.train import read_run

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu", "--steps", "1"]


@pytest.fixture
def sites(data, tmp_path):
    """Two images each in the folders s1 and s2, with their masks beside them."""
    place = tmp_path / "sites"
    for index in range(4):
        folder = place / f"s{1 + index // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(data[1]) / f"{index:02}.png", folder / f"{index % 2}.png")
        shutil.copy(Path(data[3]) / f"{index:02}.png", folder / f"{index % 2}_mask.png")
    return place


NAMES = ["s1/0", "s1/1", "s2/0", "s2/1"]


def test_folders_in_folders_from_training_to_prediction(invoke, sites, tmp_path):
    typed = ["--images", sites, "--masks", sites, "--mask-suffix", "_mask", "--recursive"]
    (tmp_path / "split.csv").write_text("file;split\n" + "\n".join(f"{name}.png;train" for name in NAMES[:3]) + "\n")
    split = ["--split", tmp_path / "split.csv"]
    assert "'s2/1'" in invoke("train", *typed, *split, "--out", tmp_path / "run", *TINY, code=2).stderr
    with (tmp_path / "split.csv").open("a") as file:
        file.write("s2/1.png;test\ns2/0.png;train\ns3/7.png;val\n")
    result = invoke("train", *typed, *split, "--out", tmp_path / "run", *TINY)
    assert "1 of its rows are about other files, such as 's3/7.png'" in result.stderr
    assert read_run(tmp_path / "run").split == dict(zip(NAMES, ["train"] * 3 + ["test"], strict=True))
    invoke("train", "--out", tmp_path / "run", "--resume")
    run = ["--run", tmp_path / "run"]
    invoke("evaluate", *run, *typed, *split, "--out", tmp_path / "report")
    assert list(json.loads((tmp_path / "report/report.json").read_text())["by_image"]) == ["s2/1"]
    result = invoke("evaluate", *run, *typed, *split, "--part", "val", "--out", tmp_path / "no", code=2)
    assert "'--part'" in result.stderr
    part = tmp_path / "out" / "s1"
    part.mkdir(parents=True)
    (part / ".0.png.7-0.gconv_ga-part").touch()  # left by a command that was killed
    (sites / "s1" / "2.png").symlink_to(sites / "gone.png")
    result = invoke("predict", *run, "--images", sites, "--recursive", "--out", tmp_path / "out", code=1)
    assert "s1/2.png" in result.stderr
    assert sorted(path.name for path in part.iterdir()) == ["0.png", "0_mask.png", "1.png", "1_mask.png"]
    result = invoke("predict", *run, "--images", sites, "--recursive", "--out", sites / "out", code=2)
    assert "'--out'" in result.stderr
    assert not (sites / "out").exists()


@pytest.mark.parametrize("option", [["--recursive"], ["--mask-suffix", "_mask"]])
def test_a_table_names_the_files_alone(option, invoke, trained, tmp_path):
    result = invoke("evaluate", "--run", trained, "--table", "t.csv", *option, "--out", tmp_path / "out", code=2)
    assert f"'{option[0]}'" in result.stderr


def test_a_name_that_is_not_utf_8_is_reported_by_its_bytes(invoke, balanced, folders, tmp_path):
    for folder in (Path(folders[1]), Path(folders[3])):
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
        (folder / "00.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    result = invoke("evaluate", "--run", balanced["UNet"], *folders, "--out", tmp_path / "out")
    assert "Worst image: caf\\xe9." in result.stdout
    assert list(json.loads((tmp_path / "out/report.json").read_text())["by_image"]) == ["caf\\xe9"]
    assert "<td>caf\\xe9</td>" in (tmp_path / "out/report.html").read_text()


def test_a_name_too_long_for_what_is_written_is_refused_before_work(invoke, trained, folders, tmp_path):
    name = "x" * 251
    (Path(folders[1]) / "00.png").rename(Path(folders[1]) / f"{name}.png")
    typed = ["predict", "--run", trained, "--images", folders[1], "--out"]
    result = invoke(*typed, tmp_path / "no", "--overlay", code=2)
    assert f"the name '{name}' of 251 bytes is too long: with _overlay.png at the end" in result.stderr
    assert not (tmp_path / "no").exists()
    invoke(*typed, tmp_path / "out", "--probabilities")
    assert (tmp_path / "out" / f"{name}.npy").exists()


def test_what_is_left_out_is_said_and_lost_links_are_faults(invoke, folders, tmp_path):
    images, masks = Path(folders[1]), Path(folders[3])
    (images / "._00.png").write_bytes(b"Mac OS X")
    (masks / "old.xcf").touch()
    for folder in (images, masks):
        (folder / "03.png").rename(tmp_path / folder.name)
        (folder / "03.png").symlink_to(tmp_path / "gone" / "03.png")
    result = invoke("train", *folders, "--out", tmp_path / "run", *TINY, code=2)
    assert f"{images}: 1 left out: 1 hidden" in result.stderr
    assert f"{masks}: 1 left out: 1 .xcf" in result.stderr
    assert "a link to" in result.stderr
    assert "1 problem in the files; nothing was written" in result.stderr
    assert not (tmp_path / "run").exists()


def test_classes_are_listed_with_their_share_of_each_part(invoke, folders, tmp_path):
    """Class 2 is in one image only, which is for validation; pixels that are ignored are not counted."""
    masks, parts = Path(folders[3]), ["train", "train", "train", "val"]
    for index in range(4):
        mask = np.zeros((128, 128), dtype=np.uint8)
        mask[:32] = 9
        mask[64:, : 32 * (index + 1)] = 1
        mask[96:] = np.where(index == 3, 2, mask[96:])
        Image.fromarray(mask).save(masks / f"{index:02}.png")
    (tmp_path / "split.csv").write_text(
        "file,split\n" + "".join(f"{index:02},{part}\n" for index, part in enumerate(parts))
    )
    typed = ["--split", tmp_path / "split.csv", "--names", "glass,[b]cell,rare", "--ignore-index", 9]
    result = invoke("train", *folders, *typed, "--out", tmp_path / "run", *TINY)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stderr.splitlines() if "%" in line]
    # Of 96 x 128 pixels of each mask that are not ignored.
    cell = sum(64 * 32 * (index + 1) for index in range(3)) / (3 * 96 * 128)
    shares = {"1 [b]cell": (cell, 32 * 128 / (96 * 128)), "2 rare": (0, 32 * 128 / (96 * 128))}
    shares["0 glass"] = tuple(1 - one - two for one, two in zip(*shares.values(), strict=True))
    expected = {name: [f"{100 * share:.2f} %" if share else "none" for share in each] for name, each in shares.items()}
    assert {row[0]: row[1:] for row in rows} == expected
    assert "warning: class 2, rare, has no pixel in the training images (in val only)" in result.stderr
    assert read_run(tmp_path / "run").segmenter.classes == ("glass", "[b]cell", "rare")
