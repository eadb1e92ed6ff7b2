"""Targets from true objects, and objects from predicted distances and flows: there, back, and rotated."""

import numpy as np
import pytest
import scipy.ndimage as ndi
import torch
from object_images import blobs, discs

from gconv_ga.actions import LabelMask, ScalarField, VectorField
from gconv_ga.objects import FLOW_HALO, Decoder, changed_objects, decode, object_scores, object_targets

INSTANCES = decode(blobs((52, 61), 1, scale=3.0), Decoder(rise=0.5)).labels
TWINS = decode(discs((21, 40), (10, 10, 8.5), (10, 26, 8.5))).labels


def moved_targets(targets, element):
    """The targets of a moved image: two scalars and a flow."""
    return torch.cat((ScalarField()(targets[:2], "D4", element), VectorField()(targets[2:], "D4", element)))


@pytest.mark.parametrize("element", range(8))
def test_targets_move_with_the_objects(element):
    found = object_targets(LabelMask()(INSTANCES, "D4", element))
    assert (found - moved_targets(object_targets(INSTANCES), element)).abs().max() < 1e-6


@pytest.mark.parametrize("wrong", [ScalarField(), VectorField(order="yx")], ids=["scalars", "rows first"])
def test_flows_that_are_moved_in_another_way_are_seen(wrong):
    targets = object_targets(INSTANCES)
    expected = torch.cat((ScalarField()(targets[:2], "D4", 1), wrong(targets[2:], "D4", 1)))
    assert (object_targets(LabelMask()(INSTANCES, "D4", 1)) - expected).abs().max() > 0.5


def slow_heat(mask, rounds=2000):
    """The heat of one object by spreading it until nothing changes: the mean over 3 x 3 pixels, 0 outside."""
    rows, columns = np.nonzero(mask)
    distance = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    near = distance <= distance.min() + 1e-9
    heat = np.zeros(np.add(mask.shape, 2))
    source = np.zeros_like(heat)
    source[rows[near] + 1, columns[near] + 1] = 1 / near.sum()
    for _ in range(rounds):
        total = sum(np.roll(heat, (a, b), (0, 1)) for a in (-1, 0, 1) for b in (-1, 0, 1)) - heat
        heat = np.where(np.pad(mask, 1), (total + source) / 8, 0)
    return heat


def test_the_flow_is_the_gradient_of_the_heat():
    mask = (discs((17, 19), (6, 7, 4.3), (9, 9, 4.3)) > 0).numpy()
    heat = slow_heat(mask)
    inside = heat > 0
    height = np.where(inside, np.log1p(heat / heat[inside].min()), 0)
    across, down = height[1:-1, 2:] - height[1:-1, :-2], height[2:, 1:-1] - height[:-2, 1:-1]
    length = np.hypot(across, down)
    steep = mask & (length > 1e-3)
    flow = object_targets(torch.from_numpy(mask).long())[2:].numpy()
    for found, gradient in zip(flow, (across, down), strict=True):
        assert found[steep] == pytest.approx((gradient / np.maximum(length, 1e-9))[steep], abs=1e-4)
    assert np.hypot(*flow)[steep] == pytest.approx(1, abs=1e-5)
    assert steep.sum() > 60
    assert (flow[:, ~mask] == 0).all()


def test_distances_are_those_to_the_edge():
    maps = object_targets(INSTANCES)
    outside = {number: np.argwhere((number != INSTANCES).numpy()) for number in INSTANCES.unique().tolist() if number}
    for number, others in outside.items():
        own = np.argwhere((number == INSTANCES).numpy())
        distance = np.sqrt(((own[:, None] - others[None]) ** 2).sum(axis=-1)).min(axis=1)
        assert maps[1][number == INSTANCES].numpy() == pytest.approx(distance / distance.max(), abs=1e-6)
    assert torch.equal(maps[0], (INSTANCES > 0).float())
    assert (maps[1] > 0).equal(INSTANCES > 0)


def test_numbers_may_have_gaps():
    numbers = torch.where(INSTANCES > 0, 10**6 - 7 * INSTANCES, 0)
    assert torch.allclose(object_targets(numbers), object_targets(INSTANCES), atol=1e-6)
    assert object_targets(torch.zeros(3, 4, dtype=torch.int64)).abs().sum() == 0
    assert object_targets(torch.ones(3, 4, dtype=torch.int64))[:2].unique().tolist() == [1]


@pytest.mark.parametrize("method", ["distance", "flow"])
def test_objects_come_back_from_their_targets(method):
    maps = object_targets(INSTANCES)
    objects = decode(maps[0].long(), Decoder(method), maps[1:])
    scores = object_scores(objects.labels, INSTANCES)
    cut = object_scores(decode(maps[0].long(), Decoder("components")).labels, INSTANCES)
    assert scores.average_precision[0] > 0.8 > cut.average_precision[0]


def noisy(maps, seed=0):
    """Maps as a network would predict them."""
    generator = torch.Generator().manual_seed(seed)
    return maps.double() + 0.15 * torch.randn(maps.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("instances", [INSTANCES, TWINS], ids=["blobs", "twins"])
@pytest.mark.parametrize("method", ["distance", "flow"])
def test_objects_rotate_with_the_maps_to_the_last_pixel(method, instances):
    targets = object_targets(instances)
    for maps in (targets[1:].double(), noisy(targets[1:])):
        classes = targets[0].long()
        labels = decode(classes, Decoder(method), maps).labels
        assert labels.max() > 1
        for element in range(1, 8):
            moved = torch.cat((ScalarField()(maps[:1], "D4", element), VectorField()(maps[1:], "D4", element)))
            # The rounding of another order of operations.
            moved = moved * (1 + 1e-15)
            found = decode(LabelMask()(classes, "D4", element), Decoder(method), moved).labels
            assert changed_objects(labels, found, "D4", element) == (0, 0, 0)


def test_a_flow_that_is_moved_as_a_scalar_is_seen():
    targets = object_targets(INSTANCES)
    classes, maps = targets[0].long(), targets[1:]
    labels = decode(classes, Decoder("flow"), maps).labels
    found = decode(LabelMask()(classes, "D4", 1), Decoder("flow"), ScalarField()(maps, "D4", 1)).labels
    assert changed_objects(labels, found, "D4", 1).pixels > 0.1


def far_flows(seed):
    """A flow that carries pixels as far as they may go: fast, and smooth over many pixels."""
    noise = np.random.default_rng(seed).normal(size=(2, 40, 800))
    flow = np.stack([ndi.gaussian_filter(plane, (10, 40)) for plane in noise])
    return torch.from_numpy(np.concatenate((np.zeros((1, 40, 800)), 3 * flow / flow.std())))


def changed_by_a_cut(halo):
    """Pixels in other objects when no more than a halo is seen around a part, for parts of three images."""
    found, objects = 0, 0
    for seed in range(3):
        maps = far_flows(seed)
        classes = torch.ones(maps.shape[1:], dtype=torch.int64)
        whole = decode(classes, Decoder("flow"), maps, core=(0, 360, 40, 440)).labels
        seen = slice(360 - halo, 440 + halo)
        part = decode(classes[:, seen], Decoder("flow"), maps[..., seen], core=(0, halo, 40, halo + 80)).labels
        found += int((whole[:, seen] != part).sum() + (whole > 0).sum() - (whole[:, seen] > 0).sum())
        objects += int(whole.max())
    assert objects > 5
    return found


def test_a_part_needs_no_more_than_its_halo():
    assert changed_by_a_cut(FLOW_HALO) == 0
    assert changed_by_a_cut(100) > 0


def test_parts_share_out_the_objects():
    targets = object_targets(INSTANCES)
    whole = decode(targets[0].long(), Decoder("flow"), targets[1:]).labels
    height, width = whole.shape
    cores = [(0, 0, 20, 30), (20, 0, height, 30), (0, 30, 20, width), (20, 30, height, width)]
    parts = [decode(targets[0].long(), Decoder("flow"), targets[1:], core=core).labels for core in cores]
    assert all(part.max() > 0 for part in parts)
    assert sum(int(part.max()) for part in parts) == whole.max()
    for number in range(1, int(whole.max()) + 1):
        assert sum(bool(((part > 0) == (whole == number)).masked_select(whole == number).all()) for part in parts) == 1
    assert torch.equal(torch.stack(parts).amax(dim=0) > 0, whole > 0)


def test_what_stands_still_over_many_pixels_is_no_sink():
    maps = torch.zeros(3, 70, 70)
    for side, count in ((20, 1), (50, 0)):
        classes = torch.zeros(70, 70, dtype=torch.int64)
        classes[5 : 5 + side, 10 : 10 + side] = 1
        assert len(decode(classes, Decoder("flow"), maps).classes) == count


def test_a_part_is_for_flows():
    with pytest.raises(ValueError, match="core must be None for the method 'distance'"):
        decode(torch.ones(9, 9, dtype=torch.int64), Decoder("distance"), torch.zeros(3, 9, 9), core=(0, 0, 4, 4))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (None, "maps must be a distance and a flow for the method 'flow'"),
        (torch.zeros(2, 3, 4), r"maps must be a tensor \[3, H, W\]"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        decode(torch.zeros(3, 4, dtype=torch.int64), Decoder("flow"), maps)


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.int64), r"instances must be a tensor \[H, W\]"),
        (torch.zeros(2, 2), "instances must be numbers of objects"),
        (torch.tensor([[-1]]), "instances must be numbers of objects"),
    ],
)
def test_what_are_no_instances_is_refused(instances, message):
    with pytest.raises(ValueError, match=message):
        object_targets(instances)
