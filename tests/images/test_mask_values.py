"""Values of masks: two of them are two classes; what cannot be class indices is refused with the cure."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from gconv_ga.images import MaskEncoding, PairFiles, Scan, load_sample, read_mask, scan_pairs
from gconv_ga.images._mask_values import understand


@pytest.fixture(scope="module")
def cells():
    """Masks of 0 and 1."""
    return [mask.numpy().astype(np.uint8) for mask in load_sample("nuclei").train.masks[:4]]


@pytest.fixture
def scan(tmp_path):
    """Scan masks, each the mask of itself as an image."""

    def scan(masks, code=None, **options):
        pairs = []
        for index, mask in enumerate(masks):
            path = tmp_path / f"{index}.npy"
            np.save(path, mask)
            pairs.append(PairFiles(path, path))
        return scan_pairs(pairs, code=code, **options)

    return scan


def faults(found):
    return "; ".join(str(problem) for problem in found.problems)


@pytest.mark.parametrize("values", [(0, 255), (0, 128), (1, 2), (0, 65535), (7, 9), (0, 2)])
def test_two_values_are_two_classes(values, cells, scan):
    found = scan([np.array(values, dtype=np.uint16)[mask] for mask in cells])
    assert faults(found) == ""
    assert found.encoding == MaskEncoding(values=values)
    assert found.note == f"the masks hold {values[0]} and {values[1]}, read as classes 0 and 1"
    ones = sum(int(mask.sum()) for mask in cells)
    assert found.classes == 2
    assert found.pixels == (sum(mask.size for mask in cells) - ones, ones)


def test_values_far_apart_take_no_memory_for_those_between(cells, scan):
    """White of 32 bits is 4294967295; a list of so many numbers would end the program, and one of 2^40 does at once."""
    found = scan([np.array([0, 2**40])[mask] for mask in cells])
    assert (faults(found), found.encoding.values) == ("", (0, 2**40))
    found = scan([np.array([0, 2**32 - 1], dtype=np.uint32)[mask] for mask in cells])
    assert (faults(found), found.encoding.values) == ("", (0, 2**32 - 1))


def test_zero_and_one_need_no_word(cells, scan):
    found = scan(cells)
    assert (found.encoding, found.note, found.problems) == (MaskEncoding(), "", ())


def test_a_mask_of_one_of_the_two_values_is_read_like_the_others(cells, scan):
    found = scan([cells[0] * 255, np.zeros_like(cells[0]), np.full_like(cells[0], 255)])
    assert found.encoding.values == (0, 255)
    assert scan([np.full_like(cells[0], 255)], classes=2).encoding.values == (0, 255)


def test_two_values_beside_ignored_pixels(cells, scan):
    masks = [mask * 128 for mask in cells]
    masks[0][:5] = 255
    assert scan(masks, MaskEncoding(ignore_index=255)).encoding == MaskEncoding(ignore_index=255, values=(0, 128))


def test_more_classes_than_two_are_asked_for(cells, scan):
    assert "mask values 0 .. 255, where 0 .. 2 are expected" in faults(scan([cells[0] * 255], classes=3))


@pytest.mark.parametrize(
    ("trained", "found", "expected"),
    [
        (MaskEncoding(values=(0, 255)), 1, MaskEncoding()),
        (MaskEncoding(values=(0, 255)), 255, MaskEncoding(values=(0, 255))),
        (MaskEncoding(), 255, MaskEncoding(values=(0, 255))),
        (MaskEncoding(), 1, MaskEncoding()),
    ],
)
def test_masks_of_an_evaluation_may_have_other_two_values_than_those_of_the_training(
    trained, found, expected, cells, scan
):
    result = scan([mask * found for mask in cells], trained, classes=2)
    assert (result.encoding, result.problems) == (expected, ())


def test_a_third_value_beside_those_of_the_training_is_named(cells, scan):
    cells = [mask * 255 for mask in cells]
    cells[2][5, 6] = 17
    result = scan(cells, MaskEncoding(values=(0, 255)), classes=2)
    assert faults(result) == "2.npy: mask values 0 .. 255, where 0, 255 are expected"


@pytest.mark.parametrize("mark", [255, 254, 65535, 100, -1, -100])
def test_a_mark_of_ignored_pixels_that_is_not_declared_is_named(mark, cells, scan):
    masks = [(mask * (1 + np.arange(128) // 64)).astype(np.int32) for mask in cells]
    masks[1][:3] = mark
    for classes in (None, 3):
        found = scan(masks, classes=classes)
        assert f"value {mark} beside 0 .. 2 is probably a mark of ignored pixels" in faults(found)
        assert f"--ignore-index {mark})" in faults(found)
        assert len(found.problems) == 1
    assert scan(masks, MaskEncoding(ignore_index=mark)).problems == ()


def test_smooth_edges_are_refused(cells, scan):
    def smooth(mask):
        small = Image.fromarray(mask * 255).resize((64, 64), Image.Resampling.BILINEAR)
        return np.asarray(small.resize((128, 128), Image.Resampling.BILINEAR))

    found = faults(scan([smooth(mask) for mask in cells]))
    assert "look like smooth edges; set pixels to either side of 127" in found
    assert found.count("all masks") == 1
    asked = faults(scan([smooth(mask) for mask in cells], classes=256))
    assert "smooth" not in asked, "who gives the number of classes knows"


def test_numbers_of_instances_are_refused(cells, scan):
    masks = [ndimage.label(mask)[0].astype(np.uint16) for mask in cells]
    assert len({mask.max() for mask in masks}) > 1
    found = faults(scan(masks))
    assert "look like numbers of instances, which each mask counts anew" in found
    count = max(int(mask.max()) for mask in masks) + 1
    assert scan(masks, classes=count).problems == ()


def test_many_instances_in_one_mask_are_refused(scan):
    assert "numbers of instances" in faults(scan([np.arange(400, dtype=np.uint16).reshape(20, 20)]))


@pytest.mark.parametrize(
    "files",
    [
        [{0: 900, 1: 50, 2: 20}, {0: 900, 2: 9}, {0: 5, 1: 7}],
        [dict.fromkeys(range(20), 10), dict.fromkeys(range(0, 20, 2), 10), dict.fromkeys(range(1, 20, 2), 10)],
        [{0: 9000, **dict.fromkeys(range(1, 12), 10)}] * 3,
        [{0: 9000, 19: 500, **dict.fromkeys(range(1, 19), 10)}, {0: 5, 7: 9}],
        [dict.fromkeys(range(150), 10)] * 2,
    ],
    ids=["few", "twenty", "the same in all", "the last is frequent", "many"],
)
def test_class_indices_are_taken_for_class_indices(files):
    assert understand(files, MaskEncoding(), None) == (MaskEncoding(), "", "")


def test_values_become_indices():
    code = MaskEncoding(values=(5, 9, 2), ignore_index=255)
    assert code.indices(torch.tensor([[[9, 2, 5, 255]]])).tolist() == [[1, 2, 0, 255]]
    with pytest.raises(ValueError, match=r"^mask must be a file of the values 5, 9, 2, .*It holds 7"):
        code.indices(torch.tensor([[[9, 7]]]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"values": (1,)},
        {"values": (1, 1)},
        {"values": (0, 255), "ignore_index": 255},
        {"values": (5, 255), "ignore_index": 1},
        {"values": (0, 1), "colors": {"a": (0, 0, 0), "b": (1, 1, 1)}},
        {"values": (0.5, 1)},
    ],
)
def test_wrong_values_are_refused(arguments):
    with pytest.raises(ValueError, match=r"^(values|ignore_index) must be"):
        MaskEncoding(**arguments)


def test_where_class_0_is_ignored_the_others_keep_their_indices(cells, scan):
    masks = [mask * (1 + np.arange(128, dtype=np.uint8) // 64) for mask in cells]
    found = scan(masks, MaskEncoding(ignore_index=0))
    assert (found.encoding, found.classes, found.problems) == (MaskEncoding(ignore_index=0), 3, ())


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_grey_that_is_stored_as_colours_is_grey(mode, cells, tmp_path):
    Image.fromarray(cells[0]).convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(read_mask(tmp_path / "x.png"), cells[0])


def test_a_mask_in_colours_or_with_transparency_is_refused_by_its_name(cells, tmp_path):
    Image.merge("LA", [Image.fromarray(cells[0])] * 2).save(tmp_path / "x.png")
    with pytest.raises(
        ValueError, match=r"^mask must be a file of one channel.* has 2 channels.* The file is .*x\.png"
    ):
        read_mask(tmp_path / "x.png")


def test_a_scan_tells_nothing_by_default():
    assert Scan((), 2, 1, 8, (1, 1)).note == ""
