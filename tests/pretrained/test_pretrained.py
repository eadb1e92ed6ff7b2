"""The trained networks of the package: their files, what their cards say, and that a rotation changes nothing."""

import pytest
import torch

from gconv_ga import models
from gconv_ga.evaluate import dice
from gconv_ga.images import find_images, read_image, read_mask, write_sample
from gconv_ga.objects import changed_objects
from gconv_ga.pretrained import NAMES, PretrainedModel, card_text, find_checkpoint, load, read_card

LARGEST = 3_000_000  # bytes of a file of weights


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    return load(request.param)


@pytest.fixture(scope="module")
def test_images(network, tmp_path_factory):
    """The test images of the sample, on which the network was not trained, with their masks."""
    test = write_sample(network.name, tmp_path_factory.mktemp(network.name) / "sample") / "test"
    return [(read_image(file), read_mask(test / "masks" / file.name)) for file in find_images(test / "images")]


def sample_score(network, images):
    """The mean Dice score of the pixels of objects, and the number of objects of each image."""
    found = [(network(image), mask) for image, mask in images]
    scores = [dice((objects.labels > 0).long()[None], mask[None], classes=2) for objects, mask in found]
    return sum(scores) / len(scores), [len(objects.classes) for objects, _ in found]


def test_files_are_small(network):
    assert find_checkpoint(network.name).stat().st_size < LARGEST


def test_the_sample_has_the_score_of_the_card(network, test_images):
    score, counts = sample_score(network, test_images)
    assert score == pytest.approx(network.card["sample"]["dice"], abs=0.002)
    assert counts == pytest.approx(network.card["sample"]["objects"], abs=1)


def test_another_network_does_not_have_it(network, test_images):
    other = PretrainedModel(network.name, network.config.build(seed=0).eval(), network.config, {})
    score, _ = sample_score(other, test_images[:2])
    assert score < network.card["sample"]["dice"] - 0.1


def test_a_rotated_image_has_the_rotated_objects(network, test_images):
    image = max(test_images, key=lambda pair: pair[1].sum())[0][..., :100, :100]
    labels = network(image).labels
    assert labels.max() > 3
    for element in (1, 2, 3):
        moved = network(image.rot90(element, (-2, -1))).labels
        assert changed_objects(labels, moved, "C4", element) == (0.0, 0.0, 0)
        assert changed_objects(labels, moved, "C4", element - 1).pixels > 0.1


def test_gain_and_offset_of_a_camera_make_no_difference(network, test_images):
    image = test_images[0][0]
    counts = (image * 100 + 700).to(torch.uint16)
    same = (network(counts).labels > 0) == (network(image).labels > 0)
    assert same.double().mean() > 0.999


def test_images_of_other_channels_are_refused(network):
    channels = network.card["channels"]
    advice = {1: "Choose one channel", 3: "For grey images use 'nuclei'"}[channels]
    with pytest.raises(ValueError, match=rf"^image must be .*\[C={channels}, H, W\].*{advice}"):
        network(torch.zeros(4 - channels, 20, 20))


def test_a_card_says_what_a_user_asks(network):
    card = read_card(network.name)
    text = card_text(card)
    assert {"Images", "Size of nuclei", "Normalization", "Data", "Licence of the data", "Rotations"} <= set(
        card["facts"]
    )
    assert card["fails"]
    for part in card["scores"].values():
        assert part["images"] == len(part["by_image"])
        for key, mean in part["mean"].items():
            rows = [row[key] for row in part["by_image"].values() if row[key] is not None]
            assert mean == pytest.approx(sum(rows) / len(rows), abs=1e-3)
        assert all(name in text for name in part["by_image"])


def test_models_load_is_the_short_way():
    assert models.load is load
    with pytest.raises(ValueError, match=r"^name must be one of .*, but got name='cells'"):
        models.load("cells")


def test_an_image_that_is_no_tensor_is_told_how_to_become_one():
    with pytest.raises(ValueError, match=r"^image must be a tensor \[C=1, H, W\].*'ndarray'.*torch.from_numpy"):
        models.load("nuclei")(torch.zeros(1, 16, 16).numpy())
