"""Tables, masks in colours and ignored pixels, at the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gconv_ga.segmenter import load_checkpoint
from gconv_ga.train import read_run

TINY = ["--width", "1", "--depth", "2", "--crop", "32", "--batch-size", "2", "--device", "cpu", "--steps", "1"]
COLORS = {"glass": [0, 0, 90], "cell": [250, 250, 0], "ignore": [128, 128, 128]}


def repaint(masks):
    """The masks in colours; a stripe of each is the colour of what is ignored."""
    for path in Path(masks).iterdir():
        indices = np.asarray(Image.open(path)).copy()
        indices[:20] = 2
        Image.fromarray(np.array(list(COLORS.values()), dtype=np.uint8)[indices]).save(path)


@pytest.fixture
def table(folders, tmp_path):
    """A table of the four images: two of one patient."""
    place = Path(folders[1]).parent / "table.csv"
    rows = [f"images/{index:02}.png,masks/{index:02}.png,{'abba'[index]}" for index in range(4)]
    place.write_text("\n".join(["image,mask,patient", *rows]))
    return place


def test_a_table_keeps_a_patient_in_one_part(invoke, table, tmp_path):
    invoke("train", "--table", table, "--out", tmp_path / "run", *TINY)
    split = read_run(tmp_path / "run").split
    assert sorted(split) == [f"images/{index:02}" for index in range(4)]
    assert split["images/00"] == split["images/03"] != split["images/01"] == split["images/02"]


def test_a_table_decides_the_split_and_evaluate_takes_its_part(invoke, table, tmp_path):
    lines = table.read_text().replace("patient", "split").splitlines()
    parts = ["train", "test", "val", "train"]
    table.write_text(
        "\n".join([lines[0], *(f"{line[:-1]}{part}" for line, part in zip(lines[1:], parts, strict=True))])
    )
    invoke("train", "--table", table, "--out", tmp_path / "run", *TINY)
    assert [read_run(tmp_path / "run").split[f"images/{index:02}"] for index in range(4)] == parts
    for part, expected in (("test", ["images/01"]), ("all", [f"images/{index:02}" for index in range(4)])):
        out = tmp_path / part
        invoke("evaluate", "--run", tmp_path / "run", "--table", table, "--part", part, "--out", out)
        assert sorted(json.loads((out / "report.json").read_text())["by_image"]) == expected
    table.write_text(table.read_text().replace("test", "val"))
    result = invoke("evaluate", "--run", tmp_path / "run", "--table", table, "--out", tmp_path / "no", code=2)
    assert "'--part'" in result.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("cell", ["../secret.png", "{tmp}/secret.png"])
def test_a_table_that_leads_outside_is_refused_and_nothing_is_written(cell, invoke, table, tmp_path):
    shutil.copy(table.parent / "images/00.png", tmp_path / "secret.png")
    table.write_text(table.read_text().replace("images/02.png", cell.format(tmp=tmp_path)))
    result = invoke("train", "--table", table, "--out", tmp_path / "run", *TINY, code=2)
    assert "outside the folder of the table" in result.stderr
    assert "'--table': 1 problem in the files; nothing was written" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_table_goes_on_with_it(invoke, table, tmp_path):
    invoke("train", "--table", table, "--out", tmp_path / "run", *TINY)
    invoke("train", "--table", table, "--out", tmp_path / "run", "--resume")
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    result = invoke("train", "--table", table, "--out", tmp_path / "run", "--resume", code=2)
    assert "'--table': images/03 and its mask belong to the run" in result.stderr


@pytest.mark.parametrize(
    ("typed", "option"),
    [
        (["--images", "images"], "--masks"),
        (["--masks", "masks"], "--images"),
        ([], "--images"),
        (["--table", "table.csv", "--images", "images"], "--table"),
        (["--table", "nowhere.csv"], "--table"),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_half_a_source_is_refused(command, typed, option, invoke, trained, tmp_path):
    run = ["--run", trained] if command == "evaluate" else []
    assert f"'{option}'" in invoke(command, *run, *typed, "--out", tmp_path / "out", code=2).stderr
    assert not (tmp_path / "out").exists()


def test_a_split_beside_a_table_is_refused(invoke, table, tmp_path):
    result = invoke("train", "--table", table, "--split", table, "--out", tmp_path / "run", *TINY, code=2)
    assert "'--split'" in result.stderr


def test_colours_name_the_classes_and_are_kept(invoke, folders, tmp_path):
    repaint(folders[3])
    (tmp_path / "colors.json").write_text(json.dumps(COLORS))
    typed = ["--colors", tmp_path / "colors.json"]
    invoke("train", *folders, *typed, "--out", tmp_path / "run", *TINY)
    assert load_checkpoint(tmp_path / "run/model.safetensors").config.classes == ("glass", "cell")
    assert read_run(tmp_path / "run").mask_encoding.ignore_index == 255
    invoke("evaluate", "--run", tmp_path / "run", *folders, "--out", tmp_path / "report")
    assert list(json.loads((tmp_path / "report/report.json").read_text())["dice"]) == ["glass", "cell"]
    assert ">ignored<" in (tmp_path / "report/report.html").read_text()
    invoke("predict", "--run", tmp_path / "run", "--images", folders[1], "--out", tmp_path / "predicted")
    with Image.open(tmp_path / "predicted/00.png") as file:
        assert [tuple(file.getpalette()[3 * index : 3 * index + 3]) for index in range(2)] == [
            (0, 0, 90),
            (250, 250, 0),
        ]
    (tmp_path / "colors.json").write_text(json.dumps({**COLORS, "cell": [1, 1, 1]}))
    result = invoke("train", *folders, *typed, "--out", tmp_path / "run", "--resume", code=2)
    assert "'--colors'" in result.stderr


def test_a_colour_of_no_class_is_a_row_of_the_table(invoke, folders, tmp_path):
    repaint(folders[3])
    (tmp_path / "colors.json").write_text(json.dumps({name: COLORS[name] for name in ("glass", "cell")}))
    result = invoke("train", *folders, "--colors", tmp_path / "colors.json", "--out", tmp_path / "run", *TINY, code=2)
    assert "(128, 128, 128)" in result.stderr
    assert "'--images and --masks': 4 problems in the files; nothing was written" in result.stderr
    assert not (tmp_path / "run").exists()


def test_masks_in_colours_need_colours(invoke, folders, tmp_path):
    repaint(folders[3])
    result = invoke("train", *folders, "--out", tmp_path / "run", *TINY, code=2)
    assert "3 channels" in result.stderr


def test_ignored_pixels_are_no_class(invoke, folders, tmp_path):
    for path in Path(folders[3]).iterdir():
        indices = np.asarray(Image.open(path)).copy()
        indices[:20] = 200
        Image.fromarray(indices).save(path)
    assert "--ignore-index 200" in invoke("train", *folders, "--out", tmp_path / "run", *TINY, code=2).stderr
    invoke("train", *folders, "--ignore-index", 200, "--out", tmp_path / "run", *TINY)
    assert read_run(tmp_path / "run").segmenter.arguments["classes"] == 2
    invoke("evaluate", "--run", tmp_path / "run", *folders, "--out", tmp_path / "report")
    result = invoke("train", *folders, "--out", tmp_path / "run", "--resume", "--ignore-index", 7, code=2)
    assert "'--ignore-index'" in result.stderr
    result = invoke(
        "evaluate", "--run", tmp_path / "run", *folders, "--ignore-index", 7, "--out", tmp_path / "x", code=2
    )
    assert "value 200 beside 0 .. 1 is probably a mark of ignored pixels" in " ".join(result.stderr.split())


@pytest.mark.parametrize("option", ["--colors", "--ignore-index", "--classes"])
def test_a_wrong_option_is_named(option, invoke, folders, tmp_path):
    repaint(folders[3])
    (tmp_path / "colors.json").write_text(json.dumps(COLORS))
    wrong = {
        "--colors": ["--colors", tmp_path / "nowhere.json"],
        "--ignore-index": ["--ignore-index", 1],
        "--classes": ["--classes", 5],
    }
    typed = ["--colors", tmp_path / "colors.json", *wrong[option]]
    assert f"'{option}'" in invoke("train", *folders, *typed, "--out", tmp_path / "run", *TINY, code=2).stderr
    assert not (tmp_path / "run").exists()
