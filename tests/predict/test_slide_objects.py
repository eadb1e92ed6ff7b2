"""Objects of slides: those of the whole class map, whatever the units, in pixels of the finest level."""

import csv
import itertools
import json

import numpy as np
import pytest
import tifffile
import torch
from object_images import blobs
from roifile import roiread
from skimage.measure import points_in_poly
from slide_files import NORMALIZATION, PIXELS, make, moved_slides, stained

import gconv_ga.predict._orientation as orientation
import gconv_ga.predict._pyramid as pyramid
import gconv_ga.predict._slide as slides
import gconv_ga.predict._slide_objects as slide_objects
from gconv_ga.images import Slide
from gconv_ga.models import ObjectUNet
from gconv_ga.objects import Decoder, changed_objects, decode, geojson_features, object_targets
from gconv_ga.predict import ObjectFiles, SlideJob, predict_objects, predict_slide
from gconv_ga.predict._slide_objects import SlideObjects


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of few tiles, or the slides of the tests would be one."""
    monkeypatch.setattr(slides, "UNIT", 50)
    monkeypatch.setattr(slide_objects, "HALO", 8)


def found_in_blocks(folder, classes, side, maps=None, **rules):
    """The features of the objects of a class map, found in square units, whether one was too large, and the labels."""
    pixels = np.zeros((*classes.shape, 3), np.uint8)
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb")
    image = Slide(folder / "a.tif").at(level=0)
    values = classes.numpy().astype(np.uint8)
    parts = {"classes": values, "probability": np.full_like(values, 255)}

    def window(top, left, height, width, name):
        return parts[name][..., top : top + height, left : left + width]

    objects = SlideObjects(image, ObjectFiles(Decoder(**rules)), window, image.normalized(None))
    if maps is not None:
        parts["maps"] = objects.maps.pack(maps.numpy())
    features, large, labels = [], False, np.zeros(values.shape, np.int64)
    for top in range(0, classes.shape[0], side):
        for left in range(0, classes.shape[1], side):
            core = (top, left, min(top + side, classes.shape[0]), min(left + side, classes.shape[1]))
            found = objects.find(core, None)
            assert len(found.rows) == len(found.features)
            for row, first, last, number in found.runs.tolist():
                labels[row, first:last] = len(features) + number
            features += found.features
            large |= found.is_large
    return features, large, labels


def have_their_pixels(labels, features):
    """Whether each object has as many pixels as it measures; it has not if two share some."""
    areas = [each["properties"]["measurements"]["area"] for each in features]
    return np.bincount(labels.ravel(), minlength=len(features) + 1)[1:].tolist() == areas


def outlines_of(features):
    """Class and outline of each object, without what is measured, in an order of their own."""
    return sorted(json.dumps([each["properties"]["classification"]["name"], each["geometry"]]) for each in features)


@pytest.mark.parametrize("side", [23, 61])
@pytest.mark.parametrize("rules", [{"smallest": 1}, {"smallest": 12, "rise": 0.3}, {"method": "components"}])
def test_objects_are_those_of_the_whole_map(rules, side, tmp_path):
    for seed, size, scale in ((0, (80, 101), 2.0), (1, (64, 70), 4.0)):
        classes = blobs(size, seed, scale, classes=2)
        expected = geojson_features(decode(classes, Decoder(**rules)))
        features, large, labels = found_in_blocks(tmp_path, classes, side, **rules)
        assert not large
        assert have_their_pixels(labels, features)
        assert len(expected) > 5
        assert outlines_of(features) == outlines_of(expected)


def noisy_maps(size, seed, noise=0.15):
    """Classes, distances and flows as a network would predict them."""
    instances = decode(blobs(size, seed, scale=3.0), Decoder(rise=0.5)).labels
    targets = object_targets(instances).double()
    generator = torch.Generator().manual_seed(seed)
    return targets[0].long(), targets[1:] + noise * torch.randn(targets[1:].shape, generator=generator).double()


@pytest.mark.parametrize("side", [23, 61])
@pytest.mark.parametrize("method", ["distance", "flow"])
def test_objects_by_maps_are_those_of_the_whole_maps(method, side, tmp_path):
    classes, maps = noisy_maps((130, 117), 1)
    expected = geojson_features(decode(classes, Decoder(method), maps))
    features, _, labels = found_in_blocks(tmp_path, classes, side, maps, method=method)
    assert have_their_pixels(labels, features)
    assert len(expected) > 15
    assert outlines_of(features) == outlines_of(expected)


def test_what_is_near_a_region_counts(monkeypatch, tmp_path):
    """With no pixels around it, a region has other heights at its edge than in the whole map."""
    monkeypatch.setattr(slide_objects, "NEAR", 0)
    classes = blobs((120, 130), 3, 2.0)
    expected = geojson_features(decode(classes, Decoder(smallest=1, rise=0.1)))
    features, _, labels = found_in_blocks(tmp_path, classes, 30, smallest=1, rise=0.1)
    assert not have_their_pixels(labels, features)
    assert outlines_of(features) != outlines_of(expected)


def test_large_regions_are_left_out_by_a_rule_without_orientation(monkeypatch, tmp_path):
    monkeypatch.setattr(slide_objects, "LARGEST", 30)
    classes = torch.zeros(100, 120, dtype=torch.int64)
    classes[10:14, 20:50] = 1  # 30 pixels long: just not too large
    classes[40:44, 20:51] = 1
    classes[60:97, 70:75] = 1
    classes[80:90, 90:100] = 1
    for moved in (classes, classes.rot90(1), classes.rot90(2), classes.flip(1)):
        features, large, _ = found_in_blocks(tmp_path, moved, 25, method="components")
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


def signed_area(ring):
    """By the shoelace formula: positive for rings that RFC 7946, section 3.1.6, calls counter-clockwise."""
    return sum(x * w - z * y for (x, y), (z, w) in itertools.pairwise(ring)) / 2


def breaches(text):
    """What of the text of a GeoJSON file is against RFC 7946 (in parentheses: its section), or QuPath's properties."""

    def constant(name):
        raise ValueError(name)

    try:
        content = json.loads(text, parse_constant=constant)
    except ValueError:
        return {"no JSON (2)"}
    found = set()
    if content["type"] != "FeatureCollection" or "crs" in content:
        found.add("no collection (3.3, 4)")
    for feature in content["features"]:
        geometry, properties = feature["geometry"], feature["properties"]
        pieces = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        if feature["type"] != "Feature" or geometry["type"] not in ("Polygon", "MultiPolygon") or not pieces:
            found.add("no feature (3.2)")
        for piece in pieces:
            if any(len(ring) < 4 or ring[0] != ring[-1] for ring in piece):
                found.add("an open ring (3.1.6)")
            elif signed_area(piece[0]) <= 0 or any(signed_area(hole) >= 0 for hole in piece[1:]):
                found.add("the left hand (3.1.6)")
            if any(len({*map(tuple, ring[:-1])}) < len(ring) - 1 for ring in piece):
                found.add("a ring that touches itself")
        if properties["objectType"] != "detection" or not isinstance(properties["classification"]["name"], str):
            found.add("no detection")
        if not all(isinstance(value, int | float) for value in properties["measurements"].values()):
            found.add("no measurement")
    return found


def test_geojson_keeps_to_its_rules(tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    job = SlideJob(make("C4"), Slide(file).at(pixel_size=0.8), tmp_path / "a.ome.tif", normalization=NORMALIZATION,
                   tile=64, objects=ObjectFiles(Decoder("components", smallest=1)))  # fmt: skip
    predict_slide(job)
    text = (tmp_path / "a_objects.geojson").read_text()
    assert breaches(text) == set()
    features = json.loads(text)["features"]
    assert {each["geometry"]["type"] for each in features} == {"Polygon", "MultiPolygon"}
    assert any(len(each["geometry"]["coordinates"]) > 1 for each in features if each["geometry"]["type"] == "Polygon")

    def changed(change):
        content = json.loads(text)
        change(next(each for each in content["features"] if each["geometry"]["type"] == "Polygon"))
        return breaches(json.dumps(content))

    assert changed(lambda each: each["geometry"]["coordinates"][0].reverse()) == {"the left hand (3.1.6)"}
    assert changed(lambda each: each["geometry"]["coordinates"][0].pop()) == {"an open ring (3.1.6)"}
    assert changed(lambda each: each["properties"].update(objectType="annotation")) == {"no detection"}
    assert changed(lambda each: each["properties"]["measurements"].update(area="3")) == {"no measurement"}
    assert changed(lambda each: each["properties"]["measurements"].update(area=float("nan"))) == {"no JSON (2)"}


@pytest.mark.usefixtures("small_levels")
def test_the_files_are_pyramids_as_readers_of_ome_tiff_want_them(tmp_path):
    """One image whose coarser levels are SubIFDs, tiled, marked as reduced; sizes and number types as in the XML."""
    ome_types = pytest.importorskip("ome_types")
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    job = SlideJob(make("C4"), Slide(file).at(level=0), tmp_path / "a.ome.tif", normalization=NORMALIZATION, tile=64,
                   objects=ObjectFiles(Decoder(smallest=3)))  # fmt: skip
    predict_slide(job)
    for name, title, numbers in (("a", "classes", np.uint8), ("a_objects", "objects", np.uint32)):
        path = tmp_path / f"{name}.ome.tif"
        (image,) = ome_types.from_tiff(path).images
        assert (image.name, image.pixels.type.value) == (title, np.dtype(numbers).name)
        assert (image.pixels.size_x, image.pixels.size_y, image.pixels.size_c) == (108, 151, 1)
        assert (image.pixels.physical_size_x, image.pixels.physical_size_y) == (pytest.approx(0.5), pytest.approx(0.5))
        assert len(image.pixels.channels) == len(image.pixels.tiff_data_blocks) == 1
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_bigtiff
            assert tiff.is_ome
            (page,) = tiff.pages
            assert [each.shape for each in page.pages] == [(75, 54), (37, 27)]
            for level, each in zip((1, 2, 4), (page, *page.pages), strict=True):
                assert each.is_tiled
                assert each.dtype == numbers
                assert each.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
                assert each.subfiletype == (0 if level == 1 else 1)
                assert each.get_resolution("MICROMETER")[0] == pytest.approx(2 / level, rel=0.02)
            assert [level.shape for level in tiff.series[0].levels] == [(151, 108), (75, 54), (37, 27)]


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
    for ending in ("_objects.csv", "_objects.geojson", "_objects.ome.tif", ".ome.tif"):
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()


def test_what_slides_do_not_have_is_refused(monkeypatch, tmp_path):
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    image = Slide(file).at(level=0)
    monkeypatch.setattr(slide_objects, "LARGEST_ROI", 150)
    for objects, said in (
        (ObjectFiles(Decoder("flow")), "decoder must be one of the methods 'watershed' and 'components'"),
        (ObjectFiles(coco=True), "without coco for a slide.* use the label image or GeoJSON"),
        (ObjectFiles(rois=True), "without rois for a slide of more than 150 pixels.*upright.tif has 151 x 108 pixels"),
    ):
        with pytest.raises(ValueError, match=said):
            SlideJob(make("C4"), image, tmp_path / "a.ome.tif", normalization=NORMALIZATION, objects=objects)
    assert not (tmp_path / "a.parts").exists()


def object_network():
    """A network with heads for objects and random weights, whose rules all find some."""
    torch.manual_seed(1)
    net = ObjectUNet(3, 2, group="C4", width=2, depth=2, neck=16).eval()
    with torch.no_grad():
        logits = net(NORMALIZATION(torch.from_numpy(PIXELS).permute(2, 0, 1).float())[None])[0]
        net.segmentation_head.bias[1] -= (logits[1] - logits[0]).quantile(0.66)
        net.flow_head.weight *= 5
        net.distance_head.weight *= 5
        net.distance_head.bias += 1
    return net


RULES = {
    "watershed": Decoder(smallest=4), "components": Decoder("components", smallest=4),
    "distance": Decoder("distance", smallest=4, rise=0.02), "flow": Decoder("flow", smallest=4),
}  # fmt: skip


def labels_of(file, target, rules, **options):
    """The label image of the objects of a slide, level by level."""
    image = Slide(file).at(level=0)
    job = SlideJob(object_network(), image, target, normalization=NORMALIZATION, objects=ObjectFiles(rules), **options)
    predict_slide(job)
    with tifffile.TiffFile(target.with_name(target.name.replace(".ome", "_objects.ome"))) as tiff:
        return [torch.from_numpy(level.asarray().astype(np.int64)) for level in tiff.series[0].levels]


@pytest.mark.parametrize("method", RULES)
def test_objects_are_those_of_the_image(method, tmp_path):
    """A slide that is one tile, so that both see the same: the objects are the same, whatever the rules."""
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    (labels,) = labels_of(file, tmp_path / "a.ome.tif", RULES[method], everything=True, tile=160)
    image = NORMALIZATION(torch.from_numpy(PIXELS).permute(2, 0, 1).float())
    expected = predict_objects(object_network(), image, decoder=RULES[method], tile=160).objects.labels
    assert expected.max() > 10
    assert changed_objects(expected, labels, "C4", 0) == (0, 0, 0)


def changed(method, folder, moves=("rotated", "upside down"), **options):
    """How many objects of moved slides are not the moved objects."""
    files = moved_slides(folder, PIXELS, ["upright", *moves])
    labels = {
        name: labels_of(file, folder / f"{name}.ome.tif", RULES[method], tile=32, **options)
        for name, file in files.items()
    }
    assert labels["upright"][0].max() > 10
    assert len(labels["upright"]) == 3
    elements = {"rotated": 1, "upside down": 2}
    return max(
        changed_objects(before, after, "C4", elements[move]).pixels
        for move in moves
        for before, after in zip(labels["upright"], labels[move], strict=True)
    )


@pytest.fixture
def small_levels(monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 40)


@pytest.mark.parametrize("group", [None, "C4"])
@pytest.mark.parametrize("method", ["distance", "flow"])
@pytest.mark.usefixtures("small_levels")
def test_objects_by_predicted_maps_rotate_with_the_slide(method, group, tmp_path):
    assert changed(method, tmp_path, group=group) == 0


@pytest.mark.usefixtures("small_levels")
def test_a_flow_that_is_rotated_as_scalars_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(orientation, "VectorField", orientation.ScalarField)
    assert changed("flow", tmp_path, ["rotated"], group="C4") > 0.01


def test_the_files_about_objects_agree(tmp_path):
    """Rows of the table, outlines, ROIs and the label image: the same objects, by the same number."""
    file = moved_slides(tmp_path, PIXELS, ["upright"])["upright"]
    job = SlideJob(object_network(), Slide(file).at(pixel_size=0.75), tmp_path / "a.ome.tif", tile=32,
                   normalization=NORMALIZATION, objects=ObjectFiles(RULES["watershed"], rois=True))  # fmt: skip
    high, wide = job.image.scale
    assert high == pytest.approx(1.5, abs=0.01)
    predict_slide(job)
    table, features = objects_of(tmp_path, "a")
    labels = tifffile.imread(tmp_path / "a_objects.ome.tif")
    assert labels.dtype == np.uint32
    assert labels.shape == job.image.shape[1:]
    areas = np.bincount(labels.ravel(), minlength=len(table) + 1)[1:] * high * wide
    assert [float(row["area"]) for row in table] == pytest.approx(areas.tolist(), rel=1e-6)
    assert len(table) > 10
    rois = roiread(tmp_path / "a_rois.zip")
    assert [roi.name.split("-")[0] for roi in rois] == [f"{number:0{len(str(len(table)))}}" for number in
                                                        range(1, len(table) + 1)]  # fmt: skip
    centres = np.stack(np.mgrid[: labels.shape[0], : labels.shape[1]], axis=-1).reshape(-1, 2) + 0.5
    for number, (roi, feature) in enumerate(zip(rois, features, strict=True), start=1):
        rings = [np.array(ring) for ring in rings_of(feature)]
        inside = sum(points_in_poly(centres * (high, wide), ring[:, ::-1]).astype(int) for ring in rings)
        assert np.array_equal(inside.reshape(labels.shape) % 2 == 1, labels == number)
        corners = np.concatenate([ring[:-1] for ring in rings])
        found = roi.coordinates(multi=True)
        found = np.concatenate(found if isinstance(found, list) else [found])
        for axis in (0, 1):  # a composite repeats the first corner of each ring
            assert found[:, axis].min() == pytest.approx(corners[:, axis].min(), abs=1e-3)
            assert found[:, axis].max() == pytest.approx(corners[:, axis].max(), abs=1e-3)


def rings_of(feature):
    pieces = feature["geometry"]["coordinates"]
    pieces = pieces if feature["geometry"]["type"] == "MultiPolygon" else [pieces]
    return [ring for rings in pieces for ring in rings]


def test_runs_are_those_of_the_rows():
    labels = np.array([[0, 1, 1, 0, 2], [2, 2, 1, 1, 1], [0, 0, 0, 0, 0], [3, 0, 3, 3, 0]])
    expected = [[0, 1, 3, 1], [0, 4, 5, 2], [1, 0, 2, 2], [1, 2, 5, 1], [3, 0, 1, 3], [3, 2, 4, 3]]
    assert slide_objects.runs_of(labels).tolist() == expected
    assert slide_objects.runs_of(labels[2:3]).tolist() == []
