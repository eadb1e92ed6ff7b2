"""Masks of indices and of colours, and pixels that are ignored."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gconv_ga.images import MaskEncoding, PairDataset, PairFiles, read_colors, read_mask, scan_pairs

COLORS = {"soil": (0, 0, 0), "leaf": (0, 255, 0), "ignore": (255, 255, 255), "fruit": (255, 0, 0)}
INDICES = [[0, 1, 2], [255, 2, 0]]


@pytest.fixture
def painted(tmp_path):
    """A mask in colours; written pixel by pixel, by looking each colour up."""
    names = ["soil", "leaf", "fruit"]
    rows = [[COLORS["ignore" if index == 255 else names[index]] for index in row] for row in INDICES]
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_colours_are_classes_in_their_order(painted):
    code = MaskEncoding(COLORS)
    assert code.names == ("soil", "leaf", "fruit")
    assert read_mask(painted, code).tolist() == INDICES


def test_the_colour_of_what_is_ignored_gets_the_index_that_was_asked_for(painted):
    assert read_mask(painted, MaskEncoding(COLORS, ignore_index=-1)).tolist() == [[0, 1, 2], [-1, 2, 0]]


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_colours_of_a_palette_and_beside_transparency(mode, painted):
    with Image.open(painted) as file:
        file.convert(mode, palette=Image.Palette.ADAPTIVE).save(painted)
    assert read_mask(painted, MaskEncoding(COLORS)).tolist() == INDICES


def test_a_grey_file_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "x.png")
    assert read_mask(tmp_path / "x.png", MaskEncoding({"no": [0, 0, 0], "yes": [255, 255, 255]})).tolist() == [[0, 1]]


def test_an_unknown_colour_is_named(painted):
    code = MaskEncoding({name: color for name, color in COLORS.items() if name != "leaf"})
    with pytest.raises(ValueError, match=r"^mask must be an image .*\(0, 255, 0\) is the colour of 1 pixels but of no"):
        read_mask(painted, code)


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_a_file_of_colours_is_read_in_its_order(ending, tmp_path):
    path = tmp_path / f"colors.{ending}"
    rows = [f"{name},{r},{g},{b}" for name, (r, g, b) in COLORS.items()]
    path.write_text(json.dumps(COLORS) if ending == "json" else "\n".join(["name,r,g,b", *rows]))
    assert read_colors(path) == COLORS
    assert list(read_colors(path)) == list(COLORS)


def test_a_file_of_colours_as_spreadsheets_write_it(tmp_path):
    rows = [f'"{name}"; {r};{g};{b}' for name, (r, g, b) in COLORS.items()]
    (tmp_path / "c.csv").write_text("\n".join(["Name;R;G;B", *rows]), encoding="utf-8-sig", newline="\r\n")
    assert read_colors(tmp_path / "c.csv") == COLORS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "{}", "the ending of path must be"),
        ("c.json", "[1, 2]", "path must be a file of colours"),
        ("c.json", "{", "path must be a file of colours"),
        ("c.json", "3", "path must be a file of colours"),
        ("c.json", '{"a": [0, 0, 0], "a": [1, 1, 1]}', "path must be a file that names each class once"),
        ("c.json", '{"a": [0, 0], "b": [1, 1, 1]}', "colors must be three whole numbers from 0 to 255"),
        ("c.json", '{"a": [0, 0, 256], "b": [1, 1, 1]}', "colors must be three whole numbers from 0 to 255"),
        ("c.json", '{"a": [0, 0, true], "b": [1, 1, 1]}', "colors must be three whole numbers from 0 to 255"),
        ("c.json", '{"a": "red", "b": [1, 1, 1]}', "colors must be three whole numbers from 0 to 255"),
        ("c.csv", "name,r,g\na,0,0\n", "path must be a CSV with the columns name, r, g and b"),
        ("c.csv", "name,r,g,b\na,0,0,x\n", "path must be a file of colours"),
    ],
)
def test_a_wrong_file_of_colours_is_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_colors(tmp_path / name)


def test_an_absent_file_of_colours_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path must be a file of colours"):
        read_colors(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"colors": {"a": (0, 0, 0)}}, "colors must be the colours of two classes or more"),
        ({"colors": {"a": (0, 0, 0), "ignore": (1, 1, 1)}}, "colors must be the colours of two classes or more"),
        ({"colors": {"a": (0, 0, 0), "b": (0, 0, 0)}}, "colors must be different .* The colour of 'b' occurs twice"),
        ({"colors": COLORS, "ignore_index": 2}, "ignore_index must be none of the 3 classes"),
        ({"ignore_index": 1.5}, "ignore_index must be an int"),
    ],
)
def test_a_wrong_code_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskEncoding(**arguments)


@pytest.fixture
def pair(tmp_path):
    """An image and a mask of two classes, three pixels of it 255."""
    mask = np.zeros((6, 5), dtype=np.uint8)
    mask[2:] = 1
    mask[0, :3] = 255
    Image.fromarray(np.full((6, 5), 9, dtype=np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return PairFiles(tmp_path / "image.png", tmp_path / "mask.png")


def test_a_scan_leaves_out_what_is_ignored(pair):
    scan = scan_pairs([pair], code=MaskEncoding(ignore_index=255))
    assert (scan.problems, scan.classes, scan.pixels) == ((), 2, (7, 20))
    assert scan_pairs([pair], classes=2, code=MaskEncoding(ignore_index=255)).problems == ()


def test_otherwise_it_is_asked_for(pair):
    for code in (None, MaskEncoding()):
        assert "declare it with ignore_index" in str(scan_pairs([pair], classes=2, code=code).problems[0])
    assert "mask values 0 .. 255" in str(scan_pairs([pair], code=MaskEncoding(ignore_index=1), classes=2).problems[0])


def test_an_ignored_class_may_be_empty(pair):
    """Index 0 is what is not labelled: no pixel counts as class 0, and that is no fault."""
    assert (
        scan_pairs([pair], classes=256, code=MaskEncoding(ignore_index=0))
        .problems[0]
        .what.startswith("no pixel of class 2")
    )


def test_a_class_without_a_pixel_is_named_by_its_colour_too(painted, tmp_path):
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    colors = {**COLORS, "stone": (9, 9, 9)}
    scan = scan_pairs([PairFiles(tmp_path / "image.png", painted)], code=MaskEncoding(colors))
    assert scan.classes == 4
    assert [problem.what for problem in scan.problems] == ["no pixel of class 3; the values found are 0, 1, 2"]


def test_other_classes_than_colours_are_refused(pair):
    with pytest.raises(ValueError, match=r"^classes must be 3, the number of colours, but got classes=2"):
        scan_pairs([pair], classes=2, code=MaskEncoding(COLORS))


def test_a_dataset_reads_colours(painted, tmp_path):
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    _, mask = PairDataset([PairFiles(tmp_path / "image.png", painted)], code=MaskEncoding(COLORS))[0]
    assert mask.dtype == torch.int64
    assert mask.tolist() == INDICES


def test_a_dataset_refuses_a_pair_of_two_sizes(painted, tmp_path):
    Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match=r"^mask must be of the size of the image, \(3, 3\)"):
        PairDataset([PairFiles(tmp_path / "image.png", painted)], code=MaskEncoding(COLORS))[0]


def test_numbers_of_objects_are_one_class(tmp_path):
    Image.fromarray(np.array([[0, 1, 700], [65535, 2, 0]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert read_mask(tmp_path / "x.png", MaskEncoding(instances=True)).tolist() == [[0, 1, 1], [1, 1, 0]]
    code = MaskEncoding(ignore_index=65535, instances=True)
    assert read_mask(tmp_path / "x.png", code).tolist() == [[0, 1, 1], [65535, 1, 0]]
    with pytest.raises(ValueError, match="mask must be a file of the numbers of objects"):
        code.indices(torch.tensor([[[-1]]]))
    with pytest.raises(ValueError, match="colors must be None where masks hold the numbers of objects"):
        MaskEncoding(COLORS, instances=True)
