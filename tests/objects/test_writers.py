"""The files for other programs, read back by other means."""

import json

import numpy as np
import pytest
import tifffile
import torch
from object_images import blobs
from roifile import roiread
from skimage.draw import polygon2mask

from gconv_ga.objects import (
    Objects,
    decode,
    object_table,
    outlines,
    write_coco,
    write_geojson,
    write_labels,
    write_rois,
)

HOLED = torch.tensor(
    [
        [1, 1, 1, 0, 2, 0],
        [1, 0, 1, 0, 0, 2],
        [1, 1, 0, 1, 0, 0],
        [0, 0, 1, 1, 3, 3],
    ]
)
OBJECTS = {
    "blobs": decode(blobs((31, 44), 0, classes=2)),
    "holes and pieces": Objects(HOLED, torch.tensor([1, 2, 1])),
    "none": Objects(torch.zeros(3, 4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
}
each_map = pytest.mark.parametrize("objects", OBJECTS.values(), ids=OBJECTS)


def filled(rings, size):
    """The pixels inside an odd number of rings, by casting a ray from each centre."""
    inside = np.zeros(size, dtype=bool)
    for ring in rings:
        shifted = np.array([(y - 0.5, x - 0.5) for x, y in ring])  # in the coordinates of the pixels' centres
        inside ^= polygon2mask(size, shifted)
    return inside


def area(ring):
    """Signed area by the shoelace formula, positive if clockwise on the screen."""
    return sum(x * w - z * y for (x, y), (z, w) in zip(ring, [*ring[1:], ring[0]], strict=True)) / 2


@each_map
def test_outlines_enclose_the_pixels(objects):
    size = tuple(objects.labels.shape)
    found = outlines(objects.labels)
    assert len(found) == len(objects.classes)
    for number, pieces in enumerate(found, start=1):
        assert np.array_equal(filled([ring for piece in pieces for ring in piece], size), objects.labels == number)
        assert sum(area(ring) for piece in pieces for ring in piece) == int((objects.labels == number).sum())
        for outer, *holes in pieces:
            assert area(outer) > 0
            assert all(area(hole) < 0 for hole in holes)
            for ring in (outer, *holes):
                assert len(set(ring)) == len(ring), "no corner is passed twice"
                corners = np.array(ring)
                steps = np.roll(corners, -1, axis=0) - corners
                assert ((steps == 0).sum(axis=1) == 1).all(), "sides are straight"
                assert ((steps != 0) != np.roll(steps != 0, 1, axis=0)).all(), "and each corner is one"


def test_pieces_that_touch_at_a_corner_and_holes_are_told_apart():
    assert [[len(piece) for piece in pieces] for pieces in outlines(HOLED)] == [[2, 1], [1, 1], [1]]


@each_map
def test_the_label_image_is_the_labels(objects, tmp_path):
    with tifffile.TiffFile(write_labels(objects, tmp_path / "a.tif", pixel_size=0.5)) as file:
        assert file.asarray().dtype == np.uint16
        assert file.asarray().tolist() == objects.labels.tolist()
        tags = file.pages[0].tags
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 20000
        assert tags["ResolutionUnit"].value == 3, "pixels per centimetre"


def test_many_objects_take_32_bits(tmp_path):
    labels = torch.arange(70000).view(100, 700)
    write_labels(Objects(labels, torch.ones(69999, dtype=torch.int64)), tmp_path / "a.tif")
    assert tifffile.imread(tmp_path / "a.tif").tolist() == labels.tolist()


@each_map
def test_geojson_holds_outlines_classes_and_measurements(objects, tmp_path):
    names, colors = ["none", "a<b", "c"], [(0, 0, 0), (1, 2, 3), (4, 5, 6)]
    table = object_table(objects, names=names)
    path = write_geojson(objects, tmp_path / "a.geojson", names=names, colors=colors, table=table)
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["type"] == "FeatureCollection"
    assert len(content["features"]) == len(objects.classes)
    for place, feature in enumerate(content["features"]):
        geometry, properties = feature["geometry"], feature["properties"]
        index = int(objects.classes[place])
        assert properties["classification"] == {"name": names[index], "color": list(colors[index])}
        assert properties["measurements"]["area"] == table["area"][place]
        assert ("orientation" in properties["measurements"]) == (table["orientation"][place] is not None)
        pieces = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        assert (geometry["type"] == "MultiPolygon") == (len(pieces) > 1)
        rings = [ring for piece in pieces for ring in piece]
        assert all(ring[0] == ring[-1] for ring in rings)
        mask = filled([ring[:-1] for ring in rings], tuple(objects.labels.shape))
        assert np.array_equal(mask, objects.labels == place + 1)


@each_map
def test_rois_hold_the_outlines(objects, tmp_path):
    path = write_rois(objects, tmp_path / "a.zip", names=["none", "a/b", "c"])
    if not len(objects.classes):
        assert path.exists()
        return
    for number, roi in enumerate(roiread(path), start=1):
        assert (
            roi.name
            == f"{number:0{len(str(len(objects.classes)))}}-{['none', 'a/b', 'c'][objects.classes[number - 1]]}"
        )
        rings = [ring[:-1] if (ring[0] == ring[-1]).all() else ring for ring in roi.coordinates(multi=True)]
        assert np.array_equal(filled(rings, tuple(objects.labels.shape)), objects.labels == number)


def test_the_same_objects_are_the_same_files(tmp_path):
    objects = OBJECTS["blobs"]
    first, second = (write_rois(objects, tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second


@each_map
def test_run_lengths_hold_the_pixels(objects, tmp_path):
    scores = [0.5 + 0.01 * place for place in range(len(objects.classes))]
    path = write_coco(objects, tmp_path / "a.json", file_name="a.png", names=["none", "a", "b"], scores=scores)
    content = json.loads(path.read_text())
    height, width = objects.labels.shape
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": height, "width": width}]
    assert content["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert [each["category_id"] for each in content["annotations"]] == objects.classes.tolist()
    assert [each["score"] for each in content["annotations"]] == scores
    for each in content["annotations"]:
        values = [place % 2 for place, length in enumerate(each["segmentation"]["counts"]) for _ in range(length)]
        values += [0] * (height * width - len(values))
        mask = torch.tensor(values).view(width, height).T
        assert torch.equal(mask.bool(), objects.labels == each["id"])
        assert each["area"] == int(mask.sum())
        rows, columns = torch.nonzero(mask).T.tolist()
        left, top, across, down = each["bbox"]
        assert (left, left + across - 1) == (min(columns), max(columns))
        assert (top, top + down - 1) == (min(rows), max(rows))


def test_outlines_of_what_is_no_image_are_refused():
    with pytest.raises(ValueError, match=r"labels must be a tensor \[H, W\]"):
        outlines(torch.zeros(1, 2, 2, dtype=torch.int64))
