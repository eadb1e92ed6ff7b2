"""The table of objects against scikit-image, and its rows when the image is rotated or reflected."""

import csv

import numpy as np
import pytest
import torch
from object_images import blobs
from skimage.measure import regionprops

from gconv_ga.actions import LabelMask, ScalarField
from gconv_ga.objects import Objects, decode, object_table, write_table

CLASSES = blobs((60, 47), 1, classes=2)
OBJECTS = decode(CLASSES)
GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randint(0, 256, (3, 60, 47), generator=GENERATOR).float()
PROBABILITY = torch.rand(60, 47, generator=GENERATOR)


def test_the_columns_are_those_of_scikit_image():
    table = object_table(OBJECTS, image=IMAGE, probability=PROBABILITY)
    colours = np.moveaxis(np.concatenate((IMAGE.numpy(), PROBABILITY[None].numpy())), 0, -1)
    measured = regionprops(OBJECTS.labels.numpy(), colours)
    assert len(measured) == len(table["label"]) > 5
    for place, region in enumerate(measured):
        row = {name: column[place] for name, column in table.items()}
        assert (row["label"], row["area"]) == (region.label, region.area)
        assert (row["y"], row["x"]) == pytest.approx(region.centroid)
        axes = region.axis_major_length, region.axis_minor_length
        assert (row["major_axis"], row["minor_axis"]) == pytest.approx(axes)
        # Its angle counts from the axis of rows, in radians.
        assert (row["orientation"] - 90) % 180 == pytest.approx(np.degrees(region.orientation) % 180)
        means = [row[f"mean_intensity_{channel}"] for channel in (1, 2, 3)]
        assert [*means, row["mean_probability"]] == pytest.approx(region.intensity_mean)


def rotated_orientation(degrees, element):
    """The angle of a line that element ``r^i`` or ``r^i m`` of D4 has moved; m reflects the columns."""
    if degrees is None:
        return None
    return ((-degrees if element >= 4 else degrees) + 90 * (element % 4)) % 180


def moved_rows(table, size, element):
    """The rows as tuples, without the label, with place and angle moved, sorted."""
    rows = []
    for _, x, y, angle, *others in zip(*(table[name] for name in ("label", "x", "y", "orientation")), *(
        column for name, column in table.items() if name not in ("label", "x", "y", "orientation")
    ), strict=True):  # fmt: skip
        down, right = float(y), float(x)
        height, width = size
        if element >= 4:
            right = width - 1 - right
        for _ in range(element % 4):
            down, right, height, width = width - 1 - right, down, width, height
        rows.append((*others, right, down, -1.0 if angle is None else rotated_orientation(angle, element)))
    return sorted(rows)


@pytest.mark.parametrize("element", range(1, 8))
def test_rows_move_with_the_image(element):
    table = object_table(OBJECTS, image=IMAGE, probability=PROBABILITY, pixel_size=0.25)
    image, probability = (ScalarField()(each, "D4", element) for each in (IMAGE, PROBABILITY))
    moved = decode(LabelMask()(CLASSES, "D4", element))
    rows = moved_rows(object_table(moved, image=image, probability=probability), (60, 47), 0)
    plain = {name: column for name, column in table.items() if "um" not in name}
    for found, expected in zip(rows, moved_rows(plain, (60, 47), element), strict=True):
        assert found == pytest.approx(expected, abs=1e-9)


def test_a_turned_orientation_is_seen():
    table = object_table(OBJECTS)
    moved = object_table(decode(LabelMask()(CLASSES, "D4", 1)))
    right, wrong = (np.array(moved_rows(table, (60, 47), element)) for element in (1, 3))
    found = np.array(moved_rows(moved, (47, 60), 0))
    assert np.abs(found - right).max() < 1e-9 < 1 < np.abs(found - wrong).max()


def test_bands_of_rows_measure_as_the_whole():
    whole = object_table(OBJECTS, image=IMAGE)
    assert object_table(OBJECTS, image=iter(IMAGE.split(17, dim=1))) == whole


def test_micrometres():
    table = object_table(OBJECTS, pixel_size=0.5)
    assert table["area_um2"] == pytest.approx([area / 4 for area in table["area"]])
    for name in ("x", "y", "major_axis", "minor_axis"):
        assert table[f"{name}_um"] == pytest.approx([value / 2 for value in table[name]])
    assert "orientation_um" not in table


def test_equal_axes_have_no_orientation():
    square = Objects(torch.ones(4, 4, dtype=torch.int64), torch.tensor([1]))
    assert object_table(square)["orientation"] == [None]


@pytest.mark.parametrize(("shape", "degrees"), [((1, 9), 0), ((9, 1), 90)])
def test_lines_have_the_angle_that_they_are_seen_at(shape, degrees):
    line = Objects(torch.ones(shape, dtype=torch.int64), torch.tensor([1]))
    assert object_table(line)["orientation"] == [degrees]
    diagonal = Objects(torch.eye(5, dtype=torch.int64).flip(1), torch.tensor([1]))
    assert object_table(diagonal)["orientation"] == [45]


def test_the_file_is_the_table(tmp_path):
    table = object_table(OBJECTS, names=["none", "a, b", "c"], image=IMAGE[:1])
    with write_table(table, tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table)
    assert [row["class"] for row in rows] == table["class"]
    for name in ("label", "area", "x", "orientation", "mean_intensity"):
        assert [float(row[name]) for row in rows] == pytest.approx(table[name], rel=1e-6)


def test_no_objects_have_no_rows(tmp_path):
    nothing = decode(torch.zeros(4, 5, dtype=torch.int64))
    table = object_table(nothing, image=torch.zeros(1, 4, 5), probability=torch.ones(4, 5), pixel_size=1)
    assert {len(column) for column in table.values()} == {0}
    assert len(write_table(table, tmp_path / "a.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_size": 0.0}, "pixel_size must be a positive number"),
        ({"pixel_size": float("nan")}, "pixel_size must be a positive number"),
        ({"probability": torch.zeros(3, 4)}, r"probability must be a tensor \[H, W\]"),
        ({"image": torch.zeros(60, 47)}, r"image must be a tensor \[C, H, W\]"),
        ({"image": torch.zeros(1, 60, 46)}, r"image must be a tensor \[C, H, W\]"),
        ({"image": iter([torch.zeros(1, 59, 47)])}, "image must be 60 rows"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        object_table(OBJECTS, **arguments)
