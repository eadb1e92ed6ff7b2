"""The stream of crops: each item known beforehand, every image seen, image and mask moved together."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from gconv_ga.actions import LabelMask, ScalarField
from gconv_ga.images import CropStream, Normalization, PairDataset, PairFiles, RandomSymmetry, Split, rare_places
from gconv_ga.images._crops import _mix, _seeded
from gconv_ga.images._rasters import Uncompressed


@pytest.fixture
def numbered():
    """Images whose pixels are all different and whose masks are their images."""
    pixels = torch.arange(5 * 12 * 14).view(5, 12, 14)
    return Split(pixels[:, None].float(), pixels)


def source(item):
    """Which image of ``numbered`` a crop is from."""
    return int(item[1].flatten()[0]) // (12 * 14)


@pytest.mark.parametrize("symmetry", [None, "C4", "D4"])
def test_image_and_mask_are_moved_together(symmetry, numbered):
    stream = CropStream(numbered, length=40, crop=6, symmetry=symmetry, seed=3)
    for image, mask in (stream[index] for index in range(40)):
        assert (image.shape, mask.shape) == ((1, 6, 6), (6, 6))
        assert (type(image), type(mask)) == (torch.Tensor, torch.Tensor)
        assert torch.equal(image[0].long(), mask)


def test_without_symmetry_rows_stay_rows(numbered):
    stream = CropStream(numbered, length=40, crop=6, symmetry=None)
    assert all(
        mask[1, 0] - mask[0, 0] == 14 and mask[0, 1] - mask[0, 0] == 1 for _, mask in map(stream.__getitem__, range(40))
    )


@pytest.mark.parametrize("symmetry", [None, "D4"])
def test_crops_of_files_are_those_of_the_images_in_them(symmetry, tmp_path):
    """Read by window, or whole and then cut: the same numbers. One image is as high as a crop: nothing to draw."""
    pairs = []
    for name, height in (("a", 12), ("b", 6)):
        pixels = np.random.default_rng(height).integers(0, 255, (height, 14), dtype=np.uint8)
        np.save(tmp_path / f"{name}.npy", pixels)
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, tile=(16, 16))
        pairs.append(PairFiles(tmp_path / f"{name}.npy", tmp_path / f"{name}.tif"))
    files = PairDataset(pairs, Normalization([3.0], [2.0], percentile=90))
    assert isinstance(files.files(0)[0].raster, Uncompressed)
    whole = [files[index] for index in range(2)]
    ours, theirs = (CropStream(source, length=30, crop=6, symmetry=symmetry, seed=5) for source in (files, whole))
    for index in range(30):
        assert torch.equal(ours[index][0], theirs[index][0])
        assert torch.equal(ours[index][1], theirs[index][1])


def test_crops_lie_where_those_of_torchvision_do(numbered):
    """The draws of its RandomCrop, from the same generator."""
    stream = CropStream(numbered, length=20, crop=6, symmetry=None, seed=3)
    for index in range(20):
        with _seeded(_mix(3, index)):
            expected = v2.RandomCrop(6)(tv_tensors.Mask(numbered[source(stream[index])][1]))
        assert torch.equal(stream[index][1], expected)


def test_every_element_of_the_group_occurs(numbered):
    """A crop's two steps, down and right, tell how it was moved: all eight ways of D4, and no other."""
    stream = CropStream(numbered, length=400, crop=6, symmetry="D4")
    ways = [
        (int(mask[1, 0] - mask[0, 0]), int(mask[0, 1] - mask[0, 0])) for _, mask in map(stream.__getitem__, range(400))
    ]
    expected = {(a * s, b * t) for a, b in ((14, 1), (1, 14)) for s in (1, -1) for t in (1, -1)}
    assert set(ways) == expected
    assert min(ways.count(way) for way in expected) > 25  # 50 of each on average


def test_every_pass_sees_every_image_in_an_order_of_its_own(numbered):
    stream = CropStream(numbered, length=50, crop=6)
    passes = [[source(stream[index]) for index in range(start, start + 5)] for start in range(0, 50, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len({tuple(one) for one in passes}) > 5


def test_an_item_depends_on_seed_and_index_alone(numbered):
    first = CropStream(numbered, length=20, crop=6, seed=1)
    expected = first[13]
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(CropStream(numbered, length=900, crop=6, seed=1)[13][1], expected[1])
    assert any(not torch.equal(CropStream(numbered, length=20, crop=6, seed=2)[i][1], first[i][1]) for i in range(5))
    # Seeds that differ beyond the 32 bits that torch's generator reads.
    far = CropStream(numbered, length=20, crop=6, seed=1 + 2**32)
    assert any(not torch.equal(far[i][1], first[i][1]) for i in range(5))


def test_workers_change_nothing(numbered):
    stream = CropStream(numbered, length=12, crop=6)
    alone, shared = (list(DataLoader(stream, 4, num_workers=workers)) for workers in (0, 2))
    assert all(torch.equal(one[1], other[1]) for one, other in zip(alone, shared, strict=True))


def test_the_global_generator_is_left_alone(numbered):
    before = torch.get_rng_state()
    CropStream(numbered, length=3, crop=6)[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("index", [-1, 3])
def test_the_stream_ends(numbered, index):
    with pytest.raises(IndexError):
        CropStream(numbered, length=3, crop=6)[index]


@pytest.mark.parametrize(
    ("argument", "value"), [("length", 0), ("crop", 0), ("crop", 2.5), ("seed", -1), ("symmetry", "E4")]
)
def test_wrong_arguments_are_refused(numbered, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be .*got {argument}="):
        CropStream(numbered, **{"length": 3, "crop": 6, argument: value})


def test_a_crop_larger_than_an_image_is_refused(numbered):
    with pytest.raises(ValueError, match=r"^crop must be at most 12, the shorter side of an image, but got crop=13"):
        CropStream(numbered, length=3, crop=13)[0]


def reflected(position, side):
    """Pixel that lies at a position when a row of pixels is reflected at its ends again and again."""
    while not 0 <= position < side:
        position = -position if position < 0 else 2 * (side - 1) - position
        position = 0 if side == 1 else position
    return position


@pytest.mark.parametrize(("height", "width", "crop"), [(12, 14, 13), (12, 14, 17), (3, 14, 13), (1, 2, 8)])
def test_images_smaller_than_a_crop_are_padded(height, width, crop):
    """The image by reflection, as much on either side; the mask by ignored pixels, which no reflected mask is."""
    pixels = torch.arange(height * width).view(1, height, width)
    split = Split(pixels[:, None].float(), pixels)
    image, mask = CropStream(split, length=1, crop=crop, symmetry=None, ignore_index=-7)[0]
    assert (image.shape, mask.shape) == ((1, crop, crop), (crop, crop))
    inside = mask != -7
    assert inside.sum() == min(height, crop) * min(width, crop)
    assert torch.equal(image[0][inside].long(), mask[inside])
    top, left = ((crop - side) // 2 if side < crop else None for side in (height, width))
    rows = range(crop) if top is None else [reflected(row - top, height) for row in range(crop)]
    for row, source_row in enumerate(rows):
        for column in range(crop):
            if left is not None and top is not None:
                assert image[0, row, column] == pixels[0, source_row, reflected(column - left, width)]
                assert bool(inside[row, column]) == (0 <= row - top < height and 0 <= column - left < width)
    moved, moved_mask = CropStream(split, length=1, crop=crop, symmetry="D4", ignore_index=-7, seed=3)[0]
    assert torch.equal(moved[0][moved_mask != -7].long(), moved_mask[moved_mask != -7])
    assert sorted(moved.flatten().tolist()) == sorted(image.flatten().tolist()) or crop < max(height, width)


@pytest.mark.parametrize("group", ["C4", "D4", "C8"])
def test_the_symmetry_is_the_action_of_one_element(group, generator):
    image = torch.rand(2, 3, 9, 9, generator=generator)
    mask = torch.randint(0, 3, (2, 9, 9), generator=generator)
    transform = RandomSymmetry(group, fill=7)
    seen = set()
    for _ in range(60):
        moved, moved_mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        assert (type(moved), type(moved_mask)) == (tv_tensors.Image, tv_tensors.Mask)
        elements = [
            element
            for element in range(transform.group.order)
            if torch.equal(moved, ScalarField()(image, group, element))
            and torch.equal(moved_mask, LabelMask(7)(mask, group, element))
        ]
        assert len(elements) == 1
        seen.update(elements)
    assert seen == set(range(transform.group.order))


@pytest.mark.parametrize(
    "beside",
    [
        tv_tensors.BoundingBoxes(torch.tensor([[0, 1, 2, 3]]), format="XYXY", canvas_size=(6, 8)),
        tv_tensors.KeyPoints(torch.tensor([[1, 2]]), canvas_size=(6, 8)),
        tv_tensors.Video(torch.zeros(2, 1, 6, 8)),
        Image.new("L", (8, 6)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_stay_beside_a_moved_image_is_refused(beside):
    with pytest.raises(ValueError, match=r"^sample must be of tv_tensors.Image and tv_tensors.Mask"):
        RandomSymmetry("C4")({"image": tv_tensors.Image(torch.rand(1, 6, 8)), "more": [beside]})


def test_a_plain_image_beside_a_mask_is_refused_and_a_label_passes():
    image, mask, label = torch.rand(1, 6, 8), tv_tensors.Mask(torch.zeros(6, 8)), torch.tensor([3, 4])
    with pytest.raises(ValueError, match=r"^sample must be of tv_tensors.Image .* A Tensor would stay where it is"):
        RandomSymmetry("C4")(image, mask)
    _, passed, one_hot = RandomSymmetry("C4")(tv_tensors.Image(image), label, torch.eye(2))
    assert torch.equal(passed, label)
    assert torch.equal(one_hot, torch.eye(2))
    assert torch.equal(RandomSymmetry("C4")(mask, label)[1], label)


@pytest.mark.parametrize(("image", "mask"), [((1, 20, 20), (24, 24)), ((1, 20, 20), (1, 20, 20)), ((20, 20), (20, 20))])
def test_an_image_and_a_mask_of_other_sizes_are_refused(image, mask):
    """torchvision's crop would fill what one of them lacks by zeros."""
    pairs = [(torch.ones(3, 16, 16), torch.ones(16, 16, dtype=torch.int64))] * 3
    pairs[1] = torch.ones(image), torch.ones(mask, dtype=torch.int64)
    stream = CropStream(pairs, length=3, crop=16, symmetry=None)
    with pytest.raises(ValueError, match=r"^mask must be a tensor \[H, W\] for its image .* It is pair 1"):
        [stream[index] for index in range(3)]


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match=r"^pairs must be a data set of at least one pair"):
        CropStream(Split(torch.zeros(0, 1, 8, 8), torch.zeros(0, 8, 8)), length=3, crop=8)


def test_what_is_no_group_is_refused():
    with pytest.raises(ValueError, match=r"^group must be a group or its name"):
        RandomSymmetry(4)


@pytest.fixture
def spotted():
    """Masks of class 1 with a little of class 0, and one pixel of class 2 in one of the three images."""
    masks = torch.ones(3, 40, 48, dtype=torch.int64)
    masks[:, 5:9, 30:33] = 0
    masks[1, 39, 0] = 2
    return Split(torch.arange(3 * 40 * 48.0).view(3, 1, 40, 48), masks)


def test_rare_places_are_pixels_of_all_classes_but_the_most_frequent(spotted, tmp_path):
    places = rare_places(spotted)
    assert list(places) == [0, 2]
    assert places[2].tolist() == [[1, 39, 0]]
    assert sorted(places[0].tolist()) == torch.nonzero(spotted.masks == 0).tolist()
    assert list(rare_places(spotted, ignore_index=1)) == [2], "of the classes that count, 0 is the most frequent"
    some = rare_places(spotted, most=5)[0]
    assert some[:, 0].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert len(some.unique(dim=0)) == 15
    assert all(spotted.masks[tuple(place)] == 0 for place in some.tolist())
    pairs = []
    for index, (image, mask) in enumerate(zip(spotted.images, spotted.masks, strict=True)):
        np.save(tmp_path / f"{index}.npy", image[0].numpy())
        np.save(tmp_path / f"{index}_mask.npy", mask.numpy().astype(np.uint8))
        pairs.append(PairFiles(tmp_path / f"{index}.npy", tmp_path / f"{index}_mask.npy"))
    of_files = rare_places(PairDataset(pairs))
    assert all(torch.equal(of_files[value], places[value]) for value in (0, 2))


@pytest.mark.parametrize("augment", ["none", "scale"])
def test_half_of_the_crops_hold_a_rare_class(spotted, augment):
    options = {"length": 200, "crop": 8, "seed": 3, "augment": augment, "ignore_index": -1}
    plain = CropStream(spotted, **options)
    balanced = CropStream(spotted, places=rare_places(spotted), **options)

    def shares(stream):
        return [sum(bool((mask == value).any()) for _, mask in stream) / 200 for value in (0, 2)]

    before, after = shares(plain), shares(balanced)
    assert before[0] < 0.15
    assert before[1] < 0.02
    assert after[0] > 0.27
    assert 0.18 < after[1] < 0.32, "a class in one pixel is in as many crops"
    again = CropStream(spotted, places=rare_places(spotted), **{**options, "length": 2000})
    assert all(torch.equal(balanced[index][0], again[index][0]) for index in (0, 7, 199))
    without = [index for index in range(200) if torch.equal(plain[index][0], balanced[index][0])]
    assert 70 < len(without) < 130, "the other half is as it was"


def test_the_place_of_a_rare_pixel_in_the_crop_is_drawn(spotted):
    stream = CropStream(
        spotted, length=600, crop=8, symmetry=None, places={0: torch.tensor([[0, 20, 24]])}, seed=1, ignore_index=-1
    )
    value = spotted.images[0, 0, 20, 24]
    found = {tuple(torch.nonzero(image[0] == value)[0].tolist()) for image, _ in stream if (image == value).any()}
    assert len(found) == 64
