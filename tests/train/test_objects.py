"""Training on objects: targets of crops, the loss of all heads, the rules that are chosen, and a run that has them."""

import dataclasses

import pytest
import torch
from object_images import blobs

from gconv_ga.actions import LabelMask, ScalarField, VectorField
from gconv_ga.images import CropStream, MaskEncoding, Normalization, PairFiles, Split, read_image, read_mask
from gconv_ga.models import ObjectUNet
from gconv_ga.objects import Decoder, decode, object_targets
from gconv_ga.segmenter import SegmenterConfig, load_checkpoint
from gconv_ga.train import ObjectLoss, ObjectSegmenter, ObjectStream, RunConfig, _objects, choose_decoder, train_run
from gconv_ga.train._state import read_log

INSTANCES = torch.stack([decode(blobs((40, 40), seed, scale=2.5), Decoder(rise=0.5)).labels for seed in range(2)])
IMAGES = torch.stack([ScalarField()(torch.rand(1, 40, 40), "C4", 0) + (labels > 0) for labels in INSTANCES])


def test_targets_are_those_of_the_crop_after_its_augmentation():
    plain = CropStream(Split(IMAGES, INSTANCES), length=6, crop=24, symmetry="D4", seed=3)
    stream = ObjectStream(plain)
    assert len(stream) == 6
    for index in range(6):
        image, targets = stream[index]
        assert torch.equal(image, plain[index][0])
        assert torch.equal(targets, object_targets(plain[index][1]))


def test_ignored_pixels_are_in_no_object_and_no_loss():
    labels = INSTANCES[0].clone()
    labels[:12] = -1
    stream = ObjectStream(Split(IMAGES[:1], labels[None]), ignore_index=-1)
    _, targets = stream[0]
    assert (targets[0, :12] == -1).all()
    assert torch.equal(targets[1:], object_targets(labels.clamp_min(0))[1:])
    maps = torch.randn(1, 5, 40, 40, generator=torch.Generator().manual_seed(0))
    other = maps.clone()
    other[:, :, :12] = 7.0
    loss = ObjectLoss(ignore_index=-1)
    assert float(loss(maps, targets[None])) == pytest.approx(float(loss(other, targets[None])))


def augmented(move):
    """The largest difference of targets that are moved with a crop from those of the moved crop, over all of D4."""
    targets = object_targets(INSTANCES[0])
    return max(
        float((object_targets(LabelMask()(INSTANCES[0], "D4", g)) - move(targets, g)).abs().max()) for g in range(8)
    )


def test_flows_of_augmented_crops_point_to_the_middle():
    scalars = ScalarField()
    assert augmented(lambda t, g: torch.cat((scalars(t[:2], "D4", g), VectorField()(t[2:], "D4", g)))) < 1e-6
    assert augmented(lambda t, g: scalars(t, "D4", g)) > 0.5, "a flow that is moved like an image is wrong"


def test_the_loss_is_that_of_each_head():
    targets = torch.stack([object_targets(labels) for labels in INSTANCES])
    maps = torch.randn(2, 5, 40, 40, generator=torch.Generator().manual_seed(0))
    right = maps.clone()
    right[:, :2] = 50 * torch.nn.functional.one_hot(targets[:, 0].long(), 2).permute(0, 3, 1, 2)
    right[:, 2:] = torch.where(targets[:, :1] > 0, targets[:, 1:], right[:, 2:])
    loss = ObjectLoss()
    assert float(loss(right, targets)) == pytest.approx(0, abs=1e-4), "what lies outside of objects counts nowhere"
    for channel in (2, 3, 4):
        wrong = right.clone()
        wrong[:, channel] += 0.5
        assert float(loss(wrong, targets)) == pytest.approx(0.25, abs=1e-4)
    with pytest.raises(ValueError, match=r"targets must be a tensor \[B, 4, H, W\]"):
        loss(maps, targets[:, :3])


TILES = torch.zeros(40, 40, dtype=torch.int64)  # four objects in one region, which its outline does not tell apart
TILES[3:20, 3:20], TILES[3:20, 20:36], TILES[20:35, 3:20], TILES[20:35, 20:36] = 1, 2, 3, 4


class Perfect(torch.nn.Module):
    """Predicts the targets of the four objects, except that some maps are empty."""

    def __init__(self, broken=()):
        super().__init__()
        targets = object_targets(TILES)
        self.outputs = torch.cat((1 - targets[:1], targets))
        for channel in broken:
            self.outputs[channel] = 0

    def maps(self, x):
        return self.outputs.expand(len(x), -1, -1, -1)


@pytest.mark.parametrize(
    ("broken", "method"), [((2,), "flow"), ((3, 4), "distance"), ((2, 3, 4), "watershed")], ids=str
)
def test_the_rules_with_the_highest_average_precision_are_chosen(broken, method):
    images = Split(torch.zeros(1, 1, 40, 40), TILES[None])
    assert choose_decoder(Perfect(broken), images).method == method


def test_without_objects_no_rules_are_chosen():
    nothing = Split(torch.zeros(1, 1, 40, 40), torch.zeros(1, 40, 40, dtype=torch.int64))
    net = ObjectUNet(1, 2, width=1, depth=1).eval()
    with torch.no_grad():
        net.segmentation_head.bias[0] += 100
    assert choose_decoder(net, nothing) is None


@pytest.fixture
def run(tmp_path):
    """A run of two steps on two images with objects."""
    import numpy as np
    from PIL import Image

    pairs = []
    for number, (image, labels) in enumerate(zip(IMAGES, INSTANCES, strict=True)):
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}_objects.png"
        Image.fromarray((100 * image[0]).numpy().astype(np.uint8)).save(paths[0])
        Image.fromarray(labels.numpy().astype(np.uint16)).save(paths[1])
        pairs.append(PairFiles(*paths, title=str(number)))
    arguments = {"in_channels": 1, "classes": 2, "group": "C4", "width": 1, "depth": 2, "neck": 8}
    segmenter = SegmenterConfig("ObjectUNet", arguments, ("background", "object"), Normalization([100.0], [50.0]))
    config = RunConfig(
        segmenter, {"0": "train", "1": "val"}, steps=4, batch_size=2, crop=32, every=2,
        mask_encoding=MaskEncoding(instances=True),
    )  # fmt: skip
    return config, pairs


def test_a_run_trains_all_heads_and_keeps_the_rules(run, tmp_path):
    config, pairs = run
    assert config.finds_objects
    before = config.segmenter.build(seed=config.seed).state_dict()
    model = train_run(tmp_path / "run", config, pairs)
    for name in ("segmentation_head.weight", "distance_head.weight", "flow_head.weight"):
        assert not torch.equal(model.state_dict()[name], before[name])
    last = load_checkpoint(tmp_path / "run/model.safetensors")
    images = Split(
        torch.stack([config.segmenter.normalization(read_image(pairs[1].image))]),
        torch.stack([read_mask(pairs[1].mask)]),
    )
    assert last.config.decoder == choose_decoder(last.model, images) is not None
    assert load_checkpoint(tmp_path / "run/best.safetensors").config.decoder is not None
    assert SegmenterConfig.from_json(last.config.to_json()) == last.config
    again = train_run(tmp_path / "run", config, pairs)
    assert load_checkpoint(tmp_path / "run/model.safetensors").config == last.config
    assert all(
        torch.equal(one, two) for one, two in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_the_weights_of_the_highest_average_precision_are_kept(run, tmp_path, monkeypatch):
    """Dice says that the first ones are the best, average precision the second ones."""
    config, pairs = run
    precisions, dices = iter([0.25, 0.5, 0.125, 0.125]), iter([0.9, 0.3, 0.2, 0.1])
    tables = (torch.full((1, len(_objects.CANDIDATES)), value) for value in precisions)
    monkeypatch.setattr("gconv_ga.train._run.candidate_scores", lambda *arguments, **options: next(tables))
    monkeypatch.setattr("gconv_ga.train._run.dice", lambda *arguments, **options: next(dices))
    train_run(tmp_path / "run", dataclasses.replace(config, every=1, patience=2), pairs)
    log = read_log(tmp_path / "run/log.csv")
    assert [(row.dice, row.average_precision) for row in log] == [(0.9, 0.25), (0.3, 0.5), (0.2, 0.125), (0.1, 0.125)]
    assert load_checkpoint(tmp_path / "run/best.safetensors").step == 2


def test_a_segmenter_on_instances_is_trained_on_classes(run, tmp_path):
    config, pairs = run
    arguments = {"in_channels": 1, "classes": 2, "group": "C4", "width": 1, "depth": 2}
    plain = SegmenterConfig("EquivariantUNet", arguments, config.segmenter.classes, config.segmenter.normalization)
    other = RunConfig(plain, config.split, steps=1, batch_size=1, crop=32, mask_encoding=config.mask_encoding)
    assert not other.finds_objects
    train_run(tmp_path / "run", other, pairs)
    assert load_checkpoint(tmp_path / "run/model.safetensors").config.decoder is None


def test_the_module_trains_the_maps():
    module = ObjectSegmenter(ObjectUNet(1, 2, group="C4", width=1, depth=2, neck=4))
    maps = module(torch.zeros(1, 1, 12, 12))
    assert maps.shape == (1, 5, 12, 12)
    assert isinstance(module.loss, ObjectLoss)
