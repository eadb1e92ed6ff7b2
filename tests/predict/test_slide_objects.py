"""Objects of slides: those of the whole class map, whatever the units, in pixels of the finest level."""

import csv
import json

import numpy as np
import pytest
import tifffile
import torch
from object_images import blobs
from slide_files import NORMALIZATION, PIXELS, make, moved_slides, stained

import gconv_ga.predict._slide as slides
import gconv_ga.predict._slide_objects as slide_objects
from gconv_ga.images import Slide
from gconv_ga.objects import Decoder, decode, geojson_features
from gconv_ga.predict import ObjectFiles, SlideJob, predict_slide
from gconv_ga.predict._slide_objects import SlideObjects


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of few tiles, or the slides of the tests would be one."""
    monkeypatch.setattr(slides, "UNIT", 50)
    monkeypatch.setattr(slide_objects, "HALO", 8)


def found_in_blocks(folder, classes, side, **rules):
    """The features of the objects of a class map, found in square units, and whether one was too large."""
    pixels = np.zeros((*classes.shape, 3), np.uint8)
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb")
    image = Slide(folder / "a.tif").at(level=0)
    values = classes.numpy().astype(np.uint8)

    def window(top, left, height, width, name):
        part = values[top : top + height, left : left + width]
        return part if name == "classes" else np.full_like(part, 255)

    objects = SlideObjects(image, ObjectFiles(Decoder(**rules)), window, image.normalized(None))
    features, large = [], False
    for top in range(0, classes.shape[0], side):
        for left in range(0, classes.shape[1], side):
            core = (top, left, min(top + side, classes.shape[0]), min(left + side, classes.shape[1]))
            found = objects.find(core, None)
            assert len(found["rows"]) == len(found["features"])
            features += found["features"]
            large |= found["large"]
    return features, large


def outlines_of(features):
    """Class and outline of each object, without what is measured, in an order of their own."""
    return sorted(json.dumps([each["properties"]["classification"]["name"], each["geometry"]]) for each in features)


@pytest.mark.parametrize("side", [23, 61])
@pytest.mark.parametrize("rules", [{"smallest": 1}, {"smallest": 12, "rise": 0.3}, {"method": "components"}])
def test_objects_are_those_of_the_whole_map(rules, side, tmp_path):
    for seed, size, scale in ((0, (80, 101), 2.0), (1, (64, 70), 4.0)):
        classes = blobs(size, seed, scale, classes=2)
        expected = geojson_features(decode(classes, Decoder(**rules)))
        features, large = found_in_blocks(tmp_path, classes, side, **rules)
        assert not large
        assert len(expected) > 5
        assert outlines_of(features) == outlines_of(expected)


def test_what_is_near_a_region_counts(monkeypatch, tmp_path):
    """With no pixels around it, a region has other heights at its edge than in the whole map."""
    monkeypatch.setattr(slide_objects, "NEAR", 0)
    classes = blobs((120, 130), 3, 2.0)
    expected = geojson_features(decode(classes, Decoder(smallest=1, rise=0.1)))
    features, _ = found_in_blocks(tmp_path, classes, 30, smallest=1, rise=0.1)
    assert outlines_of(features) != outlines_of(expected)


def test_large_regions_are_left_out_by_a_rule_without_orientation(monkeypatch, tmp_path):
    monkeypatch.setattr(slide_objects, "LARGEST", 30)
    classes = torch.zeros(100, 120, dtype=torch.int64)
    classes[10:14, 20:50] = 1  # 30 pixels long: just not too large
    classes[40:44, 20:51] = 1
    classes[60:97, 70:75] = 1
    classes[80:90, 90:100] = 1
    for moved in (classes, classes.rot90(1), classes.rot90(2), classes.flip(1)):
        features, large = found_in_blocks(tmp_path, moved, 25, method="components")
        assert large
        areas = [each["properties"]["measurements"]["area"] for each in features]
        assert sorted(areas) == [100, 120]


def objects_of(folder, name):
    with (folder / f"{name}_objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    content = json.loads((folder / f"{name}_objects.geojson").read_text())
    assert len(rows) == len(content["features"])
    return rows, content["features"]


def test_objects_rotate_with_the_slide(tmp_path):
    files = moved_slides(tmp_path, PIXELS, ["upright", "rotated"])
    net, tables, shapes = make("C4"), {}, {}
    for name, file in files.items():
        image = Slide(file).at(pixel_size=0.8)
        job = SlideJob(net, image, tmp_path / f"{name}.ome.tif", normalization=NORMALIZATION, tile=32,
                       names=["glass", "a", "b"], objects=ObjectFiles(Decoder(smallest=3)))  # fmt: skip
        predict_slide(job)
        tables[name], shapes[name] = objects_of(tmp_path, name)
    upright, rotated = (
        sorted((row["class"], float(row["area"]), float(row["x"]), float(row["y"])) for row in table)
        for table in tables.values()
    )
    assert len(upright) > 10
    width = PIXELS.shape[1]
    moved = sorted((kind, area, y, width - 1 - x) for kind, area, x, y in upright)
    for one, other in zip(moved, rotated, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:], rel=1e-5, abs=1e-4)
    high, wide = image.scale  # of the rotated slide
    corners = [corners_of(each, wide, high) for each in shapes["upright"]]
    columns = round(width / high)
    expected = sorted(sorted((y, columns - x) for x, y in each) for each in corners)
    assert expected == sorted(sorted(corners_of(each, high, wide)) for each in shapes["rotated"])


def corners_of(feature, high, wide):
    """Corners of the outlines of an object, in pixels of the prediction."""
    pieces = feature["geometry"]["coordinates"]
    pieces = pieces if feature["geometry"]["type"] == "MultiPolygon" else [pieces]
    points = [point for rings in pieces for ring in rings for point in ring[:-1]]
    found = [(x / wide, y / high) for x, y in points]
    assert np.abs(np.array(found) - np.rint(found)).max() < 0.01
    return [(round(x), round(y)) for x, y in found]


def test_tables_are_in_pixels_of_the_finest_level(tmp_path):
    """Objects of a class map that is known: dark discs on a pink slide, at half the resolution."""
    rows, columns = np.mgrid[:200, :160]
    pixels = np.full((200, 160, 3), (226, 150, 190), np.uint8)
    for row, column in ((50, 40), (120, 100)):
        pixels[(rows - row) ** 2 + (columns - column) ** 2 < 400] = (60, 30, 90)
    file = moved_slides(tmp_path, pixels, ["upright"])["upright"]
    net = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        net.weight[0], net.weight[1] = 0, -1
        net.bias[0], net.bias[1] = 0, 300
    job = SlideJob(net, Slide(file).at(level=1), tmp_path / "a.ome.tif", tile=32, objects=ObjectFiles())
    predict_slide(job)
    table, features = objects_of(tmp_path, "a")
    assert [row["label"] for row in table] == ["1", "2"]
    for row, (y, x) in zip(table, ((50, 40), (120, 100)), strict=True):
        assert (float(row["x"]), float(row["y"])) == pytest.approx((x, y), abs=0.6)
        assert float(row["area"]) == pytest.approx(np.pi * 400, rel=0.05)
        assert float(row["area_um2"]) == pytest.approx(float(row["area"]) / 4, rel=1e-5)
        assert float(row["x_um"]) == pytest.approx(float(row["x"]) / 2, rel=1e-5)
        assert float(row["mean_probability"]) == pytest.approx(1, abs=0.01)
        assert 50 < float(row["mean_intensity_1"]) < 90
    ring = np.array(features[0]["geometry"]["coordinates"][0])
    assert ring[:, 0].min() == pytest.approx(21, abs=1.1)
    assert ring[:, 0].max() == pytest.approx(60, abs=1.1)
    assert features[0]["properties"]["measurements"]["area"] == pytest.approx(float(table[0]["area"]), rel=1e-6)


def test_geojson_has_the_schema_of_qupath(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    file = moved_slides(tmp_path, stained((110, 90), scale=2.0), ["upright"])["upright"]
    job = SlideJob(make("C4"), Slide(file).at(level=0), tmp_path / "a.ome.tif", normalization=NORMALIZATION, tile=64,
                   objects=ObjectFiles(Decoder(smallest=3)), colors=[[0, 0, 0], [255, 0, 0], [0, 255, 0]])  # fmt: skip
    predict_slide(job)
    content = json.loads((tmp_path / "a_objects.geojson").read_text())
    ring = {
        "type": "array", "minItems": 4,
        "items": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    }  # fmt: skip
    polygon = {"type": "array", "items": ring, "minItems": 1}

    def shape(kind, coordinates):
        return {
            "properties": {"type": {"const": kind}, "coordinates": coordinates},
            "required": ["type", "coordinates"],
        }

    schema = {
        "type": "object",
        "properties": {
            "type": {"const": "FeatureCollection"},
            "features": {
                "type": "array", "minItems": 3,
                "items": {
                    "required": ["type", "geometry", "properties"],
                    "properties": {
                        "type": {"const": "Feature"},
                        "geometry": {
                            "oneOf": [
                                shape("Polygon", polygon), shape("MultiPolygon", {"type": "array", "items": polygon})
                            ]
                        },
                        "properties": {
                            "required": ["objectType", "classification", "measurements"],
                            "properties": {
                                "objectType": {"enum": ["detection", "annotation", "cell"]},
                                "classification": {
                                    "required": ["name"],
                                    "properties": {
                                        "name": {"type": "string"},
                                        "color": {
                                            "type": "array", "minItems": 3, "maxItems": 3,
                                            "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                        },
                                    },
                                },
                                "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
                            },
                        },
                    },
                },
            },
        },
        "required": ["type", "features"],
    }  # fmt: skip
    jsonschema.validate(content, schema)
    for feature in content["features"]:
        if feature["geometry"]["type"] == "Polygon":
            assert all(each[0] == each[-1] for each in feature["geometry"]["coordinates"])
    content["features"][0]["geometry"]["coordinates"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


def test_a_slide_without_objects_has_empty_files(tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    net = torch.nn.Conv2d(3, 2, 1)
    torch.nn.init.zeros_(net.weight)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([1.0, 0.0]))
    predict_slide(SlideJob(net, Slide(file).at(level=0), tmp_path / "a.ome.tif", tile=64, objects=ObjectFiles()))
    table, features = objects_of(tmp_path, "a")
    assert (table, features) == ([], [])
    header = (tmp_path / "a_objects.csv").read_text().splitlines()[0]
    assert header.startswith("label,class,area,x,y,")
    assert "area_um2" in header


def test_interrupted_objects_go_on(tmp_path):
    net, file = make("C4"), moved_slides(tmp_path, PIXELS, ["upright"])["upright"]

    def job(name):
        image, objects = Slide(file).at(level=0), ObjectFiles(Decoder(smallest=3))
        return SlideJob(net, image, tmp_path / f"{name}.ome.tif", normalization=NORMALIZATION, tile=32, objects=objects)

    predict_slide(job("whole"))
    classes, objects = job("a").phases
    for unit in classes.waiting():
        classes.run(unit)
    for unit in objects.waiting()[1::2]:
        objects.run(unit)
    again = job("a")
    assert again.phases[0].waiting() == []
    assert 0 < len(again.phases[1].waiting()) < len(again.phases[1].units)
    predict_slide(again)
    for ending in ("_objects.csv", "_objects.geojson", ".ome.tif"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()


def test_what_slides_do_not_have_is_refused(tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    image = Slide(file).at(level=0)
    for objects, said in (
        (ObjectFiles(Decoder("flow")), "'watershed' and 'components'"),
        (ObjectFiles(rois=True), "rois"),
    ):
        with pytest.raises(ValueError, match=said):
            SlideJob(make("C4"), image, tmp_path / "a.ome.tif", normalization=NORMALIZATION, objects=objects)
